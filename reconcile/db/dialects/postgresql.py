"""PostgreSQL."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import structlog
from django.db import Error, IntegrityError, InterfaceError, OperationalError, transaction
from django.db.models import Index, Model, QuerySet

from reconcile.conf import shows_filtered_rows
from reconcile.db.dialects.base import (
    LOCK_TIMEOUT_MS,
    LOCKED,
    NO_RIGHT,
    STATEMENT_TIMEOUT_MS,
    Dialect,
    Failure,
    Guarded,
)
from reconcile.db.dialects.postgresql_forms import PostgreSQLForms
from reconcile.db.django_compat import (
    driver_connection,
    in_transaction,
    index_sql,
    postgresql_version,
    quoter,
    stand_in_for_server,
    write_in_values,
)
from reconcile.db.schema import ForeignKeyInto, Table, UniqueIndex
from reconcile.db.uniques import may_be_deferrable
from reconcile.errors import ChunkConflictError, EvaluationError, first_line

__all__ = ["PostgreSQL"]

log = structlog.get_logger()

_FAILURES = {
    "08": Failure.CONNECTION,
    "25P03": Failure.CONNECTION,  # idle in transaction for too long
    "57P": Failure.CONNECTION,  # the server ends the session, crashes, or takes no new ones
    "40": Failure.CHUNK,  # serialization failure, deadlock
    "40002": Failure.RECORD,
    "55006": Failure.CHUNK,
    "55P03": Failure.CHUNK,  # lock not available
    "57014": Failure.CHUNK,  # cancelled, by its time-out or by a person
    "25006": Failure.DATABASE,  # read-only
    "28": Failure.DATABASE,
    "3D": Failure.DATABASE,
    "42501": Failure.DATABASE,  # no right
    "53": Failure.DATABASE,  # disk, memory, connections
    "58": Failure.DATABASE,
    "XX": Failure.DATABASE,
    "0A": Failure.STATEMENT,
    "24": Failure.STATEMENT,
    "25": Failure.STATEMENT,
    "26": Failure.STATEMENT,
    "34": Failure.STATEMENT,
    "3F": Failure.STATEMENT,
    "42": Failure.STATEMENT,
    "55": Failure.STATEMENT,
}
"""By the longest prefix of the SQLSTATE. The rest is the record's: 23 constraints, 22 values, 21 several rows of a subquery, P0 triggers that raise."""

_NOT_THERE = frozenset({"42P01", "42703"})
"""A table, a column."""

READ_TIMEOUT_MS = 10_000
"""For one reading of a window, before it is read by another plan."""

_CANCELLED = "57014"

_LIMIT_READS = """
SELECT setting, current_setting('enable_nestloop'),
    set_config('statement_timeout', CASE WHEN setting::bigint BETWEEN 1 AND %s THEN setting ELSE %s END, false)
FROM pg_settings WHERE name = 'statement_timeout'
"""

_STATISTICS = """
SELECT reltuples, pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass(%s) AND relkind IN ('r', 'p', 'm')
"""

MUCH, MUCH_OF_IT = 1_000, 0.1
"""Rows, and the part of a table, after which the server's statistics mislead it."""

_KEYS_INTO = """SELECT f.oid, CASE WHEN pg_table_is_visible(c.oid) THEN '' ELSE n.nspname END, c.relname, here.attname, there.attname,
       CASE f.confdeltype WHEN 'c' THEN 'CASCADE' WHEN 'n' THEN 'SET NULL' WHEN 'd' THEN 'SET DEFAULT' ELSE 'NO ACTION' END
FROM pg_constraint f JOIN pg_class c ON c.oid = f.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN UNNEST(f.conkey, f.confkey) WITH ORDINALITY AS k (here, there, place)
JOIN pg_attribute here ON here.attrelid = f.conrelid AND here.attnum = k.here
JOIN pg_attribute there ON there.attrelid = f.confrelid AND there.attnum = k.there
WHERE f.contype = 'f' AND f.confrelid = to_regclass(%s)
  AND NOT EXISTS (SELECT FROM pg_constraint p WHERE p.oid = f.conparentid AND p.confrelid = f.confrelid)
ORDER BY f.oid, k.place
"""
"""Without those that a partition that refers has from its table; but with those into a partition that is referred to."""

