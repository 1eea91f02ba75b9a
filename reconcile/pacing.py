"""How many records a chunk takes: about a quarter of a second's work, told by the chunks before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from django.conf import settings

from reconcile.errors import Fault

__all__ = ["FIRST", "LEAST", "MOST", "Pace", "chunk_faults"]

SECONDS = 0.25
"""What a chunk is to take, since for as long it holds its locks."""

LEAST, FIRST, MOST = 10, 1_000, 5_000
"""Records in a chunk: at least, in the first one, and at most."""

GROWTH = 1.2
"""How many times larger than the one before a chunk may be. It may shrink at once."""

WEIGHT = 0.3
"""Share of the latest chunk in the moving average of records a second."""


@dataclass
class Pace:
    """The size of the next chunk, which is never more than `most`.

    rate: the moving average, in records a second; None before the first chunk.
    """

    most: int = MOST
    size: int = FIRST
    rate: float | None = None

    def __post_init__(self) -> None:
        self.size = min(self.size, self.most)

    @classmethod
    def configured(cls) -> Pace:
        """That of a repair that begins, with `settings.RECONCILE["CHUNK"]` as the most."""
        configured = getattr(settings, "RECONCILE", {})
        return cls(most=configured.get("CHUNK", MOST) if isinstance(configured, Mapping) else MOST)

    def note(self, records: int, seconds: float) -> None:
        """Learn from a chunk that was repaired.

        One that was much smaller than it might have been, such as the last, tells of its fixed costs rather than of
        its records, unless it was slow all the same.
        """
        if records < self.size / 2 and seconds < SECONDS:
            return
        latest = records / max(seconds, 1e-6)
        self.rate = latest if self.rate is None else WEIGHT * latest + (1 - WEIGHT) * self.rate
        grown = ceil(self.size * GROWTH)
        self.size = min(self.most, max(LEAST, min(grown, int(self.rate * SECONDS))))


def chunk_faults(most: Any) -> Iterator[Fault]:
    """What is wrong with `settings.RECONCILE["CHUNK"]`."""
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= MOST:
        hint = f"Give the most records that one transaction may repair, from 1 to {MOST:,}."
        yield Fault("reconcile.E001", f"settings.RECONCILE['CHUNK'] is {most!r}.", hint)
