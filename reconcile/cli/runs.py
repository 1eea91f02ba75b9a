"""`reconcile runs`, `pause` and `cancel`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from django.db.models import Count, OuterRef, QuerySet, Subquery, Sum
from django.utils import timezone
from rich.console import Group, RenderableType

from reconcile.cli.group import reconcile
from reconcile.cli.options import database_option, known_database, output_options, write_report
from reconcile.db.clock import database_now
from reconcile.detect.checking import evaluation_errors
from reconcile.reports import json, text

if TYPE_CHECKING:
    from reconcile.models import Outcome, Run
    from reconcile.runs import RuleRepair


@reconcile.command("pause")
@click.argument("run")
@database_option
@output_options
@click.pass_context
def pause_command(ctx: click.Context, run: str, using: str, form: str, output: Path | None) -> None:
    """Have a run stop before its next chunk, to be resumed later. RUN is its id, or the beginning of it."""
    from reconcile import runs

    paused = runs.pause(runs.find_run(run, using=known_database(using)), using=using)
    when = "pauses before its next chunk" if paused.state == paused.State.PAUSING else "is paused"
    message = f"Run {paused} {when}. Go on with it: reconcile resume {paused}"
    _write_state(ctx, paused, message, form, output)


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

    cancelled = runs.cancel(runs.find_run(run, using=known_database(using)), using=using)
    when = "ends before its next chunk" if cancelled.state == cancelled.State.CANCELLING else "is cancelled"
    message = (
        f"Run {cancelled} {when}. What it has written stands; to take it back: reconcile undo {cancelled}"
    )
    _write_state(ctx, cancelled, message, form, output)


def _write_state(ctx: click.Context, run: Run, message: str, form: str, output: Path | None) -> None:
    write_report(ctx, form, output, text=lambda: message, json=lambda: json.run_state_report(run))


LISTED = 20
"""The number of runs that `reconcile runs` lists."""


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
    with evaluation_errors(using):
        if run:
            shown = _add_sums(Run._base_manager.using(using)).get(pk=runs.find_run(run, using=using).pk)
            outcomes = list(Outcome._base_manager.using(using).filter(run=shown).order_by("position"))
            write_report(
                ctx,
                form,
                output,
                text=lambda: _run_text(shown, outcomes, using),
                json=lambda: json.run_report(shown, _results(outcomes)),
            )
            return
        listed = list(_add_sums(Run._base_manager.using(using)).order_by("-started_at")[:LISTED])
        write_report(
            ctx, form, output, text=lambda: _runs_text(listed, using), json=lambda: json.runs_report(listed)
        )


def _results(outcomes: Sequence[Outcome]) -> list[RuleRepair]:
    from reconcile.runs import result_of, written_by_outcome

    written = written_by_outcome(outcomes)
    return [result_of(outcome, written=written[outcome.pk]) for outcome in outcomes if outcome.status]


def _add_sums(runs: Any) -> QuerySet[Run]:
    """Annotate each run with the sums over its outcomes, so that one statement reads the runs and their sums."""
    outcomes = _outcomes_of_run()
    written = outcomes.annotate(sum=Sum("work_items__counts__rows")).values("sum")
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


def _runs_text(listed: Sequence[Run], using: str) -> RenderableType:
    if not listed:
        return "There are no runs yet. The nightly job and `reconcile repair --apply` leave one."
    rows = text.table(
        "Run", "Kind", "State", "Started", "Rules", "Written", "Left", numbers=("Rules", "Written", "Left")
    )
    for run in listed:
        started = timezone.localtime(run.started_at) if timezone.is_aware(run.started_at) else run.started_at
        # The sums are annotations, which the type of a run doesn't have.
        sums: Any = run
        rows.add_row(
            str(run), _kind(run), run.state, f"{started:%Y-%m-%d %H:%M:%S}", f"{sums.rules:,}", f"{sums.written or 0:,}",
            f"{sums.left or 0:,}" if run.state == run.State.FINISHED else "?",
        )  # fmt: skip
    advice = [(run, _advice(run, using)) for run in listed]
    return Group("", rows, "", *(f"{run}: {text}" for run, text in advice if text))


def _kind(run: Run) -> str:
    return f"undo of {str(run.undoes_id)[:8]}" if run.undoes_id else str(run.kind)


def _advice(run: Run, using: str) -> str:
    """How to go on with a run that doesn't go on by itself; empty for a run that does, or that has ended for good.

    Costs up to three statements for an active run, and none for other runs.
    """
    from reconcile import runs

    go_on = f"Go on with it: reconcile resume {run}"
    if run.state in {run.State.STOPPED, run.State.PAUSED}:
        return f"{run.state}. {go_on}"
    if run.state not in run.ACTIVE or runs.has_live_worker(run, using=using):
        return ""
    quiet = int((database_now(using) - runs.last_heartbeat(run, using=using)).total_seconds())
    if run.state == run.State.CANCELLING:
        go_on = f"End it: reconcile cancel {run}"
    return f"no sign of life for {quiet} s. {go_on}"


def _run_text(run: Run, outcomes: Sequence[Outcome], using: str) -> RenderableType:
    from reconcile.runs import written_by_outcome

    numbers = ("Checked", "Missing", "Stale", "Extra", "Written", "Left")
    rows = text.table("", "Rule", *numbers, numbers=numbers)
    written = written_by_outcome(outcomes)
    for outcome in outcomes:
        counts = (
            outcome.checked,
            outcome.missing,
            outcome.stale,
            outcome.extra,
            written[outcome.pk].total,
        )
        left = f"{outcome.left:,}" if outcome.state == outcome.State.DONE else "?"
        rows.add_row(
            outcome.status or outcome.state, outcome.rule, *(f"{number:,}" for number in counts), left
        )
    remarks = [
        f"{outcome.rule}  for {len(outcome.only):,} of its records alone, by keys"
        for outcome in outcomes
        if outcome.only is not None
    ]
    remarks += [
        f"{outcome.rule}  {remark}"
        for outcome in outcomes
        for remark in (outcome.error or outcome.why_stopped, outcome.warning)
        if remark
    ]
    remarks += [remark for remark in (run.why_stopped, _advice(run, using)) if remark]
    return Group("", f"Run {run.pk}, {_kind(run)}, {run.state}", "", rows, "", *remarks)
