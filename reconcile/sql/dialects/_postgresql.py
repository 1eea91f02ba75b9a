"""PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import Error, IntegrityError, InterfaceError, OperationalError, transaction
from django.db.models import Index, Model, QuerySet

from reconcile.errors import ChunkConflictError, EvaluationError
from reconcile.sql.dialects._base import LOCK_TIMEOUT_MS, STATEMENT_TIMEOUT_MS, Dialect
from reconcile.sql.uniques import may_be_deferrable

__all__ = ["PostgreSQL"]

_TRANSIENT = frozenset({"40001", "40P01", "55P03", "57014"})
"""Serialization failure, deadlock, lock not available, statement cancelled by its time-out."""

_TAKEN = frozenset({"23505", "23P01"})
"""Unique and exclusion violation."""

_GUARD = """
SELECT current_setting('transaction_isolation'),
       set_config('lock_timeout', %s, true),
       set_config('statement_timeout', %s, true),
       set_config('idle_in_transaction_session_timeout', %s, true)
"""

_EXACT = """
       set_config('extra_float_digits', '1', true),
       set_config('datestyle', 'ISO, MDY', true),
       set_config('intervalstyle', 'postgres', true)
"""
"""So that an image has all digits, and is read back under other settings, too."""

_NOTICING = """,
       CASE WHEN version() LIKE '%%linux%%' THEN set_config('client_connection_check_interval', '500ms', true) END
"""
"""Without it, the server works on for a client that was killed, and holds its locks, until the statement is done.
From 14 on; servers on some other systems refuse any value but 0."""


_AT_WORK = """
SELECT EXISTS (
    SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND usesysid IS NOT NULL
      AND COALESCE(backend_type, 'client backend') = 'client backend'
      AND (state IS NULL OR state IN ('active', 'disabled') OR state_change > clock_timestamp() - interval '1 second')
)
"""
"""What the sessions of other roles are and do is NULL for who isn't told; those of no role are the server's own."""

_PLAIN = """
SELECT relkind = 'r' AND NOT relhasrules AND NOT EXISTS (
    SELECT FROM pg_trigger WHERE tgrelid = pg_class.oid AND NOT tgisinternal AND tgtype & 70 = 4
)
FROM pg_class WHERE oid = %s::regclass
"""
"""Of the bits 2 (before), 4 (insert) and 64 (instead), a trigger that comes after an insert has 4 alone."""

_USUAL_VERSION = 150000
"""As Django writes it: 15.0."""

_SHUTDOWN = frozenset({"57P01", "57P02", "57P03"})
"""The server ends the session, crashes, or doesn't take new ones."""


class PostgreSQL(Dialect):
    """`FOR NO KEY UPDATE` leaves live handlers that insert children alone; `FOR UPDATE` deadlocked with them."""

    aggregates_by_join = True
    looks_up_each = False
    joins_derived_tables = True
    locks_tables = True
    at_work = _AT_WORK

    @contextmanager
    def exact(self) -> Iterator[None]:
        """One statement, and a transaction to confine it to."""
        with transaction.atomic(using=self.connection.alias):
            with self.connection.cursor() as cursor:
                cursor.execute(f"SELECT {_EXACT}")
            yield

    def guard(self) -> None:
        """One statement. In REPEATABLE READ a check after the lock would read a snapshot older than the wait."""
        connection: Any = self.connection
        guard = f"{_GUARD},{_EXACT}" + (_NOTICING if connection.pg_version >= 140000 else "")  # noqa: PLR2004
        with self.connection.cursor() as cursor:
            cursor.execute(guard, [f"{LOCK_TIMEOUT_MS}ms", *[f"{STATEMENT_TIMEOUT_MS}ms"] * 2])
            isolation = cursor.fetchone()[0]
        if isolation != "read committed":
            raise EvaluationError(
                f"Database {self.connection.alias!r} runs transactions in {isolation.upper()}. A repair needs "
                "READ COMMITTED: set OPTIONS['isolation_level'] to it for this alias."
            )

    def locked(self, rows: QuerySet[Any, Any]) -> QuerySet[Any, Any]:
        return rows.select_for_update(skip_locked=True, no_key=True)

    def _awaited(self, rows: QuerySet[Any, Any]) -> QuerySet[Any, Any]:
        return rows.select_for_update(no_key=True)

    def lock_tables(self, models: Sequence[type[Model]]) -> None:
        """Before any row lock: taken after it, a handler that holds the table and waits for the row would deadlock."""
        with self.connection.cursor() as cursor:
            for table in sorted({model._meta.db_table for model in models}):
                quoted = self.connection.ops.quote_name(table)
                cursor.execute(f"LOCK TABLE {quoted} IN SHARE ROW EXCLUSIVE MODE")

    def passes_over(self, model: type[Model]) -> bool:
        """Not where any constraint of the table can be deferred, whichever row it is about: the statement is refused."""
        return not may_be_deferrable(model, self.connection.alias)

    def returns_written(self, model: type[Model]) -> bool:
        """Of a table without rules and without triggers that might write the row again. One statement.

        What Django's own foreign keys do after an insert only looks.
        """
        with self.connection.cursor() as cursor:
            cursor.execute(_PLAIN, [self.connection.ops.quote_name(model._meta.db_table)])
            return bool(cursor.fetchone()[0])

    @contextmanager
    def noticing_others(self, model: type[Model]) -> Iterator[None]:
        """One statement more where the INSERT can't pass over: a constraint that is deferred is looked at now.

        At COMMIT it would be too late to wait for another session no longer than a chunk may.
        """
        if self.passes_over(model):
            yield
            return
        try:
            yield
            self.check_references()
        except IntegrityError as error:
            if _sqlstate(error) not in _TAKEN:
                raise
            raise ChunkConflictError(f"{model._meta.label}: {error}") from error

    def check_references(self) -> None:
        """One statement, since Django's foreign keys are deferred.

        Once it has passed, no other session can refer to a deleted row any more: its own check waits for the row.
        """
        with self.connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")

    def is_lost(self, error: Error) -> bool:
        state = _sqlstate(error)
        without = state is None and isinstance(error, OperationalError | InterfaceError)
        return without or state in _SHUTDOWN or (state or "").startswith("08")

    def create_index(self, model: type[Model], index: Index) -> str:
        """Concurrently, since anything else keeps writers waiting until it is done."""
        return str(index.create_sql(model, self.connection.schema_editor(), concurrently=True))

    @contextmanager
    def unasked(self) -> Iterator[None]:
        """Django tells by the server's version whether NULL can be unique; one that supports all of it stands in."""
        told: dict[str, Any] = vars(self.connection)
        before: dict[str, Any] = {name: told[name] for name in ("pg_version", "features") if name in told}
        told["pg_version"] = _USUAL_VERSION
        told["features"] = self.connection.features_class(self.connection)
        try:
            yield
        finally:
            told.pop("pg_version", None)
            told.update(before)

    def _is_transient(self, error: Error) -> bool:
        return _sqlstate(error) in _TRANSIENT


def _sqlstate(error: Error) -> str | None:
    """The server's code, under psycopg's name for it or psycopg2's; none where the server said nothing."""
    cause = error.__cause__
    return getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
