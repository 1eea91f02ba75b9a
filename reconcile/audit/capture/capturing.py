"""Runs one act in a transaction that is rolled back, and says what it did."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import connections
from django.utils import timezone

from reconcile.audit.capture.tables import Image, RowChange, changes_between, read_tables
from reconcile.audit.raw_sql import is_writing
from reconcile.audit.rolling_back import rolled_back
from reconcile.audit.sent import SentMail, SentTask
from reconcile.audit.shut import Outside, RefusedError, shut_outside
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import hooks_on_commit
from reconcile.errors import UsageError

__all__ = ["Captured", "Statements", "capture", "count_statements", "counting", "is_of_savepoint", "kept_to"]


@dataclass(kw_only=True)
class Statements:
    """How many statements were executed. savepoints: those that set, release or go back to one, which are none of the others."""

    by_verb: Counter[str] = field(default_factory=Counter)
    savepoints: int = 0

    @property
    def total(self) -> int:
        """All but those of savepoints."""
        return sum(self.by_verb.values())


@dataclass(frozen=True, kw_only=True)
class Captured:
    """What an act did. changes: by table and key. callbacks: of COMMIT. began, ended: the time that it took, by the clock of this process.

    returned: what the act gave back.
    """

    changes: Sequence[RowChange]
    tasks: Sequence[SentTask]
    mails: Sequence[SentMail]
    callbacks: int
    statements: Statements
    began: datetime
    ended: datetime
    returned: Any = None


def capture(
    act: Callable[[], Any], *, using: str = "default", before: Image | None = None, runs_callbacks: bool = True, is_shut: bool = False
) -> Captured:  # fmt: skip
    """Run the act, say what it did to every row of the database, and roll it back.

    before: the tables as they are, if they have been read. runs_callbacks: what was to be done after COMMIT is done, too; else it is counted and
    dropped. is_shut: files, sockets and programs are refused; messages and mails go nowhere in any case. What the act writes to another
    database is refused.

    Raises what the act raises, EvaluationError if the tables hold too many rows, and CommittedError if the act has ended the transaction.
    """
    outside, statements = Outside(is_shut=is_shut), Statements()
    began = timezone.now()
    with rolled_back(using, "The act"):
        before = read_tables(using) if before is None else before
        with shut_outside(using, outside), kept_to(using), counting(statements, using):
            hooks = len(hooks_on_commit(using))
            returned = _returned(act)
            callbacks = (
                _run_callbacks(using, hooks) if runs_callbacks else len(hooks_on_commit(using)) - hooks
            )
        # A constraint may wait for COMMIT, which never comes.
        dialect_of(using).check_references()
        changes = changes_between(before, read_tables(using))
    return Captured(
        changes=changes,
        tasks=outside.tasks,
        mails=outside.mails,
        callbacks=callbacks,
        statements=statements,
        began=began,
        ended=timezone.now(),
        returned=returned,
    )


def count_statements(
    act: Callable[[], Any], *, using: str = "default", runs_callbacks: bool = True, is_shut: bool = False
) -> Statements:
    """Run the act, count its statements, and roll it back. As `capture`, without a look at any table.

    Raises what the act raises, and CommittedError if it has ended the transaction.
    """
    statements = Statements()
    with rolled_back(using, "The act"):
        with shut_outside(using, Outside(is_shut=is_shut)), kept_to(using), counting(statements, using):
            hooks = len(hooks_on_commit(using))
            _returned(act)
            if runs_callbacks:
                _run_callbacks(using, hooks)
        dialect_of(using).check_references()
    return statements


def _returned(act: Callable[[], Any]) -> Any:
    """What the act gives back. Raises UsageError where that is what has yet to run: nothing was done."""
    returned = act()
    for is_waiting, what, instead in _WAITING:
        if is_waiting(returned):
            if what == "a coroutine":
                returned.close()
            raise UsageError(f"It gives back {what}, and nothing of it has run: {instead}")
    return returned


_WAITING: Sequence[tuple[Callable[[Any], bool], str, str]] = (
    (inspect.iscoroutine, "a coroutine", "wrap the function, async_to_sync(function)."),
    (inspect.isgenerator, "a generator", "go through it, lambda: list(function())."),
    (
        inspect.isasyncgen,
        "an asynchronous generator",
        "go through it in a coroutine, and wrap that in async_to_sync().",
    ),
)


def _run_callbacks(using: str, first: int) -> int:
    """Run what was to be done after COMMIT, what that asks for in turn as well. Returns how many there were."""
    hooks = hooks_on_commit(using)
    done = 0
    while len(hooks) > first:
        _, function, is_robust = hooks.pop(first)
        done += 1
        try:
            function()
        except Exception:
            if not is_robust:
                raise
        hooks = hooks_on_commit(using)
    return done


@contextmanager
def kept_to(using: str) -> Iterator[None]:
    """Refuse what is written to any other database, which no rollback would undo."""

    def refuse(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:  # noqa: FBT001
        if is_writing(str(sql)):
            alias = context["connection"].alias
            raise RefusedError(
                f"It writes to the database {alias!r}; only what is done to {using!r} is rolled back."
            )
        return execute(sql, params, many, context)

    with ExitStack() as stack:
        for alias in connections:
            if alias != using:
                stack.enter_context(connections[alias].execute_wrapper(refuse))
        yield


@contextmanager
def counting(statements: Statements, using: str) -> Iterator[None]:
    """Count the statements of this thread's connection."""

    def count(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:  # noqa: FBT001
        if is_of_savepoint(str(sql)):
            statements.savepoints += 1
        else:
            statements.by_verb[_verb_of(str(sql))] += 1
        return execute(sql, params, many, context)

    with connections[using].execute_wrapper(count):
        yield


_SAVEPOINTS = frozenset({"SAVEPOINT", "RELEASE", "ROLLBACK"})


def is_of_savepoint(sql: str) -> bool:
    """Whether the statement sets, releases or goes back to a savepoint."""
    return _verb_of(sql) in _SAVEPOINTS


def _verb_of(sql: str) -> str:
    """The first word of a statement, whatever stands before it in parentheses or comments."""
    words = sql.lstrip("( \t\r\n").split(None, 1)
    return words[0].upper() if words else ""
