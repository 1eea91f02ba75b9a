"""Settings of the sample shop. `DATABASE_URL` and `CELERY_BROKER_URL` choose the servers; SQLite needs none."""

from __future__ import annotations

import os
from pathlib import Path

import dj_database_url

ROOT = Path(__file__).resolve().parent.parent

SECRET_KEY = "the sample shop keeps no secrets"  # noqa: S105
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "reconcile",
    "sample_project.shop",
]
DATABASES = {
    "default": dj_database_url.config(
        default=f"sqlite:///{os.environ.get('DEMO_DATABASE', ROOT / 'demo.sqlite3')}"
    ),
}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # Tests with several sessions need a file, not a database in memory.
    DATABASES["default"]["TEST"] = {"NAME": str(ROOT / f"test-{os.getpid()}.sqlite3")}
    DATABASES["default"]["OPTIONS"] = {"timeout": 20}
else:
    DATABASES["default"]["TEST"] = {"NAME": os.environ.get("TEST_DATABASE_NAME", "test_reconcile")}

RECONCILE = {"RULES": ["rules"]}

CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL", "memory://")
CELERY_TASK_DEFAULT_QUEUE = os.environ.get("CELERY_QUEUE", "celery")
CELERY_TASK_ALWAYS_EAGER = "CELERY_BROKER_URL" not in os.environ
CELERY_TASK_EAGER_PROPAGATES = True
CELERY_BEAT_SCHEDULE = {
    "reconcile": {
        "task": "reconcile.nightly",
        "schedule": float(os.environ.get("RECONCILE_EVERY_SECONDS", "86400")),
    },
}
