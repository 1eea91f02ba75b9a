"""`reconcile repair` and `reconcile resume`. What else steers a run, `pause` and `cancel`, stands in `_steer`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from django.utils import timezone

from reconcile.checking import evaluated
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
from reconcile.errors import UnknownNameError, UsageError
from reconcile.plans import KeptPlan, kept_plan
from reconcile.registry import valid_rules
from reconcile.reports import json, text
from reconcile.reports._summary import RepairReport
from reconcile.rules import Rule

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
@click.option("--max-deletes", type=Limit(), help="The same for rows that would be deleted.")
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write only what this plan has: the JSON report of an earlier repair without --apply.",
)
@output_options
@click.pass_context
def repair_command(
    ctx: click.Context,
    names: tuple[str, ...],
    selectors: tuple[str, ...],
    using: str,
    max_repairs: int | str | None,
    max_deletes: int | str | None,
    plan_file: Path | None,
    form: str,
    output: Path | None,
    *,
    applied: bool,
) -> None:
    """Print what a repair would write; with --apply, write it and verify it."""
    from reconcile import runs
    from reconcile.planning import Caps

    started = time.monotonic()
    rules = chosen_rules(names, selectors, using)
    kept = kept_plan(plan_file) if plan_file else None
    if kept is not None:
        rules = _planned_rules(rules, kept, names, using)
    caps = Caps(max_repairs=max_repairs, max_deletes=max_deletes)
    run = None
    if applied:
        with bar("repairing", total=None) as advance:
            run, repairs = runs.repair(rules, using=using, caps=caps, kept_plan=kept, progress=advance)
    else:
        repairs = runs.preview(rules, using=using, now=timezone.now(), caps=caps, kept_plan=kept)
    _report(
        ctx,
        RepairReport(
            asked=applied,
            run=str(run.pk) if run else None,
            database=using,
            repairs=repairs,
            seconds=time.monotonic() - started,
        ),
        form,
        output,
    )


def _planned_rules(
    rules: Mapping[str, Rule], kept: KeptPlan, names: tuple[str, ...], using: str
) -> Mapping[str, Rule]:
    """Those of the chosen rules that the plan has; raises UsageError where it is for something else."""
    if kept.database != using:
        raise UsageError(
            f"The plan {kept.file!r} is for database {kept.database!r}: add --database {kept.database}."
        )
    for name in kept.rules:
        if name not in valid_rules():
            raise UnknownNameError("rule", name, valid_rules(), instead=f" The plan {kept.file!r} names it.")
    for name in names:
        if name not in kept.rules:
            raise UsageError(f"The plan {kept.file!r} has nothing for rule {name!r}. Make a new one.")
    chosen = {name: rule for name, rule in rules.items() if name in kept.rules}
    if not chosen:
        raise UsageError(f"The plan {kept.file!r} has nothing to write for these rules.")
    return chosen


@reconcile.command("resume")
@click.argument("run", metavar="RUN|RULE")
@database_option
@output_options
@click.pass_context
def resume_command(ctx: click.Context, run: str, using: str, form: str, output: Path | None) -> None:
    """Go on with a run that was paused, stopped or killed, where it was. RUN is its id, or the beginning of it.

    With a RULE that the nightly job leaves alone, since what it had repaired drifted again: let it repair that again.
    """
    from reconcile import runs
    from reconcile.recurring import resumed

    started = time.monotonic()
    rules = valid_rules()
    if run in rules:
        with evaluated(known_database(using)):
            lifted = resumed(run, using=using)
        if not lifted:
            raise UsageError(
                f"Rule {run!r} isn't suspended; the nightly job does with it what its options say."
            )
        click.echo(f"The nightly job repairs {run} again.", err=True)
        return
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
