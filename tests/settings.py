"""The sample shop's settings, with the models that only tests need."""

from sample_project.settings import *  # noqa: F403
from sample_project.settings import INSTALLED_APPS as SHOP_APPS

INSTALLED_APPS = [*SHOP_APPS, "tests.zoo"]
SILENCED_SYSTEM_CHECKS = ["models.W042"]
