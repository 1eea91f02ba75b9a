"""Which database the tests run on is DATABASE_URL's choice; tests that need another are skipped, and say so."""

import logging
import os

import pytest
import structlog
from django.db import connection


@pytest.fixture(autouse=True)
def _quiet_log():
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


PROCESSES = (
    "tests/cli/test_baseline.py", "tests/cli/test_formats.py", "tests/cli/test_guards.py", "tests/traps/test_output.py",
)  # fmt: skip
"""What starts one process after the other, and never asks what Django or the database does differently."""

ONCE = (
    *PROCESSES, "tests/reports/", "tests/test_docs.py", "tests/test_fingerprints.py", "tests/test_pacing.py",
    "tests/test_registry.py", "tests/test_rules.py", "tests/test_throttling.py",
)  # fmt: skip
"""What is the same on every database: it runs on SQLite, which is always there."""

SHORT = (
    "tests/effects/", "tests/integration/", "tests/protocol/", "tests/remedies/", "tests/runs/", "tests/sql/",
    "tests/test_agreeing.py", "tests/test_checking.py", "tests/test_guarantees.py", "tests/test_locking.py",
    "tests/test_receipts.py", "tests/test_repairing.py", "tests/test_undoing.py", "tests/test_undoing_edges.py",
)  # fmt: skip
"""What SHORT=1, for a second matrix, leaves on the servers: where the server and Django's SQL for it decide. On SQLite it leaves
all but PROCESSES."""


@pytest.fixture(autouse=True)
def _only_once(request):
    place, short = request.node.nodeid.partition("::")[0], os.environ.get("SHORT")
    if connection.vendor != "sqlite" and place.startswith(ONCE):
        pytest.skip("is the same on every database, and runs on SQLite")
    if short and (
        place.startswith(PROCESSES) if connection.vendor == "sqlite" else not place.startswith(SHORT)
    ):
        pytest.skip("is left out by SHORT=1")


@pytest.fixture(autouse=True)
def _only_where_it_runs(request):
    wanted = {"postgresql": {"postgresql"}, "mariadb": {"mysql"}, "server": {"postgresql", "mysql"}}
    for name, vendors in wanted.items():
        if request.node.get_closest_marker(name) and connection.vendor not in vendors:
            pytest.skip(f"needs {' or '.join(sorted(vendors))}, and this run is on {connection.vendor}")


def pytest_report_header():
    return f"database: {connection.vendor}"
