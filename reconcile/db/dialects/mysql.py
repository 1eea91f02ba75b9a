"""MariaDB and MySQL."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import Error, InterfaceError
from django.db.models import Field, Index, Model, QuerySet

from reconcile.db.dialects.base import LOCKED, NO_RIGHT, Dialect, Failure
from reconcile.db.dialects.mysql_forms import MySQLForms
from reconcile.db.django_compat import (
    BaseDatabaseWrapper,
    compiler_of,
    driver_connection,
    is_mariadb,
    mysql_version,
    quoter,
    settings_of,
    stand_in_for_server,
)
from reconcile.db.schema import ForeignKeyInto, Schema, Table, UniqueIndex
from reconcile.errors import EvaluationError, Refusal

__all__ = ["MySQL"]

_DUPLICATE = 1062

_NOT_THERE = frozenset({1146, 1054})
"""A table, a column."""

_CODES = {
    # Server shut down, session killed or idle for too long, server not there, gone or lost.
    Failure.CONNECTION: (1053, 1152, 1158, 1159, 1160, 1161, 1927, 2002, 2003, 2006, 2013, 2055, 4031),
    # Record changed, lock wait time-out, deadlock, interrupted, statement time-outs, locked by NOWAIT.
    Failure.CHUNK: (1020, 1205, 1213, 1317, 1969, 3024, 3572),
    # Disk, memory, connections, limits; read-only; rights.
    Failure.DATABASE: (
        3, 1021, 1026, 1030, 1037, 1038, 1040, 1041, 1044, 1045, 1114, 1135, 1142, 1143, 1203, 1226, 1227, 1290, 1370, 1419,
        1698, 1792, 1836, 3100, 3101,
    ),
    # What isn't there, and what the server doesn't know or can't compare.
    Failure.STATEMENT: (
        1046, 1049, 1051, 1052, 1054, 1056, 1060, 1063, 1064, 1066, 1072, 1093, 1096, 1109, 1111, 1115, 1146, 1149, 1176,
        1210, 1221, 1235, 1241, 1267, 1270, 1271, 1273, 1305, 1318, 1356, 1390, 1436, 1582,
    ),
}  # fmt: skip
_FAILURES = {code: failure for failure, codes in _CODES.items() for code in codes}
"""By errno. The rest is the record's: values that don't fit, constraints, SIGNAL in a trigger."""

_TOLD = ("mysql_server_info", "mysql_version", "mysql_is_mariadb", "sql_mode")
"""What the connection remembers of the server, beside the answer that it was told by."""

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

_TABLE = """SELECT t.TABLE_TYPE, EXISTS (
           SELECT 1 FROM information_schema.TRIGGERS
           WHERE EVENT_OBJECT_SCHEMA = DATABASE() AND EVENT_OBJECT_TABLE = %s
       ) OR EXISTS (
           SELECT 1 FROM information_schema.COLUMNS
           WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = %s AND EXTRA LIKE '%%on update%%'
       ), COALESCE((SELECT IS_UPDATABLE FROM information_schema.VIEWS
           WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = %s), 'YES') = 'YES', s.INDEX_NAME, s.COLUMN_NAME
FROM information_schema.TABLES t
LEFT JOIN (
    SELECT DISTINCT INDEX_NAME, COLUMN_NAME, SEQ_IN_INDEX FROM information_schema.STATISTICS
    WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = %s AND NON_UNIQUE = 0
) s ON TRUE
WHERE t.TABLE_SCHEMA = DATABASE() AND t.TABLE_NAME = %s
ORDER BY s.INDEX_NAME, s.SEQ_IN_INDEX
"""
"""Where a view of the catalogue isn't asked for one table by name, MariaDB opens every table of every database for it. It is not
where the name comes from a join, nor in a join's condition; DISTINCT keeps the subquery one.
"""

_FOREIGN_KEYS = """SELECT MIN(COLUMN_NAME) FROM information_schema.KEY_COLUMN_USAGE
WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = %s AND REFERENCED_TABLE_NAME IS NOT NULL
GROUP BY CONSTRAINT_NAME HAVING COUNT(*) = 1
"""

_KEYS_INTO = """SELECT k.CONSTRAINT_NAME, NULLIF(k.TABLE_SCHEMA, DATABASE()), k.TABLE_NAME, k.COLUMN_NAME, k.REFERENCED_COLUMN_NAME, r.DELETE_RULE
FROM information_schema.REFERENTIAL_CONSTRAINTS r JOIN information_schema.KEY_COLUMN_USAGE k
ON k.CONSTRAINT_SCHEMA = r.CONSTRAINT_SCHEMA AND k.CONSTRAINT_NAME = r.CONSTRAINT_NAME AND k.TABLE_NAME = r.TABLE_NAME
WHERE r.UNIQUE_CONSTRAINT_SCHEMA = DATABASE() AND r.REFERENCED_TABLE_NAME = %s AND k.REFERENCED_COLUMN_NAME IS NOT NULL
ORDER BY k.TABLE_SCHEMA, k.TABLE_NAME, k.CONSTRAINT_NAME, k.ORDINAL_POSITION
"""

_GRANT = re.compile(r"GRANT (?P<rights>.+?) ON (?P<place>\*|`.+?`)\.\* TO ")
"""A line of SHOW GRANTS with rights to the whole server or to a database, whose name is a pattern."""

_SHOWING = frozenset(
    {"ALL PRIVILEGES", "ALTER", "CREATE", "DELETE", "DROP", "INDEX", "INSERT", "REFERENCES", "UPDATE"}
)
"""Rights to a table for which the server shows its foreign keys; SELECT isn't one."""

