"""The sample shop's settings, with the plain tables that only benchmarks need."""

from sample_project.settings import *  # noqa: F403
from sample_project.settings import INSTALLED_APPS as SHOP_APPS

INSTALLED_APPS = [*SHOP_APPS, "benchmarks"]
