"""SQLite."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import Error

from reconcile.db.dialects.base import Dialect, Failure, literal
from reconcile.db.dialects.sqlite_forms import SQLiteForms
from reconcile.db.django_compat import begin_mode
from reconcile.db.schema import ForeignKeyInto, Table, UniqueIndex

__all__ = ["SQLite"]

_FAILURES = {
    sqlite3.SQLITE_BUSY: Failure.CHUNK,
    sqlite3.SQLITE_LOCKED: Failure.CHUNK,
    sqlite3.SQLITE_INTERRUPT: Failure.CHUNK,
    sqlite3.SQLITE_PROTOCOL: Failure.CHUNK,
    sqlite3.SQLITE_PERM: Failure.DATABASE,
    sqlite3.SQLITE_NOMEM: Failure.DATABASE,
    sqlite3.SQLITE_READONLY: Failure.DATABASE,
    sqlite3.SQLITE_IOERR: Failure.DATABASE,
    sqlite3.SQLITE_CORRUPT: Failure.DATABASE,
    sqlite3.SQLITE_FULL: Failure.DATABASE,
    sqlite3.SQLITE_CANTOPEN: Failure.DATABASE,
    sqlite3.SQLITE_AUTH: Failure.DATABASE,
    sqlite3.SQLITE_NOTADB: Failure.DATABASE,
    sqlite3.SQLITE_ERROR: Failure.STATEMENT,
    sqlite3.SQLITE_SCHEMA: Failure.STATEMENT,
    sqlite3.SQLITE_MISUSE: Failure.STATEMENT,
    sqlite3.SQLITE_RANGE: Failure.STATEMENT,
}
"""By primary code. The rest is the record's: a constraint, a trigger that raises, a value that is too big."""

_REFUSED_CAST = re.compile(r"JSON path error near '(.*)'")
"""What `StrictCast` has it say."""

_OF_VALUES = "user-defined function raised exception", "integer overflow", "malformed JSON", "JSON path error"
"""Messages of the code that says nothing else: a function, Python's or its own, that takes no such value."""


_TABLE = """SELECT m.type, l.name, l.partial, i.name
FROM sqlite_master m LEFT JOIN pragma_index_list(m.name) l ON l."unique" LEFT JOIN pragma_index_info(l.name) i
WHERE m.name = %s AND m.type IN ('table', 'view')
UNION ALL SELECT 'primary key', NULL, 0, name FROM pragma_table_info(%s) WHERE pk > 0
UNION ALL SELECT 'trigger', NULL, 0, NULL FROM sqlite_master WHERE type = 'trigger' AND tbl_name = %s
UNION ALL SELECT 'foreign key', CAST(id AS TEXT), 0, "from" FROM pragma_foreign_key_list(%s)
"""

_KEYS_INTO = """SELECT f.id, '', m.name, f."from", COALESCE(f."to", p.name), f.on_delete
FROM sqlite_master m JOIN pragma_foreign_key_list(m.name) f ON f."table" = %s COLLATE NOCASE
LEFT JOIN pragma_table_info(f."table") p ON f."to" IS NULL AND p.pk = f.seq + 1
WHERE m.type = 'table' ORDER BY m.name, f.id, f.seq
"""

_PRIMARY = 0xFF
"""The bits of an extended code that are the code."""


_TAKEN = frozenset({sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY})


