"""`python -m tests.matrix`: the tests on every database that answers; what was left out is said at the end.

With REQUIRE_ALL=1 a database or broker that doesn't answer is an error. The coverage of all runs is summed up; with
NO_COVERAGE=1, for a second matrix, none is measured, which saves a third of the time. With SHORT=1 the servers run what
depends on them alone, and SQLite leaves out what starts one process after the other.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SERVERS = {
    "PostgreSQL": (
        "postgresql",
        os.environ.get("POSTGRESQL_URL", "postgresql://postgres@127.0.0.1:5432/postgres"),
    ),
    "MariaDB": ("mysql", os.environ.get("MARIADB_URL", "mysql://root@127.0.0.1:3306/mysql")),
}
BROKERS = {
    "Redis": ("TEST_REDIS_URL", os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/13")),
    "RabbitMQ": ("TEST_RABBITMQ_URL", os.environ.get("RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")),
}

_UNMEASURED = bool(os.environ.get("NO_COVERAGE"))


def main() -> None:
    """Run pytest once a database; exits with 1 if any run failed or something required is missing."""
    for old in ROOT.glob(".coverage*"):
        old.unlink()
    databases = {"SQLite": ""}
    left_out = []
    for name, (engine, url) in SERVERS.items():
        if why := _unreachable(engine, url):
            left_out.append(f"{name} ({why})")
        else:
            databases[name] = url
    environment = dict(os.environ)
    for name, (variable, url) in BROKERS.items():
        if why := _silent(url):
            left_out.append(f"{name} ({why})")
        else:
            environment[variable] = url
    failed = _run_all(databases, environment)
    if not failed and len(databases) > 1 and not sys.argv[1:] and not _UNMEASURED:
        subprocess.run([sys.executable, "-m", "coverage", "combine", "-q"], cwd=ROOT, check=True)
        failed += ["coverage"] * bool(
            subprocess.run([sys.executable, "-m", "coverage", "report"], cwd=ROOT).returncode
        )
    brokers = [name for name, (variable, _) in BROKERS.items() if variable in environment]
    over = f"; worker and beat over {' and '.join(brokers)}" if brokers and len(databases) > 1 else ""
    print(f"\nTests ran on {', '.join(databases)}{over}.")
    if left_out:
        print(f"Left out, because not there: {'; '.join(left_out)}.")
    if failed:
        print(f"Failed: {', '.join(failed)}.")
    required = left_out if os.environ.get("REQUIRE_ALL") else []
    sys.exit(1 if failed or required else 0)


def _run_all(databases: dict[str, str], environment: dict[str, str]) -> list[str]:
    """Run pytest for all databases at once, since each spends much of its time waiting; those that failed."""
    print(f"Running the tests on {', '.join(databases)}; each is shown when it is done.", flush=True)
    failed = []
    with ThreadPoolExecutor() as pool:
        running = {pool.submit(_run, name, url, environment): name for name, url in databases.items()}
        for done in as_completed(running):
            result = done.result()
            print(f"\n=== {running[done]} ===\n{result.stdout}", flush=True)
            failed += [running[done]] if result.returncode else []
    return [name for name in databases if name in failed]


def _run(name: str, url: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    settings = {**environment, "DATABASE_URL": url} if url else environment
    if not url:
        settings = {key: value for key, value in environment.items() if key != "DATABASE_URL"}
    settings = {**settings, "COVERAGE_FILE": str(ROOT / f".coverage.{name.lower()}")}
    measured = [] if _UNMEASURED else ["--cov", "--cov-report=", "--cov-fail-under=0"]
    command = [sys.executable, "-m", "pytest", *measured, *sys.argv[1:]]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=settings,
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def _unreachable(engine: str, url: str) -> str:
    """Why the server can't be used; empty where it can."""
    probe = (
        "import os, django; os.environ['DJANGO_SETTINGS_MODULE'] = 'sample_project.settings'; django.setup(); "
        "from django.db import connection; connection.ensure_connection()"
    )
    environment = {**os.environ, "DATABASE_URL": url, "PYTHONWARNINGS": "ignore"}
    result = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    return result.stderr.strip().split("\n")[-1] if result.returncode else ""


def _silent(url: str) -> str:
    """Why the broker can't be used; empty where it can."""
    from kombu import Connection

    try:
        with Connection(url, connect_timeout=2) as connection:
            connection.ensure_connection(max_retries=1, timeout=3)
    except Exception as error:  # each transport raises its own
        return f"{type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    main()
