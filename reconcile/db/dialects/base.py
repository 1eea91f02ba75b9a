"""What every dialect answers. The protocol's reasons stand beside each database's own answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from itertools import groupby
from operator import itemgetter
from typing import Any, ClassVar

from django.db import Error, InterfaceError, NotSupportedError, ProgrammingError, transaction
from django.db.models import Field, Index, Model, QuerySet

from reconcile.db.columns import concrete_model
from reconcile.db.dialects.forms import Forms
from reconcile.db.django_compat import (
    BaseDatabaseWrapper,
    driver_connection,
    in_transaction,
    index_sql,
    quoter,
)
from reconcile.db.schema import ForeignKeyInto, Schema, Table, current_schema, use_schema
from reconcile.errors import ChunkConflictError, Refusal, first_line

__all__ = [
    "LOCKED",
    "LOCK_TIMEOUT_MS",
    "NO_RIGHT",
    "SAY_AFTER",
    "STATEMENT_TIMEOUT_MS",
    "Dialect",
    "Failure",
    "literal",
]

LOCK_TIMEOUT_MS = 300
"""Below every server's deadlock timeout (PostgreSQL: 1 s), so that the repair yields and never the live handler."""

SAY_AFTER = 2.0
"""Seconds after which a check that waits for a lock says so."""

STATEMENT_TIMEOUT_MS = 60_000
"""A chunk's statement that takes longer is given up, and the chunk halved."""


LOCKED = (
    "Another session held a lock for longer than a check waits, as a migration may. Check again when it has ended; "
    'RECONCILE["LOCK_WAIT"] says how many seconds are waited.'
)

NO_RIGHT = "It reads the tables of the rule, and before a delete those that refer to its rows, whoever has made them. Grant it what it lacks."

Guarded = Callable[[Callable[[], None]], None]


class Failure(StrEnum):
    """Whose failure an error of the database is, and so what to do about it. Each dialect has the table of its codes.

    The class of the driver's exception doesn't tell: PostgreSQL's RAISE EXCEPTION is a ProgrammingError and a full disk an
    OperationalError, in one driver, and something else in the next.
    """

    RECORD = "record"
    """A constraint, a trigger or a type refuses the values of a record: the others can be repaired."""
    CHUNK = "chunk"
    """Other sessions were in the way, or a time-out was: another try may succeed."""
    CONNECTION = "connection"
    """The session has ended, or never began: it says nothing of the records."""
    DATABASE = "database"
    """The disk is full, memory or connections have run out, the server is read-only, or a right is missing."""
    STATEMENT = "statement"
    """The statement itself can't be run: a table or column is missing, or the server doesn't know what it says."""


