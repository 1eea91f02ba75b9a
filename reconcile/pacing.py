"""How many records a chunk takes: about a quarter of a second's work, told by the chunks before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from django.conf import settings

from reconcile.errors import Fault

__all__ = ["FIRST", "LEAST", "MOST", "Pace", "chunk_faults"]

SECONDS = 0.25
"""What a chunk is to take, since for as long it holds its locks."""

SHORT, RESTS = 0.05, 10
"""What a chunk is to take that keeps all other writers out of a table, in seconds; and how many times as long the table is
theirs again before the next."""

LEAST, FEW, FIRST, MOST = 10, 100, 1_000, 5_000
"""Records in a chunk: at least; in the first one, where that locks a table and else; at most."""

GROWTH = 1.2
"""How many times larger than the one before a chunk may be. It may shrink at once."""

_NOTHING = 1e-9
"""Seconds for a record that are as good as none."""

FADING = 0.7
"""How much less a chunk counts than the one after it."""


@dataclass
class _Sums:
    """Faded sums over chunks, from which their costs are told."""

    weight: float = 0
    n: float = 0
    t: float = 0
    nn: float = 0
    nt: float = 0
    fixed: float = 0

    def add(self, records: int, seconds: float) -> None:
        for name, more in (
            ("weight", 1), ("n", records), ("t", seconds), ("nn", records**2), ("nt", records * seconds),
        ):  # fmt: skip
            setattr(self, name, getattr(self, name) * FADING + more)

    def fitted(self) -> tuple[float, float]:
        """Seconds that a chunk costs whatever its size, and seconds for each record; neither is negative."""
        spread = self.weight * self.nn - self.n**2
        # Chunks of about one size don't tell what of their time is fixed: that is as it was.
        if spread > 1e-4 * self.weight * self.nn:
            each = max((self.weight * self.nt - self.n * self.t) / spread, 0)
            self.fixed = max((self.t - each * self.n) / self.weight, 0)
        self.fixed = min(self.fixed, self.t / self.weight)
        return self.fixed, (self.t - self.fixed * self.weight) / self.n


@dataclass
class Pace:
    """The size of the next chunk, which is never more than `most` and is to take `seconds`.

    rests: how many times as long as a chunk has taken nothing is done before the next.

    Note [Fixed costs]: a chunk costs something whatever its size, and something for each record: t = a + b n, fitted to
    the chunks so far by least squares, the latest counting most. Where only b is looked at, a chunk of which a alone is
    more than a quarter of a second shrinks and shrinks, and takes no shorter for it. So it is made as large as its
    fixed costs: it takes twice as long as the smallest would, and no chunk could be shorter than half of that.
    """

    most: int = MOST
    size: int = FIRST
    seconds: float = SECONDS
    rests: float = 0
    _sums: _Sums = field(default_factory=_Sums)

    def __post_init__(self) -> None:
        self.size = min(self.size, self.most)

    @classmethod
    def configured(cls, *, exclusive: bool = False) -> Pace:
        """That of a repair that begins, with `settings.RECONCILE["CHUNK"]` as the most.

        exclusive: whether a chunk keeps all other writers out of a table.
        """
        configured = getattr(settings, "RECONCILE", {})
        most = configured.get("CHUNK", MOST) if isinstance(configured, Mapping) else MOST
        return cls(most=most, size=FEW, seconds=SHORT, rests=RESTS) if exclusive else cls(most=most)

    def note(self, records: int, seconds: float) -> None:
        """Learn from a chunk of `records` that was repaired in `seconds`.

        One of a few records that comes first tells of its fixed costs alone, and would have each record cost as much.
        """
        if not self._sums.weight and records < self.size / 2 and seconds < self.seconds:
            return
        self._sums.add(records, seconds)
        fixed, each = self._sums.fitted()
        for_records = max(self.seconds - fixed, fixed)
        fitting = for_records / max(each, _NOTHING)
        grown = ceil(self.size * GROWTH)
        self.size = min(self.most, max(LEAST, min(grown, int(fitting))))


def chunk_faults(most: Any) -> Iterator[Fault]:
    """What is wrong with `settings.RECONCILE["CHUNK"]`."""
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= MOST:
        hint = f"Give the most records that one transaction may repair, from 1 to {MOST:,}."
        yield Fault("reconcile.E001", f"settings.RECONCILE['CHUNK'] is {most!r}.", hint)
