"""Rests between chunks: while others are at work in the database, a repair leaves it to them most of the time.

Alone, it goes on at once. Who is at work is asked before each chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reconcile.pacing import Pace
from reconcile.sql.dialects import dialect_of
from reconcile.throttling import wait

__all__ = ["Rests"]


@dataclass(kw_only=True)
class Rests:
    """The rests of one worker at one shard. `took`: seconds that the last chunk took, for which is to be rested still."""

    using: str
    pace: Pace
    took: float = 0.0
    _mark: int = 0

    def look(self) -> None:
        """Ask whether others are at work, and have the next chunk sized for that. One statement; none where nobody rests."""
        if self.pace.rests:
            shared, self._mark = dialect_of(self.using).others_at_work(self._mark)
            self.pace.share(shared=shared)

    def rest(self, tick: Callable[[], None], pause: Callable[[float], None]) -> None:
        """Rest for the last chunk, if others are at work. `tick` is called at least once a second."""
        seconds, self.took = self.pace.rest(self.took), 0.0
        wait(seconds, tick, pause)
