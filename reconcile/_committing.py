"""One try at a chunk, and what is known of its COMMIT.

Note [COMMIT without an answer]: where the connection breaks while COMMIT is under way, nobody on this side can know
whether the server has carried it out, or still will. So it is looked up: the chunk's number stands in the shard's row, by
the chunk's own transaction, which holds that row's lock until it is over. Whoever gets the lock finds the number if the chunk
was committed, and what it had written is what was written. A chunk's own patience with locks is too short for that: a
COMMIT that comes later than the last try would have its records reported as failed, although they are repaired.

What the project has given to `transaction.on_commit` is forgotten by Django with the connection, so it is kept here until
the COMMIT was answered, and done once the chunk was found.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import structlog
from django.db import Error, connections, transaction
from django.db.models import QuerySet

from reconcile.errors import GivenUpError
from reconcile.journal import ChunkJournal
from reconcile.models import Shard
from reconcile.remedies import Wrote
from reconcile.sql.dialects import dialect_of

__all__ = ["Attempt", "committed_or_not", "follow", "reconnected", "stands"]

log = structlog.get_logger()

RECONNECTS = (0.05, 0.2, 1.0, 3.0, 10.0)
"""Seconds to wait, at most, before each try to reach a server that has dropped the connection."""


@dataclass(kw_only=True, eq=False)
class Attempt:
    """One try at a chunk: what it has locked, written and left so far.

    in_doubt: COMMIT was sent, or was about to be, and the connection broke.
    hooks: what is to follow the commit, and whether its errors are only logged.
    """

    number: int
    keys: Sequence[Any]
    began: float = field(default_factory=time.monotonic)
    journal: ChunkJournal | None = None
    locked: Sequence[Any] = ()
    wrote: Wrote = field(default_factory=Wrote)
    held: set[Any] = field(default_factory=set)
    waits_for_tables: bool = False
    in_doubt: bool = False
    hooks: Sequence[tuple[Callable[[], object], bool]] = ()

    @property
    def skipped(self) -> set[Any]:
        """Keys that were left for later, or for good."""
        return self.held | {*self.wrote.refused}

    @property
    def repaired(self) -> Sequence[Any]:
        """Keys that were locked, had drifted still, and were neither left nor refused."""
        skipped, wrote = self.skipped, self.wrote
        if not wrote.written.total:
            return []
        keys = self.locked if wrote.keys is None else wrote.keys
        return [key for key in keys if key not in skipped] if skipped else keys


@contextmanager
def committed_or_not(tried: Attempt, using: str) -> Iterator[None]:
    """The chunk's transaction. What fails after its commit, in a hook of the project's, is no reason to try again.

    Where the connection breaks at the very end, `tried` is marked as in doubt. See Note [COMMIT without an answer].
    """
    committed: list[bool] = []
    whole = False
    try:
        with dialect_of(using).transaction():
            # The first of the hooks, so that it tells whether the commit was behind those that fail.
            transaction.on_commit(lambda: committed.append(True), using=using)
            yield
            _, *hooks = cast("list[Any]", connections[using].run_on_commit)
            tried.hooks = [(hook, robust) for _, hook, robust in hooks]
            whole = True
    except Exception as error:
        if committed:
            raise _unfollowed(error) from error
        tried.in_doubt = whole and isinstance(error, Error) and dialect_of(using).is_lost(error)
        raise


def follow(tried: Attempt, using: str) -> None:
    """Do what is to follow the commit of a chunk that turned out to stand. Raises GivenUpError where that fails."""
    for hook, robust in tried.hooks:
        try:
            # Outside a transaction it is called at once.
            transaction.on_commit(hook, using=using, robust=robust)
        except Exception as error:
            raise _unfollowed(error) from error


def _unfollowed(error: Exception) -> GivenUpError:
    said = f"{type(error).__name__}: {error}".strip().split("\n")[0]
    return GivenUpError(
        f"What was to follow a chunk's commit failed ({said}). The chunk stands; see what it has left undone."
    )


def reconnected(using: str, pause: Callable[[float], None]) -> bool:
    """Whether the server can be reached again, after a few tries."""
    connection = connections[using]
    for seconds in RECONNECTS:
        pause(random.uniform(seconds / 2, seconds))  # noqa: S311
        try:
            connection.close()
            connection.ensure_connection()
        except Error as error:
            log.warning("database_not_reached", database=using, error=str(error).strip())
            continue
        return True
    return False


def stands(tried: Attempt, shard: QuerySet[Shard], pause: Callable[[float], None]) -> bool:
    """Whether a chunk whose COMMIT was not answered was committed. See Note [COMMIT without an answer].

    `shard` is the row that the chunk belongs to, while this worker owns it. Waits until the chunk's transaction is over:
    a minute at most on PostgreSQL, which ends idle ones; elsewhere as long as the server lets a session wait for a lock, for
    each of a few tries. Raises the database's error where that was too short. Two statements.
    """
    for seconds in RECONNECTS:
        try:
            return _stands(tried, shard)
        except Error as error:
            if not dialect_of(shard.db).is_transient(error):
                raise
            log.warning("commit_not_decided", chunk=tried.number, error=str(error).strip())
        pause(random.uniform(seconds / 2, seconds))  # noqa: S311
    return _stands(tried, shard)


def _stands(tried: Attempt, shard: QuerySet[Shard]) -> bool:
    # Two statements: one alone would tell what was true before it had waited.
    with transaction.atomic(using=shard.db):
        dialect_of(shard.db).hold(shard)
        return shard.filter(chunks=tried.number).exists()
