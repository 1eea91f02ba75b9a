"""`Enqueue`: hand the drifted records to a Celery task, one message a chunk, after the chunk's commit.

Note [Promised, sent, done]: where the effect has receipts, a chunk promises them in its own transaction, so that
no other run hands the same records over. The message goes out after the commit; then the promises become sent. If
it can't go out they are taken back. If the worker is killed in between, nobody takes them back, and they count no
more after ten minutes: the effect is done at least once, never lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, ClassVar

from reconcile import receipts
from reconcile.core.drift import Drift
from reconcile.core.finder import Finder
from reconcile.core.fixes import Promise
from reconcile.core.options import Option, is_whole, option_faults
from reconcile.core.scopes import Keys
from reconcile.core.verbs import ENQUEUED
from reconcile.errors import Fault, nearest
from reconcile.remedies.base import Journal, Message, Remedy, WriteResult, WriteStep

__all__ = ["Enqueue"]

_MOST = 5_000
"""Most keys of one chunk."""

_OPTIONS = (Option("batch", is_whole(1, _MOST), f"Give a number from 1 to {_MOST}."),)


@dataclass(frozen=True)
class Enqueue(Remedy):
    """Send `task.delay([key, …])` with the keys of up to `batch` records.

    task: a Celery task, or the name under which one is registered. It is given numbers as they are and other keys as
        text, has to pass over records that are gone or mended, and may be given a record twice.
    batch: records in a message, which is one chunk; 1 to 5,000.

    The drift of a HaveReceipt goes with the chunk; any other goes when the task has run. Two statements a chunk;
    six where it promises receipts, seven where old ones count no more.
    """

    task: Any
    _: KW_ONLY
    batch: int = 500

    verbs: ClassVar[Sequence[str]] = (ENQUEUED,)
    deferred: ClassVar[bool] = True

    @property
    def chunk(self) -> int:
        """One message a chunk."""
        return self.batch

    def faults(self, drift: Drift, finder: Finder | None) -> Iterator[Fault]:  # noqa: ARG002
        """The task must be registered, and the batch must be a number of records."""
        yield from option_faults(self, _OPTIONS, "Enqueue")
        if not isinstance(self.task, str):
            if not _is_task(self.task):
                hint = "Give a Celery task, decorated with @shared_task, or its registered name."
                yield Fault("reconcile.E012", f"Enqueue: {self.task!r} is no task.", hint)
            return
        known = _registered_tasks()
        if self.task not in known:
            other = "Give the name of a task of this project's Celery application."
            hint = nearest(self.task, known).strip() or other
            yield Fault("reconcile.E012", f"Enqueue: no task is registered as {self.task!r}.", hint)

    def spell(self, finder: Finder, keys: Keys) -> Iterator[WriteStep]:  # noqa: ARG002
        """The message, and the receipts that it promises."""
        promises = "Promise the receipts that the records owe. " if isinstance(finder.fix, Promise) else ""
        yield WriteStep(
            f"{promises}After COMMIT, send the keys to the task {_name(self.task)}. What it writes is its own."
        )

    def write(self, finder: Finder, keys: Keys, journal: Journal) -> WriteResult:
        """Promise and journal the keys that still drift. The outbox sends the message."""
        promises = isinstance(finder.fix, Promise)
        promised = _promise(finder, keys)
        owing = [key for key, _ in promised] if promises else finder.keys(keys)
        if not owing:
            return WriteResult(promised=promises)
        journal.record_handover(ENQUEUED, finder.model, Keys(owing))
        numbers = [number for _, number in promised]
        message = Message(
            what=f"{len(owing)} records to task {_name(self.task)}",
            model=finder.model,
            keys=Keys(owing),
            send=partial(_send, self.task, [_plain(key) for key in owing]),
            done=partial(receipts.mark_sent, numbers, using=finder.using) if numbers else _do_nothing,
            failed=partial(receipts.forsake, numbers, using=finder.using) if numbers else _do_nothing,
        )
        return WriteResult.of(ENQUEUED, len(owing), promised=promises, messages=(message,))


def _promise(finder: Finder, keys: Keys) -> list[tuple[Any, int]]:
    """Promise the receipts that are owed; none if the effect has no receipts."""
    promise = finder.fix
    if not isinstance(promise, Promise):
        return []
    return receipts.promise(promise.name, finder.find(keys), promise.void, promise.version)


def _send(task: Any, keys: list[Any]) -> None:
    if isinstance(task, str):
        from celery import current_app

        _registered_tasks()
        task = current_app.tasks[task]
    task.delay(keys)


def _do_nothing() -> None:
    """Do nothing: there is no promise."""


def _plain(key: Any) -> Any:
    """The key as JSON can hold it."""
    return key if isinstance(key, int) else str(key)


def _name(task: Any) -> str:
    return task if isinstance(task, str) else str(task.name)


def _is_task(value: Any) -> bool:
    from celery import Task

    return isinstance(value, Task)


def _registered_tasks() -> set[str]:
    """Names of the tasks of the project's Celery application."""
    from celery import current_app

    current_app.loader.import_default_modules()
    return set(current_app.tasks)
