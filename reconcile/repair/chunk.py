"""The chunk: one transaction in which data, journal and cursor commit together.

Its steps are numbered as in docs/repair.md. A single try, the fence, the cursor and the in-doubt commit are in `attempt`; how often
a chunk is tried is in `retry_policy`; records that can't be repaired are in `quarantine`; the walk over all chunks is in `work_item`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import structlog
from django.db import Error

from reconcile.conf import Throttle
from reconcile.core.finder import Finder
from reconcile.core.scopes import Keys
from reconcile.db.columns import parent_columns
from reconcile.db.dialects import Failure, dialect_of
from reconcile.db.schema import may_change_values
from reconcile.detect.checking import evaluation_errors
from reconcile.errors import (
    ChunkConflictError,
    NotRepairedError,
    RemedyFailedError,
    first_line,
)
from reconcile.models import WorkItem
from reconcile.remedies import Remedy, WriteResult
from reconcile.repair.attempt import (
    Attempt,
    LeasedItem,
    chunk_transaction,
    reconnect,
    run_commit_hooks,
    was_committed,
)
from reconcile.repair.caps import Budget
from reconcile.repair.conflicts import may_conflict
from reconcile.repair.fault_injection import Step, reach
from reconcile.repair.journal import ChunkJournal, Prepared
from reconcile.repair.outbox import send_messages
from reconcile.repair.pacing import Pace, Rests, wait_for_throttles
from reconcile.repair.quarantine import Quarantine
from reconcile.repair.retry_policy import RetryPolicy

__all__ = ["BEAT", "Chunks"]

log = structlog.get_logger()

MOST_CONFLICTS = 10_000
"""Records that are kept to be tried again because another row has their unique value."""

BEAT = 5.0
"""Seconds between heartbeats while a walk finds nothing to repair."""


@dataclass(kw_only=True)
class Chunks:
    """Repairs the chunks of one work item, for one finder and one remedy.

    check_control: called before each chunk and now and then while the walk finds nothing; it raises where somebody wants the run to
        pause or end. throttles: asked before each chunk whether the database has other worries.
    confirm: returns the keys that this run may repair; the others are counted in `unconfirmed`.
    moved: names of columns that the database has changed beside those that were written.
    quarantine: the keys that were skipped, for now or for good. stale: the finder of rows with wrong values, if something in the
        database may change what an INSERT writes; the chunk asks it as well.
    """

    rule: str
    finder: Finder
    remedy: Remedy
    work_item: WorkItem
    using: str
    budget: Budget = field(default_factory=Budget)
    check_control: Callable[[], None] = lambda: None
    throttles: Sequence[Throttle] = ()
    confirm: Callable[[Sequence[Any]], Sequence[Any]] | None = None
    stale: Finder | None = None
    quarantine: Quarantine = field(init=False)
    unconfirmed: int = 0
    mended: int = 0
    moved: set[str] = field(default_factory=set)
    pace: Pace = field(default_factory=Pace)
    rest: Rests = field(init=False)
    last_beat: float = field(default_factory=time.monotonic)
    pause: Callable[[float], None] = time.sleep
    prepared: Prepared = field(default_factory=dict)
    item: LeasedItem = field(init=False)
    retry_policy: RetryPolicy = field(init=False)

    def __post_init__(self) -> None:
        self.item = LeasedItem(rule=self.rule, work_item=self.work_item, using=self.using)
        self.quarantine = Quarantine(rule=self.rule)
        self.rest = Rests(using=self.using, pace=self.pace)
        self.retry_policy = RetryPolicy(
            rule=self.rule,
            using=self.using,
            pause=self.pause,
            changed_by_database=may_change_values(self.finder.model_written, self.using),
        )

    def beat(self) -> None:
        """Write a heartbeat and look for a pause or a cancel, if the last chunk or heartbeat is older than BEAT."""
        if time.monotonic() - self.last_beat > BEAT:
            self.check_control()
            self.item.fence()
            self.last_beat = time.monotonic()

    def next_size(self) -> int:
        """The number of records that the next chunk takes."""
        self.rest.notice_others()
        return min(self.remedy.chunk or self.pace.size, self.pace.size)

    def _tick(self) -> None:
        """Called once a second while the repair rests or waits for a throttle."""
        self.check_control()
        self.beat()

    def repair(self, keys: Sequence[Any]) -> int:
        """Repair `keys` in as many transactions as it takes. Returns the rows written. See Note [Retry policy].

        Keys that other sessions have locked go into the quarantine, to be tried again at the end. Raises LeaseLostError, and
        GivenUpError if most records fail.
        """
        number, (tried, failure) = 1, self._attempt(keys)
        if failure is not None and (storable := self._without_overflow(keys, failure)) is not None:
            return self.repair(storable) if storable else 0
        taken = failure is not None and self._is_taken(failure)
        while (
            failure is not None
            and not taken
            and not self.retry_policy.is_last_try(tried, failure, number=number)
        ):
            number, (tried, failure) = number + 1, self._attempt(keys)
        if failure is None:
            self.retry_policy.failures_in_a_row = 0
            return self._close(tried)
        if self.retry_policy.should_halve(tried, failure):
            middle = len(keys) // 2
            return self.repair(keys[:middle]) + self.repair(keys[middle:])
        if taken and len(self.quarantine.conflicts) < MOST_CONFLICTS:
            self.quarantine.conflicts[keys[0]] = first_line(failure)
            return 0
        # A single try costs no time, so it does not count.
        self.retry_policy.failures_in_a_row += number > 1
        self.item.count_quarantined(len(keys))
        self.quarantine.add(
            keys, failure, contention=self.retry_policy.is_contention(failure), mended=self.mended
        )
        return 0

    def _is_taken(self, failure: Exception) -> bool:
        """Whether another row has the unique value that a record owes; it may be one that this work item repairs."""
        return (
            may_conflict(self.finder)
            and isinstance(failure, Error)
            and dialect_of(self.using).is_taken(failure)
        )

    def _without_overflow(self, keys: Sequence[Any], failure: Exception) -> Sequence[Any] | None:
        """The other keys, if some failed because their values don't fit their columns, which go into quarantine; else None.

        One statement, where values may not fit and the failure may be a record's own.
        """
        if self.retry_policy.is_contention(failure):
            return None
        with evaluation_errors(self.using):
            unfit = self.finder.unwritable(keys)
        for key, why in unfit.items():
            self.quarantine.give_up(key, f"It can't be repaired: {why}.", mended=self.mended)
        self.item.count_quarantined(len(unfit))
        return [key for key in keys if key not in unfit] if unfit else None

    def _attempt(self, keys: Sequence[Any]) -> tuple[Attempt, Exception | None]:
        """Try the chunk once. Returns the try and its failure. Raises EvaluationError if the failure concerns all records."""
        self.check_control()
        self.rest.rest(self._tick, self.pause)
        wait_for_throttles(self.throttles, self.using, tick=self._tick, pause=self.pause)
        tried = Attempt(number=self.work_item.chunks + 1, keys=keys)
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
        tried.journal = self._journal()
        with chunk_transaction(tried, self.using):
            reach(Step.FENCE)
            self.item.fence(tried)
            self.last_beat = time.monotonic()
            if self.finder.lock.tables and not self.remedy.deferred:
                tried.waits_for_tables = True
                reach(Step.TABLES)
                dialect_of(self.using).lock_tables(self.finder.lock.tables)
                tried.waits_for_tables = False
            reach(Step.LOCK)
            tried.locked = self._lock(keys)
            reach(Step.WRITE)
            if tried.locked:
                tried.wrote = self.remedy.write(self.finder, Keys(tried.locked), tried.journal)
            reach(Step.VERIFY)
            locked = self._locked_by_others({*keys} - {*tried.locked}) | self._verify(
                tried.locked, tried.wrote
            )
            tried.locked_elsewhere = locked
            self.budget.check(tried.wrote.written, records=len(tried.repaired))
            reach(Step.CURSOR)
            self.item.advance(tried, deferred=self.remedy.deferred)
            reach(Step.COMMIT)
        reach(Step.COMMITTED)

    def _close(self, done: Attempt) -> int:
        """Update budget, pace, outbox and quarantine after the COMMIT. Returns the rows written."""
        keys, wrote = done.keys, done.wrote
        # Only now, since a chunk that was rolled back has spent nothing.
        self.budget.spend(wrote.written, records=len(done.repaired))
        self.item.remember_commit(done)
        took = time.monotonic() - done.began
        self.pace.learn(len(keys), took)
        self.rest.took = took
        if done.journal is not None:
            self.moved.update(done.journal.moved)
            send_messages(wrote.messages, done.journal, rule=self.rule, pause=self.pause)
        self.mended += len(keys) - len(done.skipped)
        self.quarantine.remove(done.repaired)
        self.quarantine.to_retry.extend(key for key in keys if key in done.locked_elsewhere)
        for key, why in wrote.refused.items():
            self.quarantine.give_up(key, why, mended=self.mended)
        log.info(
            "chunk_repaired", rule=self.rule, run=str(self.item.run_id), drift=str(self.finder.drift),
            after=str(keys[0]), upto=str(keys[-1]), written=wrote.written.total, skipped=len(done.skipped),
        )  # fmt: skip
        return wrote.written.total

    def _journal(self) -> ChunkJournal:
        chunk = self.work_item.chunks + 1
        return ChunkJournal(work_item=self.work_item, chunk=chunk, using=self.using, prepared=self.prepared)

    def _lock(self, keys: Sequence[Any]) -> list[Any]:
        """Step 2: lock the records in key order; skip those that other sessions have locked."""
        rows = self.finder.model._base_manager.using(self.using).filter(Keys(keys).on("pk")).order_by("pk")
        locked = dialect_of(self.using).lock_free_rows(rows, from_references=self._cascades)
        if not (others := parent_columns(self.finder.model)):
            return list(locked.values_list("pk", flat=True))
        # A row of an inherited model lies in several tables, and is locked in each.
        return [key for key, *_ in locked.values_list("pk", *others)]

    @cached_property
    def _cascades(self) -> bool:
        """Whether a DELETE would take rows along that another session commits just then. One statement, if the remedy deletes."""
        return self.remedy.deletes and dialect_of(self.using).cascades(self.finder.model)

    def _locked_by_others(self, keys: set[Any]) -> set[Any]:
        """Of the keys that were not locked, those that still drift. The others are gone or repaired, and need no second try."""
        return {*self.finder.keys(Keys([*keys]))} if keys else set()

    def _verify_values(self, stale: Finder, keys: Sequence[Any], wrote: WriteResult) -> None:
        """Raise NotRepairedError if a row that was inserted has other values than its rule gives it."""
        changed = (
            {*stale.keys(Keys(keys))} - {*wrote.refused} - {*wrote.waiting} if wrote.written.insert else set()
        )
        if changed:
            raise NotRepairedError(
                f"{self.finder.model._meta.label} {min(changed, key=str)}: the row that was inserted has other values than the "
                "rule gives it. Something in the database, such as a trigger, changes what is written."
            )

    def _verify(self, keys: Sequence[Any], wrote: WriteResult) -> set[Any]:
        """Step 5: no locked record may drift after the write, except for rows that other sessions have locked."""
        if self.stale is not None:
            self._verify_values(self.stale, keys, wrote)
        if not keys or wrote.verified or (self.remedy.deferred and not wrote.promised):
            return set()
        drifted = {*self.finder.keys(Keys(keys))} - {*wrote.refused}
        left = drifted - {*wrote.waiting}
        if len(left) <= wrote.waiting_rows:
            return drifted
        raise NotRepairedError(
            f"{self.finder.model._meta.label} {min(left, key=str)} is still {self.finder.drift} after the repair; does "
            "something in the database change what is written, or does where= exclude it?"
        )
