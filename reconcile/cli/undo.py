"""`reconcile undo`."""

from __future__ import annotations

import time
from pathlib import Path

import rich_click as click

from reconcile.cli.group import exit_code, reconcile
from reconcile.cli.options import database_option, known_database, output_options, progress_bar, write_report
from reconcile.reports import json
from reconcile.reports.findings import UndoReport
from reconcile.reports.text_undo import undo_text


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
    stored_run = runs.find_run(run, using=known_database(using))
    undoing_run = None
    if applied:
        with progress_bar("undoing", total=None) as advance:
            undoing_run, rules = runs.undo(stored_run, using=using, progress=advance)
    else:
        rules = runs.preview_undo(stored_run, using=using)
    report = UndoReport(
        run=str(stored_run.pk),
        by=str(undoing_run.pk) if undoing_run else None,
        database=using,
        rules=rules,
        seconds=time.monotonic() - started,
    )
    write_report(ctx, form, output, text=lambda: undo_text(report), json=lambda: json.undo_report(report))
    ctx.exit(exit_code(incomplete=any(rule.incomplete for rule in rules)))
