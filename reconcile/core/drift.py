"""The values that travel between the layers: kinds of drift, counts, samples, statuses.

Nothing here knows a model, a database or a rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = [
    "EXTRA",
    "GUARANTEE_MEANINGS",
    "MISSING",
    "STALE",
    "Bound",
    "Drift",
    "Guarantee",
    "Sample",
    "Status",
    "Tally",
]


class Drift(StrEnum):
    """In which way a record differs from what its rule says."""

    MISSING = "missing"
    """The record owes a row that isn't there."""
    STALE = "stale"
    """The row is there, with other values."""
    EXTRA = "extra"
    """A row is there that nothing owes."""


MISSING, STALE, EXTRA = Drift


class Guarantee(StrEnum):
    """What keeps a repair and live writers apart, from the safest to none; `GUARANTEE_MEANINGS` has the sentences."""

    CONSTRAINT = "constraint"
    REPEATABLE = "repeatable"
    LOCK = "lock"
    NONE = "none"


GUARANTEE_MEANINGS: Mapping[Guarantee, str] = {
    Guarantee.CONSTRAINT: "A unique constraint, or the record's own row lock, keeps a repair and live writers apart.",
    Guarantee.REPEATABLE: "The project's function may be called again for what another session has done meanwhile.",
    Guarantee.LOCK: "The repair's lock keeps handlers in flight out, but not late ones, which insert after it.",
    Guarantee.NONE: "No constraint and no lock keeps a repair and live writers apart.",
}
"""The sentence that every report, warning and reason says of a guarantee."""


class Bound(StrEnum):
    """How well a number of rows to be written is known before they are written."""

    EXACT = "exact"
    AT_LEAST = "at least"

    @classmethod
    def of_all(cls, bounds: Iterable[Bound]) -> Bound:
        """How well a sum is known of which each part is known so well."""
        return cls.AT_LEAST if cls.AT_LEAST in bounds else cls.EXACT


class Status(StrEnum):
    """Outcome of one rule in one run."""

    PASS = "pass"  # noqa: S105
    WARN = "warn"
    FAIL = "fail"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Sample:
    """Key of one drifted row: of the source for MISSING and STALE, of the linked row for EXTRA."""

    drift: Drift
    key: str


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows counted by a check, never capped. `settling` records are too young to be checked."""

    checked: int = 0
    settling: int = 0
    drifted: dict[Drift, int] = field(default_factory=dict)

    def __getitem__(self, drift: Drift) -> int:
        return self.drifted.get(drift, 0)

    @property
    def total(self) -> int:
        """Drifted rows of all kinds."""
        return sum(self.drifted.values())
