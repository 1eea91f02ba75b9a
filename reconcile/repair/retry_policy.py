"""The retry policy of a chunk: how often it is tried again, and when it is halved.

Note [Retry policy]: a failure that other sessions cause goes away with another try; a failure of the record does not. The error
rarely tells which one it is, but it does by coming back. A chunk that meets other sessions is tried again, then halved, down to
single records. Such a record is tried once more at the end. A record that drifts right after its repair was written by another
session, or can't be repaired: it is tried once more at the end, and fails then; at once there is no further try where the table has triggers,
which would only do the same again. A duplicate that a chunk met has been committed
by another session, so the second try sees it; if it does not, the duplicate is the record's own. If single records fail one after
the other, further tries are in vain: then each chunk has one try until a chunk is committed. So the work is bounded, whatever other
sessions do.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from reconcile.db.dialects import dialect_of
from reconcile.errors import NotRepairedError
from reconcile.repair.attempt import Attempt

__all__ = ["RetryPolicy"]

log = structlog.get_logger()

TRIES, TRIES_OF_DUPLICATE, TRIES_OF_CHANGED = 5, 2, 1

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
"""Bounds of the pause between tries, in seconds; full jitter."""

MOST_FAILURES = 20
"""Single records that may fail in a row before each chunk has one try alone."""


@dataclass(kw_only=True)
class RetryPolicy:
    """How often one worker tries a chunk. It learns from tries that failed. See Note [Retry policy].

    changed_by_database: triggers may change what is written, so that a record that still drifts will do so again.
    """

    rule: str
    using: str
    pause: Callable[[float], None]
    changed_by_database: bool = False
    failures_in_a_row: int = 0

    def note_success(self) -> None:
        """A chunk was committed, so other sessions are not in the way of all."""
        self.failures_in_a_row = 0

    def note_failure(self, *, tries: int) -> None:
        """A single record has failed after so many tries. A single try costs no time, so it does not count."""
        self.failures_in_a_row += tries > 1

    def is_last_try(self, tried: Attempt, failure: Exception, *, number: int) -> bool:
        """Whether the chunk has no further try. If it has one, pause first."""
        if number >= self._tries(tried, failure):
            return True
        log.warning("chunk_retried", rule=self.rule, keys=len(tried.keys), attempt=number, error=str(failure))
        self.pause(random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (number - 1))))  # noqa: S311
        return False

    def _tries(self, tried: Attempt, failure: Exception) -> int:
        if tried.in_doubt:
            return TRIES
        if self.failures_in_a_row >= MOST_FAILURES:
            return 1
        if isinstance(failure, NotRepairedError):
            single = TRIES_OF_CHANGED if self.changed_by_database else TRIES
            return single if len(tried.keys) == 1 else 1
        if not dialect_of(self.using).is_transient(failure):
            return 1
        return TRIES_OF_DUPLICATE if self._is_of_record(failure) else TRIES

    def should_halve(self, tried: Attempt, failure: Exception) -> bool:
        """Whether halves of the chunk may succeed where the whole failed."""
        if len(tried.keys) == 1 or tried.waits_for_tables:
            return False
        return self.failures_in_a_row < MOST_FAILURES or not self.is_contention(failure)

    def is_contention(self, failure: Exception) -> bool:
        """Whether other sessions caused the failure, as far as the error tells."""
        return dialect_of(self.using).is_transient(failure) and not self._is_of_record(failure)

    def _is_of_record(self, failure: Exception) -> bool:
        """Whether the database refused a row, such as a duplicate."""
        return dialect_of(self.using).concerns_records(failure)
