"""`reconcile runs`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

import rich_click as click
from django.db.models import Max, Sum
from django.utils import timezone
from rich.console import Group, RenderableType

from reconcile.checking import evaluated
from reconcile.cli._group import reconcile
from reconcile.cli._options import database_option, known_database, output_options, write_report
from reconcile.reports import json, text

if TYPE_CHECKING:
    from reconcile.models import Outcome, Run
    from reconcile.runs import RuleRepair

LISTED = 20


@reconcile.command("runs")
@click.argument("run", required=False)
@database_option
@output_options
@click.pass_context
def runs_command(ctx: click.Context, run: str | None, using: str, form: str, output: IO[str] | None) -> None:
    """List the last runs; with RUN (its id, or the beginning of it), what became of each of its rules."""
    from reconcile import runs
    from reconcile.models import Run

    using = known_database(using)
    if run:
        found = runs.find(run, using=using)
        write_report(
            ctx, form, output, text=lambda: _one(found), json=lambda: json.run_report(found, _results(found))
        )
        return
    with evaluated(using):
        listed = list(Run._base_manager.using(using).order_by("-started_at")[:LISTED])
        write_report(ctx, form, output, text=lambda: _many(listed), json=lambda: json.runs_report(listed))


def _results(run: Run) -> list[RuleRepair]:
    from reconcile.runs import recorded

    return [recorded(outcome) for outcome in run.outcomes.order_by("position") if outcome.status]


def _many(listed: Sequence[Run]) -> RenderableType:
    if not listed:
        return "There are no runs yet. The nightly job and `reconcile repair --apply` leave one."
    rows = text.table(
        "Run", "Kind", "State", "Started", "Rules", "Written", "Left", numbers=("Rules", "Written", "Left")
    )
    for run in listed:
        sums = run.outcomes.aggregate(
            rules=Sum(1),
            inserted=Sum("inserted", default=0),
            updated=Sum("updated", default=0),
            left=Sum("left", default=0),
        )
        started = timezone.localtime(run.started_at) if timezone.is_aware(run.started_at) else run.started_at
        rows.add_row(
            str(run.pk)[:8], run.kind, _state(run), f"{started:%Y-%m-%d %H:%M:%S}", f"{sums['rules'] or 0:,}",
            f"{sums['inserted'] + sums['updated']:,}", f"{sums['left']:,}",
        )  # fmt: skip
    return Group("", rows, "")


def _state(run: Run) -> str:
    """The state, and for one that runs, when its worker last gave a sign of life."""
    from reconcile import runs

    if run.state != run.State.RUNNING:
        return run.state
    beat = run.outcomes.aggregate(beat=Max("shards__heartbeat"))["beat"] or run.started_at
    quiet = timezone.now() - beat
    if quiet < runs.LEASE:
        return run.state
    return (
        f"{run.state}, no sign of life for {int(quiet.total_seconds())} s: reconcile resume {str(run.pk)[:8]}"
    )


def _one(run: Run) -> RenderableType:
    numbers = ("Checked", "Missing", "Stale", "Extra", "Inserted", "Updated", "Left")
    rows = text.table("", "Rule", *numbers, numbers=numbers)
    for outcome in run.outcomes.order_by("position"):
        rows.add_row(
            outcome.status or outcome.state, outcome.rule, *(f"{number:,}" for number in _numbers(outcome))
        )
    remarks = [
        f"{outcome.rule}: {outcome.error or outcome.why_stopped}"
        for outcome in run.outcomes.order_by("position")
        if outcome.error or outcome.why_stopped
    ]
    why = [f"It was stopped: {run.why_stopped}"] if run.why_stopped else []
    return Group("", f"Run {run.pk}, {run.kind}, {_state(run)}", "", rows, "", *remarks, *why)


def _numbers(outcome: Outcome) -> Sequence[int]:
    return (
        outcome.checked, outcome.missing, outcome.stale, outcome.extra, outcome.inserted, outcome.updated, outcome.left,
    )  # fmt: skip
