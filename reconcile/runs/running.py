"""Runs as a whole: a run begins, advances rule by rule, and is resumed. One rule of a run is in `one_rule`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from reconcile.core.drift import Bound, Drift, Status
from reconcile.core.scopes import EVERYTHING, Keys
from reconcile.db.clock import clock_skew, database_now
from reconcile.db.dialects import dialect_of
from reconcile.detect.checking import check, evaluation_errors
from reconcile.errors import EvaluationError, LeaseHeldError, Refusal, UnknownNameError, UsageError
from reconcile.models import Outcome, Run, transition
from reconcile.repair.caps import Caps, plan
from reconcile.repair.chunk import BEAT
from reconcile.repair.plan_file import PlanFile
from reconcile.repair.refused_beforehand import without_refused
from reconcile.repair.regressions import was_repaired_lately
from reconcile.repair.repairing import KEEP
from reconcile.rules.fingerprints import fingerprint
from reconcile.rules.order import sort_rules
from reconcile.rules.registry import project_rules, select, unknown_rule
from reconcile.rules.rule import Rule
from reconcile.rules.unattended import unattended_refusal
from reconcile.runs.circles import repeat_circle, rounds_in_words
from reconcile.runs.guards import (
    regressions_in_words,
    regressions_of,
    unconfirmed_rows,
)
from reconcile.runs.leases import LEASE
from reconcile.runs.one_rule import run_rule
from reconcile.runs.results import Progress, RuleRepair, preview_result, result_of, results_of
from reconcile.runs.steering import beats, end_run, end_silent, last_heartbeat
from reconcile.runs.undo_run import advance_undo
from reconcile.states import states_before

__all__ = ["Only", "find_run", "nightly", "preview", "repair", "repair_unattended", "resume"]

log = structlog.get_logger()

Rules = Mapping[str, Rule]
Only = Mapping[str, Sequence[Any]]
"""For the name of a rule, the keys of the records that it is about."""


def preview(
    rules: Rules,
    *,
    using: str,
    now: datetime,
    caps: Caps | None = None,
    kept_plan: PlanFile | None = None,
    samples: int = 5,
    only: Only | None = None,
) -> list[RuleRepair]:
    """Return what `repair` would do, with every guard. Writes nothing, not even a run."""
    with evaluation_errors(using), dialect_of(using).examine():
        order = sort_rules(rules, using=using, now=now)
        return [
            _preview_rule(
                rule,
                next((each for each in order.circles if rule.name in each), ()),
                using=using, now=now, caps=caps, kept_plan=kept_plan, samples=samples, only=(only or {}).get(rule.name),
            )
            for rule in order.rules
        ]  # fmt: skip


def _preview_rule(
    rule: Rule,
    circle: Sequence[str],
    *,
    using: str,
    now: datetime,
    caps: Caps | None,
    kept_plan: PlanFile | None,
    samples: int,
    only: Sequence[Any] | None,
) -> RuleRepair:
    deleting = any(rule.remedy(drift).deletes for drift in Drift)
    keep = KEEP if deleting or was_repaired_lately(rule, using=using, now=now) else 0
    scope = None if only is None else Keys(only)
    rule_plan = plan(check(rule, using=using, now=now, samples=samples, keep=keep, only=scope), caps)
    if rule_plan.check.status is Status.ERROR:
        return preview_result(rule_plan, using=using)
    rule_plan = without_refused(rule_plan, using=using, now=now, scope=scope or EVERYTHING)
    again = regressions_of(rule_plan, run=None, now=now, using=using)
    rounds = rounds_in_words(circle, rule) if rule_plan.records.total else ""
    unconfirmed, waits = unconfirmed_rows(rule_plan, using=using)
    said = (regressions_in_words(again), waits, rounds)
    warning = " ".join(filter(None, (*said, *rule_plan.check.notes)))
    why: Refusal | None = None
    if kept_plan is not None and rule_plan.records.total:
        why = kept_plan.rules[rule.name].refusal(
            rule.name, fingerprint(rule, using), rule_plan.records, kept_plan.file
        )
    records = None if only is None else len(only)
    if rounds:
        rule_plan = replace(rule_plan, check=replace(rule_plan.check, bound=Bound.AT_LEAST))
    return preview_result(
        rule_plan,
        using=using,
        why_stopped=str(why or ""),
        again=len(again),
        warning=warning,
        records=records,
        unconfirmed=unconfirmed,
    )


def repair(
    rules: Rules,
    *,
    using: str,
    caps: Caps | None = None,
    kept_plan: PlanFile | None = None,
    progress: Progress | None = None,
    only: Only | None = None,
) -> tuple[Run | None, list[RuleRepair]]:
    """Check, repair and verify the rules as a new run. Raises EvaluationError if no run can begin.

    only: for each of these rules the keys of the records that it is repaired for; a rule that is not in it for all.

    With a plan, the run writes only what is planned. If a rule was edited or drifts more than planned, nothing is written
    for any rule, and there is no run.
    """
    if kept_plan is not None:
        planned = preview(rules, using=using, now=database_now(using), caps=caps, kept_plan=kept_plan)
        if any(each.why_stopped or each.error for each in planned):
            return None, planned
    with evaluation_errors(using):
        run = _begin(
            Run.Kind.REPAIR,
            rules,
            using=using,
            may_repair=set(rules),
            caps=caps,
            kept_plan=kept_plan,
            only=only,
        )
    return run, _advance(run, rules, using=using, progress=progress)


def repair_unattended(rules: Rules, *, using: str, only: Only) -> tuple[Run, list[RuleRepair]]:
    """Check, repair and verify the rules for the records of these keys, as a new run that no person has started.

    The rules must be ones that may be repaired unattended. Raises EvaluationError if no run can begin.
    """
    with evaluation_errors(using):
        run = _begin(Run.Kind.LOOK, rules, using=using, may_repair=set(rules), only=only)
    return run, _advance(run, rules, using=using)


def nightly(*, using: str = "default", delivery: str = "") -> tuple[Run, list[RuleRepair]]:
    """Check all rules and repair those that the nightly job may repair. Writes a Run with an Outcome for each rule.

    There is one night at a time. If another goes on, it and its results so far are returned. If its worker gives no sign of life until its
    lease has run out, which is waited for, it is resumed if this is the same night that is delivered again; any other is ended, and
    this one looks at everything anew.

    delivery: id of the task's message, the same each time that a broker delivers it; empty outside of a task.

    Raises UsageError if the rules can't be used, and EvaluationError if no run can begin. An error of one rule is in its
    outcome, and the other rules are still checked.
    """
    rules = select(project_rules(), using=using)
    why = ""
    for _ in range(_TRIES):
        try:
            return _night_that_goes_on(rules, delivery, using) or _new_night(rules, delivery, using)
        except LeaseHeldError as error:
            # Another has begun in this moment.
            why = str(error.__cause__ or error)
    raise EvaluationError(f"No nightly run could begin, and none goes on: {why}")


NIGHT = "nightly"
"""What is unique of the nightly run that goes on."""

_TRIES = 10

FRESH = timedelta(seconds=4 * BEAT)
"""A worker whose last sign of life is younger than this is taken for alive; of one that is silent for longer the lease decides."""

_SAME_NIGHT = timedelta(hours=6)
"""What an older run has seen says nothing of now, so that it isn't resumed in its place."""


