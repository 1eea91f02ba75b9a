"""`reconcile runs`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from django.db.models import Count, F, Max, OuterRef, QuerySet, Subquery, Sum
from django.utils import timezone
from rich.console import Group, RenderableType

from reconcile.checking import evaluated
from reconcile.cli._group import reconcile
from reconcile.cli._options import database_option, known_database, output_options, write_report
from reconcile.reports import json, text

if TYPE_CHECKING:
    from reconcile.models import Run
    from reconcile.runs import RuleRepair

LISTED = 20


@reconcile.command("runs")
@click.argument("run", required=False)
@database_option
@output_options
@click.pass_context
def runs_command(ctx: click.Context, run: str | None, using: str, form: str, output: Path | None) -> None:
    """List the last runs; with RUN (its id, or the beginning of it), what became of each of its rules."""
    from reconcile import runs
    from reconcile.models import Run

    using = known_database(using)
    if run:
        # With its last sign of life: a run that goes on for long is not a dead one.
        found = _with_sums(Run._base_manager.using(using)).get(pk=runs.find(run, using=using).pk)
        write_report(
            ctx, form, output, text=lambda: _one(found), json=lambda: json.run_report(found, _results(found))
        )
        return
    with evaluated(using):
        listed = list(_with_sums(Run._base_manager.using(using)).order_by("-started_at")[:LISTED])
        write_report(ctx, form, output, text=lambda: _many(listed), json=lambda: json.runs_report(listed))


def _results(run: Run) -> list[RuleRepair]:
    from reconcile.runs import recorded

    return [recorded(outcome) for outcome in run.outcomes.order_by("position") if outcome.status]


def _with_sums(runs: Any) -> QuerySet[Run]:
    """Each run with the sums over its outcomes, in the one statement that lists them."""
    from reconcile.models import Outcome

    outcomes = _outcomes_of_run()
    written = outcomes.annotate(sum=Sum(reduce(add, map(F, Outcome.COUNTED.values())))).values("sum")
    beats = outcomes.annotate(beat=Max("shards__heartbeat")).values("beat")
    annotated: QuerySet[Run] = runs.annotate(
        rules=Count("outcomes"),
        written=Subquery(written),
        left=Subquery(outcomes.annotate(sum=Sum("left")).values("sum")),
        beat=Subquery(beats),
    )
    return annotated


def _outcomes_of_run() -> QuerySet[Any, Any]:
    from reconcile.models import Outcome

    grouped: QuerySet[Any, Any] = Outcome._base_manager.filter(run=OuterRef("pk")).order_by().values("run")
    return grouped


def _many(listed: Sequence[Run]) -> RenderableType:
    if not listed:
        return "There are no runs yet. The nightly job and `reconcile repair --apply` leave one."
    rows = text.table(
        "Run", "Kind", "State", "Started", "Rules", "Written", "Left", numbers=("Rules", "Written", "Left")
    )
    for run in listed:
        started = timezone.localtime(run.started_at) if timezone.is_aware(run.started_at) else run.started_at
        # The sums are annotations, so that the whole list is one statement.
        sums: Any = run
        rows.add_row(
            str(run), run.kind, run.state, f"{started:%Y-%m-%d %H:%M:%S}", f"{sums.rules:,}", f"{sums.written or 0:,}",
            f"{sums.left or 0:,}" if run.state == run.State.FINISHED else "?",
        )  # fmt: skip
    quiet = [f"{run}: {_sign_of_life(run)}" for run in listed if _sign_of_life(run)]
    return Group("", rows, "", *quiet)


def _sign_of_life(run: Run) -> str:
    """How to go on with a run whose worker has died, or that was stopped; empty for any other."""
    from reconcile import runs

    if run.state == run.State.FINISHED:
        return ""
    if run.state == run.State.STOPPED:
        return f"stopped. Go on with it: reconcile resume {run}"
    annotated: Any = run
    beat = annotated.beat or run.started_at
    quiet = timezone.now() - beat
    return (
        f"no sign of life for {int(quiet.total_seconds())} s. Go on with it: reconcile resume {run}"
        if quiet >= runs.LEASE
        else ""
    )


def _one(run: Run) -> RenderableType:
    numbers = ("Checked", "Missing", "Stale", "Extra", "Written", "Left")
    rows = text.table("", "Rule", *numbers, numbers=numbers)
    outcomes = list(run.outcomes.order_by("position"))
    for outcome in outcomes:
        counts = (
            outcome.checked,
            outcome.missing,
            outcome.stale,
            outcome.extra,
            sum(getattr(outcome, column) for column in outcome.COUNTED.values()),
        )
        left = f"{outcome.left:,}" if outcome.state == outcome.State.DONE else "?"
        rows.add_row(
            outcome.status or outcome.state, outcome.rule, *(f"{number:,}" for number in counts), left
        )
    remarks = [
        f"{each.rule}  {remark}"
        for each in outcomes
        for remark in (each.error or each.why_stopped, each.warning)
        if remark
    ]
    why = [why for why in (run.why_stopped, _sign_of_life(run)) if why]
    return Group("", f"Run {run.pk}, {run.kind}, {run.state}", "", rows, "", *remarks, *why)
