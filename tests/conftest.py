"""Which database the tests run on is DATABASE_URL's choice; tests that need another are skipped, and say so."""

import logging
import os

import hypothesis
import pytest
import structlog
from django.db import connection, connections

# A change is judged by the same examples as the one before. New ones are looked for where nobody waits for the answer.
hypothesis.settings.register_profile("same examples", derandomize=True, database=None)
hypothesis.settings.register_profile("new examples", print_blob=True)
hypothesis.settings.load_profile("new examples" if os.environ.get("EXPLORE") else "same examples")

WHERE = {
    "postgresql": {"postgresql"}, "mariadb": {"mysql"}, "server": {"postgresql", "mysql"}, "once": {"sqlite"},
}  # fmt: skip
"""The databases that a marked test runs on; SQLite is always there, so what is the same everywhere runs on it."""


def pytest_collection_modifyitems(items):
    for item in items:
        for name, vendors in WHERE.items():
            if item.get_closest_marker(name) and connection.vendor not in vendors:
                reason = f"is for {' or '.join(sorted(vendors))}, and this run is on {connection.vendor}"
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup, django_db_blocker):
    """Ask each database once what it can: a test that may not use one would fail where Celery has Django check all models."""
    with django_db_blocker.unblock():
        for each in connections.all():
            assert each.features.supports_json_field


@pytest.fixture(autouse=True)
def _quiet_log():
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


def pytest_report_header():
    return f"database: {connection.vendor}"


@pytest.fixture(autouse=True)
def _no_cache_of_others(tmp_path_factory, monkeypatch):
    """What other tests have read of the source is none of this one's business, nor of who works in this folder."""
    from reconcile.audit import cache

    monkeypatch.setattr(cache, "FOLDER", str(tmp_path_factory.getbasetemp() / "reconcile_cache"))
