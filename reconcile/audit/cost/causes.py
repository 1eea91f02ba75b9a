"""Says which effect executes a statement, by the functions that run at that moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import CodeType, FrameType
from typing import Any

from django.db.models import Model
from django.dispatch import Signal

from reconcile.audit.effects import SIGNALS, Effect, On, effects_of
from reconcile.audit.listing import code_of
from reconcile.audit.resolver.relations import Registry

__all__ = ["OWN", "Effects", "cause_of", "effects_by_code"]

OWN = ""
"""The name under which statements stand that no effect has executed."""

Effects = Mapping[CodeType, Sequence[Effect]]

_OVERRIDES = frozenset({On.SAVE, On.DELETE})
_SEND = Signal.send.__code__
_ITSELF = frozenset({Model.save_base.__code__, Model.delete.__code__})
"""What writes the record itself, and calls its receivers."""


def effects_by_code() -> Effects:
    """The effects of all models, by what they run: several models may share it."""
    found: dict[CodeType, list[Effect]] = {}
    for model in Registry().models:
        for each in effects_of(model):
            if (code := code_of(each.function)) is not None:
                found.setdefault(code, []).append(each)
    return found


def cause_of(frame: FrameType | None, effects: Effects) -> str:
    """The outermost effect that is running: whatever it has set off in turn is its own. `OWN` if none is.

    An own `save()` or `delete()` of the record is the cause of what it executes itself, and not of what it hands on to Django: the record's statement and its receivers.
    """
    name, written = OWN, None
    for each in _outwards(frame):
        if each.f_code in _ITSELF:
            written = each.f_locals.get("self")
        elif each.f_code is _SEND and name == OWN:
            name = _awaited_by(each)
        elif found := effects.get(each.f_code):
            if found[0].on in _OVERRIDES and written is not None and _argument(each, 0) is written:
                continue
            name, written = _named(each, found), None
    return name


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _argument(frame: FrameType, place: int) -> Any:
    names = frame.f_code.co_varnames
    return frame.f_locals.get(names[place]) if place < len(names) else None


def _named(frame: FrameType, found: Sequence[Effect]) -> str:
    """The name of the effect: of a field or an override that several models share, the one of the record that is written."""
    first, second = _argument(frame, 0), _argument(frame, 1)
    for each in found:
        if each.on in _OVERRIDES and each.model is type(first):
            return each.name
        if each.on is On.FIELD and each.name == _of_column(second, first):
            return each.name
    return found[0].name


def _of_column(row: Any, column: Any) -> str:
    return f"{row._meta.label}.{column.name}" if isinstance(row, Model) else ""


def _awaited_by(frame: FrameType) -> str:
    """The receivers that are awaited there: they run in a loop of their own, whose functions are not among those that run here."""
    signal, sender = frame.f_locals.get("self"), frame.f_locals.get("sender")
    if not (isinstance(sender, type) and issubclass(sender, Model)):
        return OWN
    awaited = [each.name for each in effects_of(sender) if each.is_async and SIGNALS.get(each.on) is signal]
    return " or ".join(dict.fromkeys(awaited))
