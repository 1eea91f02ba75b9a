"""What became of one rule in a repair or in its preview, as a value for the reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reconcile.drift import Drift, Sample, Status, Written
from reconcile.models import Outcome
from reconcile.planning import RulePlan

__all__ = ["Progress", "RuleRepair", "planned_only", "recorded"]

Progress = Callable[[str, int], None]
"""Told a rule's name and how many keys were done."""


@dataclass(frozen=True, kw_only=True)
class RuleRepair:
    """One rule's part in a repair.

    found: drifted rows by kind, before the repair. left: rows that had still drifted when it was verified, of the
    kinds that a remedy writes for. skipped: keys that others held to the end, or that failed. held: another run
    was repairing the rule. incomplete: the repair was asked for and did not do all of it.
    """

    rule: str
    status: Status
    found: dict[Drift, int]
    planned: Written
    written: Written
    samples: tuple[Sample, ...] = ()
    left: int = 0
    skipped: int = 0
    why_stopped: str = ""
    error: str | None = None
    held: bool = False
    incomplete: bool = False
    seconds: float = 0


def planned_only(made: RulePlan) -> RuleRepair:
    """The result of a preview: nothing is written, and a guard that would stop the repair has spoken."""
    return RuleRepair(
        rule=made.rule.name,
        status=made.check.status,
        found=dict(made.check.tally.drifted),
        planned=made.planned,
        written=Written(),
        samples=made.check.samples,
        left=made.planned.total,
        why_stopped=made.why_stopped,
        error=made.check.error,
        incomplete=bool(made.why_stopped),
        seconds=made.check.seconds,
    )


def recorded(outcome: Outcome, *, held: bool = False) -> RuleRepair:
    """The result of a rule as its outcome has it."""
    return RuleRepair(
        rule=outcome.rule,
        status=Status(outcome.status),
        found={Drift.MISSING: outcome.missing, Drift.STALE: outcome.stale, Drift.EXTRA: outcome.extra},
        planned=Written(**outcome.planned),
        written=Written(insert=outcome.inserted, update=outcome.updated),
        samples=tuple(Sample(Drift(each["drift"]), each["key"]) for each in outcome.samples),
        left=outcome.left,
        skipped=outcome.skipped,
        why_stopped=outcome.why_stopped,
        error=outcome.error or None,
        held=held,
        incomplete=outcome.may_repair and bool(outcome.left or outcome.why_stopped),
        seconds=outcome.seconds,
    )