_LOCK_NOT_FREE = "55P03"

_TAKEN = frozenset({"23505", "23P01"})
"""Unique and exclusion violation."""

_TIMEOUTS = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
_READ_TIMEOUTS = "SELECT " + ", ".join(f"current_setting('{name}')" for name in _TIMEOUTS)
_SET_TIMEOUTS = "SELECT " + ", ".join(f"set_config('{name}', %s, true)" for name in _TIMEOUTS)
_GUARD = f"{_SET_TIMEOUTS}, current_setting('transaction_isolation')"

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

_TABLE = """SELECT c.relkind, c.relrowsecurity AND row_security_active(c.oid),
       c.relhasrules OR EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal),
       CASE WHEN c.relkind = 'm' THEN 0 ELSE pg_relation_is_updatable(c.oid, TRUE) END,
       EXISTS (SELECT FROM pg_partitioned_table p WHERE p.partrelid = c.oid AND p.partdefid = 0), ix.relname, i.indpred IS NOT NULL,
       COALESCE((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, FALSE),
       NOT i.indimmediate, COALESCE(con.condeferred, FALSE),
       ARRAY(
           SELECT COALESCE(a.attname::text, '') FROM UNNEST(i.indkey::smallint[]) WITH ORDINALITY AS k (number, place)
           LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number AND k.number <> 0
           WHERE k.place <= i.indnkeyatts ORDER BY k.place
       ),
       ARRAY(
           SELECT a.attname::text FROM pg_constraint f
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = f.conkey[1]
           WHERE f.conrelid = c.oid AND f.contype = 'f' AND CARDINALITY(f.conkey) = 1
       )
FROM pg_class c
LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indisready AND i.indislive
LEFT JOIN pg_class ix ON ix.oid = i.indexrelid
LEFT JOIN pg_constraint con ON con.conindid = i.indexrelid AND con.conrelid = c.oid AND con.contype IN ('p', 'u')
WHERE c.oid = to_regclass(%s)
"""
"""An index that CREATE INDEX CONCURRENTLY has left invalid holds nobody to anything that was there before."""

_POLICIES = """
SELECT current_user, COALESCE(STRING_AGG(DISTINCT p.policyname::text, ', '), '')
FROM pg_policies p WHERE p.tablename = %s
"""

_LACKS_RIGHT = "42501"
_HIDDEN = re.compile(r'row-level security policy for table "(.+)"')

_UPDATABLE = {"update": 4, "insert": 8, "delete": 16}
"""Bits of `pg_relation_is_updatable`, which counts triggers and rules that stand in."""

_KINDS = {"v": "view", "m": "view", "f": "foreign table"}

_NOTICES_FROM = 140000

_USUAL_VERSION = 150000
"""As Django writes it: 15.0."""


