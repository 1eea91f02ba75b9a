"""`python -m tests.swapped`: a project whose user model is its own."""

import logging

import django
import structlog
from django.conf import settings

settings.configure(
    INSTALLED_APPS=[
        "django.contrib.contenttypes", "django.contrib.auth", "reconcile", "tests.swapped_app",
    ],
    AUTH_USER_MODEL="swapped_app.Member",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
)  # fmt: skip
django.setup()
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db.models import F
from django.utils import timezone

from reconcile import HaveRow, HaveValues, Rule, runs
from reconcile.detect.checking import check
from tests.swapped_app.models import Profile

call_command("migrate", run_syncdb=True, verbosity=0)
get_user_model()._base_manager.create(username="ada")
profile = Rule(name="profile", every=get_user_model(), must=HaveRow(Profile, link={"user": F("pk")}))
print("missing", check(profile, using="default", now=timezone.now()).tally.total)
_, (result,) = runs.repair({"profile": profile}, using="default")
print("inserted", result.written.insert)
print(*Rule(name="old", every=User, must=HaveValues(first_name="x")).faults())
