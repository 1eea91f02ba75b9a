"""`reconcile repair` and `reconcile resume`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from django.utils import timezone

from reconcile.cli._group import EXIT_ERROR, EXIT_HELD, EXIT_INCOMPLETE, reconcile
from reconcile.cli._options import (
    Limit,
    chosen_rules,
    database_option,
    known_database,
    output_options,
    rule_arguments,
    write_report,
)
from reconcile.cli._progress import bar
from reconcile.drift import Status
from reconcile.registry import valid_rules
from reconcile.reports import json, text
from reconcile.reports._summary import RepairReport

if TYPE_CHECKING:
    from reconcile.runs import RuleRepair


@reconcile.command("repair")
@rule_arguments
@database_option
@click.option(
    "--apply", "applied", is_flag=True, help="Write. Without it the plan is printed and nothing is written."
)
@click.option(
    "--max-repairs",
    type=Limit(),
    help="Stop before the first write if a rule plans more; instead of the rule's own cap.",
)
@output_options
@click.pass_context
def repair_command(
    ctx: click.Context,
    names: tuple[str, ...],
    selectors: tuple[str, ...],
    using: str,
    max_repairs: int | str | None,
    form: str,
    output: Path | None,
    *,
    applied: bool,
) -> None:
    """Print what a repair would write; with --apply, write it and verify it."""
    from reconcile import runs

    started = time.monotonic()
    rules = chosen_rules(names, selectors, using)
    run = None
    if applied:
        with bar("repairing", total=None) as advance:
            run, repairs = runs.repair(rules, using=using, max_repairs=max_repairs, progress=advance)
    else:
        repairs = runs.preview(rules, using=using, now=timezone.now(), max_repairs=max_repairs)
    _report(
        ctx,
        RepairReport(
            run=str(run.pk) if run else None,
            database=using,
            repairs=repairs,
            seconds=time.monotonic() - started,
        ),
        form,
        output,
    )


@reconcile.command("resume")
@click.argument("run")
@database_option
@output_options
@click.pass_context
def resume_command(ctx: click.Context, run: str, using: str, form: str, output: Path | None) -> None:
    """Go on with a run that was stopped or killed, where it was. RUN is its id, or the beginning of it."""
    from reconcile import runs

    started = time.monotonic()
    rules = valid_rules()
    found = runs.find(run, using=known_database(using))
    with bar("repairing", total=None) as advance:
        repairs = runs.resume(found, rules, using=using, progress=advance)
    seconds = time.monotonic() - started
    _report(
        ctx, RepairReport(run=str(found.pk), database=using, repairs=repairs, seconds=seconds), form, output
    )


def _report(ctx: click.Context, report: RepairReport, form: str, output: Path | None) -> None:
    write_report(
        ctx, form, output, text=lambda: text.repair_report(report), json=lambda: json.repair_report(report)
    )
    ctx.exit(_code(report.repairs))


def _code(repairs: Sequence[RuleRepair]) -> int:
    if any(repair.status is Status.ERROR for repair in repairs):
        return EXIT_ERROR
    if any(repair.held for repair in repairs):
        return EXIT_HELD
    return EXIT_INCOMPLETE if any(repair.incomplete for repair in repairs) else 0
