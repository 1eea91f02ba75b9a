"""One try at a chunk: its transaction, the fence and the cursor in the row of its work item, and the proof of COMMIT.

Note [COMMIT without an answer]: if the connection breaks during COMMIT, this side can't know whether the server has
committed, or still will. So the in-doubt commit is looked up: the chunk's transaction writes the chunk's number into the row of
its work item, and locks that row until it ends. Once this side gets the lock, it finds the number if and only if the chunk was
committed. The retry policy of a chunk is too short for that: a COMMIT that came after the last try would leave repaired records
reported as failed.

Django forgets the functions given to `transaction.on_commit` together with the connection. They are kept here until COMMIT was
answered, and are called once the chunk was found.

Each statement names the owner's token, so that a worker that was taken over changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from uuid import UUID

import structlog
from django.db import Error, connections, transaction
from django.db.models import F, QuerySet

from reconcile.db.clock import database_now
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import connect, hooks_on_commit
from reconcile.db.retry import RECONNECTING, retry
from reconcile.errors import GivenUpError, LeaseLostError, with_type
from reconcile.models import Chunk, Outcome, WorkItem, WrittenRows, transition
from reconcile.remedies import WriteResult
from reconcile.repair.journal import ChunkJournal

__all__ = [
    "Attempt",
    "LeasedItem",
    "chunk_transaction",
    "lease_lost",
    "reconnect",
    "run_commit_hooks",
    "was_committed",
]

log = structlog.get_logger()


@dataclass(kw_only=True, eq=False)
class Attempt:
    """One try at a chunk: what it has locked and written so far.

    in_doubt: the connection broke during COMMIT, or just before it.
    hooks: the functions to call after COMMIT, and whether their errors are only logged.
    """

    number: int
    keys: Sequence[Any]
    began: float = field(default_factory=time.monotonic)
    journal: ChunkJournal | None = None
    locked: Sequence[Any] = ()
    wrote: WriteResult = field(default_factory=WriteResult)
    locked_elsewhere: set[Any] = field(default_factory=set)
    waits_for_tables: bool = False
    in_doubt: bool = False
    hooks: Sequence[tuple[Callable[[], object], bool]] = ()

    @property
    def skipped(self) -> set[Any]:
        """Keys that were skipped, for now or for good."""
        return self.locked_elsewhere | {*self.wrote.refused}

    @property
    def repaired(self) -> Sequence[Any]:
        """Keys that were locked, still drifted, and were repaired."""
        skipped, wrote = self.skipped, self.wrote
        if not wrote.written.total:
            return []
        keys = self.locked if wrote.keys is None else wrote.keys
        return [key for key in keys if key not in skipped] if skipped else keys


@contextmanager
def chunk_transaction(tried: Attempt, using: str) -> Iterator[None]:
    """The transaction of a chunk. An error in a hook of the project, after COMMIT, is no reason to try again.

    Marks `tried` as in doubt if the connection breaks during COMMIT. See Note [COMMIT without an answer].
    """
    committed: list[bool] = []
    whole = False
    try:
        with dialect_of(using).transaction():
            # The first hook, so that it tells whether a failing hook came after COMMIT.
            transaction.on_commit(lambda: committed.append(True), using=using)
            yield
            _, *hooks = hooks_on_commit(using)
            tried.hooks = [(hook, robust) for _, hook, robust in hooks]
            whole = True
    except Exception as error:
        if committed:
            raise _failed_hook(error) from error
        tried.in_doubt = whole and isinstance(error, Error) and dialect_of(using).is_lost(error)
        raise


def run_commit_hooks(tried: Attempt, using: str) -> None:
    """Call the hooks of a chunk whose in-doubt commit was found. Raises GivenUpError if one fails."""
    for hook, robust in tried.hooks:
        try:
            # Outside a transaction it is called at once.
            transaction.on_commit(hook, using=using, robust=robust)
        except Exception as error:
            raise _failed_hook(error) from error


def _failed_hook(error: Exception) -> GivenUpError:
    return GivenUpError(
        f"What was to follow a chunk's commit failed ({with_type(error)}). The chunk stands; see what it has left undone."
    )


def reconnect(using: str, pause: Callable[[float], None]) -> bool:
    """Reconnect to the server, in a few tries. Returns whether that worked."""

    def is_error(error: BaseException) -> bool:
        return isinstance(error, Error)

    try:
        retry(using, when=is_error, pause=pause, **RECONNECTING)(_connect, using)
    except Error:
        return False
    return True


def _connect(using: str) -> None:
    connection = connections[using]
    try:
        connection.close()
        connect(connection)
    except Error as error:
        log.warning("database_not_reached", database=using, error=str(error).strip())
        raise


def was_committed(tried: Attempt, work_item: QuerySet[WorkItem], pause: Callable[[float], None]) -> bool:
    """Look up whether an in-doubt commit was committed. See Note [COMMIT without an answer].

    `work_item` is the row of the chunk's work item, while this worker leases it. Waits until the chunk's transaction ends:
    a minute at most on PostgreSQL, which ends idle ones; elsewhere as long as the server lets a session wait for a lock, for
    each of a few tries. Raises the database's error where that was too short. Two statements.
    """
    return retry(work_item.db, pause=pause, **RECONNECTING)(_look_up_commit, tried, work_item)


def _look_up_commit(tried: Attempt, work_item: QuerySet[WorkItem]) -> bool:
    # Two statements: a single one would read what was true before it waited.
    try:
        with transaction.atomic(using=work_item.db):
            dialect_of(work_item.db).lock_rows(work_item)
            return work_item.filter(chunks=tried.number).exists()
    except Error as error:
        log.warning("commit_not_decided", chunk=tried.number, error=str(error).strip())
        raise


def lease_lost(rows: QuerySet[Any, Any], what: str) -> LeaseLostError:
    """The error of a worker that no longer leases `what`, of which `rows` are its row or no row any more. One statement."""
    if rows.exists():
        return LeaseLostError(f"Another worker has taken over {what}; this one has stopped.")
    table = rows.model._meta.db_table
    return LeaseLostError(
        f"The row of {what} is gone from {table}: somebody has deleted it, or emptied the table. This worker has stopped; "
        "what it had committed stands, and a new repair finds the rest."
    )


@dataclass(kw_only=True)
class LeasedItem:
    """The row of one work item, as the worker that leases it writes it."""

    rule: str
    work_item: WorkItem
    using: str

    @property
    def row(self) -> QuerySet[WorkItem, WorkItem]:
        """The row, as long as this worker leases it."""
        return WorkItem._base_manager.using(self.using).filter(
            pk=self.work_item.pk, token=self.work_item.token
        )

    @cached_property
    def run_id(self) -> UUID:
        """The id of the run. One statement at first; the relation would ask the database that a router reads from."""
        return self._outcome.values_list("run_id", flat=True).get()

    @property
    def next_number(self) -> int:
        """The number of the chunk that comes next."""
        return self.work_item.chunks + 1

    @property
    def cursor(self) -> str | None:
        """The last key that was committed; None at the beginning."""
        return self.work_item.cursor

    @property
    def _outcome(self) -> QuerySet[Outcome, Outcome]:
        return Outcome._base_manager.using(self.using).filter(pk=self.work_item.outcome_id)

    def fence(self, tried: Attempt | None = None) -> None:
        """Step 0, and a heartbeat. Raises LeaseLostError if another worker leases the work item. One statement.

        It names the chunk's number, so that no chunk is committed twice. The row stays locked until the chunk ends, so that a
        worker that takes over waits for it, and so does the look-up of an in-doubt commit.
        """
        mine = self.row.filter(state=WorkItem.State.RUNNING)
        if tried is not None:
            mine = mine.filter(chunks=tried.number - 1)
        if not mine.update(heartbeat=database_now(self.using)):
            rows = WorkItem._base_manager.using(self.using).filter(pk=self.work_item.pk)
            raise lease_lost(rows, f"the repair of {self.rule}")

    def advance(self, tried: Attempt, *, deferred: bool) -> None:
        """Step 6: the cursor, the proof and the counts, in the data's own transaction. Three statements."""
        self.row.update(
            cursor=str(tried.keys[-1]),
            chunks=tried.number,
            quarantined=F("quarantined") + len(tried.skipped),
        )
        # A record that a task repairs later is not repaired yet.
        keys = [] if deferred else tried.repaired
        proof = Chunk(
            work_item=self.work_item, number=tried.number, keys=keys, committed_at=database_now(self.using)
        )
        Chunk._base_manager.using(self.using).bulk_create([proof])
        for verb, rows in tried.wrote.written.as_dict().items():
            if rows:
                self._count(verb, rows)

    def _count(self, verb: str, rows: int) -> None:
        """Count rows that were written under a verb. One statement; two for the first chunk that writes under it."""
        counts = WrittenRows._base_manager.using(self.using)
        if not counts.filter(work_item=self.work_item, verb=verb).update(rows=F("rows") + rows):
            counts.bulk_create([WrittenRows(work_item=self.work_item, verb=verb, rows=rows)])

    def remember_commit(self, done: Attempt) -> None:
        """Take over the number and the cursor that were committed. No statement."""
        self.work_item.chunks = done.number
        self.work_item.cursor = str(done.keys[-1])

    def close(self, *, quarantined: int = 0) -> None:
        """Mark the work item as done. One statement."""
        transition(self.row, WorkItem.State.DONE, quarantined=quarantined)

    def count_quarantined(self, number: int) -> None:
        """Count records that went into the quarantine without a chunk. One statement.

        Only this worker knows the keys. The count makes a resumed run look at all records again.
        """
        self.row.update(quarantined=F("quarantined") + number)
