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
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any

import django
from django.db import connections
from django.db.models import QuerySet

from reconcile.audit.raw_sql import is_writing
from reconcile.audit.recorded import SeenCall

__all__ = ["Recording", "record_bypasses"]

ENTRIES = (
    "bulk_create", "abulk_create", "bulk_update", "abulk_update", "update", "aupdate", "delete", "adelete", "_raw_delete",
)  # fmt: skip
"""The methods of a queryset that write past something."""

DESCRIPTORS = "related_descriptors.py"
"""The file of Django from which a related manager's `add()` and its like call these."""

_DJANGO = str(Path(django.__file__).parent)
_OWN = str(Path(__file__).parent.parent)
_recorded: ContextVar[bool] = ContextVar("reconcile_recorded", default=False)


@dataclass
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
    with ExitStack() as stack:
        for name in ENTRIES:
            _patch(stack, name, recording)
        for connection in connections.all():
            stack.enter_context(connection.execute_wrapper(_statements(recording)))
        yield recording


def _patch(stack: ExitStack, name: str, recording: Recording) -> None:
    original = vars(QuerySet)[name]
    wrapper = (_watch_async if name.startswith("a") else _watch)(name, original, recording)
    setattr(QuerySet, name, wrapper)
    stack.callback(setattr, QuerySet, name, original)


def _watch(name: str, original: Callable[..., Any], recording: Recording) -> Callable[..., Any]:
    @wraps(original)
    def watched(self: QuerySet[Any], *args: Any, **kwargs: Any) -> Any:
        if _recorded.get():
            return original(self, *args, **kwargs)
        recording.note(name, self.model._meta.label, _caller())
        token = _recorded.set(True)
        try:
            return original(self, *args, **kwargs)
        finally:
            _recorded.reset(token)

    return watched


def _watch_async(name: str, original: Callable[..., Any], recording: Recording) -> Callable[..., Any]:
    @wraps(original)
    async def watched(self: QuerySet[Any], *args: Any, **kwargs: Any) -> Any:
        recording.note(name[1:], self.model._meta.label, _caller())
        token = _recorded.set(True)
        try:
            return await original(self, *args, **kwargs)
        finally:
            _recorded.reset(token)

    return watched


def _statements(recording: Recording) -> Callable[..., Any]:
    """A wrapper that notes the writing statements which do not come from the ORM."""

    def note(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:  # noqa: FBT001 - Django calls it so
        if is_writing(str(sql)):
            frame = _caller()
            while frame is not None and "/django/db/backends/" in frame.f_code.co_filename.replace("\\", "/"):
                frame = frame.f_back
            if frame is not None and not frame.f_code.co_filename.startswith(_DJANGO):
                recording.note("SQL", "", frame, str(sql))
        return execute(sql, params, many, context)

    return note


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
        if not file.endswith((DESCRIPTORS, "manager.py", "query.py", "contextlib.py", "utils.py")):
            return None
        frame = frame.f_back
    return None
