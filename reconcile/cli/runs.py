"""`reconcile nightly` and `reconcile runs`; its `resume` is in `repair`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from rich.console import Group, RenderableType
from rich.text import Text

from reconcile.cli.culprits import suspects_named, without_receivers
from reconcile.cli.group import Subject, exit_code, reconcile
from reconcile.cli.options import (
    allow_empty_option,
    database_option,
    known_database,
    output_options,
    write_report,
)
from reconcile.db.clock import database_now
from reconcile.detect.checking import evaluation_errors
from reconcile.detect.culprit import from_plain
from reconcile.reports import json, layout, text
from reconcile.reports.facts import plural
from reconcile.reports.findings import nothing_judged, plain

if TYPE_CHECKING:
    from reconcile.audit.skipping import Suspects
    from reconcile.detect.culprit import Culprit
    from reconcile.models import Run
    from reconcile.runs import RuleRepair, RunResult

    Why = tuple[Sequence[Culprit], Suspects | None]


@reconcile.group("runs", cls=Subject, without="list", named="show")
def runs_group() -> None:
    """List the last runs; with a RUN (its id, or the beginning of it), what became of each of its rules."""


@runs_group.command("pause")
@click.argument("run")
@database_option
@output_options
@click.pass_context
def pause_command(ctx: click.Context, run: str, using: str, form: str, output: Path | None) -> None:
    """Have a run stop before its next chunk, to be resumed later. RUN is its id, or the beginning of it."""
    from reconcile import runs

    paused = runs.pause(runs.find_run(run, using=known_database(using)), using=using)
    when = "pauses before its next chunk" if paused.state == paused.State.PAUSING else "is paused"
    message = f"Run {paused} {when}. Go on with it: reconcile runs resume {paused}"
    _write_state(ctx, paused, message, form, output)


@runs_group.command("cancel")
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


@runs_group.command("list")
@database_option
@output_options
@click.pass_context
def list_command(ctx: click.Context, using: str, form: str, output: Path | None) -> None:
    """List the last runs, each with its result."""
    from reconcile import runs
    from reconcile.models import Run

    using = known_database(using)
    with evaluation_errors(using):
        listed = list(Run._base_manager.using(using).order_by("-started_at")[:LISTED])
        results = runs.run_results(listed, using=using)
        write_report(
            ctx,
            form,
            output,
            text=lambda: _runs_text(listed, results, using),
            json=lambda: json.runs_report(listed, results),
        )


@runs_group.command("show")
@click.argument("run")
@click.option(
    "--follow", is_flag=True, help="Wait until it has ended, and say on standard error how far it is."
)
@database_option
@output_options
@click.pass_context
def show_command(
    ctx: click.Context, run: str, using: str, form: str, output: Path | None, *, follow: bool
) -> None:
    """Show what became of each rule of a run, the worst first. RUN is its id, or the beginning of it."""
    from reconcile import runs

    using = known_database(using)
    with evaluation_errors(using):
        shown = runs.find_run(run, using=using)
        if follow:
            _follow(shown, using)
        shown.refresh_from_db(using=using)
        write_run(ctx, shown, using, form, output, read_source=True)


BETWEEN_LOOKS = 2.0
"""Seconds between two looks at a run that is followed."""


def _follow(run: Run, using: str) -> None:
    """Return when the run has ended, or its worker gives no sign of life. Tells of each change."""
    from reconcile import runs

    told = ""
    while runs.has_live_worker(run, using=using):
        said = _sum_in_words(runs.run_result(run, using=using))
        if said != told:
            click.echo(f"{run}: {said}", err=True)
            told = said
        time.sleep(BETWEEN_LOOKS)


@reconcile.command("nightly")
@database_option
@allow_empty_option
@output_options
@click.pass_context
def nightly_command(
    ctx: click.Context, using: str, form: str, output: Path | None, *, allow_empty: bool
) -> None:
    """Do the night's work without Celery: check all rules, and repair those that are unattended.

    There is one night at a time: if another goes on, its run and state are shown.
    """
    from reconcile import runs

    using = known_database(using)
    run, repairs = runs.nightly(using=using)
    run.refresh_from_db(using=using)
    result = write_run(ctx, run, using, form, output, allow_empty=allow_empty)
    ctx.exit(
        exit_code(
            error=any(each.result is runs.Result.ERROR for each in result.rules),
            leased=result.state in run.ACTIVE
            or any(each.result is runs.Result.HELD for each in result.rules),
            incomplete=any(each.incomplete for each in repairs),
            drift=bool(result.alarming(runs.Alarm.FAIL)) or (result.is_empty and not allow_empty),
        )
    )


def write_run(
    ctx: click.Context,
    run: Run,
    using: str,
    form: str,
    output: Path | None,
    *,
    allow_empty: bool = False,
    read_source: bool = False,
) -> RunResult:
    """Write what became of each rule of the run. read_source: name the calls, too, that may have caused what drifted."""
    from reconcile import runs

    result = runs.run_result(run, using=using)
    why = _why(result, read_source=read_source)
    write_report(
        ctx,
        form,
        output,
        text=lambda: _run_text(run, result, using, why, allow_empty=allow_empty),
        json=lambda: json.run_report(run, result, _details(run, result), why),
    )
    return result


def _why(result: RunResult, *, read_source: bool) -> Mapping[str, Why]:
    """For the rules that drifted what set the drifted records apart, and the calls that skip what each covers, for which the source is read."""
    found = {
        each.rule: [*map(from_plain, each.outcome.culprits)] for each in result.rules if each.outcome.culprits
    }
    if not found or not read_source:
        return {name: (culprits, None) for name, culprits in found.items()}
    suspects = suspects_named(found)
    return {name: (culprits, suspects.get(name)) for name, culprits in without_receivers(found).items()}


def _details(run: Run, result: RunResult) -> list[RuleRepair]:
    from reconcile.runs import result_of

    return [
        result_of(each.outcome, run, written=each.by_verb) for each in result.rules if each.outcome.status
    ]


def _runs_text(listed: Sequence[Run], results: Sequence[RunResult], using: str) -> RenderableType:
    if not listed:
        return "There are no runs yet. The nightly job and `reconcile repair --apply` leave one."
    # Without more columns and seconds it fits into 80 columns.
    rows = layout.table(
        "Run", "Kind", "State", "Started", "Result", "Written", "Left", numbers=("Written", "Left")
    )
    for run, result in zip(listed, results, strict=True):
        rows.add_row(
            str(run), _kind(run), run.state, text.moment(run.started_at), _counts_text(result),
            f"{result.written:,}", text.number_or_unknown(result.left),
        )  # fmt: skip
    pairs = zip(listed, results, strict=True)
    advice = [(run, _advice(run, using, alive=result.alive)) for run, result in pairs]
    return Group("", rows, "", *(f"{run}: {text}" for run, text in advice if text))


def _counts_text(result: RunResult) -> Text:
    """`1 failed, 3 reported`: the worst first, without the rules that are as they should be unless all are."""
    bad = {
        each: number for each, number in result.counts.items() if each not in {"clean", "repaired", "undone"}
    }
    if not bad:
        return text.result_text(str(result.result))
    parts = [Text.assemble(f"{number:,} ", text.result_text(str(each))) for each, number in bad.items()]
    return Text(", ").join(parts)


def _kind(run: Run) -> str:
    return f"undo of {str(run.undoes_id)[:8]}" if run.undoes_id else str(run.kind)


def _advice(run: Run, using: str, *, alive: bool) -> str:
    """How to go on with a run that doesn't go on by itself; empty for a run that does, or that has ended for good.

    Costs up to two statements for an active run without a worker, and none for other runs.
    """
    from reconcile import runs

    go_on = f"Go on with it: reconcile runs resume {run}"
    if run.state in {run.State.STOPPED, run.State.PAUSED}:
        return f"{run.state}. {go_on}"
    if run.state not in run.ACTIVE or alive:
        return ""
    quiet = int((database_now(using) - runs.last_heartbeat(run, using=using)).total_seconds())
    if run.state == run.State.CANCELLING:
        go_on = f"End it: reconcile runs cancel {run}"
    return f"no sign of life for {quiet} s. {go_on}"


def _run_text(
    run: Run, result: RunResult, using: str, why: Mapping[str, Why], *, allow_empty: bool
) -> RenderableType:
    numbers = ("Checked", "Missing", "Stale", "Extra", "Written", "Left")
    rows = layout.table("", "Rule", *numbers, numbers=numbers)
    for each in result.rules:
        outcome = each.outcome
        found = (outcome.checked, outcome.missing, outcome.stale, outcome.extra)
        known = each.found is not None
        rows.add_row(
            text.result_text(str(each.result)), each.rule, *(f"{number:,}" if known else "–" for number in found),
            f"{each.written:,}", text.number_or_unknown(each.left),
        )  # fmt: skip
    outcomes = sorted((each.outcome for each in result.rules), key=lambda outcome: outcome.position)
    remarks: list[tuple[str, str | Text]] = [
        (outcome.rule, f"for {len(outcome.only):,} of its records alone, by keys")
        for outcome in outcomes
        if outcome.only is not None
    ]
    remarks += [(each.rule, each.why) for each in result.rules if each.why]
    remarks += [(outcome.rule, outcome.warning) for outcome in outcomes if outcome.warning]
    nothing = nothing_judged(allowed=allow_empty) if result.is_empty else ""
    last = [
        remark for remark in (run.why_stopped, nothing, _advice(run, using, alive=result.alive)) if remark
    ]
    if any(suspects is None for _, suspects in why.values()):
        last.append(f"The calls in the source that may have caused it: reconcile runs show {run}")
    head = f"Run {run.pk}, {_kind(run)}, {run.state}: {_sum_in_words(result)}"
    return Group("", head, "", rows, "", *text.remark_lines(remarks), *_why_lines(why), *last)


def _why_lines(why: Mapping[str, Why]) -> Iterator[RenderableType]:
    """What set the drifted records of each rule apart, and the calls that skip what it covers."""
    for name, (culprits, suspects) in why.items():
        yield Text(name, style="bold")
        said = [sentence for each in culprits for sentence in each.sentences]
        called = [*suspects.sentences] if suspects is not None else []
        yield from (layout.indented(Text(plain(each), style="cyan")) for each in (*said, *called))
        yield ""


def _sum_in_words(result: RunResult) -> str:
    counts = ", ".join(f"{number:,} {each}" for each, number in result.counts.items()) or "no rules"
    return f"{counts}; {plural(result.written, 'row')} written, {text.number_or_unknown(result.left)} left"
