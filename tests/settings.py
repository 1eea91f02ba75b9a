"""The sample shop's settings, with the models that only tests need."""

import os

from sample_project.settings import *  # noqa: F403
from sample_project.settings import DATABASES, INSTALLED_APPS as SHOP_APPS, RECONCILE, ROOT

INSTALLED_APPS = [
    *SHOP_APPS, "taggit", "mptt", "actstream", "polymorphic", "tests.packages.apps.PackagesConfig", "tests.zoo",
]  # fmt: skip
# A second database, always SQLite: what is on one must not be looked for on the other.
ARCHIVE = os.environ.get("ARCHIVE_DATABASE", str(ROOT / f"test-archive-{os.getpid()}.sqlite3"))
DATABASES["archive"] = {
    "ENGINE": "django.db.backends.sqlite3", "NAME": ARCHIVE, "TEST": {"NAME": ARCHIVE}, "OPTIONS": {"timeout": 20},
}  # fmt: skip
DATABASE_ROUTERS = ["tests.routers.WithoutVisits"]
# Tests have several sessions at work, and no time to rest.
RECONCILE = {**RECONCILE, "REST": 0}
SILENCED_SYSTEM_CHECKS = ["models.W042"]
