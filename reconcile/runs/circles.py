"""Circles: rules that write what each other reads are repaired in rounds, until a round finds no drift.

A rule that reads in other records what it writes is a circle of its own: each round may let the next records drift.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from django.db import transaction

from reconcile.core.verbs import INSERT
from reconcile.core.wording.names import plural
from reconcile.detect.checking import RuleCheck, check
from reconcile.models import Outcome, Run, WorkItem, transition
from reconcile.rules.order import makes_own_records
from reconcile.rules.rule import Rule
from reconcile.runs.results import add_warnings, mendable_rows, only_keys, reported_rows, written_rows
from reconcile.runs.steering import RunControl

__all__ = ["ROUNDS", "repeat_circle", "rounds_in_words"]

log = structlog.get_logger()

ROUNDS = 10
"""Most rounds of several rules after the first. Rules that don't contradict each other need one or two."""

STEPS = 100
"""Most rounds of a rule by itself after the first. Each goes one record further along a chain."""

FEW_ROWS = 100
"""Rows that a rule may make of its own, even if there were fewer records to begin with."""

Take = Callable[[Outcome], object]


@dataclass(frozen=True, kw_only=True)
class _RuleState:
    """One rule of the circle: its outcome so far, and what a check has found now."""

    outcome: Outcome
    found: RuleCheck
    open: bool

    @property
    def drifts(self) -> bool:
        """Whether the rule needs another round. A rule that can't be evaluated any more does, so that its outcome says so."""
        return self.open and (
            self.found.error is not None or self.found.planned_records.total > self.found.unrepairable
        )

    @property
    def still_conflicts(self) -> bool:
        """Whether more records drift than the last round had to skip: another rule writes against this one."""
        return self.drifts and self.found.planned_records.total > self.outcome.skipped

    @property
    def outgrows(self) -> bool:
        """Whether the rule makes its own records, and would make more of them than there were records to begin with."""
        if not makes_own_records(self.found.rule) or self.outcome.max_repairs or self.found.rule.max_repairs:
            return False
        made = written_rows(self.outcome).by(INSERT) + self.found.planned.by(INSERT)
        return self.found.planned.by(INSERT) > 0 and made > max(self.outcome.checked, FEW_ROWS)


def repeat_circle(
    circle: Sequence[str], run: Run, rules: Mapping[str, Rule], *, using: str, take: Take
) -> None:
    """Repair the rules of a circle again until none of them drifts.

    Each round asks all guards again. If the rules still write after the last round, their outcomes say so and name the
    circle. The outcomes record what is left in the end. A round costs a check of each rule and a repair of those that
    drift; nothing, if no rule has written. Raises LeaseLostError if the run belongs to another worker by then.
    """
    control = RunControl(run, using=using)
    rounds = ROUNDS if len(circle) > 1 else STEPS
    for number in range(rounds + 1):
        if not _rows_written(circle, run, using):
            return
        seen = [_check_rule(each, rules, run, using) for each in _outcomes(circle, run, using)]
        drifting = [each for each in seen if each.drifts]
        if not drifting or number == rounds or any(each.outgrows for each in drifting):
            control.read_state()
            _close(circle, seen, number, using)
            return
        before = _rows_written(circle, run, using)
        _repair_again(drifting, number + 1, using=using, take=take)
        if _rows_written(circle, run, using) == before:
            # What is left fails, or other sessions lock it; another round would not change that.
            control.read_state()
            _record_left([each for each in seen if not each.drifts], using)
            return


def _repair_again(drifting: Sequence[_RuleState], number: int, *, using: str, take: Take) -> None:
    log.info("circle_repaired_again", rules=[each.outcome.rule for each in drifting], round=number)
    for each in drifting:
        _reopen(each.outcome, using)
        take(each.outcome)


def _close(circle: Sequence[str], seen: Sequence[_RuleState], rounds: int, using: str) -> None:
    """Record what is left after so many rounds, and why."""
    growing = [each for each in seen if each.drifts and each.outgrows]
    conflicting = [each.outcome for each in seen if each.still_conflicts and each not in growing]
    _record_left(seen, using)
    _say_rounds(circle, [each.outcome for each in seen], rounds, using)
    _stop_growing(growing, using)
    _give_up(circle, conflicting, rounds, using)


def rounds_in_words(circle: Sequence[str], rule: Rule) -> str:
    """What a preview says of a rule of the circle: it counts the first round alone. Empty without a circle."""
    if not circle:
        return ""
    others = [f"'{name}'" for name in circle if name != rule.name]
    why = (
        f"It and {', '.join(others)} write what each other reads"
        if others
        else "It reads in other records what it writes"
    )
    grows = (
        f" It makes its own records, so the rounds end at as many rows as there are records, or {FEW_ROWS}, unless max_repairs= "
        "says another number."
    )
    more = grows if not others and makes_own_records(rule) and rule.max_repairs is None else ""
    return f"{why}, so a repair goes on in rounds, and this plan is of the first.{more}"


