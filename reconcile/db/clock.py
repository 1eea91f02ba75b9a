"""The database's clock, which all workers of a run share. The clocks of their hosts may differ, and may be set while they work.

The database is asked once in a while; in between this process counts the seconds by its monotonic clock, which nobody sets.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from django.conf import settings
from django.db import Error
from django.utils import timezone

from reconcile.db.dialects import dialect_of

__all__ = ["SKEW", "clock_skew", "database_now"]

log = structlog.get_logger()

FRESH = 300.0
"""Seconds for which an answer of the database counts."""

SKEW = timedelta(seconds=2)
"""A host whose clock is further from the database's is told of."""


@dataclass(frozen=True)
class _Reading:
    """The database's time, and the monotonic clock of this process at that moment."""

    at: datetime
    monotonic: float

    @property
    def age(self) -> float:
        """Seconds since then."""
        return time.monotonic() - self.monotonic


_READINGS: dict[str, _Reading] = {}


def database_now(using: str) -> datetime:
    """The time of the database, in the form of `timezone.now()`. No statement; one if five minutes have passed.

    Where the database doesn't answer, or is a file of this host, it is the host's own time.
    """
    reading = _READINGS.get(using)
    if reading is None or reading.age > FRESH:
        reading = _read(using)
    if reading is None:
        return timezone.now()
    now = reading.at + timedelta(seconds=reading.age)
    return now if settings.USE_TZ else timezone.make_naive(now)


def clock_skew(using: str) -> str:
    """What a person should know of the host's clock; empty if it is no more than two seconds off. One statement, which sets the time."""
    reading = _read(using)
    if reading is None:
        return ""
    ahead = datetime.now(UTC) - (reading.at + timedelta(seconds=reading.age))
    if abs(ahead) <= SKEW:
        return ""
    which = "ahead of" if ahead > timedelta() else "behind"
    return (
        f"This host's clock is {abs(ahead).total_seconds():,.0f} s {which} the database's. Leases and settle times go by the "
        "database's; what this host's handlers have written goes by its own."
    )


def _read(using: str) -> _Reading | None:
    """Ask the database. None if it has no clock of its own, or doesn't answer, as the next statement will tell."""
    before = time.monotonic()
    try:
        seconds = dialect_of(using).read_clock()
    except Error as error:
        log.warning("clock_not_read", database=using, error=str(error).strip())
        return None
    if seconds is None:
        return None
    # Half of the way there and back lies before the answer was given.
    _READINGS[using] = _Reading(datetime.fromtimestamp(float(seconds), UTC), (before + time.monotonic()) / 2)
    return _READINGS[using]
