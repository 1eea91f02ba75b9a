"""`reconcile pause` and `reconcile cancel`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from reconcile.cli._group import reconcile
from reconcile.cli._options import database_option, known_database, output_options, write_report
from reconcile.reports import json

if TYPE_CHECKING:
    from reconcile.models import Run


@reconcile.command("pause")
@click.argument("run")
@database_option
@output_options
@click.pass_context
def pause_command(ctx: click.Context, run: str, using: str, form: str, output: Path | None) -> None:
    """Have a run stop before its next chunk, to be resumed later. RUN is its id, or the beginning of it."""
    from reconcile import runs

    found = runs.pause(runs.find(run, using=known_database(using)), using=using)
    when = "pauses before its next chunk" if found.state == found.State.PAUSING else "is paused"
    _report(ctx, found, f"Run {found} {when}. Go on with it: reconcile resume {found}", form, output)


@reconcile.command("cancel")
@click.argument("run")
@database_option
@output_options
@click.pass_context
def cancel_command(ctx: click.Context, run: str, using: str, form: str, output: Path | None) -> None:
    """Have a run end before its next chunk, for good; what it has written stands.

    RUN is its id, or the beginning of it.
    """
    from reconcile import runs

    found = runs.cancel(runs.find(run, using=known_database(using)), using=using)
    when = "ends before its next chunk" if found.state == found.State.CANCELLING else "is cancelled"
    said = f"Run {found} {when}. What it has written stands; to take it back: reconcile undo {found}"
    _report(ctx, found, said, form, output)


def _report(ctx: click.Context, run: Run, said: str, form: str, output: Path | None) -> None:
    write_report(ctx, form, output, text=lambda: said, json=lambda: json.steered_report(run))
