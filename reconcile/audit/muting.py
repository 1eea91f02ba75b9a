"""Saves and deletes without the signals of models, for the caller alone: no other thread and no other request is muted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

from django.db.models import Model
from django.db.models.signals import ModelSignal

from reconcile.audit.effects import SIGNALS

__all__ = ["muted", "save_muted"]

_is_muted: ContextVar[bool] = ContextVar("reconcile_is_muted", default=False)
_patched: list[bool] = []


@contextmanager
def muted() -> Iterator[None]:
    """While the block runs, no receiver hears of what it saves, deletes or adds to a many-to-many; what it starts in other threads is heard.

    Own `save()` and `delete()` run all the same: `save_muted` goes past these.
    """
    _patch()
    token = _is_muted.set(True)
    try:
        yield
    finally:
        _is_muted.reset(token)


def save_muted(row: Model, *, using: str | None = None) -> None:
    """Save the row as Django would without any code of the project: no receiver and no `save()` of its own. Fields still make their values."""
    with muted():
        Model.save(row, using=using)


def _patch() -> None:
    """Put what asks first in place of what sends, once for the process: a method that is put back would be another's, where threads overlap."""
    if _patched:
        return
    _patched.append(True)
    for name in ("send", "send_robust"):
        setattr(ModelSignal, name, _heard(getattr(ModelSignal, name)))
    for name in ("asend", "asend_robust"):
        setattr(ModelSignal, name, _heard_async(getattr(ModelSignal, name)))
    # Asked by Django before it deletes rows unread, or adds many.
    ModelSignal.has_listeners = _has_listeners(ModelSignal.has_listeners)  # type: ignore[method-assign]


def _is_silent(signal: Any) -> bool:
    return _is_muted.get() and any(signal is each for each in SIGNALS.values())


def _heard(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def send(self: ModelSignal, *args: Any, **named: Any) -> Any:
        return [] if _is_silent(self) else original(self, *args, **named)

    return send


def _has_listeners(original: Callable[..., bool]) -> Callable[..., bool]:
    @wraps(original)
    def has_listeners(self: ModelSignal, *args: Any, **named: Any) -> bool:
        return not _is_silent(self) and original(self, *args, **named)

    return has_listeners


def _heard_async(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    async def send(self: ModelSignal, *args: Any, **named: Any) -> Any:
        return [] if _is_silent(self) else await original(self, *args, **named)

    return send
