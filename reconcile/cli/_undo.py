"""`reconcile undo`."""

from __future__ import annotations

import time
from pathlib import Path

import rich_click as click

from reconcile.cli._group import EXIT_INCOMPLETE, reconcile
from reconcile.cli._options import database_option, known_database, output_options, write_report
from reconcile.cli._progress import bar
from reconcile.reports._undo import UndoReport, undo_json, undo_text


@reconcile.command("undo")
@click.argument("run")
@database_option
@click.option(
    "--apply",
    "applied",
    is_flag=True,
    help="Write. Without it, what would be taken back is printed and nothing is written.",
)
@output_options
@click.pass_context
def undo_command(
    ctx: click.Context, run: str, using: str, form: str, output: Path | None, *, applied: bool
) -> None:
    """Print what of a run's writes can be taken back; with --apply, take it back. RUN is its id, or the beginning of it.

    Rows that somebody has changed since are left, and listed.
    """
    from reconcile import runs

    started = time.monotonic()
    found = runs.find(run, using=known_database(using))
    by = None
    if applied:
        with bar("undoing", total=None) as advance:
            by, rules = runs.undo(found, using=using, progress=advance)
    else:
        rules = runs.preview_undo(found, using=using)
    seconds = time.monotonic() - started
    report = UndoReport(
        run=str(found.pk), by=str(by.pk) if by else None, database=using, rules=rules, seconds=seconds
    )
    write_report(ctx, form, output, text=lambda: undo_text(report), json=lambda: undo_json(report))
    ctx.exit(EXIT_INCOMPLETE if any(each.incomplete for each in rules) else 0)
