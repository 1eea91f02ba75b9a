"""Pacing: how many records a chunk takes, how long the repair rests after it, and the throttles that hold it back.

`settings.RECONCILE["THROTTLES"]` lists the throttles, as dotted paths or as functions. Each is called with the database's alias
before each chunk. It returns how long to wait before it is asked again: False, None or 0 for not at all, True for five
seconds, or a number of seconds. A throttle that raises holds the repair back, too.

Before each chunk the repair asks whether other sessions use the database. If none does, it does not rest. See Note [Turns].
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil

import structlog

from reconcile.conf import MOST_RECORDS, Throttle, chunk_limit, rest_factor
from reconcile.db.dialects import dialect_of
from reconcile.errors import GivenUpError

__all__ = [
    "FIRST",
    "LEAST",
    "MOST_WAIT",
    "Pace",
    "Rests",
    "wait",
    "wait_for_throttles",
]

log = structlog.get_logger()

WAIT = 5.0
"""Seconds to wait if a throttle returns True, or raises."""

MOST_WAIT = 600.0
"""Most seconds that throttles may hold a repair back at a stretch; then it gives up, to be resumed later."""

TICK = 1.0
"""Most seconds to wait between two ticks."""


def wait_for_throttles(
    throttles: Sequence[Throttle],
    using: str,
    *,
    tick: Callable[[], None],
    pause: Callable[[float], None] = time.sleep,
) -> float:
    """Wait until no throttle holds the repair back. Returns the seconds waited.

    Calls `tick` at least once a second, for heartbeats and requests to pause. Raises GivenUpError after MOST_WAIT.
    """
    waited = 0.0
    while (longest := _longest(throttles, using))[0] > 0:
        seconds, name = longest
        if waited >= MOST_WAIT:
            raise GivenUpError(
                f"Throttle {name} has held the repair back for {waited:,.0f} s. Resume the run when the database has calmed down."
            )
        log.info("repair_throttled", database=using, throttle=name, seconds=seconds)
        waited += wait(min(seconds, MOST_WAIT), tick, pause)
    return waited


def wait(seconds: float, tick: Callable[[], None], pause: Callable[[float], None]) -> float:
    """Wait, and call `tick` at least once a second. Returns the seconds waited."""
    left = seconds
    while left > 0:
        step = min(left, TICK)
        pause(step)
        tick()
        left -= step
    return seconds


def _longest(throttles: Sequence[Throttle], using: str) -> tuple[float, str]:
    """The longest wait that any throttle asks for, in seconds, and its name."""
    return max(((_seconds(each, using), _name(each)) for each in throttles), default=(0.0, ""))


def _seconds(throttle: Throttle, using: str) -> float:
    try:
        answer = throttle(using)
        return WAIT if answer is True else float(answer or 0)
    except Exception as error:  # noqa: BLE001 - whatever it is, nobody knows how the database is
        log.warning("throttle_failed", throttle=_name(throttle), error=f"{type(error).__name__}: {error}")
        return WAIT


def _name(throttle: Throttle) -> str:
    return str(getattr(throttle, "__qualname__", None) or type(throttle).__name__)


SECONDS = 0.25
"""Seconds that a chunk should take, since it keeps its locks for so long."""

SHORT, SHORTEST = 0.05, 0.02
"""Seconds that a chunk should take while other sessions use the database or if it locks a table; and if both are so."""

TABLE = 5
"""How many times longer the rest is if a chunk locks a table: all its writers have to wait meanwhile."""

LONGEST = 10.0
"""Most seconds of one rest."""

LEAST, FEW, FIRST = 10, 100, 1_000
"""Records in a chunk: at least; in a first chunk that locks a table or meets other sessions; in any other first chunk."""

GROWTH, LEAP = 1.2, 2
"""How much larger than the last chunk a chunk may be, and how much if the last one took less than half of its time. A chunk
may shrink at once."""

_NOTHING = 1e-9
"""Seconds for a record that count as none."""

FADING = 0.7
"""The weight of a chunk beside the one after it."""


@dataclass
class _Sums:
    """Weighted sums over chunks, from which their costs are fitted."""

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

    def fit(self) -> tuple[float, float]:
        """Return the fixed seconds of a chunk, and the seconds for each record; neither is negative."""
        spread = self.weight * self.nn - self.n**2
        # Chunks of about one size don't show the fixed part of their time, so it stays as it was.
        if spread > 1e-4 * self.weight * self.nn:
            each = max((self.weight * self.nt - self.n * self.t) / spread, 0)
            self.fixed = max((self.t - each * self.n) / self.weight, 0)
        self.fixed = min(self.fixed, self.t / self.weight)
        return self.fixed, (self.t - self.fixed * self.weight) / self.n


@dataclass
class Pace:
    """The size of the next chunk, never more than `most`, and the length of the rest after it.

    locks_table: whether a chunk locks a table. rests: how many times as long as the last chunk the repair rests, while the
        database is shared. shared: whether other sessions use it now.

    A chunk should take a quarter of a second, and less if it meets other sessions.

    Note [Fixed costs]: a chunk costs something whatever its size, and something for each record: t = a + b n, fitted to
    the chunks so far by least squares, the latest counting most. Where only b is looked at, a chunk of which a alone is
    more than a quarter of a second shrinks and shrinks, and takes no shorter for it. So it is made as large as its
    fixed costs: it takes twice as long as the smallest would, and no chunk could be shorter than half of that.
    """

    most: int = MOST_RECORDS
    locks_table: bool = False
    rests: float = 0
    shared: bool = False
    size: int = FIRST
    _sums: _Sums = field(default_factory=_Sums)

    def __post_init__(self) -> None:
        self.size = min(FEW if self.locks_table else self.size, self.most)

    @classmethod
    def from_settings(cls, *, locks_table: bool = False) -> Pace:
        """The pace of a new repair, with `CHUNK` and `REST` of `settings.RECONCILE`."""
        return cls(most=chunk_limit(), rests=rest_factor(), locks_table=locks_table)

    def share(self, *, shared: bool) -> None:
        """Take note whether other sessions use the database; if they do, a long chunk shrinks at once."""
        if shared and not self.shared:
            self.shared = True
            self.size = min(self.size, self._fitting_size() if self._sums.weight else FEW)
        self.shared = shared

    def learn(self, records: int, seconds: float) -> None:
        """Learn from a chunk of `records` that was repaired in `seconds`.

        A small first chunk shows its fixed costs alone, so it does not count.
        """
        if not self._sums.weight and records < self.size / 2 and seconds < self._aim:
            return
        self._sums.add(records, seconds)
        growth = LEAP if seconds * LEAP < self._aim else GROWTH
        self.size = min(ceil(self.size * growth), self._fitting_size())

    def rest(self, seconds: float) -> float:
        """Seconds to rest after a chunk that took `seconds`."""
        times = self.rests * TABLE if self.locks_table else self.rests
        return min(times * seconds, LONGEST) if self.shared else 0.0

    @property
    def _aim(self) -> float:
        if self.locks_table and self.shared:
            return SHORTEST
        return SHORT if self.locks_table or self.shared else SECONDS

    def _fitting_size(self) -> int:
        """The number of records that take as long as a chunk should. See Note [Fixed costs]."""
        fixed, each = self._sums.fit()
        for_records = max(self._aim - fixed, fixed)
        return min(self.most, max(LEAST, int(for_records / max(each, _NOTHING))))


STRETCH = 1.0
"""Seconds of chunks after which other sessions get a turn."""


@dataclass(kw_only=True)
class Rests:
    """The rests of one worker between chunks. `took`: seconds of the last chunk, for which the worker has yet to rest.

    Note [Turns]: a server wakes a session that waits for a lock. SQLite wakes nobody: a session that waits tries again now and
    then. If chunk follows chunk, it finds the database locked each time until it gives up, and nobody notices. So there is a
    pause after each second of chunks on SQLite, whatever the settings.
    """

    using: str
    pace: Pace
    took: float = 0.0
    _mark: int = 0
    _stretch: float = 0.0

    def learn(self, records: int, seconds: float) -> None:
        """Learn from a chunk of `records` that took so many seconds, for which there is to be a rest."""
        self.pace.learn(records, seconds)
        self.took = seconds

    def notice_others(self) -> None:
        """Ask whether other sessions use the database, for the size of the next chunk. One statement; none if REST is 0."""
        if self.pace.rests:
            shared, self._mark = dialect_of(self.using).look_for_sessions(self._mark)
            self.pace.share(shared=shared)

    def rest(self, tick: Callable[[], None], pause: Callable[[float], None]) -> None:
        """Rest after the last chunk, if other sessions use the database or have a turn. Calls `tick` once a second."""
        turn = dialect_of(self.using).lock_retry_seconds
        self._stretch += self.took
        seconds = max(self.pace.rest(self.took), turn if self._stretch >= STRETCH else 0.0)
        self._stretch, self.took = self._stretch if seconds < turn else 0.0, 0.0
        wait(seconds, tick, pause)
