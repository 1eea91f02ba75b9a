"""The world outside the transaction, shut: what a rollback doesn't bring back is refused while project code runs on real records.

Mails and messages of Celery are counted and go nowhere. Refused are connections to other hosts, programs, changes of files, statements
that would end the transaction, and those that write on any other connection. Whoever handles the refusal in silence is noted all the same.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from celery import Celery
from celery.app.task import Task
from celery.result import AsyncResult
from django.core.mail.message import EmailMessage
from django.db import connections

from reconcile.audit.raw_sql import is_writing
from reconcile.db.django_compat import CursorWrapper

__all__ = ["Outside", "RefusedError", "shut_outside"]

ACTS = frozenset({
    "socket.connect", "socket.sendto", "socket.sendmsg", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile",
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown", "os.utime",
    "shutil.copyfile", "shutil.move", "shutil.rmtree", "ftplib.connect", "smtplib.connect", "urllib.Request",
})  # fmt: skip
"""Audit events of Python of what is done to the world."""

_HARMLESS = re.compile(
    r"(\s|/\*.*?\*/|--[^\n]*\n|\()*"
    r"(select|with|insert|update|delete|replace|merge|copy|values|savepoint|release|rollback\s+to|set(?!.*autocommit)|show|explain|table|pragma|notify)\b",
    re.IGNORECASE | re.DOTALL,
)
"""What a statement begins with that leaves the transaction open. MariaDB ends it for whatever changes the schema."""


class RefusedError(PermissionError):
    """Project code wanted to do what a rollback does not undo."""


@dataclass(kw_only=True)
class Outside:
    """What was kept from the world. refused: what was refused. tasks: the names of those that were sent. mails: how many."""

    refused: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    mails: int = 0

    def refuse(self, what: str) -> None:
        """Note it, and raise RefusedError."""
        self.refused[what] += 1
        raise RefusedError(f"{what}: refused, as a rollback does not undo it")


_now: list[Outside] = []
"""The one that is being kept, in all threads: a handler may start one."""


@contextmanager
def shut_outside(using: str, outside: Outside) -> Iterator[None]:
    """Shut the world while the block runs, within a transaction; statements of this thread's connection `using` go through.

    outside: what is kept in is noted here. Not for a process that serves others meanwhile.
    """
    own = connections[using]
    _hook()
    with ExitStack() as stack:
        _replace(stack, Task, "apply_async", lambda self, *_, **__: _sent(outside, self.name))
        _replace(stack, Celery, "send_task", lambda _, name, *__, **___: _sent(outside, name))
        _replace(stack, EmailMessage, "send", lambda *_, **__: _mailed(outside))
        for name in ("execute", "executemany", "callproc"):
            _guard(stack, name, own, outside)
        _now.append(outside)
        stack.callback(_now.remove, outside)
        yield


def _replace(stack: ExitStack, owner: Any, name: str, instead: Callable[..., Any]) -> None:
    original = vars(owner)[name]
    setattr(owner, name, instead)
    stack.callback(setattr, owner, name, original)


def _sent(outside: Outside, name: str) -> AsyncResult[Any]:
    outside.tasks[name] += 1
    return AsyncResult("not-sent")


def _mailed(outside: Outside) -> int:
    outside.mails += 1
    return 1


def _guard(stack: ExitStack, name: str, own: Any, outside: Outside) -> None:
    original = vars(CursorWrapper)[name]

    def guarded(self: CursorWrapper, sql: Any, *args: Any, **kwargs: Any) -> Any:
        text = str(sql)
        if self.db is not own:
            if name == "callproc" or is_writing(text) or not _HARMLESS.match(text):
                outside.refuse(f"a statement on another connection, to {self.db.alias}")
        elif isinstance(sql, str) and (name == "callproc" or not _HARMLESS.match(text)):
            outside.refuse(f"the statement {text.split(None, 1)[0]}")
        return original(self, sql, *args, **kwargs)

    setattr(CursorWrapper, name, guarded)
    stack.callback(setattr, CursorWrapper, name, original)


def _hook() -> None:
    """Listen to what Python does; a hook stays for as long as the process."""
    if not _listening:
        _listening.append(True)
        sys.addaudithook(_on_event)


_listening: list[bool] = []


def _on_event(event: str, args: tuple[Any, ...]) -> None:
    if not _now:
        return
    if event in ACTS:
        where = next((each for each in args if isinstance(each, str | tuple)), "")
        _now[-1].refuse(f"{event} {_shown(where)}".strip())
    elif event == "open" and _opens_for_writing(*args):
        _now[-1].refuse(f"writing the file {args[0]}")


def _shown(where: Any) -> str:
    return ":".join(map(str, where[:2])) if isinstance(where, tuple) else str(where)


def _opens_for_writing(path: Any, mode: Any, flags: Any) -> bool:
    """Whether a file is opened to be changed; not one that is open already, nor a terminal or what takes everything."""
    if not isinstance(path, str | bytes | os.PathLike) or os.fsdecode(path).startswith("/dev/"):
        return False
    if isinstance(mode, str) and set(mode) & set("wax+"):
        return True
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