class SQLite(Dialect):
    """One writer at a time: the transaction itself is the lock, if it says at once that it will write."""

    forms = SQLiteForms
    refuses_large_numbers = False

    lock_retry_seconds = 0.11
    """`sqlite3_busy_timeout` waits a tenth of a second at most between two tries (`sqliteDefaultBusyCallback` in its main.c)."""

    begin = ("BEGIN IMMEDIATE",)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """`BEGIN IMMEDIATE`: one that begins by reading fails at once when it upgrades, whatever its time-out."""
        with begin_mode(self.connection, "IMMEDIATE"), super().transaction():
            yield

    @contextmanager
    def writing_transaction(self) -> Iterator[None]:
        """`BEGIN IMMEDIATE`, for the same reason."""
        with begin_mode(self.connection, "IMMEDIATE"), super().writing_transaction():
            yield

    def blocks_inserts(self, *, constrained: bool) -> bool:  # noqa: ARG002
        """No other session writes at all while a chunk does."""
        return True

    def look_for_sessions(self, mark: int) -> tuple[bool, int]:
        """Others have been, where one has committed something since the call before; at the first, none is known of."""
        with self.connection.cursor() as cursor:
            cursor.execute("PRAGMA data_version")
            (version,) = cursor.fetchone()
        return mark not in {0, version}, version

    def read_foreign_keys_into(self, name: str) -> tuple[ForeignKeyInto, ...]:
        """One statement, over the keys of all tables."""
        return self._foreign_keys_by(_KEYS_INTO, name)

    def read_table(self, name: str) -> Table | None:
        """One statement. An integer that is the primary key has no index; it is the row's own number."""
        with self.connection.cursor() as cursor:
            cursor.execute(_TABLE, [name] * 4)
            rows = cursor.fetchall()
        kinds = {kind for kind, *_ in rows} & {"table", "view"}
        if not kinds:
            return None
        columns: dict[tuple[str, str], list[str]] = {}
        partial = set()
        for kind, index, has_condition, column in rows:
            if column is not None or index is not None:
                columns.setdefault((kind, index or ""), []).append(column or "")
            if has_condition:
                partial.add(index)
        keys = frozenset(
            each[0] for (kind, _), each in columns.items() if kind == "foreign key" and len(each) == 1
        )
        uniques = (
            UniqueIndex(name=index, columns=tuple(each), partial=index in partial)
            for (kind, index), each in columns.items()
            if kind != "foreign key"
        )
        triggers = any(kind == "trigger" for kind, *_ in rows)
        (kind,) = kinds
        # A view takes writes by triggers alone.
        impossible = () if kind == "table" or triggers else ("insert", "update", "delete")
        return Table(
            kind=kind,
            triggers=triggers,
            uniques=tuple(uniques),
            foreign_keys=keys,
            impossible=frozenset(impossible),
        )

    def message(self, error: Exception) -> str:
        refused = _REFUSED_CAST.search(str(error))
        return refused[1] if refused else super().message(error)

    def failure(self, error: Error) -> Failure:
        code = getattr(error.__cause__, "sqlite_errorcode", None)
        if code is None:
            return self.failure_without_code(error)
        if code == sqlite3.SQLITE_ERROR and any(each in str(error) for each in _OF_VALUES):
            return Failure.RECORD
        return _FAILURES.get(code & _PRIMARY, Failure.RECORD)

    def is_taken(self, error: Error) -> bool:
        return getattr(error.__cause__, "sqlite_errorcode", None) in _TAKEN

    def lacks_table(self, error: Error) -> bool:
        """It has one code for all that is wrong with a statement."""
        return "no such table" in str(error) or "no such column" in str(error)

    def write_out(self, sql: str, params: Sequence[Any]) -> str:
        """The driver has no form for it; what it takes are five types, each with one literal."""
        return sql % tuple(literal(int(each) if isinstance(each, bool) else each) for each in params)

    def functions_of_django(self, sql: str) -> Sequence[str]:
        """Those that the program has given to this connection."""
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT DISTINCT name FROM pragma_function_list WHERE NOT builtin")
            added = {str(name).upper() for (name,) in cursor.fetchall()}
        called = {name.upper() for name in re.findall(r"\b(\w+)\(", sql)}
        return sorted(added & called)

    def spell_text(self, text: str) -> str:
        """The numbers of the characters; a cast of bytes would have a column's affinity, and be compared otherwise."""
        pieces = [text[start : start + _ARGUMENTS] for start in range(0, len(text), _ARGUMENTS)]
        return f"({' || '.join(f'char({_numbers(piece)})' for piece in pieces)})"


_ARGUMENTS = 100
"""Fewer than SQLite's functions take."""


def _numbers(text: str) -> str:
    return ", ".join(str(ord(char)) for char in text)
