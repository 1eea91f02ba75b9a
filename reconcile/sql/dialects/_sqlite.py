"""SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import Error, OperationalError
from django.db.models import QuerySet

from reconcile.sql.dialects._base import Dialect

__all__ = ["SQLite"]

_TRANSIENT = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

_PRIMARY = 0xFF
"""The bits of an extended code that are the code."""


class SQLite(Dialect):
    """One writer at a time: the transaction itself is the lock, if it says at once that it will write."""

    turn = 0.11
    """`sqlite3_busy_timeout` waits a tenth of a second at most between two tries (`sqliteDefaultBusyCallback` in its main.c)."""

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """`BEGIN IMMEDIATE`: one that begins by reading fails at once when it upgrades, whatever its time-out."""
        connection: Any = self.connection
        # Connecting sets the mode from the settings, so it has to come first.
        connection.ensure_connection()
        before = connection.transaction_mode
        connection.transaction_mode = "IMMEDIATE"
        try:
            with super().transaction():
                yield
        finally:
            connection.transaction_mode = before

    def hold(self, rows: QuerySet[Any, Any]) -> None:
        """Become the one writer, by writing nothing: a transaction whose first statement writes waits for its turn.

        A transaction that has read already fails at once where another session has written since, whatever comes first.
        """
        quote = self.connection.ops.quote_name
        meta = rows.model._meta
        table, key = quote(meta.db_table), quote(str(meta.pk.column))
        with self.connection.cursor() as cursor:
            cursor.execute(f"UPDATE {table} SET {key} = {key} WHERE 0")

    def keeps_rows_out(self, *, constrained: bool) -> bool:  # noqa: ARG002
        """No other session writes at all while a chunk does."""
        return True

    def others_at_work(self, mark: int) -> tuple[bool, int]:
        """Others have been, where one has committed something since the call before; at the first, none is known of."""
        with self.connection.cursor() as cursor:
            cursor.execute("PRAGMA data_version")
            (version,) = cursor.fetchone()
        return mark not in {0, version}, version

    def _is_transient(self, error: Error) -> bool:
        code = getattr(error.__cause__, "sqlite_errorcode", 0)
        return isinstance(error, OperationalError) and code & _PRIMARY in _TRANSIENT