def _night_that_goes_on(rules: Rules, delivery: str, using: str) -> tuple[Run, list[RuleRepair]] | None:
    """The night that another worker is at, or this one where it is delivered again; None if there is none, or it is ended now."""
    while True:
        with evaluation_errors(using):
            sister = Run._base_manager.using(using).filter(night=NIGHT).first()
            now = database_now(using)
            quiet = now - last_heartbeat(sister, using=using) if sister else timedelta(0)
        if sister is None:
            return None
        if quiet < FRESH:
            log.warning("night_goes_on_already", run=str(sister.pk), database=using)
            return _results_so_far(sister, using)
        if quiet >= LEASE and _claim(sister, using):
            again = bool(delivery) and sister.delivery == delivery and now - sister.started_at < _SAME_NIGHT
            if again:
                return _resume_night(sister, rules, using)
            end_silent(sister, using=using)
            return None
        time.sleep(1)


def _resume_night(run: Run, rules: Rules, using: str) -> tuple[Run, list[RuleRepair]] | None:
    """The night and its results; None if it can't be gone on with, as its rule is gone or somebody has ended or paused it."""
    if run.state != Run.State.RUNNING:
        end_silent(run, using=using)
        return None
    try:
        return run, resume(run, rules, using=using)
    except UsageError as error:
        end_silent(run, str(error), using=using)
        return None


