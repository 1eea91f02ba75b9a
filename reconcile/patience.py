"""How often a chunk that failed is tried again, and when it is halved.

Note [Patience]: what other sessions cause goes away when it is tried again, and what is wrong with a record doesn't. An
error rarely tells which of them it is, so it is told by how often it comes back. A chunk in whose way others are is tried
again, then halved, down to single records, each of which is kept for the end after its last try. A record that drifts
right after it was mended was written by somebody in between, or can't be mended: it is kept for the end once, and is a
failure there. A duplicate that was met has been committed, so that the second try sees it: one that it doesn't see is the
record's own. Where one record after the other is of no avail, so are the tries: then each chunk has one, and is kept whole
if others are in its way, until a chunk is committed. So the work is bounded, whatever others do.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from django.db import IntegrityError

from reconcile._committing import Attempt
from reconcile.errors import NotMendedError
from reconcile.sql.dialects import dialect_of

__all__ = ["Patience"]

log = structlog.get_logger()

TRIES, TRIES_OF_DUPLICATE = 5, 2

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
"""Seconds between tries, full jitter."""

IN_VAIN = 20
"""Single records in a row, each left after its last try, from which on patience doesn't pay."""


@dataclass(kw_only=True)
class Patience:
    """What one worker has learnt of how much it helps to try again. See Note [Patience]."""

    rule: str
    using: str
    pause: Callable[[float], None]
    in_vain: int = 0

    def ends(self, tried: Attempt, failure: Exception, *, number: int) -> bool:
        """Whether the try with this number was the chunk's last; before any other there is a pause."""
        if number >= self._tries(tried, failure):
            return True
        log.warning("chunk_retried", rule=self.rule, keys=len(tried.keys), attempt=number, error=str(failure))
        self.pause(random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (number - 1))))  # noqa: S311
        return False

    def _tries(self, tried: Attempt, failure: Exception) -> int:
        if tried.in_doubt:
            return TRIES
        if self.in_vain >= IN_VAIN:
            return 1
        if isinstance(failure, NotMendedError):
            return TRIES if len(tried.keys) == 1 else 1
        if not dialect_of(self.using).is_transient(failure):
            return 1
        return TRIES_OF_DUPLICATE if _is_of_constraint(failure) else TRIES

    def halves(self, tried: Attempt, failure: Exception) -> bool:
        """Whether parts of the chunk may fare better than all of it."""
        if len(tried.keys) == 1 or tried.waits_for_tables:
            return False
        return self.in_vain < IN_VAIN or not self.is_others(failure)

    def is_others(self, failure: Exception) -> bool:
        """Whether other sessions were in the way, as far as the last try can tell."""
        return dialect_of(self.using).is_transient(failure) and not _is_of_constraint(failure)


def _is_of_constraint(failure: Exception) -> bool:
    """Whether the database refused a row: one with the same unique value was there already, say."""
    return isinstance(failure, IntegrityError) or isinstance(failure.__cause__, IntegrityError)
