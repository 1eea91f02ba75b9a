"""What all formats say of a whole check or repair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from reconcile.checking import RuleCheck
from reconcile.drift import Status

if TYPE_CHECKING:
    from reconcile.history import Past
    from reconcile.runs import RuleRepair

__all__ = ["CheckReport", "Overall", "RepairReport", "overall"]

Overall = Literal["clean", "warn", "drift", "error"]


def overall(statuses: Sequence[Status]) -> Overall:
    """The worst of the rules' statuses: a rule that could not be evaluated outranks drift."""
    if Status.ERROR in statuses:
        return "error"
    if Status.FAIL in statuses:
        return "drift"
    return "warn" if Status.WARN in statuses else "clean"


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """One check of several rules. `run` names this execution in the logs; a check is not persisted.

    at: when it began. fail_on: the least severity that fails the check. past: what earlier runs found, oldest first.
    origins: for a rule's name and a sample's key, the file and object that the record was loaded from, where known.
    """

    run: str
    database: str
    checks: Sequence[RuleCheck]
    seconds: float
    hint: str = ""
    """The command that shows what a repair would do; empty where there is nothing to repair."""
    at: datetime | None = None
    fail_on: Literal["warn", "error"] = "error"
    past: Mapping[str, Sequence[Past]] = field(default_factory=dict)
    origins: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def fails(self, check: RuleCheck) -> bool:
        """Whether the rule's drift is at or above the severity that fails the check."""
        return check.status is Status.FAIL or (check.status is Status.WARN and self.fail_on == "warn")

    @property
    def status(self) -> Overall:
        """The worst of the rules."""
        return overall([each.status for each in self.checks])


@dataclass(frozen=True, kw_only=True)
class RepairReport:
    """One repair, or its preview, of several rules. `run` is the persisted run; none for a preview.

    asked: that --apply was given. Where a plan no longer holds nothing was begun all the same.
    """

    asked: bool = False
    run: str | None
    database: str
    repairs: Sequence[RuleRepair]
    seconds: float

    @property
    def applied(self) -> bool:
        """Whether anything may have been written."""
        return self.run is not None

    @property
    def status(self) -> Overall:
        """The worst of the rules."""
        return overall([each.status for each in self.repairs])
