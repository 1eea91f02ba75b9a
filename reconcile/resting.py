"""Rests between chunks: while others are at work in the database, a repair leaves it to them most of the time.

Alone, it goes on at once. Who is at work is asked before each chunk. See Note [Turns].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reconcile.pacing import Pace
from reconcile.sql.dialects import dialect_of
from reconcile.throttling import wait

__all__ = ["Rests"]

STRETCH = 1.0
"""Seconds of chunks after which others get a turn."""


@dataclass(kw_only=True)
class Rests:
    """The rests of one worker at one shard. `took`: seconds that the last chunk took, for which is to be rested still.

    Note [Turns]: a server wakes whoever waits for a lock. SQLite wakes nobody: who waits tries again now and then, and
    where chunk follows chunk he finds the database locked each time until he gives up, and has then never been noticed. So
    after each second of chunks there is a pause in which whoever waits tries again, asked or not, whatever the settings.
    """

    using: str
    pace: Pace
    took: float = 0.0
    _mark: int = 0
    _stretch: float = 0.0

    def look(self) -> None:
        """Ask whether others are at work, and have the next chunk sized for that. One statement; none where nobody rests."""
        if self.pace.rests:
            shared, self._mark = dialect_of(self.using).others_at_work(self._mark)
            self.pace.share(shared=shared)

    def rest(self, tick: Callable[[], None], pause: Callable[[float], None]) -> None:
        """Rest for the last chunk, if others are at work or have a turn. `tick` is called at least once a second."""
        turn = dialect_of(self.using).turn
        self._stretch += self.took
        seconds = max(self.pace.rest(self.took), turn if self._stretch >= STRETCH else 0.0)
        self._stretch, self.took = self._stretch if seconds < turn else 0.0, 0.0
        wait(seconds, tick, pause)
