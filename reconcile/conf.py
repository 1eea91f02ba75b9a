"""The settings: `settings.RECONCILE`, what each key means, its default, and what can be wrong with it.

Settings are read when they are used, so that a test may override them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from reconcile.errors import Fault, nearest

__all__ = [
    "LOCK_WAIT", "MOST_RECORDS", "REST", "Alarm", "Throttle", "alarm", "chunk_limit", "exempt_effects", "lock_wait", "rest_factor", "rule_packages", "setting_faults",
    "shows_filtered_rows", "throttles",
]  # fmt: skip

Throttle = Callable[[str], Any]

MOST_RECORDS = 5_000
"""Records that one chunk may repair at most; `CHUNK` may lower it."""

REST = 30
"""How many times as long as a chunk has taken the repair rests, while other sessions use the database."""

LOCK_WAIT = 60
"""Seconds that a statement of a check waits for a lock."""

MOST_LOCK_WAIT = 86_400
"""Largest value of the setting `LOCK_WAIT`: a day."""

MOST_REST = 1_000
"""Largest value of the setting `REST`."""

REFUSED, FILTERED = "refused", "filtered"
"""What `ROW_SECURITY` may be."""


class Alarm(StrEnum):
    """What `ALARM` may be: from what on a night is incomplete, so that its task fails."""

    NEVER = "never"
    ERROR = "error"
    """An error, a failed repair, a rule that was held or is still open."""
    FAIL = "fail"
    """The same, and drift above a rule's `error_if`."""
    WARN = "warn"
    """The same, and drift above a rule's `warn_if`."""


_SHAPE = 'Set RECONCILE = {"RULES": ["rules"]}.'


def rule_packages() -> Sequence[str]:
    """`RULES`: the packages whose modules hold the rules; none if the setting has another shape."""
    names = _read_settings().get("RULES", ())
    return () if _is_no_list(names) else names


def chunk_limit() -> int:
    """`CHUNK`: records that one chunk repairs at most."""
    limit: int = _read_settings().get("CHUNK", MOST_RECORDS)
    return limit


def shows_filtered_rows() -> bool:
    """`ROW_SECURITY`: whether a check may read what row level security leaves of a table; else the server refuses it."""
    return bool(_read_settings().get("ROW_SECURITY", REFUSED) == FILTERED)


def lock_wait() -> float:
    """`LOCK_WAIT`: seconds that a statement of a check waits for a lock, before its rule is an error."""
    seconds: float = _read_settings().get("LOCK_WAIT", LOCK_WAIT)
    return seconds


def rest_factor() -> float:
    """`REST`: how many times as long as a chunk has taken the repair rests, while others use the database."""
    factor: float = _read_settings().get("REST", REST)
    return factor


def alarm() -> Alarm:
    """`ALARM`: from what on the task of a night fails."""
    return Alarm(_read_settings().get("ALARM", Alarm.FAIL))


def throttles() -> Sequence[Throttle]:
    """`THROTTLES`: the functions asked before each chunk. Raises ImportError for one that isn't there."""
    return [_import_throttle(each) for each in _read_settings().get("THROTTLES", ())]


def exempt_effects() -> Mapping[str, str]:
    """`EXEMPT`: effects of signals that no rule need cover, each with the reason."""
    exempt: Mapping[str, str] = _read_settings().get("EXEMPT", {})
    return exempt


def setting_faults() -> Iterator[Fault]:
    """Each thing that is wrong with `settings.RECONCILE`. Costs no statement."""
    configured = getattr(settings, "RECONCILE", {})
    if not isinstance(configured, Mapping):
        yield _fault(f"settings.RECONCILE is {configured!r}, not a dictionary.", _SHAPE)
        return
    for key in configured:
        if key not in _FAULTS:
            hint = nearest(str(key), _FAULTS).strip() or _SHAPE
            yield _fault(f"settings.RECONCILE has an unknown key {key!r}.", hint)
    for key, faults in _FAULTS.items():
        if key in configured:
            yield from faults(configured[key])


