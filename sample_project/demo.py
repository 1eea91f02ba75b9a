"""`make demo`: a demonstration on SQLite, from an empty database to a clean check."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import django
import structlog
from django.conf import settings
from django.core.management import call_command
from rich.console import Console
from rich.rule import Rule as Line

console = Console(highlight=False)
ROOT = Path(__file__).resolve().parent.parent
ORDERS = 2_000


def main() -> None:
    """Run the demo. It exits with 1 if a step does not end as it should."""
    os.environ.pop("DATABASE_URL", None)
    os.environ["DJANGO_SETTINGS_MODULE"] = "sample_project.settings"
    django.setup()
    started = time.monotonic()
    _fill_shop()
    _run_command("What has drifted?", "check", expected=1)
    _run_nightly_job()
    _run_command("What did it do, and what did it leave to a person?", "runs", _last_run())
    _run_command("The plan for what is left. Nothing is written.", "repair")
    _run_command("Write it, in chunks that are journalled and verified.", "repair", "--apply")
    _run_command("And now?", "check")
    _print_next_steps(time.monotonic() - started)


def _fill_shop() -> None:
    from sample_project.shop import seed
    from sample_project.shop.models import Order

    console.print(Line(f"[bold]A shop with {ORDERS:,} orders"))
    database = Path(settings.DATABASES["default"]["NAME"])
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    for path in database.parent.glob(f"{database.name}*"):
        path.unlink()
    call_command("migrate", verbosity=0)
    seed.fill(ORDERS)
    orders = Order.objects.count()
    console.print(
        f"\n{orders:,} orders are in {database.name}. Half were written through signals, half by bulk_create,"
    )
    console.print("update(), raw deletes, a fixture and SQL, which no signal sees.\n")


def _run_nightly_job() -> None:
    from reconcile.errors import NightIncomplete
    from reconcile.tasks import nightly

    console.print(Line("[bold]The nightly job, through Celery in this process"))
    try:
        result = nightly.delay().get()
    except NightIncomplete as error:
        # As it should: some rules leave their drift to people, and a task that succeeds would hide that.
        console.print(f"\n[red]NightIncomplete[/red]: {error}")
        result = error.result
    console.print(
        f"\nreconcile.nightly wrote {result['written']:,} rows; {result['left']:,} are left to people.\n"
    )


def _last_run() -> str:
    from reconcile.models import Run

    return str(Run.objects.latest("started_at"))


def _run_command(title: str, *arguments: str, expected: int = 0) -> None:
    """Run the command line as a person would. Exits with 1 if the command has another exit code than expected."""
    console.print(Line(f"[bold]{title}"))
    console.print(f"\n[cyan]$ reconcile {' '.join(arguments)}[/cyan]")
    environment = dict(os.environ)
    if console.is_terminal:
        environment["FORCE_COLOR"] = "1"
    command = [sys.executable, "-c", "from reconcile.cli import main; main()", *arguments]
    code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode  # noqa: S603
    console.print(f"[dim]exit code {code}[/dim]\n")
    if code != expected:
        console.print(f"[red]The exit code should have been {expected}.")
        sys.exit(1)


def _print_next_steps(seconds: float) -> None:
    console.print(Line("[bold]Try next"))
    console.print(
        f"""
That took {seconds:.0f} s. The database stands. From this folder, with

    export DJANGO_SETTINGS_MODULE=sample_project.settings

  .venv/bin/reconcile explain orders.invoice     the sentence, the SQL, the database's plan
  .venv/bin/python manage.py shop_bulk 100       100 more orders that no signal sees
  .venv/bin/reconcile check --format json        what a machine reads
  .venv/bin/reconcile repair orders.invoice      the plan for one rule; add --apply to write
  .venv/bin/reconcile undo RUN                   what of a run would be taken back; `reconcile runs` lists them
  .venv/bin/reconcile rules                      every rule, as a sentence

The rules are in rules/, one subject a file.
""",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
