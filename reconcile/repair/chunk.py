"""The executor of chunks. A chunk is one transaction in which data, journal and cursor commit together.

Its steps are numbered as in docs/repair.md. What is written is told by the `work`. A single try, the fence, the cursor and the
in-doubt commit are in `attempt`; how often a chunk is tried is in `retry_policy`; what can't be repaired goes into the `quarantine`;
the walk over all chunks is in `walking`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from django.db import Error

from reconcile.conf import Throttle
from reconcile.core.scopes import Keys
from reconcile.db.dialects import Failure, dialect_of
from reconcile.detect.checking import evaluation_errors
from reconcile.errors import ChunkConflictError, NotRepairedError, RemedyFailedError, with_type
from reconcile.repair.attempt import (
    Attempt,
    LeasedItem,
    chunk_transaction,
    reconnect,
    run_commit_hooks,
    was_committed,
)
from reconcile.repair.caps import Budget
from reconcile.repair.fault_injection import Step, reach
from reconcile.repair.journal import ChunkJournal, Prepared
from reconcile.repair.outbox import send_messages
from reconcile.repair.pacing import Pace, Rests, wait_for_throttles
from reconcile.repair.quarantine import Quarantine
from reconcile.repair.retry_policy import RetryPolicy
from reconcile.repair.work import Work

__all__ = ["BEAT", "ChunkExecutor"]

log = structlog.get_logger()

BEAT = 5.0
"""Seconds between heartbeats while a walk finds nothing to repair."""


@dataclass(kw_only=True)
class ChunkExecutor:
    """Does the work of one leased work item in chunks.

    check_control: called before each chunk and now and then while the walk finds nothing; it raises where somebody wants the run to
        pause or end. throttles: asked before each chunk whether the database has other worries. quarantine: what became of the
        keys. moved: names of columns that the database has changed beside those that were written.
    """

    work: Work
    item: LeasedItem
    quarantine: Quarantine
    budget: Budget = field(default_factory=Budget)
    check_control: Callable[[], None] = lambda: None
    throttles: Sequence[Throttle] = ()
    pace: Pace = field(default_factory=Pace)
    pause: Callable[[float], None] = time.sleep
    moved: set[str] = field(default_factory=set)
    _rests: Rests = field(init=False)
    _retry_policy: RetryPolicy = field(init=False)
    _prepared: Prepared = field(default_factory=dict)
    _last_beat: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._rests = Rests(using=self.item.using, pace=self.pace)
        self._retry_policy = RetryPolicy(
            rule=self.item.rule,
            using=self.item.using,
            pause=self.pause,
            changed_by_database=self.work.changed_by_database,
        )

    @property
    def using(self) -> str:
        """Alias of the database."""
        return self.item.using

    def beat(self) -> None:
        """Write a heartbeat and look for a pause or a cancel, if the last chunk or heartbeat is older than BEAT."""
        if time.monotonic() - self._last_beat > BEAT:
            self.check_control()
            self.item.fence()
            self._last_beat = time.monotonic()

    def next_size(self) -> int:
        """The number of keys that the next chunk takes. One statement; none if REST is 0."""
        self._rests.notice_others()
        return min(self.work.limit or self.pace.size, self.pace.size)

    def execute(self, keys: Sequence[Any]) -> int:
        """Write for `keys` in as many transactions as it takes. Returns the rows written. See Note [Retry policy].

        Keys that other sessions have locked go into the quarantine, to be tried again at the end. Raises LeaseLostError, and
        GivenUpError if most records fail.
        """
        number, (tried, failure) = 1, self._attempt(keys)
        if failure is not None and (writable := self._without_unwritable(keys, failure)) is not None:
            return self.execute(writable) if writable else 0
        taken = failure is not None and self._is_taken(failure)
        while (
            failure is not None
            and not taken
            and not self._retry_policy.is_last_try(tried, failure, number=number)
        ):
            number, (tried, failure) = number + 1, self._attempt(keys)
        if failure is None:
            self._retry_policy.note_success()
            return self._close(tried)
        if self._retry_policy.should_halve(tried, failure):
            middle = len(keys) // 2
            return self.execute(keys[:middle]) + self.execute(keys[middle:])
        if taken and self.quarantine.add_conflict(keys[0], failure):
            return 0
        self._retry_policy.note_failure(tries=number)
        self.item.count_quarantined(len(keys))
        contention = self._retry_policy.is_contention(failure)
        self.quarantine.add(
            keys, failure, contention=contention, holder="" if contention else self.name_holder(keys)
        )
        return 0

    def name_holder(self, keys: Sequence[Any]) -> str:
        """Which row has a unique value that a single record owes, as a sentence; empty for several, if none has, or nobody can tell."""
        if len(keys) != 1:
            return ""
        try:
            return self.work.name_holder(keys[0])
        except Exception as error:  # noqa: BLE001 - to name a row is a courtesy, and must not end the rule
            log.warning("holder_not_found", rule=self.item.rule, key=str(keys[0]), error=with_type(error))
            return ""

    def _is_taken(self, failure: Exception) -> bool:
        """Whether another row has the unique value that a record owes; it may be one that this work item repairs."""
        return (
            self.work.frees_values and isinstance(failure, Error) and dialect_of(self.using).is_taken(failure)
        )

    def _without_unwritable(self, keys: Sequence[Any], failure: Exception) -> Sequence[Any] | None:
        """The other keys, if some failed because no try can write them, which go into quarantine; else None.

        One statement, where values may not fit and the failure may be a record's own.
        """
        if self._retry_policy.is_contention(failure):
            return None
        with evaluation_errors(self.using):
            unfit = self.work.unwritable(keys)
        for key, why in unfit.items():
            self.quarantine.give_up(key, f"It can't be repaired: {why}.")
        if not unfit:
            return None
        self.item.count_quarantined(len(unfit))
        return [key for key in keys if key not in unfit]

    def _tick(self) -> None:
        """Called once a second while the repair rests or waits for a throttle."""
        self.check_control()
        self.beat()

    def _attempt(self, keys: Sequence[Any]) -> tuple[Attempt, Exception | None]:
        """Try the chunk once. Returns the try and its failure. Raises EvaluationError if the failure concerns all records."""
        self.check_control()
        self._rests.rest(self._tick, self.pause)
        wait_for_throttles(self.throttles, self.using, tick=self._tick, pause=self.pause)
        tried = Attempt(number=self.item.next_number, keys=keys)
        try:
            self._transact(tried)
        except (Error, ChunkConflictError, NotRepairedError, RemedyFailedError) as error:
            failure = self._raise_unless_single(error, tried)
            if not (tried.in_doubt and was_committed(tried, self.item.row, self.pause)):
                return tried, failure
            run_commit_hooks(tried, self.using)
        return tried, None

    def _raise_unless_single(self, error: Exception, tried: Attempt) -> Exception:
        """Return the error if it may concern single records. Raises EvaluationError if it concerns them all."""
        failure = dialect_of(self.using).failure(error) if isinstance(error, Error) else Failure.RECORD
        lost = failure is Failure.CONNECTION
        if lost and tried.in_doubt and reconnect(self.using, self.pause):
            return error
        if failure in {Failure.CONNECTION, Failure.DATABASE, Failure.STATEMENT}:
            with evaluation_errors(self.using):
                raise error
        return error

    def _transact(self, tried: Attempt) -> None:
        """Steps 0 to 6; `tried` records their results."""
        keys, tried.began = tried.keys, time.monotonic()
        tried.journal = self._journal(tried)
        with chunk_transaction(tried, self.using):
            reach(Step.FENCE)
            self.item.fence(tried)
            self._last_beat = time.monotonic()
            if self.work.tables:
                tried.waits_for_tables = True
                reach(Step.TABLES)
                dialect_of(self.using).lock_tables(self.work.tables)
                tried.waits_for_tables = False
            reach(Step.LOCK)
            tried.locked = self.work.lock(keys)
            reach(Step.WRITE)
            if tried.locked:
                tried.wrote = self.work.write(Keys(tried.locked), tried.journal)
            reach(Step.VERIFY)
            missed = {*keys} - {*tried.locked}
            # What was not locked is skipped if it is still open; the rest is gone or repaired, and needs no second try.
            open_still = self.work.still_open([*missed]) if missed else set()
            tried.locked_elsewhere = open_still | self.work.verify(tried.locked, tried.wrote)
            self.budget.check(tried.wrote.written, records=len(tried.repaired))
            reach(Step.CURSOR)
            self.item.advance(tried, deferred=self.work.deferred)
            reach(Step.COMMIT)
        reach(Step.COMMITTED)

    def _close(self, done: Attempt) -> int:
        """Update budget, pace, outbox and quarantine after the COMMIT. Returns the rows written."""
        keys, wrote = done.keys, done.wrote
        # Only now, since a chunk that was rolled back has spent nothing.
        self.budget.spend(wrote.written, records=len(done.repaired))
        self.item.remember_commit(done)
        self._rests.learn(len(keys), time.monotonic() - done.began)
        if done.journal is not None:
            self.moved.update(done.journal.moved)
            send_messages(wrote.messages, done.journal, rule=self.item.rule, pause=self.pause)
        self.quarantine.close_chunk(
            keys, locked=done.locked_elsewhere, refused=wrote.refused, repaired=done.repaired
        )
        log.info(
            "chunk_repaired", rule=self.item.rule, run=str(self.item.run_id), drift=self.work.name,
            after=str(keys[0]), upto=str(keys[-1]), written=wrote.written.total, skipped=len(done.skipped),
        )  # fmt: skip
        return wrote.written.total

    def _journal(self, tried: Attempt) -> ChunkJournal:
        return ChunkJournal(
            work_item=self.item.work_item, chunk=tried.number, using=self.using, prepared=self._prepared
        )
