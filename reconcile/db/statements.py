"""The statements that the ORM lacks: INSERT … SELECT, UPDATE … FROM, upsert, and rows of constants.

The constants are the driver's own values, so that nothing is lost on the way through a field's Python type. An empty
SELECT of the columns that they are for comes first: it gives NULLs, texts and keys the columns' types and
collations, and a key of the right type is looked up by its index.

Identifiers go through `quote_name`; values are always parameters.

An UPDATE that reads what it writes from a SELECT is one form for both, but InnoDB locks each row that the SELECT
merely passes, and may wait there for a live session that waits for the UPDATE.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.models import Case, F, Field, Model, Q, QuerySet, Value, When
from django.db.models.functions import Cast

from reconcile.db.columns import stored_field
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import compiler_of, quoter
from reconcile.db.placeholders import fill_placeholders

__all__ = [
    "BATCH",
    "CASES",
    "KEY",
    "LONG",
    "WANTED",
    "InsertWithJournal",
    "batches",
    "execute_select_into",
    "first_true_branch",
    "insert_select",
    "select_constants",
    "select_sql",
    "update_from",
    "upsert_select",
]

Row = Sequence[Any]

BATCH = 5_000
"""Rows in one statement: a whole chunk, for which the server takes 8 MB."""

LONG = 1_000_000
"""Characters in one statement, but for a single row that has more: servers take 16 MB, and escaping may double it."""


def batches(rows: Sequence[Row], *, most: int = BATCH, long: int = LONG) -> Iterator[Sequence[Row]]:
    """`rows`, cut so that each batch has at most `most` rows and `long` characters."""
    start = characters = 0
    for at, row in enumerate(rows):
        size = sum(len(value) for value in row if isinstance(value, str | bytes))
        if at > start and (at - start == most or characters + size > long):
            yield rows[start:at]
            start, characters = at, 0
        characters += size
    if start < len(rows):
        yield rows[start:]


def select_constants(
    rows: Sequence[Row], *, table: str, columns: Sequence[tuple[str, str]], row: str = ""
) -> tuple[str, tuple[Any, ...]]:
    """`rows` as a SELECT of `columns`: of `table`, the column that each is for, and its alias. Names are quoted.

    row: the word that the database wants before each row of VALUES.
    """
    typed = ", ".join(f"{table}.{column} AS {alias}" for column, alias in columns)
    constants = ", ".join([f"{row}({', '.join(['%s'] * len(columns))})"] * len(rows))
    sql = f"SELECT {typed} FROM {table} WHERE FALSE UNION ALL VALUES {constants}"
    return sql, tuple(chain.from_iterable(rows))


KEY = "_key"
"""Alias of the key column in the SELECT that `update_from` reads."""

WANTED = "_want_{}"
"""Alias, by attname, of an expected value in the SELECT that `update_from` reads."""

_Fields = Sequence["Field[Any, Any]"]
_Select = tuple[str, tuple[Any, ...]]


def select_sql(queryset: QuerySet[Any, Any]) -> _Select | None:
    """The queryset's SELECT and its parameters; None if Django knows that it has no rows."""
    try:
        sql, params = compiler_of(queryset.query, connections[queryset.db]).as_sql()
    except EmptyResultSet:
        return None
    return sql, tuple(params)


def insert_select(
    model: type[Model],
    fields: Sequence[Field[Any, Any]],
    rows: QuerySet[Any, Any],
    *,
    skip_conflicts: bool = True,
) -> int:
    """Insert what `rows` selects into `fields` of `model`; the number of rows inserted.

    If `skip_conflicts`, a row that breaks a unique constraint is passed over on PostgreSQL and SQLite. It raises IntegrityError on MariaDB,
    where passing over can't be told from inserting, and ChunkConflictError on PostgreSQL where a constraint of the
    table can be deferred; both mean that the same chunk may succeed when it is tried again. One statement, two there.
    """
    dialect = dialect_of(rows.db)
    suffix = f" {dialect.on_conflict}" if skip_conflicts and dialect.skips_conflicts(model) else ""
    with dialect.detect_conflicts(model):
        return execute_select_into(model, fields, rows, suffix=suffix)


@dataclass(frozen=True, kw_only=True)
class InsertWithJournal:
    """An INSERT that also records its new rows in another table, in one statement; it may have placeholders.

    Note [A name for the new rows]: they go by the name of their table, so that a SELECT of the ORM's reads them in its place.
    """

    model: type[Model]
    using: str
    sql: str
    params: tuple[Any, ...]

    @classmethod
    def of(
        cls, model: type[Model], fields: _Fields, rows: QuerySet[Any, Any],
        *, into: type[Model], columns: _Fields, recorded: QuerySet[Any, Any],
    ) -> InsertWithJournal | None:  # fmt: skip
        """Insert what `rows` selects, and what `recorded` selects of the new rows alone into `columns` of `into`.

        None if the database can't return what it writes, or `recorded` reads the table in any other place. One statement.
        """
        using = rows.db
        if not dialect_of(using).returns_new_rows(model):
            return None
        table = quoter(connections[using])(model._meta.db_table)
        source, new = select_sql(rows), select_sql(recorded)
        if source is None or new is None or not _reads_once(new[0], table):
            return None
        insert = f"{_insert_into(model, fields, using)} {source[0]} RETURNING *"
        note = f"{_insert_into(into, columns, using)} {new[0]} RETURNING 1"
        counts = f"SELECT (SELECT COUNT(*) FROM {table}), (SELECT COUNT(*) FROM reconcile_noted)"
        sql = f"WITH {table} AS ({insert}), reconcile_noted AS ({note}) {counts}"
        return cls(model=model, using=using, sql=sql, params=(*source[1], *new[1]))

    def execute(self, **values: Any) -> tuple[int, int]:
        """Insert and record rows, with `values` in the place of the placeholders. Returns both numbers. One statement.

        A row that breaks a unique constraint raises as in `insert_select`, where that doesn't pass over it.
        """
        noticing = dialect_of(self.using).detect_conflicts(self.model)
        with noticing, connections[self.using].cursor() as cursor:
            cursor.execute(self.sql, fill_placeholders(self.params, values))
            inserted, recorded = cursor.fetchone()
        return int(inserted), int(recorded)


