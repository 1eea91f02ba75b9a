"""How many records a chunk takes, told by the chunks before it, and how long the repair rests between chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from django.conf import settings

from reconcile.errors import Fault

__all__ = ["FIRST", "LEAST", "MOST", "REST", "Pace", "chunk_faults", "rest_faults"]

SECONDS = 0.25
"""What a chunk is to take, since for as long it holds its locks."""

SHORT, SHORTEST = 0.05, 0.02
"""What a chunk is to take that is in the way of others: while others are at work, or since it locks a table; and where both
are so."""

REST = 30
"""How many times as long as a chunk has taken the database is left to others, while any are at work there."""

TABLE = 5
"""How many times longer that is where a chunk keeps them out of a table: each that comes meanwhile has to wait."""

MOST_RESTS = 1_000
"""Most that the setting may be."""

LONGEST = 10.0
"""Most seconds of a rest."""

LEAST, FEW, FIRST, MOST = 10, 100, 1_000, 5_000
"""Records in a chunk: at least; in the first one, where it is in the way of others and else; at most."""

GROWTH, LEAP = 1.2, 2
"""How many times larger than the one before a chunk may be, and how many where that took less than half of its time. It may
shrink at once."""

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
    """The size of the next chunk, which is never more than `most`, and how long to rest after it.

    exclusive: whether a chunk keeps all other writers out of a table. rests: how many times as long as a chunk has taken
        nothing is done before the next, while the database is shared. shared: whether others are at work in it now.

    A chunk is to take a quarter of a second; less where it is in the way of others.

    Note [Fixed costs]: a chunk costs something whatever its size, and something for each record: t = a + b n, fitted to
    the chunks so far by least squares, the latest counting most. Where only b is looked at, a chunk of which a alone is
    more than a quarter of a second shrinks and shrinks, and takes no shorter for it. So it is made as large as its
    fixed costs: it takes twice as long as the smallest would, and no chunk could be shorter than half of that.
    """

    most: int = MOST
    exclusive: bool = False
    rests: float = 0
    shared: bool = False
    size: int = FIRST
    _sums: _Sums = field(default_factory=_Sums)

    def __post_init__(self) -> None:
        self.size = min(FEW if self.exclusive else self.size, self.most)

    @classmethod
    def configured(cls, *, exclusive: bool = False) -> Pace:
        """That of a repair that begins, with `CHUNK` and `REST` of `settings.RECONCILE`."""
        configured = getattr(settings, "RECONCILE", {})
        told = configured if isinstance(configured, Mapping) else {}
        return cls(most=told.get("CHUNK", MOST), rests=told.get("REST", REST), exclusive=exclusive)

    def share(self, *, shared: bool) -> None:
        """Note whether others are at work in the database; a chunk that is too long for them shrinks at once."""
        if shared and not self.shared:
            self.shared = True
            self.size = min(self.size, self._fitting() if self._sums.weight else FEW)
        self.shared = shared

    def note(self, records: int, seconds: float) -> None:
        """Learn from a chunk of `records` that was repaired in `seconds`.

        One of a few records that comes first tells of its fixed costs alone, and would have each record cost as much.
        """
        if not self._sums.weight and records < self.size / 2 and seconds < self._aim:
            return
        self._sums.add(records, seconds)
        growth = LEAP if seconds * LEAP < self._aim else GROWTH
        self.size = min(ceil(self.size * growth), self._fitting())

    def rest(self, seconds: float) -> float:
        """Seconds to rest after a chunk that took `seconds`."""
        times = self.rests * TABLE if self.exclusive else self.rests
        return min(times * seconds, LONGEST) if self.shared else 0.0

    @property
    def _aim(self) -> float:
        if self.exclusive and self.shared:
            return SHORTEST
        return SHORT if self.exclusive or self.shared else SECONDS

    def _fitting(self) -> int:
        """Records that take as long as a chunk is to take. See Note [Fixed costs]."""
        fixed, each = self._sums.fitted()
        for_records = max(self._aim - fixed, fixed)
        return min(self.most, max(LEAST, int(for_records / max(each, _NOTHING))))


def chunk_faults(most: Any) -> Iterator[Fault]:
    """What is wrong with `settings.RECONCILE["CHUNK"]`."""
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= MOST:
        hint = f"Give the most records that one transaction may repair, from 1 to {MOST:,}."
        yield Fault("reconcile.E001", f"settings.RECONCILE['CHUNK'] is {most!r}.", hint)


def rest_faults(rests: Any) -> Iterator[Fault]:
    """What is wrong with `settings.RECONCILE["REST"]`."""
    if isinstance(rests, bool) or not isinstance(rests, int | float) or not 0 <= rests <= MOST_RESTS:
        hint = (
            "Give how many times as long as a chunk has taken the repair rests while others use the database, "
            f"from 0 to {MOST_RESTS}."
        )
        yield Fault("reconcile.E001", f"settings.RECONCILE['REST'] is {rests!r}.", hint)