def _claim(run: Run, using: str) -> bool:
    """Whether this worker is the one of several that goes on with the run of a dead one. One statement."""
    silent = Run._base_manager.using(using).filter(pk=run.pk, token=run.token, heartbeat=run.heartbeat)
    return bool(silent.update(heartbeat=database_now(using)))


def _results_so_far(run: Run, using: str) -> tuple[Run, list[RuleRepair]]:
    return run, results_of(_outcomes(run, using), run)


def _new_night(rules: Rules, delivery: str, using: str) -> tuple[Run, list[RuleRepair]]:
    with evaluation_errors(using), dialect_of(using).examine():
        may_repair = {
            name for name, rule in rules.items() if rule.unattended and not unattended_refusal(rule, using)
        }
        run = _begin(Run.Kind.NIGHTLY, rules, using=using, may_repair=may_repair, delivery=delivery)
    return run, _advance(run, rules, using=using)


def find_run(prefix: str, *, using: str) -> Run:
    """Return the run whose id begins with `prefix`. Raises UnknownNameError if there is none, or more than one."""
    with evaluation_errors(using):
        known = [str(key) for key in Run._base_manager.using(using).values_list("pk", flat=True)]
    matching = [key for key in known if key.startswith(prefix.lower())]
    if not prefix or len(matching) != 1:
        hint = (
            " Several begin so; give more of it." if matching and prefix else " `reconcile runs` lists them."
        )
        raise UnknownNameError("run", prefix, () if matching else [key[:8] for key in known], instead=hint)
    return Run._base_manager.using(using).get(pk=matching[0])


def resume(run: Run, rules: Rules, *, using: str, progress: Progress | None = None) -> list[RuleRepair]:
    """Go on with a run that was paused, stopped or killed, from its cursors. A worker that still lives is fenced out.

    Raises UsageError if the run is finished, and UnknownNameError if one of its rules no longer exists.
    """
    if run.state not in states_before(Run.State.RUNNING):
        raise UsageError(
            f"Run {run} is {run.state}; there is nothing to resume. What is left is for a new repair."
        )
    undoes = run.kind == Run.Kind.UNDO
    for outcome in _outcomes(run, using).exclude(state=Outcome.State.DONE):
        # An undo needs the journal alone, and no rule.
        if outcome.rule not in rules and not undoes:
            raise unknown_rule(outcome.rule, rules)
    run = _take_over(run, using)
    log.info("run_resumed", run=str(run.pk), database=using)
    if undoes:
        return advance_undo(run, using=using, progress=progress)
    return _advance(run, rules, using=using, progress=progress)


def _take_over(run: Run, using: str) -> Run:
    """Give the run a new token, which fences out any earlier worker, and a new clock, since it may have waited for days."""
    now = _read_clock(using)
    began: dict[str, Any] = {
        "token": uuid.uuid4(),
        "now": now,
        "heartbeat": now,
        "finished_at": None,
        "why_stopped": "",
    }
    own = Run._base_manager.using(using).filter(pk=run.pk)
    try:
        with transaction.atomic(using=using):
            taken = transition(own, Run.State.RUNNING, night=_night_of(run.kind), **began)
    except IntegrityError:
        raise UsageError(
            f"Another nightly run goes on. Resume {run} when it has ended; see: reconcile runs"
        ) from None
    if not taken:
        raise UsageError(f"Run {run} has just been ended by others; see: reconcile runs {run}")
    return own.get()


