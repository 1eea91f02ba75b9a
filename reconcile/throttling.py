"""Throttles: callables of the project that hold a repair back while the database has other worries.

`settings.RECONCILE["THROTTLES"]` lists them, as dotted paths or as functions. Each is called with the database's alias before
each chunk. What it returns says how long to wait before it is asked again: False, None or 0 not at all, True five
seconds, a number so many. One that raises throttles, too, since nobody knows then how the database is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import structlog
from django.conf import settings
from django.utils.module_loading import import_string

from reconcile.errors import Fault, GivenUpError

__all__ = ["PATIENCE", "Throttle", "hold_back", "throttle_faults", "throttles", "wait"]

log = structlog.get_logger()

Throttle = Callable[[str], Any]

WAIT = 5.0
"""Seconds to wait where a throttle says yes and nothing more, or raises."""

PATIENCE = 600.0
"""Seconds that a repair is held back at a stretch before it is given up, to be resumed later."""

TICK = 1.0
"""Longest wait without a sign of life, in seconds."""


def throttles() -> Sequence[Throttle]:
    """The project's throttles. Raises ImportError for one that isn't there; system checks have said so before."""
    configured = getattr(settings, "RECONCILE", {})
    listed = configured.get("THROTTLES", ()) if isinstance(configured, Mapping) else ()
    return [import_string(each) if isinstance(each, str) else each for each in listed]


def throttle_faults(listed: Any) -> Iterator[Fault]:
    """What is wrong with `settings.RECONCILE["THROTTLES"]`."""
    hint = "Give a list of functions, or of their dotted paths, that take a database's alias."
    if isinstance(listed, str) or not isinstance(listed, Sequence):
        yield Fault("reconcile.E001", f"settings.RECONCILE['THROTTLES'] is {listed!r}.", hint)
        return
    for each in listed:
        try:
            found = import_string(each) if isinstance(each, str) else each
        except ImportError as error:
            yield Fault("reconcile.E001", f"Throttle {each!r} can't be imported: {error}.", hint)
            continue
        if not callable(found):
            yield Fault("reconcile.E001", f"Throttle {each!r} can't be called.", hint)


def hold_back(
    asked: Sequence[Throttle],
    using: str,
    *,
    tick: Callable[[], None],
    pause: Callable[[float], None] = time.sleep,
) -> float:
    """Wait until no throttle holds the repair back; the seconds waited.

    `tick` is called at least once a second of waiting, for signs of life and for whoever wants the run to pause. Raises
    GivenUpError where that takes longer than PATIENCE.
    """
    waited = 0.0
    while (held := _longest(asked, using))[0] > 0:
        seconds, name = held
        if waited >= PATIENCE:
            raise GivenUpError(
                f"Throttle {name} has held the repair back for {waited:,.0f} s. Resume the run when the database has calmed down."
            )
        log.info("repair_throttled", database=using, throttle=name, seconds=seconds)
        waited += wait(min(seconds, PATIENCE), tick, pause)
    return waited


def wait(seconds: float, tick: Callable[[], None], pause: Callable[[float], None]) -> float:
    """Wait, with a `tick` at least once a second; the seconds waited."""
    left = seconds
    while left > 0:
        step = min(left, TICK)
        pause(step)
        tick()
        left -= step
    return seconds


def _longest(asked: Sequence[Throttle], using: str) -> tuple[float, str]:
    """The longest wait that any throttle asks for, in seconds, and its name."""
    return max(((_seconds(each, using), _name(each)) for each in asked), default=(0.0, ""))


def _seconds(throttle: Throttle, using: str) -> float:
    try:
        said = throttle(using)
        return WAIT if said is True else float(said or 0)
    except Exception as error:  # noqa: BLE001 - whatever it is, nobody knows how the database is
        log.warning("throttle_failed", throttle=_name(throttle), error=f"{type(error).__name__}: {error}")
        return WAIT


def _name(throttle: Throttle) -> str:
    return str(getattr(throttle, "__qualname__", None) or type(throttle).__name__)