def _outcomes(circle: Sequence[str], run: Run, using: str) -> Sequence[Outcome]:
    outcomes = Outcome._base_manager.using(using).filter(run=run, rule__in=circle)
    return list(outcomes.order_by("position"))


def _check_rule(outcome: Outcome, rules: Mapping[str, Rule], run: Run, using: str) -> _RuleState:
    rule = rules[outcome.rule]
    found = check(rule, using=using, now=run.now, samples=0, only=only_keys(outcome, rule))
    return _RuleState(outcome=outcome, found=found, open=_is_open(outcome, using))


def _is_open(outcome: Outcome, using: str) -> bool:
    """Whether the rule may have another round: no guard has refused it, it was not given up, and no task is to run."""
    if not outcome.may_repair or outcome.error:
        return False
    return not outcome.why_stopped or (
        _was_repaired_to_the_end(outcome, using) and not written_rows(outcome).enqueued
    )


def _was_repaired_to_the_end(outcome: Outcome, using: str) -> bool:
    """Whether all work items are done, even if single records were left."""
    states = WorkItem._base_manager.using(using).filter(outcome=outcome).values_list("state", flat=True)
    return {*states} == {WorkItem.State.DONE}


def _rows_written(circle: Sequence[str], run: Run, using: str) -> int:
    return sum(written_rows(each).total for each in _outcomes(circle, run, using))


def _reopen(outcome: Outcome, using: str) -> None:
    """Done -> waiting occurs when another rule of the circle has written what this one reads.

    The guards are asked again, since other records drift now than those they have allowed.
    """
    with transaction.atomic(using=using):
        work_items = WorkItem._base_manager.using(using).filter(outcome=outcome)
        transition(work_items, WorkItem.State.RUNNING, cursor=None, quarantined=0)
        transition(Outcome._base_manager.using(using).filter(pk=outcome.pk), Outcome.State.WAITING)


def _record_left(seen: Sequence[_RuleState], using: str) -> None:
    """Record what is left by the last check: other rules of the circle may have written since the rule was repaired."""
    for each in seen:
        outcome, found = each.outcome, each.found
        if found.error is not None:
            continue
        outcome.left = found.tally.total
        outcome.reported = {
            str(drift): number for drift, number in reported_rows(found.rule, found.tally).items()
        }
        outcome.status = str(found.status)
        if not mendable_rows(outcome) and outcome.skipped and each.open:
            # Another rule has repaired what this one could not.
            outcome.why_stopped, outcome.skipped, outcome.refused = "", 0, []
        outcome.save(
            using=using, update_fields=["left", "reported", "status", "why_stopped", "skipped", "refused"]
        )


def _say_rounds(circle: Sequence[str], outcomes: Sequence[Outcome], rounds: int, using: str) -> None:
    """Say that one pass was not enough; a rule by itself is then likely to be slow."""
    if not rounds or len(circle) > 1:
        return
    for outcome in outcomes:
        said = f"It was repaired in {rounds + 1} rounds, since it reads in other records what it writes."
        add_warnings(outcome, said)
        outcome.save(using=using, update_fields=["warning"])


def _stop_growing(growing: Sequence[_RuleState], using: str) -> None:
    for each in growing:
        outcome, more = each.outcome, each.found.planned.by(INSERT)
        outcome.why_stopped = (
            f"It makes its own records: {plural(written_rows(outcome).insert, 'row')} inserted, and for these it would insert "
            f"{more:,} more. There were {outcome.checked:,} records to begin with. Take the rows that it makes out of every=, or "
            "give the rule a max_repairs= that says how many there may be."
        )
        outcome.save(using=using, update_fields=["why_stopped"])
        log.error("rule_feeds_itself", rule=outcome.rule)


def _give_up(circle: Sequence[str], drifting: Sequence[Outcome], rounds: int, using: str) -> None:
    around = " → ".join([*circle, circle[0]])
    alone = (
        f"It reads in other records what it writes, and after {rounds} rounds there are still such records. Repair again "
        "to go on; if that never ends, no record can be right before another."
    )
    together = (
        f"These rules write what each other reads, and after {rounds} rounds they still do: {around}. One of them "
        "must give way: take the column that they share out of one."
    )
    for outcome in drifting:
        outcome.why_stopped = together if len(circle) > 1 else alone
        outcome.save(using=using, update_fields=["why_stopped"])
        log.error("circle_given_up", rule=outcome.rule, circle=around)
