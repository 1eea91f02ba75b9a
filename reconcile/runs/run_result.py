"""The result of a run: what became of each of its rules, in one word each, with what was found, written and left.

One function makes it from what is stored, and everything that speaks of a run shows it: the task, the command line, JSON, the exit code.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconcile.conf import Alarm, alarm
from reconcile.core.drift import Status
from reconcile.core.verbs import Written
from reconcile.errors import NightIncomplete
from reconcile.models import Outcome, Run
from reconcile.runs.results import Result, result_word, written_by_outcome
from reconcile.runs.steering import has_live_worker

__all__ = [
    "RuleResult",
    "RunResult",
    "raise_alarm",
    "run_result",
    "run_results",
]


_BROKEN = frozenset({Result.ERROR, Result.UNVERIFIED, Result.FAILED, Result.HELD, Result.OPEN})
_ALARMING: Mapping[Alarm, frozenset[Status]] = {
    Alarm.ERROR: frozenset(),
    Alarm.FAIL: frozenset({Status.FAIL}),
    Alarm.WARN: frozenset({Status.FAIL, Status.WARN}),
}


@dataclass(frozen=True, kw_only=True)
class RuleResult:
    """What became of one rule. found, left: drifted rows before and after, of all kinds; None if they could not be counted.

    outcome, by_verb: what is stored of it, for those who tell more.
    """

    rule: str
    result: Result
    status: Status | None
    found: int | None
    written: int
    left: int | None
    why: str
    outcome: Outcome
    by_verb: Written

    def in_words(self) -> str:
        """`reported, 12 left`."""
        left = "" if not self.left else f", {self.left:,} left"
        return f"{self.result}{left}"

    def alarms(self, alarm: Alarm) -> bool:
        """Whether this is worth waking somebody for."""
        if alarm is Alarm.NEVER:
            return False
        return self.result in _BROKEN or self.status in _ALARMING[alarm]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What became of a run; the worst rules come first. The sums are None if a rule's number is not known.

    alive: whether a worker is at work on it, as far as the heartbeat shows.
    """

    run: str
    kind: str
    state: str
    database: str
    rules: Sequence[RuleResult]
    alive: bool = False

    @property
    def result(self) -> Result:
        """The worst of the rules' results; clean without any rule."""
        return min((each.result for each in self.rules), key=_RANKS.__getitem__, default=Result.CLEAN)

    @property
    def is_empty(self) -> bool:
        """Whether no rule found any record to look at."""
        return bool(self.rules) and all(each.result is Result.SKIPPED for each in self.rules)

    @property
    def counts(self) -> Mapping[Result, int]:
        """How many rules have each result, the worst first."""
        found = [each.result for each in self.rules]
        return {result: found.count(result) for result in Result if result in found}

    @property
    def written(self) -> int:
        """Rows written."""
        return sum(each.written for each in self.rules)

    @property
    def found(self) -> int | None:
        """Drifted rows before."""
        return _sum([each.found for each in self.rules])

    @property
    def left(self) -> int | None:
        """Drifted rows after."""
        return _sum([each.left for each in self.rules])

    def alarming(self, alarm: Alarm) -> Sequence[RuleResult]:
        """The rules that are worth waking somebody for."""
        return [each for each in self.rules if each.alarms(alarm)]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as the task returns them."""
        return {
            "run": self.run,
            "kind": self.kind,
            "state": self.state,
            "database": self.database,
            "result": str(self.result),
            "found": self.found,
            "written": self.written,
            "left": self.left,
            "rules": [
                {
                    "rule": each.rule, "result": str(each.result), "status": each.status and str(each.status),
                    "found": each.found, "written": each.written, "left": each.left, "why": each.why or None,
                }
                for each in self.rules
            ],
        }  # fmt: skip


NAMED = 5
"""Rules that the message of an alarm names."""


def raise_alarm(result: RunResult, *, allow_empty: bool = False) -> None:
    """Raise NightIncomplete if any rule is as bad as `RECONCILE["ALARM"]` says, or if no record was there and there must be some.

    Not for a run that goes on: its own worker will.
    """
    if result.state in Run.ACTIVE or alarm() is Alarm.NEVER:
        return
    if result.is_empty and not allow_empty:
        message = f"Run {result.run} has judged no record on {result.database!r}, so nothing is known: there is none, or all are too young. If that may be: allow_empty=True."
        raise NightIncomplete(message, result.as_dict())
    alarming = result.alarming(alarm())
    if alarming or result.state != Run.State.FINISHED:
        named = "; ".join(f"{each.rule}: {each.in_words()}" for each in alarming[:NAMED])
        more = f"; and {len(alarming) - NAMED:,} more" if len(alarming) > NAMED else ""
        message = f"Run {result.run} is {result.state}. {named}{more}. See: reconcile runs {result.run[:8]}"
        raise NightIncomplete(message, result.as_dict())


_RANKS = {result: place for place, result in enumerate(Result)}


def run_result(run: Run, *, using: str) -> RunResult:
    """What became of the run so far. Three statements."""
    (result,) = run_results([Run._base_manager.using(using).get(pk=run.pk)], using=using)
    return result


def run_results(runs: Sequence[Run], *, using: str) -> Sequence[RunResult]:
    """What became of each of the runs. Two statements, and two more for each that is active: its worker may be dead."""
    stored = Outcome._base_manager.using(using).filter(run__in=[run.pk for run in runs])
    outcomes = list(stored.order_by("position"))
    written = written_by_outcome(outcomes)
    of_run: defaultdict[Any, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        of_run[outcome.run_id].append(outcome)
    return [_run_result(run, of_run[run.pk], written, using) for run in runs]


def _run_result(
    run: Run, outcomes: Sequence[Outcome], written: Mapping[int, Written], using: str
) -> RunResult:
    alive = run.state in Run.ACTIVE and has_live_worker(run, using=using)
    rules = [_rule_result(run, outcome, written[outcome.pk], alive=alive) for outcome in outcomes]
    return RunResult(
        run=str(run.pk),
        kind=run.kind,
        state=run.state,
        database=using,
        rules=sorted(rules, key=lambda each: _RANKS[each.result]),
        alive=alive,
    )


def _rule_result(run: Run, outcome: Outcome, written: Written, *, alive: bool) -> RuleResult:
    result = result_word(run, outcome, written, alive=alive)
    known = bool(outcome.status) and result is not Result.ERROR
    return RuleResult(
        rule=outcome.rule,
        result=result,
        status=Status(outcome.status) if outcome.status else None,
        found=outcome.missing + outcome.stale + outcome.extra if known else None,
        written=written.total,
        left=outcome.left,
        why=outcome.error or outcome.why_stopped,
        outcome=outcome,
        by_verb=written,
    )


def _sum(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None
