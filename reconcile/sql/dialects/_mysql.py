"""MariaDB and MySQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from django.db import Error
from django.db.models import Field, Index, Model, QuerySet

from reconcile.errors import EvaluationError
from reconcile.sql.dialects._base import Dialect

__all__ = ["MySQL"]

_TRANSIENT = frozenset({1062, 1205, 1213})
"""Duplicate key (another session may have been first; see `on_conflict`), lock wait time-out, deadlock."""


_LOST = frozenset({1053, 1927, 2002, 2003, 2006, 2013, 2055})
"""Server shut down, session killed, server not there, gone or lost."""


_TOLD = ("mysql_server_data", "mysql_server_info", "mysql_version", "mysql_is_mariadb", "sql_mode")
"""What the connection remembers of the server."""

_USUAL = {
    "version": "10.11.0-MariaDB",
    "sql_mode": "STRICT_TRANS_TABLES,ONLY_FULL_GROUP_BY",
    "default_storage_engine": "InnoDB",
    "sql_auto_is_null": False,
    "lower_case_table_names": 0,
    "has_zoneinfo_database": True,
}

_AT_WORK = """
SELECT EXISTS (
    SELECT 1 FROM information_schema.PROCESSLIST
    WHERE DB = DATABASE() AND ID <> CONNECTION_ID() AND (COMMAND <> 'Sleep' OR TIME < 1)
)
"""
"""Who lacks the privilege PROCESS is told of sessions of the same user alone."""

_PREFIX = 255
"""Characters of a long text that an index takes."""


class MySQL(Dialect):
    """InnoDB: row locks on the records, in READ COMMITTED."""

    on_conflict = ""
    """None: `INSERT IGNORE` hides foreign-key violations and cuts texts, and under Django's FOUND_ROWS flag
    `ON DUPLICATE KEY UPDATE` counts a row that was passed over as written. A duplicate rolls the chunk
    back instead, and the next try no longer selects it."""

    remembers_folded = True
    """MariaDB's subquery cache; MySQL has none, and the condition costs it little."""

    at_work = _AT_WORK

    locks_what_it_reads = True
    """In READ COMMITTED, too; an `INSERT … SELECT` locks nothing that it reads there."""

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """On MariaDB a chunk never waits for a row lock, so no deadlock can have it as a part, and a live handler as its
        victim. MySQL waits one second, the least that it knows.

        The session's lock wait is set back, since other code uses this connection too. Three statements beside
        BEGIN and COMMIT.
        """
        before = self._asserted()
        self._wait(0 if self._is_mariadb else 1)
        skipping = self.connection.execute_wrapper(_skipping) if self._is_mariadb else nullcontext()
        try:
            with skipping, super().transaction():
                yield
        finally:
            if self.connection.connection is not None:
                with suppress(Error):
                    self._wait(before)

    def _wait(self, seconds: int) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute("SET SESSION innodb_lock_wait_timeout = %s", [seconds])

    def _asserted(self) -> int:
        """The session's lock wait in seconds, once its isolation level is asserted.

        In REPEATABLE READ a check after the lock would read a snapshot older than the wait.
        """
        with self.connection.cursor() as cursor:
            name = "tx_isolation" if self._knows_old_name() else "transaction_isolation"
            cursor.execute(f"SELECT @@session.{name}, @@session.innodb_lock_wait_timeout")
            isolation, seconds = cursor.fetchone()
        if isolation != "READ-COMMITTED":
            raise EvaluationError(
                f"Database {self.connection.alias!r} runs transactions in {isolation.replace('-', ' ')}. A repair "
                "needs READ COMMITTED: set OPTIONS['isolation_level'] to 'read committed' for this alias."
            )
        return int(seconds)

    @property
    def _is_mariadb(self) -> bool:
        connection: Any = self.connection
        return bool(connection.mysql_is_mariadb)

    def _knows_old_name(self) -> bool:
        connection: Any = self.connection
        return self._is_mariadb and bool(connection.mysql_version < (11, 1))

    def keeps_rows_out(self, *, constrained: bool) -> bool:
        """InnoDB checks foreign keys at once, against the locked parent."""
        return constrained

    def locked(self, rows: QuerySet[Any, Any]) -> QuerySet[Any, Any]:
        return rows.select_for_update(skip_locked=True)

    def is_lost(self, error: Error) -> bool:
        return bool(error.args) and error.args[0] in _LOST

    def _is_transient(self, error: Error) -> bool:
        return bool(error.args) and error.args[0] in _TRANSIENT

    def on_conflict_replace(self, *, table: str, unique: Sequence[str], columns: Sequence[str]) -> str:  # noqa: ARG002
        """Any unique key counts. The deciding column comes last: what is set already is seen by what is set after it."""
        differs = f"{table}.{columns[0]} <> VALUES({columns[0]})"
        settings = [
            f"{table}.{column} = IF({differs}, VALUES({column}), {table}.{column})"
            for column in columns[::-1]
        ]
        return f"ON DUPLICATE KEY UPDATE {', '.join(settings)}"

    def update_from(
        self, *, table: str, key: str, wanted_key: str, assignments: list[tuple[str, str]], select: str
    ) -> str:
        """Each row is looked up by its key, so that no other is passed and locked, as in the walks that the optimizer likes.

        It would put the table first where that has few rows; and where it has two or three, walk it for each key.
        """
        settings = ", ".join(f"{table}.{column} = {value}" for column, value in assignments)
        joined = (
            f"({select}) AS e STRAIGHT_JOIN {table} FORCE INDEX (PRIMARY) ON {table}.{key} = {wanted_key}"
        )
        return f"UPDATE {joined} SET {settings}"

    def row_word(self) -> str:
        """MySQL's, from 8.0.19."""
        return "" if self._is_mariadb else "ROW"

    def create_index(self, model: type[Model], index: Index) -> str:
        """A long text is indexed by its first characters."""
        fields = [each for name in index.fields for each in model._meta.concrete_fields if each.name == name]
        if self.can_declare(fields):
            return super().create_index(model, index)
        quote = self.connection.ops.quote_name
        columns = ", ".join(
            f"{quote(str(field.column))}{'' if self.can_declare([field]) else f'({_PREFIX})'}"
            for field in fields
        )
        return f"CREATE INDEX {quote(index.name)} ON {quote(model._meta.db_table)} ({columns})"

    def can_declare(self, fields: Sequence[Field[Any, Any]]) -> bool:
        """Not where a column is a long text or bytes, of which an index must say how much."""
        return not any(_is_long(str(field.db_type(self.connection))) for field in fields)

    @contextmanager
    def unasked(self) -> Iterator[None]:
        """Django words GROUP BY by the server's version and mode; a MariaDB in its usual mode stands in."""
        told: dict[str, Any] = vars(self.connection)
        before = told.copy()
        for name in _TOLD:
            told.pop(name, None)
        told["mysql_server_data"] = _USUAL
        told["features"] = self.connection.features_class(self.connection)
        try:
            yield
        finally:
            for name in (*_TOLD, "features"):
                told.pop(name, None)
            told.update({name: before[name] for name in (*_TOLD, "features") if name in before})


def _is_long(kind: str) -> bool:
    return kind.endswith(("text", "blob"))


def _skipping(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:  # noqa: FBT001
    """Where the session never waits, SKIP LOCKED fails with error 1180 at the first locked row, instead of skipping."""
    told = f"SET STATEMENT innodb_lock_wait_timeout = 1 FOR {sql}" if "SKIP LOCKED" in sql else sql
    return execute(told, params, many, context)
