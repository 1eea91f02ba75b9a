"""What a function would write, as SQL: it runs until its first statement that writes, which the database never gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import connections, transaction

from reconcile.db.django_compat import SQL

__all__ = ["first_read", "first_write"]


class _Seen(Exception):  # noqa: N818 - no error: it ends the function
    def __init__(self, sql: str, params: Any) -> None:
        super().__init__()
        self.statement: SQL = (sql, tuple(params or ()))


def first_write(function: Callable[[], object], *, using: str) -> SQL | None:
    """The first statement that the function would send and that is no SELECT; None if it would send none. SELECTs are executed."""
    return _first(function, using, lambda sql: not _is_read(sql))


def first_read(function: Callable[[], object], *, using: str) -> SQL | None:
    """The first SELECT that the function would send; None if it would send none."""
    return _first(function, using, _is_read)


def _is_read(sql: str) -> bool:
    return sql.lstrip(" (").upper().startswith("SELECT")


def _first(function: Callable[[], object], using: str, wanted: Callable[[str], bool]) -> SQL | None:
    def look(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:  # noqa: FBT001 - Django's signature
        if wanted(sql) and not sql.startswith(("SAVEPOINT", "RELEASE", "ROLLBACK")):
            raise _Seen(sql, params)
        return execute(sql, params, many, context)

    try:
        # Whatever the function begins ends here, and locks nothing for longer.
        with transaction.atomic(using=using), connections[using].execute_wrapper(look):
            function()
            transaction.set_rollback(True, using=using)
    except _Seen as seen:
        return seen.statement
    return None
