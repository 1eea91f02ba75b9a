"""The act of repairing: one chunk is one transaction; data, journal and cursor commit together.

Its steps are numbered as docs/repair.md numbers them. What a run does with many chunks is in `runs`; what becomes of a
chunk whose COMMIT was not answered, in `_committing`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from django.db import Error, InterfaceError, NotSupportedError, ProgrammingError
from django.db.models import F
from django.utils import timezone

from reconcile._committing import Attempt, committed_or_not, reconnected, stands
from reconcile.allowance import Allowance
from reconcile.checking import evaluated
from reconcile.errors import (
    ChunkConflictError,
    GivenUpError,
    NotMendedError,
    RemedyFailedError,
    TakenOverError,
)
from reconcile.faults import Step, reached
from reconcile.finders import Finder
from reconcile.journal import ChunkJournal
from reconcile.models import Chunk, Outcome, Shard
from reconcile.pacing import Pace
from reconcile.remedies import Remedy, Wrote
from reconcile.sending import send
from reconcile.sql.columns import inherited
from reconcile.sql.dialects import dialect_of
from reconcile.throttling import Throttle, hold_back
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
    """Repairs chunks of keys for one finder and remedy, as the owner of one shard.

    obey: called before each chunk and now and then while the walk finds nothing; it raises where somebody wants the run to
        pause or end. throttles: asked before each chunk whether the database has other worries.
    may_take: of keys, those that this run may touch; the others are counted in `waiting`.
    failures: keys that can't be repaired, each with the reason. aside: keys to be tried again at the end, since
        others hold them; busy: what the database said of some of them.
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
    aside: list[Any] = field(default_factory=list)
    busy: dict[Any, str] = field(default_factory=dict)
    failures: dict[Any, str] = field(default_factory=dict)
    waiting: int = 0
    mended: int = 0
    pace: Pace = field(default_factory=Pace)
    beaten: float = field(default_factory=time.monotonic)
    pause: Callable[[float], None] = time.sleep

    def beat(self) -> None:
        """Say that the worker lives, where the last chunk or beat was a while ago, and see what people want of it."""
        if time.monotonic() - self.beaten > BEAT:
            self.obey()
            self._fence(None)

    def _tick(self) -> None:
        """While a throttle holds the repair back."""
        self.obey()
        self.beat()

    def repair(self, keys: Sequence[Any]) -> int:
        """Repair `keys`, in as many transactions as it takes; rows written.

        A transient failure is tried again, then the chunk is halved, down to one record, which is set aside
        with its error. Keys that others hold are set aside to be tried again. Raises TakenOverError.
        """
        for attempt in range(TRIES):
            self.obey()
            hold_back(self.throttles, self.using, tick=self._tick, pause=self.pause)
            tried = Attempt(number=self.shard.chunks + 1, keys=keys)
            try:
                self._transact(tried)
                return self._close(tried)
            except (Error, ChunkConflictError, NotMendedError, RemedyFailedError) as error:
                failure = self._examined(error, tried)
                if tried.in_doubt and stands(tried, self._own_shard(), self.pause):
                    return self._close(tried)
                if not (tried.in_doubt or dialect_of(self.using).is_transient(error)):
                    break
                log.warning(
                    "chunk_retried", rule=self.rule, keys=len(keys), attempt=attempt + 1, error=str(error)
                )
                self.pause(random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)))  # noqa: S311
        if len(keys) > 1 and not tried.waits_for_tables:
            middle = len(keys) // 2
            return self.repair(keys[:middle]) + self.repair(keys[middle:])
        if dialect_of(self.using).is_transient(failure):
            self._hold(keys, failure)
        else:
            self._set_aside(keys[0], failure)
        return 0

    def _examined(self, error: Exception, tried: Attempt) -> Exception:
        """The error, if it may concern single records; raises EvaluationError where it concerns them all."""
        lost = isinstance(error, Error) and dialect_of(self.using).is_lost(error)
        if lost and tried.in_doubt and reconnected(self.using, self.pause):
            return error
        if lost or isinstance(error, ProgrammingError | InterfaceError | NotSupportedError):
            with evaluated(self.using):
                raise error
        return error

    def _hold(self, keys: Sequence[Any], failure: Exception) -> None:
        """Keep one record for a try at the end, or all where their table was never free: others were in the way each time."""
        self._own_shard().update(set_aside=F("set_aside") + len(keys))
        self.aside.extend(keys)
        self.busy |= dict.fromkeys(keys, _first_line(failure))
        log.warning(
            "records_held", rule=self.rule, key=str(keys[0]), keys=len(keys), error=_first_line(failure)
        )

    def _set_aside(self, key: Any, failure: Exception) -> None:
        """Note one record that can't be repaired; raises GivenUpError when that has become the normal case."""
        # Only this worker knows which; a count in the database makes whoever resumes look at all again.
        self._own_shard().update(set_aside=F("set_aside") + 1)
        self._note_failure(key, _first_line(failure))

    def _note_failure(self, key: Any, said: str) -> None:
        self.failures[key] = said
        log.error("record_set_aside", rule=self.rule, key=str(key), error=said)
        if len(self.failures) >= HOPELESS and len(self.failures) > self.mended:
            raise GivenUpError(
                f"{len(self.failures)} records failed and {self.mended} were mended; the rest were left alone. "
                f"The last one, {key}: {said}"
            )

    def _transact(self, tried: Attempt) -> None:
        """Steps 0 to 6; what they came to is noted in `tried`."""
        keys, tried.began = tried.keys, time.monotonic()
        tried.journal = self._journal()
        with committed_or_not(tried, self.using):
            reached(Step.FENCE)
            self._fence(tried)
            if self.finder.exclusive and not self.remedy.deferred:
                reached(Step.TABLES)
                tried.waits_for_tables = True
                dialect_of(self.using).lock_tables(self.finder.exclusive)
                tried.waits_for_tables = False
            reached(Step.LOCK)
            tried.locked = self._lock(keys)
            reached(Step.WRITE)
            if tried.locked:
                tried.wrote = self.remedy.write(self.finder, Keys(tried.locked), tried.journal)
            self.allowance.hold(tried.wrote.written)
            reached(Step.VERIFY)
            held = self._still_drifted({*keys} - {*tried.locked}) | self._verified(tried.locked, tried.wrote)
            tried.held = held
            reached(Step.CURSOR)
            self._advance(tried)
            reached(Step.COMMIT)
        reached(Step.COMMITTED)

    def _close(self, done: Attempt) -> int:
        """What follows the commit of a chunk; its rows written."""
        keys, wrote = done.keys, done.wrote
        # Not before: what was rolled back has spent nothing.
        self.allowance.spend(wrote.written)
        self.shard.chunks = done.number
        self.shard.cursor = str(keys[-1])
        self.pace.note(len(keys), time.monotonic() - done.began)
        if done.journal is not None:
            send(wrote.sending, done.journal, rule=self.rule, pause=self.pause)
        self.mended += len(keys) - len(done.skipped)
        self.aside.extend(key for key in keys if key in done.held)
        for key, why in wrote.refused.items():
            self._note_failure(key, why)
        log.info(
            "chunk_repaired", rule=self.rule, run=str(self.shard.outcome.run_id), drift=str(self.finder.drift),
            after=str(keys[0]), upto=str(keys[-1]), written=wrote.written.total, skipped=len(done.skipped),
        )  # fmt: skip
        return wrote.written.total

    def _fence(self, tried: Attempt | None) -> None:
        """Step 0: an owner that was taken over finds no shard with its token, and must stop.

        The chunk's number is part of it, so that no chunk is committed twice. The row's lock, held until the chunk is
        over, makes whoever takes over wait for it, and whoever asks what became of it.
        """
        mine = self._own_shard().filter(state=Shard.State.RUNNING)
        if tried is not None:
            mine = mine.filter(chunks=tried.number - 1)
        if mine.update(heartbeat=timezone.now()):
            self.beaten = time.monotonic()
            return
        raise TakenOverError(
            f"Another worker has taken over the repair of {self.rule}; this one has stopped."
        )

    def _journal(self) -> ChunkJournal:
        return ChunkJournal(shard=self.shard, chunk=self.shard.chunks + 1, using=self.using)

    def _lock(self, keys: Sequence[Any]) -> list[Any]:
        """Step 2: lock the records in key order, skipping those that others hold."""
        rows = self.finder.model._base_manager.using(self.using).filter(Keys(keys).on("pk")).order_by("pk")
        # A row that is spread over several tables is locked in each of them.
        listed = dialect_of(self.using).locked(rows).values_list("pk", *inherited(self.finder.model))
        return [key for key, *_ in listed]

    def _still_drifted(self, keys: set[Any]) -> set[Any]:
        """Of keys that could not be locked, those that others hold; what is gone or mended needs no second try."""
        return {*self.finder.keys(Keys([*keys]))} if keys else set()

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

    def _advance(self, tried: Attempt) -> None:
        """Step 6: the cursor, the proof and the counts, in the data's own transaction."""
        written = tried.wrote.written
        self._own_shard().update(
            cursor=str(tried.keys[-1]),
            chunks=tried.number,
            written=F("written") + written.total,
            set_aside=F("set_aside") + len(tried.skipped),
        )
        # What a task does later is not repaired yet.
        keys = [] if self.remedy.deferred else [_plain(key) for key in tried.repaired]
        proof = Chunk(shard=self.shard, number=tried.number, keys=keys)
        Chunk._base_manager.using(self.using).bulk_create([proof])
        counts = {Outcome.COUNTED[verb]: rows for verb, rows in written.as_dict().items() if rows}
        if counts:
            outcome = Outcome._base_manager.using(self.using).filter(pk=self.shard.outcome_id)
            outcome.update(**{column: F(column) + rows for column, rows in counts.items()})

    def _own_shard(self) -> Any:
        return Shard._base_manager.using(self.using).filter(pk=self.shard.pk, token=self.shard.token)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _plain(key: Any) -> Any:
    """The key as JSON can hold it."""
    return key if isinstance(key, int) else str(key)