def _reads_once(select: str, table: str) -> bool:
    """Whether a SELECT reads the quoted table in one place, and by a name that a WITH can have."""
    return "." not in table and len(re.findall(rf"\b(?:FROM|JOIN) {re.escape(table)}(?!\.)", select)) == 1


def upsert_select(
    model: type[Model], fields: Sequence[Field[Any, Any]], rows: QuerySet[Any, Any], *, unique: Sequence[str]
) -> int:
    """Insert what `rows` selects; where the columns `unique` have a row already, write the rest of the columns over it.

    The first of these decides: a row that has the same value in it is left as it is. The number of rows inserted
    and replaced; on MariaDB and MySQL it means nothing. One statement.
    """
    quote = quoter(connections[rows.db])
    clause = dialect_of(rows.db).on_conflict_replace(
        table=quote(model._meta.db_table),
        unique=[quote(str(field.column)) for field in fields if field.name in unique],
        columns=[quote(str(field.column)) for field in fields if field.name not in unique],
    )
    return execute_select_into(model, fields, rows, suffix=f" {clause}")


def execute_select_into(
    model: type[Model],
    fields: Sequence[Field[Any, Any]],
    rows: QuerySet[Any, Any],
    *,
    suffix: str = "",
    own_keys: bool = False,
) -> int:
    """`INSERT INTO model (fields) SELECT …`; the number of rows inserted. One statement.

    own_keys: the rows keep their keys also where the database makes keys itself (GENERATED ALWAYS AS IDENTITY).
    """
    select = select_sql(rows)
    if select is None:
        return 0
    with connections[rows.db].cursor() as cursor:
        keys = dialect_of(rows.db).with_own_keys if own_keys else ""
        cursor.execute(f"{_insert_into(model, fields, rows.db)}{keys} {select[0]}{suffix}", select[1])
        return int(cursor.rowcount)


def _insert_into(model: type[Model], fields: _Fields, using: str) -> str:
    quote = quoter(connections[using])
    columns = ", ".join(quote(str(field.column)) for field in fields)
    return f"INSERT INTO {quote(model._meta.db_table)} ({columns})"


def update_from(model: type[Model], fields: Sequence[Field[Any, Any]], wanted: QuerySet[Any, Any]) -> int:
    """Set `fields` of `model` to what `wanted` selects (`KEY`, then `WANTED` for each); rows updated.

    The same SELECT form serves the check, which counts it, and the repair: joins and aggregates that
    `QuerySet.update` refuses are allowed here, and both agree on empty sets. One statement. On MariaDB and MySQL one
    that reads, and one that writes for each 5,000 rows or million characters: in a single one InnoDB would lock every
    row that the SELECT passes.

    Another session may change what is read between the two, as it may between any two statements of a chunk. The rows
    that are written are locked by then, and the chunk is verified afterwards, so what no longer holds is rolled back.
    """
    select = select_sql(wanted)
    if select is None:
        return 0
    if not dialect_of(wanted.db).locks_what_it_reads:
        return _update(model, fields, select, using=wanted.db)
    with connections[wanted.db].cursor() as cursor:
        cursor.execute(*select)
        rows = cursor.fetchall()
    return sum(
        _update(model, fields, _constants(model, fields, some, using=wanted.db), using=wanted.db)
        for some in batches(rows)
    )


def _constants(model: type[Model], fields: _Fields, rows: Sequence[Any], *, using: str) -> _Select:
    quote = quoter(connections[using])
    aliases = [KEY, *(WANTED.format(field.attname) for field in fields)]
    columns = [str(field.column) for field in (model._meta.pk, *fields)]
    named = [(quote(column), quote(alias)) for column, alias in zip(columns, aliases, strict=True)]
    row = dialect_of(using).row_word()
    return select_constants(rows, table=quote(model._meta.db_table), columns=named, row=row)


def _update(model: type[Model], fields: _Fields, select: _Select, *, using: str) -> int:
    connection = connections[using]
    quote = quoter(connection)
    statement = dialect_of(using).update_from(
        table=quote(model._meta.db_table),
        key=quote(str(model._meta.pk.column)),
        wanted_key=f"e.{quote(KEY)}",
        assignments=[
            (quote(str(field.column)), f"e.{quote(WANTED.format(field.attname))}") for field in fields
        ],
        select=select[0],
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, select[1])
        return int(cursor.rowcount)


CASES = 1_000
"""Rows that one such UPDATE writes: each distinct value among them is a branch, and branches are tried in turn."""


def first_true_branch(field: Field[Any, Any], branches: Sequence[tuple[Q, Any]], *, using: str) -> Any:
    """The value of the first branch that is true of a row; where none is, what the column holds."""
    kind = stored_field(field)
    whens = [When(condition, then=Value(value, output_field=kind)) for condition, value in branches]
    case = Case(*whens, default=F(field.attname), output_field=kind)
    return Cast(case, kind) if connections[using].features.requires_casted_case_in_updates else case