def _begin(
    kind: Run.Kind,
    rules: Rules,
    *,
    using: str,
    may_repair: set[str],
    caps: Caps | None = None,
    kept_plan: PlanFile | None = None,
    only: Only | None = None,
    delivery: str = "",
) -> Run:
    now, given = _read_clock(using), caps or Caps()
    run = Run(kind=kind, now=now, started_at=now, heartbeat=now, night=_night_of(kind), delivery=delivery)
    outcomes = [
        Outcome(
            run=run,
            rule=rule.name,
            position=position,
            may_repair=rule.name in may_repair,
            max_repairs=_limit_text(given.max_repairs),
            max_deletes=_limit_text(given.max_deletes),
            kept_plan=_plan_of(kept_plan, rule.name),
            only=(only or {}).get(rule.name),
        )
        for position, rule in enumerate(sort_rules(rules, using=using, now=now).rules)
    ]
    try:
        with transaction.atomic(using=using):
            run.save(using=using)
            Outcome._base_manager.using(using).bulk_create(outcomes)
    except IntegrityError as error:
        if not run.night:
            raise
        raise LeaseHeldError("Another nightly run has begun at this moment.") from error
    log.info("run_started", run=str(run.pk), kind=str(kind), rules=len(rules), database=using)
    return run


def _night_of(kind: str) -> str | None:
    return NIGHT if kind == Run.Kind.NIGHTLY else None


def _read_clock(using: str) -> datetime:
    """The database's time; logs by how much this host's differs, if by more than a little."""
    if skew := clock_skew(using):
        log.warning("clock_differs", database=using, why=skew)
    return database_now(using)


def _limit_text(limit: int | str | None) -> str:
    return "" if limit is None else str(limit)


def _plan_of(kept_plan: PlanFile | None, rule: str) -> dict[str, Any]:
    return {} if kept_plan is None else {**kept_plan.rules[rule].as_dict(), "file": kept_plan.file}


def _outcomes(run: Run, using: str) -> QuerySet[Outcome]:
    return Outcome._base_manager.using(using).filter(run=run).order_by("position")


def _advance(run: Run, rules: Rules, *, using: str, progress: Progress | None = None) -> list[RuleRepair]:
    """Repair the rules of the run in order. A rule that is done already is only reported."""
    results: dict[str, RuleRepair] = {}

    def advance_rule(outcome: Outcome) -> None:
        with evaluation_errors(using), dialect_of(using).examine():
            # Another worker may have repaired it meanwhile; this worker finds out here.
            outcome.refresh_from_db(using=using)
            result = run_rule(
                outcome, rules[outcome.rule], run, using=using, progress=progress or (lambda *_: None)
            )
        log.info("rule_done", run=str(run.pk), rule=result.rule, status=str(result.status), left=result.left)
        results[result.rule] = result

    with end_run(run, using=using), beats(run, using=using):
        own = {
            outcome.rule: rules[outcome.rule] for outcome in _outcomes(run, using) if outcome.rule in rules
        }
        circles = sort_rules(own, using=using, now=run.now).circles
        for outcome in _outcomes(run, using):
            if outcome.state == Outcome.State.DONE:
                results[outcome.rule] = result_of(outcome, run)
            else:
                advance_rule(outcome)
            for circle in circles:
                if outcome.rule in circle and {*circle} <= {*results}:
                    _repeat_circle(circle, run, rules, results, using=using, advance_rule=advance_rule)
    log.info("run_finished", run=str(run.pk), written=sum(each.written.total for each in results.values()))
    return list(results.values())


def _repeat_circle(
    circle: Sequence[str],
    run: Run,
    rules: Rules,
    results: dict[str, RuleRepair],
    *,
    using: str,
    advance_rule: Callable[[Outcome], None],
) -> None:
    with evaluation_errors(using):
        repeat_circle(circle, run, rules, using=using, take=advance_rule)
        for result in results_of(_outcomes(run, using).filter(rule__in=circle), run):
            results[result.rule] = result
