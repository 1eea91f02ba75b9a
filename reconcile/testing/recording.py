"""Which calls a block of code, or a test suite, really made past signals and methods, with call site and model.

The twin of `reconcile signals bypasses`: that reads the source, this watches what runs. It watches the entry points of the ORM, and the
statements that the project's own code hands to a cursor.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial, wraps
from pathlib import Path
from types import FrameType
from typing import Any

import django
from django.db.models import QuerySet

from reconcile.audit.raw_sql import is_writing
from reconcile.audit.recorded import SeenCall
from reconcile.db.django_compat import CursorWrapper

__all__ = ["Recording", "record_bypasses"]

ENTRIES = (
    "bulk_create", "abulk_create", "bulk_update", "abulk_update", "update", "aupdate", "delete", "adelete", "_raw_delete",
)  # fmt: skip
"""The methods of a queryset that write past something."""

MANAGERS = (
    "db/models/manager.py",
    "db/models/fields/related_descriptors.py",
    "contrib/contenttypes/fields.py",
)
"""The files of Django through which a project's code calls these: managers, and `add()` and its like of related ones."""

_DJANGO = str(Path(django.__file__).parent)
_OWN = str(Path(__file__).parent.parent)
_hop: ContextVar[list[str] | None] = ContextVar("reconcile_hop", default=None)
"""The method that an async one, which is recorded already, is about to call in a thread."""


@dataclass(eq=False)
class Recording:
    """How often each call was made."""

    calls: Counter[SeenCall] = field(default_factory=Counter)

    def note(self, operation: str, model: str, frame: FrameType | None, sql: str = "") -> None:
        """Note a call that the frame made; nothing if Django made it for purposes of its own."""
        site = _site(frame)
        if site is not None:
            code = site.f_code
            self.calls[
                SeenCall(code.co_filename, site.f_lineno, code.co_qualname, operation, model, sql)
            ] += 1


@contextmanager
def record_bypasses() -> Iterator[Recording]:
    """Record, while the block runs, each call in this process that writes past signals or methods; of other threads too.

    Costs a look at the stack for each such call and each statement. Changes nothing of what is done.
    """
    recording = Recording()
    if not _active:
        _watch_all()
    _active.append(recording)
    try:
        yield recording
    finally:
        _active.remove(recording)
        if not _active:
            _watched.close()


_active: list[Recording] = []
"""The recordings that are being made; one may begin or end within another."""

_watched = ExitStack()
"""What puts the methods back that are watched."""


def _watch_all() -> None:
    for name in ENTRIES:
        _patch(QuerySet, name, partial(_watch_async if name.startswith("a") else _watch, name))
    for name in ("execute", "executemany"):
        _patch(CursorWrapper, name, _watch_statements)


def _patch(owner: type, name: str, watch: Callable[..., Any]) -> None:
    original = vars(owner)[name]
    setattr(owner, name, wraps(original)(watch(original)))
    _watched.callback(setattr, owner, name, original)


def _note(operation: str, model: str, frame: FrameType | None, sql: str = "") -> None:
    for each in _active:
        each.note(operation, model, frame, sql)


def _watch(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def watched(self: QuerySet[Any], *args: Any, **kwargs: Any) -> Any:
        hop = _hop.get()
        if hop and hop[0] == name:
            hop.clear()
        else:
            _note(name, self.model._meta.label, _caller())
        return original(self, *args, **kwargs)

    return watched


def _watch_async(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    async def awaited(self: QuerySet[Any], *args: Any, **kwargs: Any) -> Any:
        token = _hop.set([name[1:]])
        try:
            return await original(self, *args, **kwargs)
        finally:
            _hop.reset(token)

    def watched(self: QuerySet[Any], *args: Any, **kwargs: Any) -> Any:
        # Who awaits it may be a loop, that knows nothing of who called it.
        _note(name[1:], self.model._meta.label, _caller())
        return awaited(self, *args, **kwargs)

    return watched


def _watch_statements(original: Callable[..., Any]) -> Callable[..., Any]:
    """Notes the writing statements which do not come from the ORM."""

    def watched(self: CursorWrapper, sql: Any, *args: Any, **kwargs: Any) -> Any:
        if is_writing(str(sql)):
            frame = _caller()
            while frame is not None and "/django/db/backends/" in frame.f_code.co_filename.replace("\\", "/"):
                frame = frame.f_back
            if frame is not None and not frame.f_code.co_filename.startswith(_DJANGO):
                _note("SQL", "", frame, str(sql))
        return original(self, sql, *args, **kwargs)

    return watched


def _caller() -> FrameType | None:
    """The frame that called the function that asks."""
    own = inspect.currentframe()
    return own.f_back.f_back if own is not None and own.f_back is not None else None


def _site(frame: FrameType | None) -> FrameType | None:
    """The nearest frame outside Django, if it called what writes itself or through a manager; None if Django did for itself."""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_OWN):
            return None
        if not file.startswith(_DJANGO):
            return frame
        if not file.replace("\\", "/").endswith(MANAGERS):
            return None
        frame = frame.f_back
    return None
