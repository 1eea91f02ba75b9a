"""The world outside the transaction, shut: what a rollback doesn't bring back is refused while project code runs on real records.

Mails and messages of Celery are kept and go nowhere; logging is off. Refused are connections to other hosts and what is sent to them, programs and
processes, changes of files, statements that would end the transaction, and those that write on any other connection; of a thread that was started
meanwhile also when the block is over, for as long as the process lives. Whoever handles the refusal in silence is noted all the same.

It is Python that is shut: what a server-side function does, what is written to a file that is open already, and a connection that somebody makes with
the driver itself are not seen here. Whether the transaction is still there is asked of the database (`running`).
"""

from __future__ import annotations

import atexit
import logging
import os
import socket
import ssl
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from multiprocessing.process import BaseProcess
from typing import Any
from weakref import WeakSet

from celery import Celery
from celery.app.task import Task
from celery.result import AsyncResult
from django.core.mail.message import EmailMessage
from django.db import connections

from reconcile.audit.harmless import harm_of, is_reading, text_of
from reconcile.audit.sent import SentMail, SentTask, mail_of, task_of
from reconcile.db.django_compat import BaseDatabaseWrapper, CursorWrapper

__all__ = ["Outside", "RefusedError", "release_threads", "shut_outside"]

ACTS = frozenset({
    "socket.connect", "socket.sendto", "socket.sendmsg", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile",
    "os.fork", "os.forkpty", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown", "os.utime",
    "os.kill", "os.putenv", "shutil.copyfile", "shutil.move", "shutil.rmtree", "ftplib.connect", "smtplib.connect", "urllib.Request", "sqlite3.connect",
    "syslog.syslog",
})  # fmt: skip
"""Audit events of Python of what is done to the world."""

CURSOR = frozenset({
    "arraysize", "callproc", "close", "connection", "description", "fetchall", "fetchmany", "fetchone", "itersize", "lastrowid", "mogrify", "name", "nextset",
    "query", "rowcount", "rownumber", "scroll", "setinputsizes", "setoutputsize", "statusmessage",
})  # fmt: skip
"""What a cursor is asked for beside `execute` and `executemany`; its other methods send statements that nobody reads here."""


class RefusedError(PermissionError):
    """Project code wanted to do what a rollback does not undo."""


@dataclass(kw_only=True)
class Outside:
    """What was kept from the world. refused: what was refused. tasks, mails: what was sent, in its order.

    is_shut: all else is refused; if not, what isn't a message or a mail goes out.
    """

    refused: Counter[str] = field(default_factory=Counter)
    tasks: list[SentTask] = field(default_factory=list)
    mails: list[SentMail] = field(default_factory=list)
    is_shut: bool = True

    @property
    def task_names(self) -> Counter[str]:
        """How often each task was sent."""
        return Counter(each.name for each in self.tasks)

    def refuse(self, what: str) -> None:
        """Note it, and raise RefusedError."""
        self.refused[what] += 1
        raise RefusedError(f"{what}: refused, as a rollback does not undo it")


_now: list[tuple[Outside, Any]] = []
"""What is being kept, with the connection whose statements go through."""
_late: WeakSet[threading.Thread] = WeakSet()
"""Threads that were started meanwhile: they may still want something when the block is over."""
_patched: list[bool] = []


@contextmanager
def shut_outside(using: str, outside: Outside) -> Iterator[None]:
    """Shut the world while the block runs, within a transaction; statements of this thread's connection `using` go through.

    outside: what is kept in is noted here. Not for a process that serves others meanwhile.
    """
    _patch()
    disabled = logging.root.manager.disable
    if outside.is_shut:
        logging.disable(logging.CRITICAL)
    _now.append((outside, connections[using]))
    try:
        yield
    finally:
        _now.pop()
        logging.disable(disabled)


def release_threads() -> None:
    """Let the threads do again what they want that were started while the world was shut."""
    _late.clear()


def _keeper() -> tuple[Outside, Any] | None:
    """What keeps this thread from the world now; None if nothing does."""
    if _now:
        return _now[-1]
    return (Outside(), None) if threading.current_thread() in _late else None


def _shutter() -> tuple[Outside, Any] | None:
    """As `_keeper`, where it lets nothing out."""
    keeper = _keeper()
    return keeper if keeper is not None and keeper[0].is_shut else None


