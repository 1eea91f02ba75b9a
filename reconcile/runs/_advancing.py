"""Runs as a whole: begun, advanced rule by rule, resumed."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from reconcile.agreeing import deletes
from reconcile.checking import check, evaluated
from reconcile.drift import Drift, Status
from reconcile.errors import UnknownNameError, UsageError
from reconcile.fingerprints import fingerprint
from reconcile.graph import in_order
from reconcile.models import Outcome, Run
from reconcile.planning import Caps, plan
from reconcile.plans import KeptPlan
from reconcile.recurring import has_history
from reconcile.registry import select, valid_rules
from reconcile.rules import Rule
from reconcile.runs._circles import settle
from reconcile.runs._ending import ending
from reconcile.runs._guards import again_in_words, recurrent, too_risky, waiting_in_words
from reconcile.runs._results import Progress, RuleRepair, planned_only, recorded
from reconcile.runs._rule import take
from reconcile.runs._undoing import advance_undo
from reconcile.sharding import KEEP

__all__ = ["find", "nightly", "preview", "repair", "resume"]

log = structlog.get_logger()

Rules = Mapping[str, Rule]

_RESUMABLE = (Run.State.RUNNING, Run.State.STOPPED, Run.State.PAUSING, Run.State.PAUSED)


def preview(
    rules: Rules,
    *,
    using: str,
    now: datetime,
    caps: Caps | None = None,
    kept_plan: KeptPlan | None = None,
    samples: int = 5,
) -> list[RuleRepair]:
    """What `repair` would do, with every guard; nothing is written, not even a run."""
    with evaluated(using):
        ordered = in_order(rules, using=using, now=now).rules
        return [
            _previewed(rule, using=using, now=now, caps=caps, kept_plan=kept_plan, samples=samples)
            for rule in ordered
        ]


def _previewed(
    rule: Rule, *, using: str, now: datetime, caps: Caps | None, kept_plan: KeptPlan | None, samples: int
) -> RuleRepair:
    deleting = any(deletes(rule.remedy(drift)) for drift in Drift)
    keep = KEEP if deleting or has_history(rule, using=using, now=now) else 0
    made = plan(check(rule, using=using, now=now, samples=samples, keep=keep), caps)
    if made.check.status is Status.ERROR:
        return planned_only(made, using=using)
    again = recurrent(made, run=None, now=now, using=using)
    warning = " ".join(filter(None, (again_in_words(again), waiting_in_words(made, using=using))))
    why = ""
    if kept_plan is not None and made.planned.total:
        why = kept_plan.rules[rule.name].refusal(
            rule.name, fingerprint(rule, using), made.planned, kept_plan.file
        )
    return planned_only(made, using=using, why_stopped=why, again=len(again), warning=warning)


def repair(
    rules: Rules,
    *,
    using: str,
    caps: Caps | None = None,
    kept_plan: KeptPlan | None = None,
    progress: Progress | None = None,
) -> tuple[Run | None, list[RuleRepair]]:
    """Check, repair and verify the rules as a new run. Raises EvaluationError where no run can be begun.

    With a plan, only what it has is written: where a rule was edited or drifts more than it says, nothing is written for
    any rule, and there is no run.
    """
    if kept_plan is not None:
        planned = preview(rules, using=using, now=timezone.now(), caps=caps, kept_plan=kept_plan)
        if any(each.why_stopped or each.error for each in planned):
            return None, planned
    with evaluated(using):
        run = _begin(
            Run.Kind.REPAIR, rules, using=using, may_repair=set(rules), caps=caps, kept_plan=kept_plan
        )
    return run, _advance(run, rules, using=using, progress=progress)


def nightly(*, using: str = "default") -> tuple[Run, list[RuleRepair]]:
    """Check all rules, and repair those that are `unattended` and safe enough; leaves a Run with an Outcome a rule.

    Raises UsageError where the rules can't be used, and EvaluationError where no run can be begun. What goes
    wrong with a single rule is in its outcome and keeps no other rule from being checked.
    """
    rules = select(valid_rules(), using=using)
    may_repair = {name for name, rule in rules.items() if rule.unattended and not too_risky(rule, using)}
    with evaluated(using):
        run = _begin(Run.Kind.NIGHTLY, rules, using=using, may_repair=may_repair)
    return run, _advance(run, rules, using=using)


def find(prefix: str, *, using: str) -> Run:
    """The run whose id begins with `prefix`. Raises UnknownNameError where there is none, or more than one."""
    with evaluated(using):
        known = [str(key) for key in Run._base_manager.using(using).values_list("pk", flat=True)]
    matching = [key for key in known if key.startswith(prefix.lower())]
    if not prefix or len(matching) != 1:
        hint = (
            " Several begin so; give more of it." if matching and prefix else " `reconcile runs` lists them."
        )
        raise UnknownNameError("run", prefix, () if matching else [key[:8] for key in known], instead=hint)
    return Run._base_manager.using(using).get(pk=matching[0])


def resume(run: Run, rules: Rules, *, using: str, progress: Progress | None = None) -> list[RuleRepair]:
    """Go on with a run that was stopped or killed, where it was; a worker that still lives is fenced out.

    Raises UsageError where the run is finished, and UnknownNameError where one of its rules no longer exists.
    """
    if run.state not in _RESUMABLE:
        raise UsageError(
            f"Run {run} is {run.state}; there is nothing to resume. What is left is for a new repair."
        )
    undoes = run.kind == Run.Kind.UNDO
    for outcome in _outcomes(run, using).exclude(state=Outcome.State.DONE):
        # An undo is told by the journal alone.
        if outcome.rule not in rules and not undoes:
            raise UnknownNameError("rule", outcome.rule, rules)
    run = _taken_over(run, using)
    log.info("run_resumed", run=str(run.pk), database=using)
    if undoes:
        return advance_undo(run, using=using, progress=progress)
    return _advance(run, rules, using=using, progress=progress)


def _taken_over(run: Run, using: str) -> Run:
    """The run under a new token, and with a new clock: it may have rested for days. Any earlier worker is fenced out."""
    now = timezone.now()
    began = {"token": uuid.uuid4(), "now": now, "heartbeat": now, "finished_at": None, "why_stopped": ""}
    own = Run._base_manager.using(using).filter(pk=run.pk)
    if not own.filter(state__in=_RESUMABLE).update(state=Run.State.RUNNING, **began):
        raise UsageError(f"Run {run} has just been ended by others; see: reconcile runs {run}")
    return own.get()


def _begin(
    kind: Run.Kind,
    rules: Rules,
    *,
    using: str,
    may_repair: set[str],
    caps: Caps | None = None,
    kept_plan: KeptPlan | None = None,
) -> Run:
    now, given = timezone.now(), caps or Caps()
    run = Run(kind=kind, now=now)
    outcomes = [
        Outcome(
            run=run,
            rule=rule.name,
            position=position,
            may_repair=rule.name in may_repair,
            max_repairs=_told(given.max_repairs),
            max_deletes=_told(given.max_deletes),
            kept_plan=_kept(kept_plan, rule.name),
        )
        for position, rule in enumerate(in_order(rules, using=using, now=now).rules)
    ]
    with transaction.atomic(using=using):
        run.save(using=using)
        Outcome._base_manager.using(using).bulk_create(outcomes)
    log.info("run_started", run=str(run.pk), kind=str(kind), rules=len(rules), database=using)
    return run


def _told(limit: int | str | None) -> str:
    return "" if limit is None else str(limit)


def _kept(kept_plan: KeptPlan | None, rule: str) -> dict[str, Any]:
    return {} if kept_plan is None else {**kept_plan.rules[rule].as_dict(), "file": kept_plan.file}


def _outcomes(run: Run, using: str) -> QuerySet[Outcome]:
    return Outcome._base_manager.using(using).filter(run=run).order_by("position")


def _advance(run: Run, rules: Rules, *, using: str, progress: Progress | None = None) -> list[RuleRepair]:
    """Take the run's rules in order; those that have an outcome already are only reported."""
    results: dict[str, RuleRepair] = {}

    def took(outcome: Outcome) -> None:
        with evaluated(using):
            # As it is now: another worker may have taken it further, and this one finds out here.
            outcome.refresh_from_db(using=using)
            result = take(
                outcome, rules[outcome.rule], run, using=using, progress=progress or (lambda *_: None)
            )
        log.info("rule_done", run=str(run.pk), rule=result.rule, status=str(result.status), left=result.left)
        results[result.rule] = result

    with ending(run, using=using):
        own = {
            outcome.rule: rules[outcome.rule] for outcome in _outcomes(run, using) if outcome.rule in rules
        }
        circles = in_order(own, using=using, now=run.now).circles
        for outcome in _outcomes(run, using):
            if outcome.state == Outcome.State.DONE:
                results[outcome.rule] = recorded(outcome)
            else:
                took(outcome)
            for circle in circles:
                if outcome.rule in circle and {*circle} <= {*results}:
                    _settle(circle, run, rules, results, using=using, took=took)
    log.info("run_finished", run=str(run.pk), written=sum(each.written.total for each in results.values()))
    return list(results.values())


def _settle(
    circle: Sequence[str],
    run: Run,
    rules: Rules,
    results: dict[str, RuleRepair],
    *,
    using: str,
    took: Callable[[Outcome], None],
) -> None:
    with evaluated(using):
        settle(circle, run, rules, using=using, take=took)
        for outcome in _outcomes(run, using).filter(rule__in=circle):
            results[outcome.rule] = recorded(outcome, held=results[outcome.rule].held)
