"""`reconcile runs`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from django.db.models import Count, F, OuterRef, QuerySet, Subquery, Sum
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
def runs_command(ctx: click.Context, run: str | None, using: str, form: str, output: Path | None) -> None:
    """List the last runs; with RUN (its id, or the beginning of it), what became of each of its rules."""
    from reconcile import runs
    from reconcile.models import Outcome, Run

    using = known_database(using)
    with evaluated(using):
        if run:
            found = _with_sums(Run._base_manager.using(using)).get(pk=runs.find(run, using=using).pk)
            outcomes = list(Outcome._base_manager.using(using).filter(run=found).order_by("position"))
            write_report(
                ctx, form, output,
                text=lambda: _one(found, outcomes, using), json=lambda: json.run_report(found, _results(outcomes)),
            )  # fmt: skip
            return
        listed = list(_with_sums(Run._base_manager.using(using)).order_by("-started_at")[:LISTED])
        write_report(
            ctx, form, output, text=lambda: _many(listed, using), json=lambda: json.runs_report(listed)
        )


def _results(outcomes: Sequence[Outcome]) -> list[RuleRepair]:
    from reconcile.runs import recorded

    return [recorded(outcome) for outcome in outcomes if outcome.status]


def _with_sums(runs: Any) -> QuerySet[Run]:
    """Each run with the sums over its outcomes, in the one statement that lists them."""
    from reconcile.models import Outcome

    outcomes = _outcomes_of_run()
    written = outcomes.annotate(sum=Sum(reduce(add, map(F, Outcome.COUNTED.values())))).values("sum")
    annotated: QuerySet[Run] = runs.annotate(
        rules=Count("outcomes"),
        written=Subquery(written),
        left=Subquery(outcomes.annotate(sum=Sum("left")).values("sum")),
    )
    return annotated


def _outcomes_of_run() -> QuerySet[Any, Any]:
    from reconcile.models import Outcome

    grouped: QuerySet[Any, Any] = Outcome._base_manager.filter(run=OuterRef("pk")).order_by().values("run")
    return grouped


def _many(listed: Sequence[Run], using: str) -> RenderableType:
    if not listed:
        return "There are no runs yet. The nightly job and `reconcile repair --apply` leave one."
    rows = text.table(
        "Run", "Kind", "State", "Started", "Rules", "Written", "Left", numbers=("Rules", "Written", "Left")
    )
    for run in listed:
        started = timezone.localtime(run.started_at) if timezone.is_aware(run.started_at) else run.started_at
        # The sums are annotations, so that the list is one statement, and two for each run that is at work.
        sums: Any = run
        rows.add_row(
            str(run), _kind(run), run.state, f"{started:%Y-%m-%d %H:%M:%S}", f"{sums.rules:,}", f"{sums.written or 0:,}",
            f"{sums.left or 0:,}" if run.state == run.State.FINISHED else "?",
        )  # fmt: skip
    signs = [(run, _sign_of_life(run, using)) for run in listed]
    return Group("", rows, "", *(f"{run}: {sign}" for run, sign in signs if sign))


def _kind(run: Run) -> str:
    return f"undo of {str(run.undoes_id)[:8]}" if run.undoes_id else str(run.kind)


def _sign_of_life(run: Run, using: str) -> str:
    """How to go on with a run that doesn't go on by itself; empty for one that does, or that has ended for good."""
    from reconcile import runs

    go_on = f"Go on with it: reconcile resume {run}"
    if run.state in {run.State.STOPPED, run.State.PAUSED}:
        return f"{run.state}. {go_on}"
    if run.state not in runs.ACTIVE or runs.lives(run, using=using):
        return ""
    quiet = int((timezone.now() - runs.last_sign(run, using=using)).total_seconds())
    if run.state == run.State.CANCELLING:
        go_on = f"End it: reconcile cancel {run}"
    return f"no sign of life for {quiet} s. {go_on}"


def _one(run: Run, outcomes: Sequence[Outcome], using: str) -> RenderableType:
    numbers = ("Checked", "Missing", "Stale", "Extra", "Written", "Left")
    rows = text.table("", "Rule", *numbers, numbers=numbers)
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
    why = [why for why in (run.why_stopped, _sign_of_life(run, using)) if why]
    return Group("", f"Run {run.pk}, {_kind(run)}, {run.state}", "", rows, "", *remarks, *why)