_HIDDEN_KEYS = (
    "This role has rights to single tables alone, and the server shows it no foreign key of any other: a delete may take rows of those "
    "along, so nothing is deleted. Give it its rights on the whole database."
)

_NO_TIME_ZONES = Refusal(
    "The rule converts times to another time zone, and the server's time zone tables are empty: each such value would be "
    "NULL. Load them: mysql_tzinfo_to_sql /usr/share/zoneinfo | mysql -u root mysql"
)

_LOCK_NOT_FREE = 1205
_LACKS_RIGHT = {1142, 1143}
"""To a table, to a column."""

_REFUSED_CAST = re.compile(r"char_length\(concat\('(no [a-z ]+): '")
"""What `StrictCast` has it say."""

_CACHE = "subquery_cache"

_PREFIX = 255
"""Characters of a long text that an index takes."""


class MySQL(Dialect):
    """InnoDB: row locks on the records, in READ COMMITTED."""

    forms = MySQLForms

    on_conflict = ""
    """None: `INSERT IGNORE` hides foreign-key violations and cuts texts, and under Django's FOUND_ROWS flag
    `ON DUPLICATE KEY UPDATE` counts a row that was passed over as written. A duplicate rolls the chunk
    back instead, and the next try no longer selects it."""

    takes_subqueries_in_rows = False
    """MariaDB: error 1235."""

    caches_folded_texts = True
    """MariaDB's subquery cache; MySQL has none, and the condition costs it little."""

    at_work = _AT_WORK

    waits_for_locks = True

    locks_what_it_reads = True
    """In READ COMMITTED, too; an `INSERT … SELECT` locks nothing that it reads there."""

    def tables_without_transactions(self) -> Sequence[str]:
        """Those of engines such as MyISAM. One statement."""
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT table_name FROM information_schema.tables JOIN information_schema.engines USING (engine) "
                "WHERE table_schema = DATABASE() AND transactions <> 'YES' ORDER BY table_name"
            )
            return [str(name) for (name,) in cursor.fetchall()]

    @property
    def begin(self) -> Sequence[str]:  # type: ignore[override]
        """What `transaction` begins with."""
        return (f"SET SESSION innodb_lock_wait_timeout = {self._lock_wait}", "START TRANSACTION")

    @property
    def _lock_wait(self) -> int:
        """Seconds that a chunk waits for a row lock."""
        return 0 if self._is_mariadb else 1

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """On MariaDB a chunk never waits for a row lock, so no deadlock can have it as a part, and a live handler as its
        victim. MySQL waits one second, the least that it knows.

        The session's lock wait is set back, since other code uses this connection too. Three statements beside
        BEGIN and COMMIT.
        """
        before = self._assert_isolation()
        self._wait(self._lock_wait)
        skipping = self.connection.execute_wrapper(_wait_one_second) if self._is_mariadb else nullcontext()
        try:
            with skipping, super().transaction():
                yield
        finally:
            if driver_connection(self.connection) is not None:
                with suppress(Error):
                    self._wait(before)

    def _wait(self, seconds: int) -> None:
        # A session that was opened anew, in the middle of a run, has its cache again.
        uncached = f", optimizer_switch = '{_CACHE}=off'" if self._is_mariadb else ""
        with self.connection.cursor() as cursor:
            cursor.execute(f"SET SESSION innodb_lock_wait_timeout = %s{uncached}", [seconds])

    @contextmanager
    def examine(self) -> Iterator[Schema]:
        """Without MariaDB's subquery cache, which takes what a subquery answers for one text for the answer for another that the collation
        folds with it, however exactly the subquery compares. Three statements more.
        """
        with self._without_cache() if self._is_mariadb else nullcontext(), super().examine() as schema:
            yield schema

    @contextmanager
    def _without_cache(self) -> Iterator[None]:
        with self.connection.cursor() as cursor:
            cursor.execute(f"SELECT @@session.optimizer_switch LIKE '%%{_CACHE}=on%%'")
            (cached,) = cursor.fetchone()
            if cached:
                cursor.execute(f"SET SESSION optimizer_switch = '{_CACHE}=off'")
        try:
            yield
        finally:
            if cached and driver_connection(self.connection) is not None:
                with suppress(Error), self.connection.cursor() as cursor:
                    cursor.execute(f"SET SESSION optimizer_switch = '{_CACHE}=on'")

    def assert_isolation(self) -> None:
        """One statement."""
        self._assert_isolation()

    def _assert_isolation(self) -> int:
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
        return is_mariadb(self.connection)

    def _knows_old_name(self) -> bool:
        return self._is_mariadb and mysql_version(self.connection) < (11, 1)

    def blocks_inserts(self, *, constrained: bool) -> bool:
        """InnoDB checks foreign keys at once, against the locked parent."""
        return constrained

    def lock_free_rows(
        self,
        rows: QuerySet[Any, Any],
        *,
        from_references: bool = False,  # noqa: ARG002
    ) -> QuerySet[Any, Any]:
        return rows.select_for_update(skip_locked=True)

    def failure(self, error: Error) -> Failure:
        """An InterfaceError without a code is the driver's, which has no server any more."""
        code = _errno(error)
        if code:
            return _FAILURES.get(code, Failure.RECORD)
        return Failure.CONNECTION if isinstance(error, InterfaceError) else self.failure_without_code(error)

    def message(self, error: Exception) -> str:
        said = " ".join(str(error.args[-1] if error.args else error).split())
        refused = _REFUSED_CAST.search(said)
        return f"the text is {refused[1]}" if refused else said

    def lacks_table(self, error: Error) -> bool:
        return _errno(error) in _NOT_THERE

    def is_duplicate(self, error: Error) -> bool:
        """See `on_conflict`: an INSERT can't pass over a row that another session has inserted."""
        return self.is_taken(error)

    def read_clock(self) -> float | None:
        """By UTC: NOW() is in the session's time zone, of which an hour may come twice."""
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))")
            return float(cursor.fetchone()[0]) / 1_000_000

    def is_taken(self, error: Error) -> bool:
        return _errno(error) == _DUPLICATE

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

    def is_lock_timeout(self, error: Error) -> bool:
        return _errno(error) == _LOCK_NOT_FREE

    def _read_lock_wait(self) -> float:
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT @@SESSION.lock_wait_timeout")
            return float(cursor.fetchone()[0])

    def _set_lock_wait(self, seconds: float) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute("SET SESSION lock_wait_timeout = %s", [round(seconds)])

    def describe(self, error: Error) -> str:
        """A lock that wasn't free in time, or a right that is missing."""
        if _errno(error) in _LACKS_RIGHT:
            return f"This role lacks a right: {error.args[-1]}. {NO_RIGHT}"
        return LOCKED if self.is_lock_timeout(error) else ""

    def read_foreign_keys_into(self, name: str) -> tuple[ForeignKeyInto, ...]:
        """One statement. A key of a table that this user has no right to isn't listed."""
        return self._foreign_keys_by(_KEYS_INTO, name)

    def hidden_foreign_keys(self) -> str:
        """The grants of this user, and of the role that it has taken on, tell. One statement."""
        with self.connection.cursor() as cursor:
            cursor.execute("SHOW GRANTS")
            grants = [_GRANT.match(line) for (line,) in cursor.fetchall()]
        name = str(settings_of(self.connection)["NAME"])
        return "" if any(_shows_keys(each, name) for each in grants if each) else _HIDDEN_KEYS

    def read_table(self, name: str) -> Table | None:
        """Two statements. There is no condition, and no deferral."""
        with self.connection.cursor() as cursor:
            cursor.execute(_TABLE, [name] * _TABLE.count("%s"))
            rows = cursor.fetchall()
            if not rows:
                return None
            cursor.execute(_FOREIGN_KEYS, [name])
            keys = frozenset(column for (column,) in cursor.fetchall())
        columns: dict[str, list[str]] = {}
        for *_, index, column in rows:
            if index is not None:
                columns.setdefault(index, []).append(column or "")
        uniques = (UniqueIndex(name=index, columns=tuple(each)) for index, each in columns.items())
        kind = "view" if rows[0][0] == "VIEW" else "table"
        return Table(
            kind=kind,
            triggers=bool(rows[0][1]),
            uniques=tuple(uniques),
            foreign_keys=keys,
            impossible=frozenset() if rows[0][2] else frozenset({"insert", "update", "delete"}),
        )

    def refuse(self, rows: Iterable[QuerySet[Any, Any]]) -> Refusal | None:
        """CONVERT_TZ() is NULL where the server's time zone tables are empty, as a fresh server has them."""
        if self.connection.features.has_zoneinfo_database:
            return None
        sql = (_sql_of(each, self.connection) for each in rows)
        return _NO_TIME_ZONES if any("CONVERT_TZ(" in each for each in sql) else None

    def create_index(self, model: type[Model], index: Index) -> str:
        """A long text is indexed by its first characters."""
        fields = [each for name in index.fields for each in model._meta.concrete_fields if each.name == name]
        if self.can_declare(fields):
            return super().create_index(model, index)
        quote = quoter(self.connection)
        columns = ", ".join(
            f"{quote(str(field.column))}{'' if self.can_declare([field]) else f'({_PREFIX})'}"
            for field in fields
        )
        return f"CREATE INDEX {quote(index.name)} ON {quote(model._meta.db_table)} ({columns})"

    def write_out(self, sql: str, params: Sequence[Any]) -> str:
        """The driver escapes as the connection's mode and character set ask it to."""
        with self.connection.cursor() as cursor:
            # The wrappers hand on what they don't know, of which the stubs know nothing.
            escaping: Any = cursor
            written: str | bytes = escaping.mogrify(sql, tuple(params))
        return written.decode() if isinstance(written, bytes) else written

    def spell_text(self, text: str) -> str:
        """Its bytes, with the character set that they are in."""
        return f"_utf8mb4 x'{text.encode().hex()}'"

    def can_declare(self, fields: Sequence[Field[Any, Any]]) -> bool:
        """Not where a column is a long text or bytes, of which an index must say how much."""
        return not any(_is_long(str(field.db_type(self.connection))) for field in fields)

    @contextmanager
    def without_server(self) -> Iterator[None]:
        """Django words GROUP BY by the server's version and mode; a MariaDB in its usual mode stands in."""
        with stand_in_for_server(self.connection, {"mysql_server_data": _USUAL}, forgetting=_TOLD):
            yield


