"""Rules that write what each other reads: repaired round after round until a round finds nothing more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from django.db import transaction

from reconcile.checking import RuleCheck, check
from reconcile.models import Outcome, Run, Shard
from reconcile.rules import Rule
from reconcile.runs._results import written
from reconcile.runs._steering import Obeying

__all__ = ["ROUNDS", "settle"]

log = structlog.get_logger()

ROUNDS = 10
"""Most rounds after the first; rules that agree with each other need one or two."""

Take = Callable[[Outcome], object]


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """One rule of the circle, as its outcome has it and as it is now."""

    outcome: Outcome
    found: RuleCheck
    open: bool

    @property
    def drifts(self) -> bool:
        """Whether the rule is to be taken again; what can't be evaluated any more is, too, so that its outcome says so."""
        return self.open and (self.found.error is not None or self.found.planned.total > 0)

    @property
    def quarrels(self) -> bool:
        """Whether more drifts than what failed, or was held, when the rule was taken last."""
        return self.drifts and self.found.planned.total > self.outcome.skipped


def settle(circle: Sequence[str], run: Run, rules: Mapping[str, Rule], *, using: str, take: Take) -> None:
    """Take the rules of a circle again until none of them finds what another has written wrong.

    Each is asked all its guards again. Where they still write after ROUNDS rounds, their outcomes say so and name the
    circle. What is left is noted as it is in the end. A round costs a check of each rule, and a repair of those that drift.
    Raises TakenOverError where the run is another worker's by then.
    """
    obey = Obeying(run, using=using)
    for number in range(ROUNDS + 1):
        seen = [_looked(each, rules, run, using) for each in _outcomes(circle, run, using)]
        drifting = [each for each in seen if each.drifts]
        if not drifting or number == ROUNDS:
            obey.owned()
            _note_left(seen, using)
            _give_up(circle, [each.outcome for each in drifting if each.quarrels], using)
            return
        before = _written(circle, run, using)
        log.info(
            "circle_repaired_again",
            run=str(run.pk),
            rules=[each.outcome.rule for each in drifting],
            round=number + 1,
        )
        for each in drifting:
            _reopen(each.outcome, using)
            take(each.outcome)
        if _written(circle, run, using) == before:
            # What is left fails or is held; another round would not change that.
            obey.owned()
            _note_left([each for each in seen if not each.drifts], using)
            return


def _outcomes(circle: Sequence[str], run: Run, using: str) -> Sequence[Outcome]:
    outcomes = Outcome._base_manager.using(using).filter(run=run, rule__in=circle)
    return list(outcomes.order_by("position"))


def _looked(outcome: Outcome, rules: Mapping[str, Rule], run: Run, using: str) -> _Seen:
    found = check(rules[outcome.rule], using=using, now=run.now, samples=0)
    return _Seen(outcome=outcome, found=found, open=_is_open(outcome, using))


def _is_open(outcome: Outcome, using: str) -> bool:
    """Whether the rule may be taken again: not one that a guard has refused, that was given up, or whose tasks are to run."""
    if not outcome.may_repair or outcome.error:
        return False
    return not outcome.why_stopped or (_went_through(outcome, using) and not outcome.enqueued)


def _went_through(outcome: Outcome, using: str) -> bool:
    """Whether the rule was repaired to the end, be it that single records were left."""
    states = Shard._base_manager.using(using).filter(outcome=outcome).values_list("state", flat=True)
    return {*states} == {Shard.State.DONE}


def _written(circle: Sequence[str], run: Run, using: str) -> int:
    return sum(written(each).total for each in _outcomes(circle, run, using))


def _reopen(outcome: Outcome, using: str) -> None:
    """Done -> waiting occurs when another rule of the circle has written what this one reads.

    Its guards are asked again: what it was allowed to repair isn't what drifts now.
    """
    with transaction.atomic(using=using):
        shards = Shard._base_manager.using(using).filter(outcome=outcome)
        shards.update(state=Shard.State.RUNNING, cursor=None, set_aside=0)
        outcome.state = Outcome.State.WAITING
        outcome.save(using=using, update_fields=["state"])


def _note_left(seen: Sequence[_Seen], using: str) -> None:
    """Others of the circle may have written since a rule was taken: count what it has left by what was seen last."""
    for each in seen:
        outcome, found = each.outcome, each.found
        if found.error is not None:
            continue
        outcome.left = sum(
            number for drift, number in found.tally.drifted.items() if found.rule.remedy(drift).verb
        )
        outcome.status = str(found.status)
        if not outcome.left and outcome.skipped and each.open:
            # What could not be repaired was mended by another rule.
            outcome.why_stopped, outcome.skipped, outcome.refused = "", 0, []
        outcome.save(using=using, update_fields=["left", "status", "why_stopped", "skipped", "refused"])


def _give_up(circle: Sequence[str], drifting: Sequence[Outcome], using: str) -> None:
    around = " → ".join([*circle, circle[0]])
    for outcome in drifting:
        outcome.why_stopped = (
            f"These rules write what each other reads, and after {ROUNDS} rounds they still do: {around}. One of them "
            "must give way: take the column that they share out of one."
        )
        outcome.save(using=using, update_fields=["why_stopped"])
        log.error("circle_given_up", rule=outcome.rule, circle=around)
