"""The act of repairing: one chunk is one transaction; data, journal and cursor commit together.

Its steps are numbered as docs/repair.md numbers them. What a run does with many chunks is in `runs`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog
from django.db import Error, InterfaceError, NotSupportedError, ProgrammingError, transaction
from django.db.models import F
from django.utils import timezone

from reconcile.checking import evaluated
from reconcile.drift import Written
from reconcile.errors import (
    ChunkConflictError,
    GivenUpError,
    NotMendedError,
    RemedyFailedError,
    TakenOverError,
)
from reconcile.finders import Finder
from reconcile.journal import ChunkJournal
from reconcile.models import Outcome, Shard
from reconcile.remedies import Remedy, Wrote
from reconcile.sending import send
from reconcile.sql.columns import inherited
from reconcile.sql.dialects import dialect_of
from reconcile.windows import Keys

__all__ = ["Chunks"]

log = structlog.get_logger()

HOPELESS = 50
"""Failed records from which on a rule is given up, if more failed than were mended."""

BEAT = 5.0
"""Seconds between heartbeats while the walk finds nothing to repair."""

TRIES = 5
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
"""Seconds between tries, full jitter."""


@dataclass(kw_only=True)
class Chunks:
    """Repairs chunks of keys for one finder and remedy, as the owner of one shard."""

    rule: str
    finder: Finder
    remedy: Remedy
    shard: Shard
    using: str
    may_write: float | None = None
    aside: list[Any] = field(default_factory=list)
    failures: dict[Any, str] = field(default_factory=dict)
    mended: int = 0
    beaten: float = field(default_factory=time.monotonic)
    pause: Callable[[float], None] = time.sleep

    def beat(self) -> None:
        """Say that the worker lives, where the last chunk or beat was a while ago."""
        if time.monotonic() - self.beaten > BEAT:
            self._fence()

    def repair(self, keys: Sequence[Any]) -> int:
        """Repair `keys`, in as many transactions as it takes; rows written.

        A transient failure is tried again, then the chunk is halved, down to one record, which is set aside
        with its error. Keys that others hold are set aside to be tried again. Raises TakenOverError.
        """
        for attempt in range(TRIES):
            try:
                return self._transact(keys)
            except (Error, ChunkConflictError, NotMendedError, RemedyFailedError) as error:
                failure = self._examined(error)
                if not dialect_of(self.using).is_transient(error):
                    break
                log.warning(
                    "chunk_retried", rule=self.rule, keys=len(keys), attempt=attempt + 1, error=str(error)
                )
                self.pause(random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)))  # noqa: S311
        if len(keys) > 1:
            middle = len(keys) // 2
            return self.repair(keys[:middle]) + self.repair(keys[middle:])
        self._set_aside(keys[0], failure)
        return 0

    def _examined(self, error: Exception) -> Exception:
        """The error, if it may concern single records; raises EvaluationError where it concerns them all."""
        lost = isinstance(error, Error) and dialect_of(self.using).is_lost(error)
        if lost or isinstance(error, ProgrammingError | InterfaceError | NotSupportedError):
            with evaluated(self.using):
                raise error
        return error

    def _set_aside(self, key: Any, failure: Exception) -> None:
        """Note one record that can't be repaired; raises GivenUpError when that has become the normal case."""
        # Only this worker knows which; a count in the database makes whoever resumes look at all again.
        self._own_shard().update(set_aside=F("set_aside") + 1)
        self._note_failure(key, str(failure).strip().split("\n")[0])

    def _note_failure(self, key: Any, said: str) -> None:
        self.failures[key] = said
        log.error("record_set_aside", rule=self.rule, key=str(key), error=said)
        if len(self.failures) >= HOPELESS and len(self.failures) > self.mended:
            raise GivenUpError(
                f"{len(self.failures)} records failed and {self.mended} were mended; the rest were left alone. "
                f"The last one, {key}: {said}"
            )

    def _transact(self, keys: Sequence[Any]) -> int:
        journal = self._journal()
        with self._once_committed():
            self._fence()
            locked = self._lock(keys)
            wrote = self.remedy.write(self.finder, Keys(locked), journal) if locked else Wrote()
            self._hold_cap(wrote.written.total)
            held = self._still_drifted({*keys} - {*locked}) | self._verified(locked, wrote)
            skipped = held | {*wrote.refused}
            self._advance(keys[-1], wrote.written, len(skipped))
        # Not before: what was rolled back has spent nothing.
        if self.may_write is not None:
            self.may_write -= wrote.written.total
        self.shard.chunks += 1
        self.shard.cursor = str(keys[-1])
        send(wrote.sending, journal, rule=self.rule, pause=self.pause)
        self.mended += len(keys) - len(skipped)
        self.aside.extend(key for key in keys if key in held)
        for key, why in wrote.refused.items():
            self._note_failure(key, why)
        log.info(
            "chunk_repaired", rule=self.rule, run=str(self.shard.outcome.run_id), drift=str(self.finder.drift),
            after=str(keys[0]), upto=str(keys[-1]), written=wrote.written.total, skipped=len(skipped),
        )  # fmt: skip
        return wrote.written.total

    @contextmanager
    def _once_committed(self) -> Iterator[None]:
        """The chunk's transaction. What fails after its commit, in a hook of the project's, is no reason to try again."""
        committed: list[bool] = []
        try:
            with dialect_of(self.using).transaction():
                # The first of the hooks, so that it tells whether the commit was behind those that fail.
                transaction.on_commit(lambda: committed.append(True), using=self.using)
                yield
        except Exception as error:
            if not committed:
                raise
            said = f"{type(error).__name__}: {error}".strip().split("\n")[0]
            raise GivenUpError(
                f"What was to follow a chunk's commit failed ({said}). The chunk stands; see what it has left undone."
            ) from error

    def _fence(self) -> None:
        """Step 0: an owner that was taken over finds no shard with its token, and must stop."""
        mine = self._own_shard().filter(state=Shard.State.RUNNING)
        if not mine.update(heartbeat=timezone.now()):
            raise TakenOverError(
                f"Another worker has taken over the repair of {self.rule}; this one has stopped."
            )
        self.beaten = time.monotonic()

    def _lock(self, keys: Sequence[Any]) -> list[Any]:
        """Step 2: lock the records in key order, skipping those that others hold."""
        rows = self.finder.model._base_manager.using(self.using).filter(Keys(keys).on("pk")).order_by("pk")
        # A row that is spread over several tables is locked in each of them.
        listed = dialect_of(self.using).locked(rows).values_list("pk", *inherited(self.finder.model))
        return [key for key, *_ in listed]

    def _hold_cap(self, rows: int) -> None:
        """Hold the cap on rows, also where one record owes several; what goes beyond it is rolled back."""
        if self.may_write is not None and rows > self.may_write:
            raise GivenUpError(
                f"The cap on repairs is reached: {self.may_write:g} more rows may be written, and the next chunk "
                f"would write {rows}. Look at the journal; then repair with a higher cap."
            )

    def _still_drifted(self, keys: set[Any]) -> set[Any]:
        """Of keys that could not be locked, those that others hold; what is gone or mended needs no second try."""
        return {*self.finder.keys(Keys([*keys]))} if keys else set()

    def _journal(self) -> ChunkJournal:
        return ChunkJournal(shard=self.shard, chunk=self.shard.chunks + 1, using=self.using)

    def _verified(self, keys: Sequence[Any], wrote: Wrote) -> set[Any]:
        """Step 5: after the write none of the locked records may drift, but those of rows that others hold."""
        if not keys or (self.remedy.deferred and not wrote.promised):
            return set()
        left = {*self.finder.keys(Keys(keys))} - {*wrote.refused}
        if len(left) <= wrote.held:
            return left
        raise NotMendedError(
            f"{self.finder.model._meta.label} {min(left, key=str)} is still {self.finder.drift} after the repair; does "
            "something in the database change what is written, or does where= exclude it?"
        )

    def _advance(self, key: Any, written: Written, skipped: int) -> None:
        """Step 6: the cursor and the counts, in the data's own transaction."""
        self._own_shard().update(
            cursor=str(key),
            chunks=self.shard.chunks + 1,
            written=F("written") + written.total,
            set_aside=F("set_aside") + skipped,
        )
        counts = {Outcome.COUNTED[verb]: rows for verb, rows in written.as_dict().items() if rows}
        if counts:
            outcome = Outcome._base_manager.using(self.using).filter(pk=self.shard.outcome_id)
            outcome.update(**{column: F(column) + rows for column, rows in counts.items()})

    def _own_shard(self) -> Any:
        return Shard._base_manager.using(self.using).filter(pk=self.shard.pk, token=self.shard.token)
