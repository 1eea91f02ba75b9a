"""What every dialect answers. The protocol's reasons stand beside each database's own answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from django.db import Error, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Field, Index, Model, QuerySet

from reconcile.errors import ChunkConflictError

__all__ = ["LOCK_TIMEOUT_MS", "STATEMENT_TIMEOUT_MS", "Dialect"]

LOCK_TIMEOUT_MS = 300
"""Below every server's deadlock timeout (PostgreSQL: 1 s), so that the repair yields and never the live handler."""

STATEMENT_TIMEOUT_MS = 60_000
"""A chunk's statement that takes longer is given up, and the chunk halved."""


class Dialect:
    """How one database begins a chunk, locks, and words what the ORM can't."""

    on_conflict: ClassVar[str] = "ON CONFLICT DO NOTHING"
    """Clause after an `INSERT … SELECT` that passes over rows another session has inserted meanwhile, where the table
    `passes_over` them."""

    aggregates_by_join: ClassVar[bool] = False
    """Whether an aggregate over a relation is fastest as a join with the range in it (else: a subquery)."""

    looks_up_each: ClassVar[bool] = True
    """Whether an anti-join looks up each row (else: the other table can be hashed, by an expression too)."""

    remembers_folded: ClassVar[bool] = False
    """Whether a subquery's answer for one text is taken for another that the collation folds with it."""

    locks_tables: ClassVar[bool] = False
    """Whether `lock_tables` is what keeps handlers in flight from inserting a row that a chunk inserts too."""

    joins_derived_tables: ClassVar[bool] = False
    """Whether the first of several rows is fastest as a join with a derived table (else: a subquery). It takes
     DISTINCT ON, too."""

    locks_what_it_reads: ClassVar[bool] = False
    """Whether an UPDATE from a SELECT locks each row that the SELECT reads, so that it has to be read beforehand."""

    turn: ClassVar[float] = 0.0
    """Seconds after which a session that waits to write tries again; 0 where the database wakes it."""

    at_work: ClassVar[str]
    """A statement that says whether other sessions use this database."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """The transaction of one chunk: never nested in another, isolation asserted, time-outs set."""
        with transaction.atomic(using=self.connection.alias, durable=True):
            self.guard()
            yield

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Around statements outside of a chunk that make images: no setting of the session changes what is in them."""
        yield

    def guard(self) -> None:
        """Assert the isolation level and set the chunk's time-outs. At most two statements."""

    def locked(self, rows: QuerySet[Any, Any]) -> QuerySet[Any, Any]:
        """`rows`, with locks taken on those that no other session holds; locked ones are skipped."""
        return rows

    def hold(self, rows: QuerySet[Any, Any]) -> None:
        """Take the locks of `locked` on all of `rows`, waiting for whoever has one. One statement; in a transaction."""
        list(self._awaited(rows))

    def _awaited(self, rows: QuerySet[Any, Any]) -> QuerySet[Any, Any]:
        return rows.select_for_update()

    def lock_tables(self, models: Sequence[type[Model]]) -> None:
        """Keep other writers out of these tables until the chunk ends, where no lock on a row does. One statement a table."""

    def keeps_rows_out(self, *, constrained: bool) -> bool:  # noqa: ARG002
        """Whether a chunk's locks keep a handler in flight from inserting a row that the chunk inserts too.

        `constrained` says that the row refers to the locked record by a foreign key with a constraint.
        """
        return False

    def passes_over(self, model: type[Model]) -> bool:  # noqa: ARG002
        """Whether an INSERT into the table of `model` can pass over rows that another session has inserted meanwhile."""
        return bool(self.on_conflict)

    @contextmanager
    def noticing_others(self, model: type[Model]) -> Iterator[None]:  # noqa: ARG002
        """Around an INSERT: an error that `is_transient` where another session was first and it can't pass over that."""
        yield

    def check_references(self) -> None:
        """Raise IntegrityError now, rather than at COMMIT, where a row refers to one that the chunk has deleted."""

    def returns_written(self, model: type[Model]) -> bool:  # noqa: ARG002
        """Whether one statement can insert into the table of `model` and read the new rows as they will stand."""
        return False

    def others_at_work(self, mark: int) -> tuple[bool, int]:  # noqa: ARG002
        """Whether other sessions use this database, now or in the last second, and a mark for the next call. One statement.

        `mark` is what the call before returned, and 0 at first. A session of which this one may not know counts.
        """
        with self.connection.cursor() as cursor:
            cursor.execute(self.at_work)
            return bool(cursor.fetchone()[0]), 0

    def is_transient(self, error: BaseException) -> bool:
        """True where the same chunk may succeed when it is tried again."""
        if isinstance(error, ChunkConflictError):
            return True
        return isinstance(error, Error) and self._is_transient(error)

    def _is_transient(self, error: Error) -> bool:
        raise NotImplementedError

    def is_lost(self, error: Error) -> bool:  # noqa: ARG002
        """True where the error ended the session, so that it says nothing of the records of the chunk."""
        return False

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

    def create_index(self, model: type[Model], index: Index) -> str:
        """The statement that would make `index`, for people to run."""
        # Outside its own `with` the editor only words statements.
        return str(index.create_sql(model, self.connection.schema_editor()))

    def can_declare(self, fields: Sequence[Field[Any, Any]]) -> bool:  # noqa: ARG002
        """Whether Django can make an index on these columns by itself."""
        return True

    @contextmanager
    def unasked(self) -> Iterator[None]:
        """While statements are compiled to be read: the server is not asked what it is, so that none is needed."""
        yield