class PostgreSQL(Dialect):
    """`FOR NO KEY UPDATE` leaves live handlers that insert children alone; `FOR UPDATE` deadlocked with them."""

    forms = PostgreSQLForms

    with_own_keys = " OVERRIDING SYSTEM VALUE"
    aggregates_by_join = True
    anti_join_looks_up = False
    joins_derived_tables = True
    locks_tables = True
    waits_for_locks = True

    at_work = _AT_WORK

    @contextmanager
    def lossless_settings(self) -> Iterator[None]:
        """One statement, and a transaction to confine it to."""
        with transaction.atomic(using=self.connection.alias):
            with self.connection.cursor() as cursor:
                cursor.execute(f"SELECT {_EXACT}")
            yield

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Nested, as in a test, the chunk's time-outs would hold until the outer transaction ends: two statements set them back."""
        nested = in_transaction(self.connection.alias)
        before = self._read_timeouts() if nested else ()
        with super().transaction():
            yield
        if nested:
            with self.connection.cursor() as cursor:
                cursor.execute(_SET_TIMEOUTS, before)

    def _read_timeouts(self) -> Sequence[str]:
        with self.connection.cursor() as cursor:
            cursor.execute(_READ_TIMEOUTS)
            return tuple(cursor.fetchone())

    @contextmanager
    def protect_transaction(self) -> Iterator[None]:
        """A savepoint where a transaction is open: an error aborts all of it else, and its next statement hides the error."""
        if not in_transaction(self.connection.alias):
            yield
            return
        with transaction.atomic(using=self.connection.alias):
            yield

    def prepare_chunk(self) -> None:
        """One statement. In REPEATABLE READ a check after the lock would read a snapshot older than the wait."""
        security = "" if shows_filtered_rows() else ", set_config('row_security', 'off', true)"
        noticing = _NOTICING if postgresql_version(self.connection) >= _NOTICES_FROM else ""
        guard = f"{_GUARD}{security},{_EXACT}{noticing}"
        with self.connection.cursor() as cursor:
            cursor.execute(guard, [f"{LOCK_TIMEOUT_MS}ms", *[f"{STATEMENT_TIMEOUT_MS}ms"] * 2])
            isolation = cursor.fetchone()[len(_TIMEOUTS)]
        self._refuse_unless_committed(isolation)

    def assert_isolation(self) -> None:
        """One statement."""
        with self.connection.cursor() as cursor:
            cursor.execute("SHOW transaction_isolation")
            self._refuse_unless_committed(cursor.fetchone()[0])

    def _refuse_unless_committed(self, isolation: str) -> None:
        if isolation != "read committed":
            raise EvaluationError(
                f"Database {self.connection.alias!r} runs transactions in {isolation.upper()}. A repair needs "
                "READ COMMITTED: set OPTIONS['isolation_level'] to it for this alias."
            )

    def lock_free_rows(
        self, rows: QuerySet[Any, Any], *, from_references: bool = False
    ) -> QuerySet[Any, Any]:
        return rows.select_for_update(skip_locked=True, no_key=not from_references)

    @contextmanager
    def guard_plans(self) -> Iterator[Guarded]:
        """Old statistics may say that a window has one row; then a nested loop reads one side whole for each row of the other.

        Both sides carry the window's range, so that a hash or a merge of them is never far from the best plan.
        """
        if in_transaction(self.connection.alias):
            yield lambda read: read()
            return
        timeout, before = self._set_read_timeout()
        loops = before

        def guarded(read: Callable[[], None]) -> None:
            nonlocal loops
            began = time.monotonic()
            try:
                read()
            except OperationalError as error:
                # Somebody else may have cancelled it, or a shorter limit of the role's own.
                waited = (time.monotonic() - began) * 1_000 >= READ_TIMEOUT_MS
                if not (loops == "on" and waited and _sqlstate(error) == _CANCELLED):
                    raise
                log.warning("plan_given_up", database=self.connection.alias, after_ms=READ_TIMEOUT_MS)
                loops = "off"
                self._restore_reads(timeout, loops=loops)
                read()

        try:
            yield guarded
        finally:
            if driver_connection(self.connection) is not None:
                with suppress(Error):
                    self._restore_reads(timeout, loops=before)

    def _set_read_timeout(self) -> tuple[str, str]:
        """Limit a reading. Returns what the session had: its limit, and whether its plans may have nested loops."""
        with self.connection.cursor() as cursor:
            cursor.execute(_LIMIT_READS, [READ_TIMEOUT_MS, str(READ_TIMEOUT_MS)])
            timeout, loops, _ = cursor.fetchone()
            return timeout, loops

    def _restore_reads(self, timeout: str, *, loops: str) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('statement_timeout', %s, false), set_config('enable_nestloop', %s, false)",
                [timeout, loops],
            )

    def analyze(self, model: type[Model], written: int) -> str:
        """Until autovacuum comes, plans go by the old numbers, and read a table once for each row. One statement, two if it is much."""
        table = quoter(self.connection)(model._meta.db_table)
        with self.connection.cursor() as cursor:
            cursor.execute(_STATISTICS, [table])
            rows, owned = cursor.fetchone() or (None, False)
            if rows is None or written < max(MUCH, rows * MUCH_OF_IT):
                return ""
            if owned:
                cursor.execute(f"ANALYZE {table}")
                return ""
        return (
            f"{written:,} rows of {model._meta.label} are new to the server's statistics, and this role may not have them made anew. "
            f"Until they are, statements over it may be slow: ANALYZE {table}."
        )

    def read_clock(self) -> float | None:
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT EXTRACT(EPOCH FROM clock_timestamp())")
            return float(cursor.fetchone()[0])

    def cascades(self, model: type[Model]) -> bool:
        """Where a foreign key has an ON DELETE of its own, which Django makes for DB_CASCADE, and people by hand. One statement."""
        return any(each.acts for each in self.foreign_keys_into(model))

    def _waiting_lock(self, rows: QuerySet[Any, Any]) -> QuerySet[Any, Any]:
        return rows.select_for_update(no_key=True)

    def lock_tables(self, models: Sequence[type[Model]]) -> None:
        """Before any row lock: taken after it, a handler that holds the table and waits for the row would deadlock."""
        with self.connection.cursor() as cursor:
            for table in sorted({model._meta.db_table for model in models}):
                quoted = quoter(self.connection)(table)
                cursor.execute(f"LOCK TABLE {quoted} IN SHARE ROW EXCLUSIVE MODE")

    def skips_conflicts(self, model: type[Model]) -> bool:
        """Not where any constraint of the table can be deferred, whichever row it is about: the statement is refused."""
        return not may_be_deferrable(model, self.connection.alias)

    def returns_new_rows(self, model: type[Model]) -> bool:
        """Of a table without rules and without triggers that might write the row again. One statement.

        What Django's own foreign keys do after an insert only looks.
        """
        with self.connection.cursor() as cursor:
            cursor.execute(_PLAIN, [quoter(self.connection)(model._meta.db_table)])
            return bool(cursor.fetchone()[0])

    @contextmanager
    def detect_conflicts(self, model: type[Model]) -> Iterator[None]:
        """One statement more where the INSERT can't pass over: a constraint that is deferred is looked at now.

        At COMMIT it would be too late to wait for another session no longer than a chunk may.
        """
        if self.skips_conflicts(model):
            yield
            return
        try:
            yield
            self.check_references()
        except IntegrityError as error:
            if not self.is_taken(error):
                raise
            raise ChunkConflictError(f"{model._meta.label}: {error}") from error

    def check_references(self) -> None:
        """One statement, since Django's foreign keys are deferred.

        Once it has passed, no other session can refer to a deleted row any more: its own check waits for the row.
        """
        with self.connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")

    def failure(self, error: Error) -> Failure:
        """An error without a code is the driver's own, which has no server any more."""
        state = _sqlstate(error)
        if state is None:
            lost = isinstance(error, OperationalError | InterfaceError)
            return Failure.CONNECTION if lost else self.failure_without_code(error)
        prefixes = (state[:length] for length in range(len(state), 0, -1))
        return next((_FAILURES[each] for each in prefixes if each in _FAILURES), Failure.RECORD)

    def is_taken(self, error: Error) -> bool:
        return _sqlstate(error) in _TAKEN

    def lacks_table(self, error: Error) -> bool:
        return _sqlstate(error) in _NOT_THERE

    @contextmanager
    def see_all_rows(self) -> Iterator[None]:
        """With `row_security` off, the server refuses what a policy would filter. Two statements, one inside another such block.

        What a policy hides would be taken for missing, and inserted again; an owner that it hides for gone, and its rows deleted.
        """
        if shows_filtered_rows():
            yield
            return
        before = self._set_row_security("off")
        try:
            yield
        finally:
            # A transaction that has failed takes the setting back by itself, and so does a session that is lost.
            if before != "off" and driver_connection(self.connection) is not None:
                with suppress(Error):
                    self._set_row_security(before)

    def _set_row_security(self, value: str) -> str:
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT current_setting('row_security'), set_config('row_security', %s, false)", [value]
            )
            return str(cursor.fetchone()[0])

    def is_lock_timeout(self, error: Error) -> bool:
        return _sqlstate(error) == _LOCK_NOT_FREE

    def _read_lock_wait(self) -> float:
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT setting::float / 1000 FROM pg_settings WHERE name = 'lock_timeout'")
            return float(cursor.fetchone()[0])

    def _set_lock_wait(self, seconds: float) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT set_config('lock_timeout', %s, false)", [f"{round(seconds * 1_000)}ms"])

    def describe(self, error: Error) -> str:
        """Row level security: the table, the role and the policies. One statement. And a lock that wasn't free in time, or a right that is missing."""
        if self.is_lock_timeout(error):
            return LOCKED
        hidden = _HIDDEN.search(str(error))
        if hidden is None:
            lacks = _sqlstate(error) == _LACKS_RIGHT
            return f"This role lacks a right: {first_line(error)}. {NO_RIGHT}" if lacks else ""
        table = hidden[1]
        with self.connection.cursor() as cursor:
            cursor.execute(_POLICIES, [table])
            role, policies = cursor.fetchone()
        return (
            f"Row level security hides rows of {table} from the role {role} (policies: {policies}), so nobody could tell what "
            "is missing from what is hidden. Connect with a role that has BYPASSRLS; or set "
            'RECONCILE["ROW_SECURITY"] = "filtered" to check what the role sees: nothing is deleted then.'
        )

    def read_foreign_keys_into(self, name: str) -> tuple[ForeignKeyInto, ...]:
        """One statement."""
        return self._foreign_keys_by(_KEYS_INTO, quoter(self.connection)(name))

    def read_table(self, name: str) -> Table | None:
        """One statement."""
        with self.connection.cursor() as cursor:
            cursor.execute(_TABLE, [quoter(self.connection)(name)])
            rows = cursor.fetchall()
        if not rows:
            return None
        uniques = (
            UniqueIndex(
                name=index, columns=tuple(columns), partial=partial, nulls_distinct=not alike,
                deferrable=deferrable, deferred=deferred,
            )
            for *_, index, partial, alike, deferrable, deferred, columns, _ in rows
            if index is not None
        )  # fmt: skip
        return Table(
            kind=_KINDS.get(rows[0][0], "table"),
            filtered=rows[0][1],
            triggers=rows[0][2],
            impossible=frozenset(verb for verb, bit in _UPDATABLE.items() if not rows[0][3] & bit),
            partitioned=rows[0][4],
            uniques=tuple(uniques),
            foreign_keys=frozenset(rows[0][-1]),
        )

    def create_index(self, model: type[Model], index: Index) -> str:
        """Concurrently, since anything else keeps writers waiting until it is done."""
        return index_sql(index, model, self.connection, concurrently=True)

    def write_out(self, sql: str, params: Sequence[Any]) -> str:
        """As Django writes values into statements that take no parameters."""
        return write_in_values(self.connection, sql, params)

    def spell_text(self, text: str) -> str:
        """A literal with the numbers of the characters."""
        numbers = "".join(rf"\+{ord(char):06x}" for char in text)
        return f"U&'{numbers}'"

    @contextmanager
    def without_server(self) -> Iterator[None]:
        """Django tells by the server's version whether NULL can be unique; one that supports all of it stands in."""
        with stand_in_for_server(self.connection, {"pg_version": _USUAL_VERSION}):
            yield


def _sqlstate(error: Error) -> str | None:
    """The server's code, under psycopg's name for it or psycopg2's; none if the server said nothing."""
    cause = error.__cause__
    return getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
