"""`python -m tests.matrix CHOICE [PYTEST'S OPTIONS]`: the tests on each database of the choice that answers.

What was left out is said at the end; with REQUIRE_ALL=1 a database or broker that doesn't answer is an error. With COVERAGE=1
the branches are measured, each run into a file of its own, for `coverage combine`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

ONLY_THERE = "server or postgresql or mariadb or broker"
"""What SQLite can't show: row locks, sessions beside each other, a server's own SQL."""

CHOICES = {
    "quick": {"SQLite": "", "PostgreSQL": ONLY_THERE},
    "all": {"SQLite": "", "PostgreSQL": "not once", "MariaDB": "not once"},
    # The rest of one database, and the whole of another. CI runs them with another Django each, so that nothing runs twice.
    "postgresql": {"PostgreSQL": f"not once and not ({ONLY_THERE})"},
    "mariadb": {"MariaDB": "not once"},
    # What a Python or Django that isn't out yet may change.
    "next": {"SQLite": "not process"},
}
"""For each choice its databases, and which tests run there, by pytest's `-m`."""

URLS = {
    "PostgreSQL": os.environ.get("POSTGRESQL_URL", "postgresql://postgres@127.0.0.1:5432/postgres"),
    "MariaDB": os.environ.get("MARIADB_URL", "mysql://root@127.0.0.1:3306/mysql"),
}
BROKERS = {
    "TEST_REDIS_URL": os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/13"),
    "TEST_RABBITMQ_URL": os.environ.get("RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//"),
}
PROBE = (
    "import os, django; os.environ['DJANGO_SETTINGS_MODULE'] = 'sample_project.settings'; django.setup(); "
    "from django.db import connection; connection.ensure_connection()"
)


def main(choice: str, *options: str) -> None:
    """Run pytest once a database; exits with 1 if any run failed or something required is missing."""
    left_out = []
    brokers = {}
    for variable, url in BROKERS.items():
        if why := unanswered_broker(url):
            left_out.append(f"{url.partition(':')[0]} ({why})")
        else:
            brokers[variable] = url
    ran, failed = [], []
    for database, marked in CHOICES[choice].items():
        if why := unanswered_database(database):
            left_out.append(f"{database} ({why})")
            continue
        print(f"\n=== {database}{f', the tests marked {marked}' if marked else ''} ===", flush=True)
        ran.append(database)
        if run(database, marked, f"{choice}-{database.lower()}", brokers, options):
            failed.append(database)
    print(f"\nTests ran on {', '.join(ran)}; brokers: {len(brokers)} of {len(BROKERS)}.")
    if left_out:
        print(f"Left out, because not there: {'; '.join(left_out)}.")
    if failed:
        print(f"Failed: {', '.join(failed)}.")
    sys.exit(bool(failed or (left_out and os.environ.get("REQUIRE_ALL"))))


def run(database: str, marked: str, name: str, brokers: dict[str, str], options: tuple[str, ...]) -> int:
    """pytest's exit code on the database, with a worker for each core."""
    measured = ["--cov", "--cov-report=", "--cov-fail-under=0"] if os.environ.get("COVERAGE") else []
    command = [sys.executable, "-m", "pytest", "-n", "logical", "--dist", "worksteal", *measured]
    command += [*(["-m", marked] if marked else []), *options]
    environment = {**environment_of(database), **brokers, "COVERAGE_FILE": str(ROOT / f".coverage.{name}")}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def environment_of(database: str) -> dict[str, str]:
    """This process's environment, with the database's URL; SQLite is what the settings take without one."""
    others = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    return {**others, "DATABASE_URL": URLS[database]} if database in URLS else others


def unanswered_database(database: str) -> str:
    """Why the database can't be used; empty where it can."""
    environment = {**environment_of(database), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", PROBE]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.stderr.strip().split("\n")[-1] if done.returncode else ""


def unanswered_broker(url: str) -> str:
    """Why the broker can't be used; empty where it can."""
    from kombu import Connection

    try:
        with Connection(url, connect_timeout=2) as connection:
            connection.ensure_connection(max_retries=1, timeout=3)
    except Exception as error:  # each transport raises its own
        return f"{type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    main(*sys.argv[1:])
