"""Which database the tests run on is DATABASE_URL's choice; tests that need another are skipped, and say so."""

import logging

import pytest
import structlog
from django.db import connection


@pytest.fixture(autouse=True)
def _quiet_log():
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _only_where_it_runs(request):
    wanted = {"postgresql": {"postgresql"}, "mariadb": {"mysql"}, "server": {"postgresql", "mysql"}}
    for name, vendors in wanted.items():
        if request.node.get_closest_marker(name) and connection.vendor not in vendors:
            pytest.skip(f"needs {' or '.join(sorted(vendors))}, and this run is on {connection.vendor}")


def pytest_report_header():
    return f"database: {connection.vendor}"