def literal(value: Any) -> str:
    """A value as standard SQL writes it."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"x'{bytes(value).hex()}'"
    # A text that is a member of an enumeration is bound as its value, and prints as its name.
    text = str.__str__(value) if isinstance(value, str) else str(value)
    quoted = text.replace("'", "''")
    return f"'{quoted}'"


class Dialect:
    """How one database begins a chunk, locks, and words what the ORM can't."""

    forms: ClassVar[type[Forms]]
    """What it spells in words of its own."""

    on_conflict: ClassVar[str] = "ON CONFLICT DO NOTHING"
    """Clause after an `INSERT … SELECT` that passes over rows another session has inserted meanwhile, where the table
    `skips_conflicts` them."""

    aggregates_by_join: ClassVar[bool] = False
    """Whether an aggregate over a relation is fastest as a join with the range in it (else: a subquery)."""

    with_own_keys: ClassVar[str] = ""
    """Clause of an INSERT that brings keys along which the database makes itself, whatever somebody gives."""

    anti_join_looks_up: ClassVar[bool] = True
    """Whether an anti-join looks up each row (else: the other table can be hashed, by an expression too)."""

    takes_subqueries_in_rows: ClassVar[bool] = True
    """Whether `(a, b) IN (SELECT …)` may have a subquery for `a` or `b`."""

    caches_folded_texts: ClassVar[bool] = False
    """Whether a subquery's answer for one text is taken for another that the collation folds with it."""

    refuses_large_numbers: ClassVar[bool] = True
    """Whether the database refuses a number that is larger than its column; else it keeps one that Django can't read again."""

    waits_for_locks: ClassVar[bool] = False
    """Whether a SELECT may wait for a lock of another session without an end, as for that of a migration."""

    locks_tables: ClassVar[bool] = False
    """Whether `lock_tables` keeps handlers in flight from inserting the row that a chunk inserts."""

    joins_derived_tables: ClassVar[bool] = False
    """Whether the first of several rows is fastest by a join with a derived table, by DISTINCT ON; else by a subquery."""

    locks_what_it_reads: ClassVar[bool] = False
    """Whether an UPDATE from a SELECT locks each row that the SELECT reads, so that the SELECT has to come first."""

    lock_retry_seconds: ClassVar[float] = 0.0
    """Seconds after which a session that waits for a lock tries again; 0 if the database wakes it. A repair pauses for so long to let it."""

    at_work: ClassVar[str]
    """A statement that reads whether other sessions use this database."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """The transaction of one chunk: never nested in another, isolation asserted, time-outs set."""
        with transaction.atomic(using=self.connection.alias, durable=True):
            self.prepare_chunk()
            yield

    @contextmanager
    def writing_transaction(self) -> Iterator[None]:
        """A transaction of a project's own code that will write; within another it is a part of that."""
        with transaction.atomic(using=self.connection.alias):
            yield

    @contextmanager
    def lossless_settings(self) -> Iterator[None]:
        """Around statements outside of a chunk that make images: no setting of the session changes what is in them."""
        yield

    @contextmanager
    def protect_transaction(self) -> Iterator[None]:
        """Around statements that read and may fail: a transaction that the caller has open goes on after an error."""
        yield

    begin: ClassVar[Sequence[str]] = ("BEGIN",)
    """The statements with which a chunk's transaction begins, before `prepare_chunk`."""

    def assert_isolation(self) -> None:
        """Raise EvaluationError unless each statement of a transaction sees what others have committed before it. At most one statement."""

    def prepare_chunk(self) -> None:
        """Assert the isolation level and set the chunk's time-outs. At most two statements."""

    def lock_free_rows(
        self,
        rows: QuerySet[Any, Any],
        *,
        from_references: bool = False,  # noqa: ARG002
    ) -> QuerySet[Any, Any]:
        """`rows`, with locks taken on those that no other session holds; locked ones are skipped.

        from_references: keep other sessions also from committing a row that refers to one of them.
        """
        return rows

    @contextmanager
    def guard_plans(self) -> Iterator[Guarded]:
        """While this lasts, what is yielded calls a reading of a window, and calls it again by another plan if it takes too long.

        Two statements, where the database can fall over at all; none inside a transaction, which a time-out would end.
        """
        yield lambda read: read()

    @contextmanager
    def limit_lock_waits(self, seconds: float, say: Callable[[], None]) -> Iterator[None]:
        """While this lasts, a statement that has waited `SAY_AFTER` seconds for a lock calls `say`, and fails after `seconds`.

        Two statements, where sessions wait for each other at all; none inside a transaction, whose statements can't be sent again.
        """
        if not self.waits_for_locks or in_transaction(self.connection.alias):
            yield
            return
        before = self._read_lock_wait()
        first = min(SAY_AFTER, seconds)

        def wait(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:  # noqa: FBT001 - Django's signature
            try:
                return execute(sql, params, many, context)
            except Error as error:
                if (
                    seconds <= first
                    or in_transaction(self.connection.alias)
                    or not self.is_lock_timeout(error)
                ):
                    raise
            say()
            self._set_lock_wait(max(seconds - first, 1))
            try:
                return execute(sql, params, many, context)
            finally:
                with suppress(Error):
                    self._set_lock_wait(first)

        self._set_lock_wait(first)
        try:
            with self.connection.execute_wrapper(wait):
                yield
        finally:
            if driver_connection(self.connection) is not None:
                with suppress(Error):
                    self._set_lock_wait(before)

    def is_lock_timeout(self, error: Error) -> bool:  # noqa: ARG002
        """Whether the statement has waited for a lock for as long as it may."""
        return False

    def _read_lock_wait(self) -> float:
        """Seconds that a statement of this session waits for a lock; 0 is without an end."""
        raise NotImplementedError

    def _set_lock_wait(self, seconds: float) -> None:
        raise NotImplementedError

    def analyze(self, model: type[Model], written: int) -> str:  # noqa: ARG002
        """Have the server learn anew what the model's table holds, of which `written` rows are new to it, if that is much of it.

        Returns why it can't, as a sentence; empty if it has, or needs not.
        """
        return ""

    def read_clock(self) -> float | None:
        """Seconds since 1970 by the clock of the server. One statement. None where the database has no clock of its own."""
        return None

    def cascades(self, model: type[Model]) -> bool:  # noqa: ARG002
        """Whether a DELETE of the model's rows takes rows along that another session has just committed, with no word to anybody.

        Not where each lock on a row keeps others from referring to it.
        """
        return False

    def lock_rows(self, rows: QuerySet[Any, Any]) -> None:
        """Lock all of `rows`, and wait for other sessions that have locked one. One statement; in a transaction."""
        list(self._waiting_lock(rows))

    def _waiting_lock(self, rows: QuerySet[Any, Any]) -> QuerySet[Any, Any]:
        return rows.select_for_update()

    def lock_tables(self, models: Sequence[type[Model]]) -> None:
        """Keep other writers out of these tables until the chunk ends, where no lock on a row does. One statement a table."""

    def blocks_inserts(self, *, constrained: bool) -> bool:  # noqa: ARG002
        """Whether a chunk's locks keep a handler in flight from inserting a row that the chunk inserts too.

        `constrained` says that the row refers to the locked record by a foreign key with a constraint.
        """
        return False

    def skips_conflicts(self, model: type[Model]) -> bool:  # noqa: ARG002
        """Whether an INSERT into the table of `model` can pass over rows that another session has inserted meanwhile."""
        return bool(self.on_conflict)

    @contextmanager
    def detect_conflicts(self, model: type[Model]) -> Iterator[None]:  # noqa: ARG002
        """Around an INSERT: an error that `is_transient` where another session was first and it can't pass over that."""
        yield

    def check_references(self) -> None:
        """Raise IntegrityError now, rather than at COMMIT, where a row refers to one that the chunk has deleted."""

    def returns_new_rows(self, model: type[Model]) -> bool:  # noqa: ARG002
        """Whether one statement can insert into the table of `model` and read the new rows as they will stand."""
        return False

    def look_for_sessions(self, mark: int) -> tuple[bool, int]:  # noqa: ARG002
        """Whether other sessions use this database, now or in the last second, and a mark for the next call. One statement.

        `mark` is what the call before returned, and 0 at first. A session of which this one may not know counts.
        """
        with self.connection.cursor() as cursor:
            cursor.execute(self.at_work)
            return bool(cursor.fetchone()[0]), 0

    def failure(self, error: Error) -> Failure:
        """Whose failure the error is, by the server's code for it."""
        raise NotImplementedError

    def message(self, error: Exception) -> str:
        """What the database says, in one line, without its number."""
        return first_line(error)

    def failure_without_code(self, error: Error) -> Failure:
        """Whose failure an error of the driver's own is, of which the server has said nothing: only its class tells."""
        wrong = isinstance(error, ProgrammingError | NotSupportedError | InterfaceError)
        return Failure.STATEMENT if wrong else Failure.RECORD

    def lacks_table(self, error: Error) -> bool:
        """True if a table or a column of the statement isn't there."""
        raise NotImplementedError

    def is_transient(self, error: BaseException) -> bool:
        """True if the same chunk may succeed when it is tried again."""
        if isinstance(error, ChunkConflictError):
            return True
        return isinstance(error, Error) and (self.failure(error) is Failure.CHUNK or self.is_duplicate(error))

    def is_duplicate(self, error: Error) -> bool:  # noqa: ARG002
        """True if another session may have been first to insert the row, so that the next try no longer selects it."""
        return False

    def is_taken(self, error: Error) -> bool:
        """True if another row has the unique value that was to be written."""
        raise NotImplementedError

    def is_lost(self, error: Error) -> bool:
        """True if the error ended the session, so that it says nothing of the records of the chunk."""
        return self.failure(error) is Failure.CONNECTION

    def concerns_records(self, error: BaseException) -> bool:
        """True if the error, or what it came of, is about the values of single records."""
        errors = (each for each in (error, error.__cause__) if isinstance(each, Error))
        return any(self.failure(each) is Failure.RECORD for each in errors)

    def on_conflict_replace(self, *, table: str, unique: Sequence[str], columns: Sequence[str]) -> str:
        """Clause after an `INSERT … SELECT` that writes over a row whose first of `columns` differs. Names are quoted."""
        settings = ", ".join(f"{column} = excluded.{column}" for column in columns)
        differs = f"{table}.{columns[0]} <> excluded.{columns[0]}"
        return f"ON CONFLICT ({', '.join(unique)}) DO UPDATE SET {settings} WHERE {differs}"

    def update_from(
        self, *, table: str, key: str, wanted_key: str, assignments: list[tuple[str, str]], select: str
    ) -> str:
        """An UPDATE of `table` from the SELECT whose alias is `e`. All names are quoted already."""
        settings = ", ".join(f"{column} = {value}" for column, value in assignments)
        return f"UPDATE {table} SET {settings} FROM ({select}) AS e WHERE {table}.{key} = {wanted_key}"

    def row_word(self) -> str:
        """The word before each row of a VALUES list that is joined with a SELECT."""
        return ""

    @contextmanager
    def examine(self) -> Iterator[Schema]:
        """Around a check or a run: the session sees all rows or fails, and constraints count where the database has them."""
        with self.see_all_rows(), self.read_schema() as schema:
            yield schema

    @contextmanager
    def see_all_rows(self) -> Iterator[None]:
        """While this lasts, a SELECT that would be shown some rows only is an error."""
        yield

    def describe(self, error: Error) -> str:  # noqa: ARG002
        """What the error means and the way out, where the server's own words don't say it; else empty."""
        return ""

    @contextmanager
    def read_schema(self) -> Iterator[Schema]:
        """While this lasts, constraints count where the database has them; each table is read once, when it is asked for."""
        schema = Schema(
            using=self.connection.alias, read=self.read_table, read_keys_into=self.read_foreign_keys_into
        )
        with use_schema(schema):
            yield schema

    def foreign_keys_into(self, model: type[Model]) -> tuple[ForeignKeyInto, ...]:
        """The foreign keys that refer to the model's table, whoever has made them. One statement; none if the schema in use knows them."""
        if (schema := current_schema(self.connection.alias)) is not None:
            return schema.foreign_keys_into(model)
        return self.read_foreign_keys_into(concrete_model(model)._meta.db_table)

    def read_foreign_keys_into(self, name: str) -> tuple[ForeignKeyInto, ...]:
        """Those that refer to the table of this name. One statement."""
        raise NotImplementedError

    def hidden_foreign_keys(self) -> str:
        """Why this role isn't shown all foreign keys, as a sentence with the way out; empty if it is. At most one statement."""
        return ""

    def _foreign_keys_by(self, sql: str, name: str) -> tuple[ForeignKeyInto, ...]:
        """The keys that the statement reads, a row for each column: the key, schema, table, column, column referred to, ON DELETE."""
        with self.connection.cursor() as cursor:
            cursor.execute(sql, [name])
            rows = cursor.fetchall()
        quote = quoter(self.connection)
        return tuple(
            ForeignKeyInto(
                table=".".join(map(quote, filter(None, (schema, table)))),
                columns=tuple(column for *_, column, _, _ in parts),
                referred=tuple(referred for *_, referred, _ in parts),
                acts="" if acts in {"NO ACTION", "RESTRICT"} else acts,
            )
            for (_, schema, table, acts), parts in (
                (key, [*rows]) for key, rows in groupby(rows, key=itemgetter(0, 1, 2, 5))
            )
        )

    def tables_without_transactions(self) -> Sequence[str]:
        """The tables of the database whose changes no rollback undoes."""
        return ()

    def read_table(self, name: str) -> Table | None:
        """The table of this name with its valid unique indexes; None if there is none. At most two statements."""
        raise NotImplementedError

    def refuse(self, rows: Iterable[QuerySet[Any, Any]]) -> Refusal | None:  # noqa: ARG002
        """Why the database would answer one of these SELECTs wrongly, without an error; None if it wouldn't."""
        return None

    def create_index(self, model: type[Model], index: Index) -> str:
        """The statement that would make `index`, for people to run."""
        return index_sql(index, model, self.connection)

    def write_out(self, sql: str, params: Sequence[Any]) -> str:
        """The statement with its values written in as this database reads them, for people to run. No statement."""
        raise NotImplementedError

    def functions_of_django(self, sql: str) -> Sequence[str]:  # noqa: ARG002
        """The functions that the statement calls and the shell of the database doesn't have. One statement, where there are any."""
        return ()

    def spell_text(self, text: str) -> str:
        """A text as an expression of ASCII characters that can be printed. No statement."""
        raise NotImplementedError

    def can_declare(self, fields: Sequence[Field[Any, Any]]) -> bool:  # noqa: ARG002
        """Whether Django can make an index on these columns by itself."""
        return True

    @contextmanager
    def without_server(self) -> Iterator[None]:
        """While statements are compiled to be read: the server is not asked what it is, so that none is needed."""
        yield
