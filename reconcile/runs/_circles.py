"""Rules that write what each other reads: repaired round after round until a round finds nothing more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import structlog

from reconcile.checking import check
from reconcile.models import Outcome, Run, Shard
from reconcile.rules import Rule
from reconcile.runs._results import written

__all__ = ["ROUNDS", "settle"]

log = structlog.get_logger()

ROUNDS = 10
"""Most rounds after the first; rules that agree with each other need one or two."""

Take = Callable[[Outcome], object]


def settle(circle: Sequence[str], run: Run, rules: Mapping[str, Rule], *, using: str, take: Take) -> None:
    """Take the rules of a circle again until none of them finds what another has written wrong.

    Where they still write after ROUNDS rounds, their outcomes say so and name the circle. A round costs a check
    of each rule, and a repair of those that drift.
    """
    for number in range(ROUNDS + 1):
        outcomes = _open(circle, run, using)
        drifting = [each for each in outcomes if _drifts(rules[each.rule], run, using)]
        if not drifting:
            return
        if number == ROUNDS:
            _give_up(circle, drifting, using)
            return
        before = _written(circle, run, using)
        log.info(
            "circle_repaired_again", run=str(run.pk), rules=[each.rule for each in drifting], round=number + 1
        )
        for outcome in drifting:
            _reopen(outcome, using)
            take(outcome)
        if _written(circle, run, using) == before:
            # What is left fails or is held; another round would not change that.
            return


def _open(circle: Sequence[str], run: Run, using: str) -> Sequence[Outcome]:
    outcomes = Outcome._base_manager.using(using).filter(run=run, rule__in=circle, may_repair=True)
    return [each for each in outcomes.order_by("position") if not each.why_stopped and not each.error]


def _drifts(rule: Rule, run: Run, using: str) -> bool:
    found = check(rule, using=using, now=run.now, samples=0)
    # What can't be evaluated any more is taken again, too, so that its outcome says so.
    return found.error is not None or found.planned.total > 0


def _written(circle: Sequence[str], run: Run, using: str) -> int:
    outcomes = Outcome._base_manager.using(using).filter(run=run, rule__in=circle)
    return sum(written(each).total for each in outcomes)


def _reopen(outcome: Outcome, using: str) -> None:
    """Done -> repairing occurs when another rule of the circle has written what this one reads."""
    Shard._base_manager.using(using).filter(outcome=outcome).update(state=Shard.State.RUNNING, cursor=None)
    outcome.state = Outcome.State.REPAIRING
    outcome.save(using=using, update_fields=["state"])


def _give_up(circle: Sequence[str], drifting: Sequence[Outcome], using: str) -> None:
    around = " → ".join([*circle, circle[0]])
    for outcome in drifting:
        outcome.why_stopped = (
            f"These rules write what each other reads, and after {ROUNDS} rounds they still do: {around}. One of them "
            "must give way: take the column that they share out of one."
        )
        outcome.left = max(outcome.left, 1)
        outcome.save(using=using, update_fields=["why_stopped", "left"])
        log.error("circle_given_up", rule=outcome.rule, circle=around)