def _rules_faults(names: Any) -> Iterator[Fault]:
    if _is_no_list(names):
        yield _fault(f"settings.RECONCILE['RULES'] is {names!r}.", _SHAPE)


def _throttle_faults(listed: Any) -> Iterator[Fault]:
    hint = "Give a list of functions, or of their dotted paths, that take a database's alias."
    if _is_no_list(listed):
        yield _fault(f"settings.RECONCILE['THROTTLES'] is {listed!r}.", hint)
        return
    for each in listed:
        try:
            found = _import_throttle(each)
        except ImportError as error:
            yield _fault(f"Throttle {each!r} can't be imported: {error}.", hint)
            continue
        if not callable(found):
            yield _fault(f"Throttle {each!r} can't be called.", hint)


def _chunk_faults(limit: Any) -> Iterator[Fault]:
    if not isinstance(limit, int) or not _is_number(limit, 1, MOST_RECORDS):
        hint = f"Give the most records that one transaction may repair, from 1 to {MOST_RECORDS:,}."
        yield _fault(f"settings.RECONCILE['CHUNK'] is {limit!r}.", hint)


def _rest_faults(factor: Any) -> Iterator[Fault]:
    if not _is_number(factor, 0, MOST_REST):
        hint = (
            "Give how many times as long as a chunk has taken the repair rests while others use the database, "
            f"from 0 to {MOST_REST}."
        )
        yield _fault(f"settings.RECONCILE['REST'] is {factor!r}.", hint)


def _lock_wait_faults(seconds: Any) -> Iterator[Fault]:
    if not _is_number(seconds, 1, MOST_LOCK_WAIT):
        hint = f"Give the seconds that a check waits for a lock, from 1 to {MOST_LOCK_WAIT:,}."
        yield _fault(f"settings.RECONCILE['LOCK_WAIT'] is {seconds!r}.", hint)


def _is_number(value: Any, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _row_security_faults(value: Any) -> Iterator[Fault]:
    if value not in (REFUSED, FILTERED):
        hint = f"Give {REFUSED!r}, or {FILTERED!r} if a check may read what a policy leaves of a table."
        yield _fault(f"settings.RECONCILE['ROW_SECURITY'] is {value!r}.", hint)


def _alarm_faults(value: Any) -> Iterator[Fault]:
    if value not in [*Alarm]:
        hint = f"Give one of {', '.join(repr(str(each)) for each in Alarm)}: from what on the task of a night fails."
        yield _fault(f"settings.RECONCILE['ALARM'] is {value!r}.", hint)


def _exempt_faults(value: Any) -> Iterator[Fault]:
    hint = 'Give a dictionary: "shop.signals.handle_order_saved": "why no rule need cover it".'
    if not isinstance(value, Mapping):
        yield _fault(f"settings.RECONCILE['EXEMPT'] is {value!r}.", hint)
        return
    for name, reason in value.items():
        if not (isinstance(name, str) and isinstance(reason, str) and reason.strip()):
            yield _fault(f"settings.RECONCILE['EXEMPT'] has {name!r} without a reason.", hint)


_FAULTS: Mapping[str, Callable[[Any], Iterator[Fault]]] = {
    "RULES": _rules_faults,
    "THROTTLES": _throttle_faults,
    "CHUNK": _chunk_faults,
    "REST": _rest_faults,
    "ROW_SECURITY": _row_security_faults,
    "LOCK_WAIT": _lock_wait_faults,
    "ALARM": _alarm_faults,
    "EXEMPT": _exempt_faults,
}


def _read_settings() -> Mapping[str, Any]:
    configured = getattr(settings, "RECONCILE", {})
    return configured if isinstance(configured, Mapping) else {}


def _is_no_list(value: Any) -> bool:
    return isinstance(value, str) or not isinstance(value, Sequence)


def _import_throttle(throttle: Any) -> Throttle:
    found: Throttle = import_string(throttle) if isinstance(throttle, str) else throttle
    return found


def _fault(message: str, hint: str) -> Fault:
    return Fault("reconcile.E001", message, hint)
