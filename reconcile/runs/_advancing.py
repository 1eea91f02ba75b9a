"""Runs as a whole: begun, advanced rule by rule, resumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import structlog
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from reconcile.checking import check, evaluated
from reconcile.errors import StoppedError, TakenOverError, UnknownNameError, UsageError
from reconcile.graph import in_order
from reconcile.models import Outcome, Run
from reconcile.planning import plan
from reconcile.registry import select, valid_rules
from reconcile.rules import Rule
from reconcile.runs._circles import settle
from reconcile.runs._results import Progress, RuleRepair, planned_only, recorded
from reconcile.runs._rule import take, too_risky

__all__ = ["find", "nightly", "preview", "repair", "resume"]

log = structlog.get_logger()

Rules = Mapping[str, Rule]


def preview(
    rules: Rules, *, using: str, now: datetime, max_repairs: int | str | None = None, samples: int = 5
) -> list[RuleRepair]:
    """What `repair` would do, with every guard; nothing is written, not even a run."""
    with evaluated(using):
        ordered = in_order(rules, using=using, now=now).rules
    checks = (check(rule, using=using, now=now, samples=samples) for rule in ordered)
    return [planned_only(plan(found, max_repairs=max_repairs)) for found in checks]


def repair(
    rules: Rules, *, using: str, max_repairs: int | str | None = None, progress: Progress | None = None
) -> tuple[Run, list[RuleRepair]]:
    """Check, repair and verify the rules as a new run. Raises EvaluationError where no run can be begun."""
    with evaluated(using):
        run = _begin(Run.Kind.REPAIR, rules, using=using, may_repair=set(rules), max_repairs=max_repairs)
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
    if run.state == Run.State.FINISHED:
        raise UsageError(
            f"Run {run} is finished; there is nothing to resume. What is left is for a new repair."
        )
    for outcome in _outcomes(run, using).exclude(state=Outcome.State.DONE):
        if outcome.rule not in rules:
            raise UnknownNameError("rule", outcome.rule, rules)
    Run._base_manager.using(using).filter(pk=run.pk).update(state=Run.State.RUNNING, why_stopped="")
    log.info("run_resumed", run=str(run.pk), database=using)
    return _advance(run, rules, using=using, progress=progress)


def _begin(
    kind: Run.Kind, rules: Rules, *, using: str, may_repair: set[str], max_repairs: int | str | None = None
) -> Run:
    now = timezone.now()
    run = Run(kind=kind, now=now)
    outcomes = [
        Outcome(
            run=run,
            rule=rule.name,
            position=position,
            may_repair=rule.name in may_repair,
            max_repairs="" if max_repairs is None else str(max_repairs),
        )
        for position, rule in enumerate(in_order(rules, using=using, now=now).rules)
    ]
    with transaction.atomic(using=using):
        run.save(using=using)
        Outcome._base_manager.using(using).bulk_create(outcomes)
    log.info("run_started", run=str(run.pk), kind=str(kind), rules=len(rules), database=using)
    return run


def _outcomes(run: Run, using: str) -> QuerySet[Outcome]:
    return Outcome._base_manager.using(using).filter(run=run).order_by("position")


def _advance(run: Run, rules: Rules, *, using: str, progress: Progress | None = None) -> list[RuleRepair]:
    """Take the run's rules in order; those that have an outcome already are only reported."""
    results: dict[str, RuleRepair] = {}

    def took(outcome: Outcome) -> None:
        with evaluated(using):
            result = take(
                outcome, rules[outcome.rule], run, using=using, progress=progress or (lambda *_: None)
            )
        log.info("rule_done", run=str(run.pk), rule=result.rule, status=str(result.status), left=result.left)
        results[result.rule] = result

    try:
        circles = in_order(rules, using=using, now=run.now).circles
        for outcome in _outcomes(run, using):
            if outcome.state == Outcome.State.DONE:
                results[outcome.rule] = recorded(outcome)
            else:
                took(outcome)
            for circle in circles:
                if outcome.rule in circle and {*circle} <= {*results}:
                    _settle(circle, run, rules, results, using=using, took=took)
    except TakenOverError:
        # The run goes on in another worker's hands; what becomes of it is that one's to say.
        raise
    except KeyboardInterrupt:
        _stop(run, using, "Somebody interrupted it.")
        raise StoppedError(f"Interrupted. Go on with: reconcile resume {run}") from None
    except BaseException as error:
        _stop(run, using, str(error) or type(error).__name__)
        raise
    _finish(run, using)
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


def _finish(run: Run, using: str) -> None:
    """Note the end of the run; it is only stopped where an error has left a rule open."""
    open_rules = _outcomes(run, using).exclude(state=Outcome.State.DONE).values_list("rule", flat=True)
    state = Run.State.STOPPED if open_rules else Run.State.FINISHED
    why = f"Not finished: {', '.join(open_rules)}. Resuming the run goes on with that." if open_rules else ""
    ended = {"state": state, "finished_at": timezone.now(), "why_stopped": why}
    Run._base_manager.using(using).filter(pk=run.pk, state=Run.State.RUNNING).update(**ended)


def _stop(run: Run, using: str, why: str) -> None:
    """Note why the run ended before its end, where the database still answers."""
    log.error("run_stopped", run=str(run.pk), why=why)
    try:
        _outcomes(run, using).update(held=None)
        stopped = {"state": Run.State.STOPPED, "finished_at": timezone.now(), "why_stopped": why}
        Run._base_manager.using(using).filter(pk=run.pk, state=Run.State.RUNNING).update(**stopped)
    except Exception as error:  # noqa: BLE001 - the first error is the one that is raised
        log.error("run_not_recorded", run=str(run.pk), error=str(error))