def _patch() -> None:
    """Put what asks first in place of what acts, once for the process: a thread that outlives the block would find a method that has been put back."""
    if _patched:
        return
    _patched.append(True)
    sys.addaudithook(_on_event)
    _replace(Task, "apply_async", _apply_async, _keeper)
    _replace(Celery, "send_task", _send_task, _keeper)
    _replace(EmailMessage, "send", _mailed, _keeper)
    _replace(BaseProcess, "start", lambda outside, *_, **__: outside.refuse("starting a process"))
    _replace(BaseDatabaseWrapper, "connect", _connect(BaseDatabaseWrapper.connect))
    _replace(
        atexit, "register", lambda outside, *_, **__: outside.refuse("a function for the end of the process")
    )
    for owner in (socket.socket, ssl.SSLSocket):
        for name in ("send", "sendall"):
            _replace(owner, name, _send(getattr(owner, name)))
    for name in ("execute", "executemany", "callproc"):
        _guard(name)
    _guard_other_methods()
    _note_threads()


def _replace(
    owner: Any, name: str, instead: Callable[..., Any], kept_by: Callable[[], tuple[Outside, Any] | None] = _shutter
) -> None:  # fmt: skip
    original = getattr(owner, name)

    @wraps(original)
    def asked(*args: Any, **kwargs: Any) -> Any:
        keeper = kept_by()
        return original(*args, **kwargs) if keeper is None else instead(keeper[0], *args, **kwargs)

    setattr(owner, name, asked)


def _apply_async(outside: Outside, task: Task[Any, Any], args: Any = None, kwargs: Any = None, *_: Any, **__: Any) -> AsyncResult[Any]:  # fmt: skip
    return _send_task(outside, None, task.name, args, kwargs)


def _send_task(outside: Outside, _: Any, name: str, args: Any = None, kwargs: Any = None, *__: Any, **___: Any) -> AsyncResult[Any]:  # fmt: skip
    outside.tasks.append(task_of(name, args, kwargs))
    return AsyncResult("not-sent")


def _mailed(outside: Outside, message: EmailMessage, *_: Any, **__: Any) -> int:
    outside.mails.append(mail_of(message))
    return 1


def _send(original: Callable[..., Any]) -> Callable[..., Any]:
    """Nothing goes to another host; an event loop wakes itself by a socket of its own."""

    def send(outside: Outside, self: socket.socket, *args: Any) -> Any:
        if self.family in {socket.AF_INET, socket.AF_INET6}:
            outside.refuse("sending to another host")
        return original(self, *args)

    return send


def _connect(original: Callable[..., Any]) -> Callable[..., Any]:
    """Another connection may be made, to read; the own one is there, and a new one in its place would know of no transaction."""

    def connect(outside: Outside, self: Any) -> Any:
        if any(self is own for _, own in _now):
            outside.refuse("a new connection in place of the transaction's")
        return original(self)

    return connect


def _guard(name: str) -> None:
    original = vars(CursorWrapper)[name]

    def guarded(self: CursorWrapper, sql: Any, *args: Any, **kwargs: Any) -> Any:
        keeper = _shutter()
        if keeper is not None:
            outside, own = keeper
            text = text_of(sql, self.cursor)
            if self.db is not own and (name == "callproc" or not is_reading(text, self.db.vendor)):
                outside.refuse(f"a statement on another connection, to {self.db.alias}")
            if harm := "a procedure" if name == "callproc" else harm_of(text, self.db.vendor):
                outside.refuse(harm)
        return original(self, sql, *args, **kwargs)

    setattr(CursorWrapper, name, guarded)


def _guard_other_methods() -> None:
    original = CursorWrapper.__getattr__

    def guarded(self: CursorWrapper, name: str) -> Any:
        keeper = _shutter()
        if keeper is not None and name not in CURSOR and not name.startswith("_"):
            keeper[0].refuse(f"{name}() of a cursor")
        return original(self, name)

    CursorWrapper.__getattr__ = guarded  # type: ignore[method-assign]


def _note_threads() -> None:
    original = threading.Thread.start

    def start(self: threading.Thread) -> None:
        if _shutter() is not None:
            _late.add(self)
        original(self)

    threading.Thread.start = start  # type: ignore[method-assign]


def _on_event(event: str, args: tuple[Any, ...]) -> None:
    if not (_now or _late):
        return
    keeper = _shutter()
    if keeper is None:
        return
    if event in ACTS:
        where = next((each for each in args if isinstance(each, str | tuple)), "")
        keeper[0].refuse(f"{event} {_shown(where)}".strip())
    elif event == "open" and _opens_for_writing(*args):
        keeper[0].refuse(f"writing the file {args[0]}")


def _shown(where: Any) -> str:
    return ":".join(map(str, where[:2])) if isinstance(where, tuple) else str(where)


_DEVICES = frozenset({"/dev/null", "/dev/tty", "/dev/stdout", "/dev/stderr", os.devnull})


def _opens_for_writing(path: Any, mode: Any, flags: Any) -> bool:
    """Whether a file is opened to be changed; not one that is open already, nor a terminal or what takes everything."""
    if not isinstance(path, str | bytes | os.PathLike) or os.fsdecode(path) in _DEVICES:
        return False
    if isinstance(mode, str) and set(mode) & set("wax+"):
        return True
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
