"""What became of one rule in a repair or in its preview, as a value for the reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from reconcile.drift import Drift, Sample, Status, Tally, Written
from reconcile.fingerprints import fingerprint
from reconcile.models import Outcome
from reconcile.planning import RulePlan
from reconcile.rules import Rule

__all__ = ["Progress", "RuleRepair", "planned_only", "recorded", "reported", "written"]

Progress = Callable[[str, int], None]
"""Told a rule's name and how many keys were done."""


@dataclass(frozen=True, kw_only=True)
class RuleRepair:
    """One rule's part in a repair.

    found: drifted rows by kind, before the repair. left: rows that had still drifted when it was verified, of the
    kinds that a remedy writes for. skipped: keys that others held to the end, or that failed. held: another run
    was repairing the rule. incomplete: the repair was asked for and did not do all of it.
    reported: drifted rows, by kind, that the rule leaves to people. again: drifted records that an earlier run had repaired
    already. refused: the first records that were set aside, each with its key and why. warning: what people should
    look at, in words. fingerprint: the rule's, in a preview.
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
    reported: dict[Drift, int] = field(default_factory=dict)
    held: bool = False
    incomplete: bool = False
    seconds: float = 0
    again: int = 0
    refused: Sequence[Mapping[str, str]] = ()
    warning: str = ""
    fingerprint: str = ""


def planned_only(
    made: RulePlan, *, using: str, why_stopped: str = "", again: int = 0, warning: str = ""
) -> RuleRepair:
    """The result of a preview: nothing is written, and the guards that would stop the repair have spoken."""
    why = why_stopped or made.why_stopped
    return RuleRepair(
        rule=made.rule.name,
        status=made.check.status,
        found=dict(made.check.tally.drifted),
        planned=made.planned,
        written=Written(),
        samples=made.check.samples,
        left=made.planned.total,
        why_stopped=why,
        error=made.check.error,
        reported=reported(made.rule, made.check.tally),
        incomplete=bool(why),
        seconds=made.check.seconds,
        again=again,
        warning=warning,
        fingerprint=fingerprint(made.rule, using),
    )


def reported(rule: Rule, tally: Tally) -> dict[Drift, int]:
    """The drifted rows for which the rule has no remedy that writes."""
    return {
        drift: number for drift, number in tally.drifted.items() if number and not rule.remedy(drift).verb
    }


def written(outcome: Outcome) -> Written:
    """What the run has written for the rule so far."""
    return Written(**{verb: getattr(outcome, column) for verb, column in Outcome.COUNTED.items()})


def recorded(outcome: Outcome, *, held: bool = False) -> RuleRepair:
    """The result of a rule as its outcome has it."""
    return RuleRepair(
        rule=outcome.rule,
        status=Status(outcome.status),
        found={Drift.MISSING: outcome.missing, Drift.STALE: outcome.stale, Drift.EXTRA: outcome.extra},
        planned=Written(**outcome.planned),
        written=written(outcome),
        samples=tuple(Sample(Drift(each["drift"]), each["key"]) for each in outcome.samples),
        left=outcome.left,
        skipped=outcome.skipped,
        why_stopped=outcome.why_stopped,
        error=outcome.error or None,
        reported={Drift(drift): number for drift, number in outcome.reported.items()},
        held=held,
        incomplete=outcome.may_repair and bool(outcome.left or outcome.why_stopped),
        seconds=outcome.seconds,
        again=outcome.again,
        refused=outcome.refused,
        warning=outcome.warning,
    )
