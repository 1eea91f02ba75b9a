"""The act of repairing: one chunk is one transaction; data, journal and cursor commit together.

Its steps are numbered as docs/repair.md numbers them. What a run does with many chunks is in `runs`; what becomes of a
chunk whose COMMIT was not answered, in `_committing`; what is written into the shard's row, in `owning`; how often a
chunk that failed is tried again, in `patience`; what is left then, in `setting_aside`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from django.db import Error, InterfaceError, NotSupportedError, ProgrammingError

from reconcile._committing import Attempt, committed_or_not, follow, reconnected, stands
from reconcile.allowance import Allowance
from reconcile.checking import evaluated
from reconcile.errors import (
    ChunkConflictError,
    NotMendedError,
    RemedyFailedError,
)
from reconcile.faults import Step, reached
from reconcile.finders import Finder
from reconcile.journal import ChunkJournal, Prepared
from reconcile.models import Shard
from reconcile.owning import OwnShard
from reconcile.pacing import Pace
from reconcile.patience import Patience
from reconcile.remedies import Remedy, Wrote
from reconcile.resting import Rests
from reconcile.sending import send
from reconcile.setting_aside import SetAside
from reconcile.sql.columns import inherited
from reconcile.sql.dialects import dialect_of
from reconcile.throttling import Throttle, hold_back
from reconcile.windows import Keys

__all__ = ["BEAT", "Chunks"]

log = structlog.get_logger()

BEAT = 5.0
"""Seconds between heartbeats while the walk finds nothing to repair."""


@dataclass(kw_only=True)
class Chunks:
    """Repairs chunks of keys for one finder and remedy, as the owner of one shard.

    obey: called before each chunk and now and then while the walk finds nothing; it raises where somebody wants the run to
        pause or end. throttles: asked before each chunk whether the database has other worries.
    may_take: of keys, those that this run may touch; the others are counted in `waiting`.
    left: the keys that were passed over for now or for good.
    """

    rule: str
    finder: Finder
    remedy: Remedy
    shard: Shard
    using: str
    allowance: Allowance = field(default_factory=Allowance)
    obey: Callable[[], None] = lambda: None
    throttles: Sequence[Throttle] = ()
    may_take: Callable[[Sequence[Any]], Sequence[Any]] | None = None
    left: SetAside = field(init=False)
    waiting: int = 0
    mended: int = 0
    pace: Pace = field(default_factory=Pace)
    rests: Rests = field(init=False)
    beaten: float = field(default_factory=time.monotonic)
    pause: Callable[[float], None] = time.sleep
    prepared: Prepared = field(default_factory=dict)
    own: OwnShard = field(init=False)
    patience: Patience = field(init=False)

    def __post_init__(self) -> None:
        self.own = OwnShard(rule=self.rule, shard=self.shard, using=self.using)
        self.left = SetAside(rule=self.rule)
        self.rests = Rests(using=self.using, pace=self.pace)
        self.patience = Patience(rule=self.rule, using=self.using, pause=self.pause)

    def beat(self) -> None:
        """Say that the worker lives, where the last chunk or beat was a while ago, and see what people want of it."""
        if time.monotonic() - self.beaten > BEAT:
            self.obey()
            self.own.fence()
            self.beaten = time.monotonic()

    def next_size(self) -> int:
        """How many records the next chunk is to take."""
        self.rests.look()
        return min(self.remedy.chunk or self.pace.size, self.pace.size)

    def _tick(self) -> None:
        """While the repair rests, or a throttle holds it back."""
        self.obey()
        self.beat()

    def repair(self, keys: Sequence[Any]) -> int:
        """Repair `keys`, in as many transactions as it takes; rows written. See Note [Patience].

        Keys that others hold are set aside to be tried again. Raises TakenOverError, and GivenUpError where most fail.
        """
        number, (tried, failure) = 1, self._attempted(keys)
        while failure is not None and not self.patience.ends(tried, failure, number=number):
            number, (tried, failure) = number + 1, self._attempted(keys)
        if failure is None:
            self.patience.in_vain = 0
            return self._close(tried)
        if self.patience.halves(tried, failure):
            middle = len(keys) // 2
            return self.repair(keys[:middle]) + self.repair(keys[middle:])
        # What was tried once alone has cost no patience.
        self.patience.in_vain += number > 1
        self.own.set_aside(len(keys))
        self.left.leave(keys, failure, held=self.patience.is_others(failure), mended=self.mended)
        return 0

    def _attempted(self, keys: Sequence[Any]) -> tuple[Attempt, Exception | None]:
        """One try at a chunk, and why it failed. Raises EvaluationError where that concerns all records."""
        self.obey()
        self.rests.rest(self._tick, self.pause)
        hold_back(self.throttles, self.using, tick=self._tick, pause=self.pause)
        tried = Attempt(number=self.shard.chunks + 1, keys=keys)
        try:
            self._transact(tried)
        except (Error, ChunkConflictError, NotMendedError, RemedyFailedError) as error:
            failure = self._examined(error, tried)
            if not (tried.in_doubt and stands(tried, self.own.row, self.pause)):
                return tried, failure
            follow(tried, self.using)
        return tried, None

    def _examined(self, error: Exception, tried: Attempt) -> Exception:
        """The error, if it may concern single records; raises EvaluationError where it concerns them all."""
        lost = isinstance(error, Error) and dialect_of(self.using).is_lost(error)
        if lost and tried.in_doubt and reconnected(self.using, self.pause):
            return error
        if lost or isinstance(error, ProgrammingError | InterfaceError | NotSupportedError):
            with evaluated(self.using):
                raise error
        return error

    def _transact(self, tried: Attempt) -> None:
        """Steps 0 to 6; what they came to is noted in `tried`."""
        keys, tried.began = tried.keys, time.monotonic()
        tried.journal = self._journal()
        with committed_or_not(tried, self.using):
            reached(Step.FENCE)
            self.own.fence(tried)
            self.beaten = time.monotonic()
            if self.finder.exclusive and not self.remedy.deferred:
                tried.waits_for_tables = True
                reached(Step.TABLES)
                dialect_of(self.using).lock_tables(self.finder.exclusive)
                tried.waits_for_tables = False
            reached(Step.LOCK)
            tried.locked = self._lock(keys)
            reached(Step.WRITE)
            if tried.locked:
                tried.wrote = self.remedy.write(self.finder, Keys(tried.locked), tried.journal)
            reached(Step.VERIFY)
            held = self._still_drifted({*keys} - {*tried.locked}) | self._verified(tried.locked, tried.wrote)
            tried.held = held
            self.allowance.hold(tried.wrote.written, records=len(tried.repaired))
            reached(Step.CURSOR)
            self.own.advance(tried, deferred=self.remedy.deferred)
            reached(Step.COMMIT)
        reached(Step.COMMITTED)

    def _close(self, done: Attempt) -> int:
        """What follows the commit of a chunk; its rows written."""
        keys, wrote = done.keys, done.wrote
        # Not before: what was rolled back has spent nothing.
        self.allowance.spend(wrote.written, records=len(done.repaired))
        self.own.committed(done)
        took = time.monotonic() - done.began
        self.pace.note(len(keys), took)
        self.rests.took = took
        if done.journal is not None:
            send(wrote.sending, done.journal, rule=self.rule, pause=self.pause)
        self.mended += len(keys) - len(done.skipped)
        self.left.cleared(done.repaired)
        self.left.aside.extend(key for key in keys if key in done.held)
        for key, why in wrote.refused.items():
            self.left.refuse(key, why, mended=self.mended)
        log.info(
            "chunk_repaired", rule=self.rule, run=str(self.own.run_id), drift=str(self.finder.drift),
            after=str(keys[0]), upto=str(keys[-1]), written=wrote.written.total, skipped=len(done.skipped),
        )  # fmt: skip
        return wrote.written.total

    def _journal(self) -> ChunkJournal:
        chunk = self.shard.chunks + 1
        return ChunkJournal(shard=self.shard, chunk=chunk, using=self.using, prepared=self.prepared)

    def _lock(self, keys: Sequence[Any]) -> list[Any]:
        """Step 2: lock the records in key order, skipping those that others hold."""
        rows = self.finder.model._base_manager.using(self.using).filter(Keys(keys).on("pk")).order_by("pk")
        locked = dialect_of(self.using).locked(rows)
        if not (others := inherited(self.finder.model)):
            return list(locked.values_list("pk", flat=True))
        # A row that is spread over several tables is locked in each of them.
        return [key for key, *_ in locked.values_list("pk", *others)]

    def _still_drifted(self, keys: set[Any]) -> set[Any]:
        """Of keys that could not be locked, those that others hold; what is gone or mended needs no second try."""
        return {*self.finder.keys(Keys([*keys]))} if keys else set()

    def _verified(self, keys: Sequence[Any], wrote: Wrote) -> set[Any]:
        """Step 5: after the write none of the locked records may drift, but those of rows that others hold."""
        if not keys or wrote.seen or (self.remedy.deferred and not wrote.promised):
            return set()
        drifted = {*self.finder.keys(Keys(keys))} - {*wrote.refused}
        left = drifted - {*wrote.busy}
        if len(left) <= wrote.held:
            return drifted
        raise NotMendedError(
            f"{self.finder.model._meta.label} {min(left, key=str)} is still {self.finder.drift} after the repair; does "
            "something in the database change what is written, or does where= exclude it?"
        )