def _errno(error: Error) -> int:
    code = error.args[0] if error.args else 0
    return code if isinstance(code, int) else 0


def _sql_of(rows: QuerySet[Any, Any], connection: BaseDatabaseWrapper) -> str:
    try:
        sql, _ = compiler_of(rows.query, connection).as_sql()
    except EmptyResultSet:
        return ""
    return str(sql)


def _is_long(kind: str) -> bool:
    return kind.endswith(("text", "blob"))


def _wait_one_second(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:  # noqa: FBT001
    """Where the session never waits, SKIP LOCKED fails with error 1180 at the first locked row, instead of skipping."""
    statement = f"SET STATEMENT innodb_lock_wait_timeout = 1 FOR {sql}" if "SKIP LOCKED" in sql else sql
    return execute(statement, params, many, context)


def _shows_keys(grant: re.Match[str], database: str) -> bool:
    """Whether who has the grant is shown the foreign keys of all tables of the database."""
    rights = {each.strip().upper() for each in grant["rights"].split(",")}
    pattern = grant["place"].strip("`").replace("``", "`")
    parts = re.split(r"(\\.|[_%])", pattern)
    wild = {"_": ".", "%": ".*"}
    expression = "".join(wild.get(each) or re.escape(each.removeprefix("\\")) for each in parts)
    return bool(rights & _SHOWING) and (
        pattern == "*" or bool(re.fullmatch(expression, database, re.IGNORECASE))
    )
