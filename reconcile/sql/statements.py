"""The two statement headers that the ORM can't write. What is below a header is the ORM's own SELECT.

Identifiers go through `quote_name`; values are always parameters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.models import Field, Model, QuerySet

from reconcile.sql.constants import batches, select_constants
from reconcile.sql.dialects import dialect_of
from reconcile.sql.holes import filled

__all__ = [
    "KEY",
    "WANTED",
    "InsertNoting",
    "execute_select_into",
    "insert_select",
    "replace_select",
    "select_sql",
    "update_from",
]

KEY = "_key"
"""Alias of the key column in the SELECT that `update_from` reads."""

WANTED = "_want_{}"
"""Alias, by attname, of an expected value in the SELECT that `update_from` reads."""

_Fields = Sequence["Field[Any, Any]"]
_Select = tuple[str, tuple[Any, ...]]


def select_sql(queryset: QuerySet[Any, Any]) -> _Select | None:
    """The queryset's SELECT and its parameters; None where Django knows that it has no rows."""
    try:
        sql, params = queryset.query.get_compiler(queryset.db).as_sql()
    except EmptyResultSet:
        return None
    return sql, tuple(params)


def insert_select(
    model: type[Model],
    fields: Sequence[Field[Any, Any]],
    rows: QuerySet[Any, Any],
    *,
    passing_over: bool = True,
) -> int:
    """Insert what `rows` selects into `fields` of `model`; the number of rows inserted.

    If `passing_over`, a row that breaks a unique constraint is passed over on PostgreSQL and SQLite. It raises IntegrityError on MariaDB,
    where passing over can't be told from inserting, and ChunkConflictError on PostgreSQL where a constraint of the
    table can be deferred; both mean that the same chunk may succeed when it is tried again. One statement, two there.
    """
    dialect = dialect_of(rows.db)
    suffix = f" {dialect.on_conflict}" if passing_over and dialect.passes_over(model) else ""
    with dialect.noticing_others(model):
        return execute_select_into(model, fields, rows, suffix=suffix)


@dataclass(frozen=True, kw_only=True)
class InsertNoting:
    """An INSERT that notes its new rows in another table in the same statement; it may have holes.

    Note [A name for the new rows]: they go by the name of their table, so that a SELECT of the ORM's reads them in its place.
    """

    model: type[Model]
    using: str
    sql: str
    params: tuple[Any, ...]

    @classmethod
    def of(
        cls, model: type[Model], fields: _Fields, rows: QuerySet[Any, Any],
        *, into: type[Model], columns: _Fields, noted: QuerySet[Any, Any],
    ) -> InsertNoting | None:  # fmt: skip
        """Insert what `rows` selects, and what `noted` selects of the new rows alone into `columns` of `into`.

        None where the database can't return what it writes, or `noted` reads the table in any other place. One statement.
        """
        using = rows.db
        if not dialect_of(using).returns_written(model):
            return None
        table = connections[using].ops.quote_name(model._meta.db_table)
        source, new = select_sql(rows), select_sql(noted)
        if source is None or new is None or not _reads_once(new[0], table):
            return None
        insert = f"{_insert_into(model, fields, using)} {source[0]} RETURNING *"
        note = f"{_insert_into(into, columns, using)} {new[0]} RETURNING 1"
        counts = f"SELECT (SELECT COUNT(*) FROM {table}), (SELECT COUNT(*) FROM reconcile_noted)"
        sql = f"WITH {table} AS ({insert}), reconcile_noted AS ({note}) {counts}"
        return cls(model=model, using=using, sql=sql, params=(*source[1], *new[1]))

    def execute(self, **values: Any) -> tuple[int, int]:
        """The number of rows inserted and noted, with `values` in the holes. One statement.

        A row that breaks a unique constraint raises as in `insert_select`, where that doesn't pass over it.
        """
        noticing = dialect_of(self.using).noticing_others(self.model)
        with noticing, connections[self.using].cursor() as cursor:
            cursor.execute(self.sql, filled(self.params, values))
            inserted, noted = cursor.fetchone()
        return int(inserted), int(noted)


def _reads_once(select: str, table: str) -> bool:
    """Whether a SELECT reads the quoted table in one place, and by a name that a WITH can have."""
    return "." not in table and len(re.findall(rf"\b(?:FROM|JOIN) {re.escape(table)}(?!\.)", select)) == 1


def replace_select(
    model: type[Model], fields: Sequence[Field[Any, Any]], rows: QuerySet[Any, Any], *, unique: Sequence[str]
) -> int:
    """Insert what `rows` selects; where the columns `unique` have a row already, write the rest of the columns over it.

    The first of these decides: a row that has the same value in it is left as it is. The number of rows inserted
    and replaced; on MariaDB and MySQL it means nothing. One statement.
    """
    quote = connections[rows.db].ops.quote_name
    clause = dialect_of(rows.db).on_conflict_replace(
        table=quote(model._meta.db_table),
        unique=[quote(str(field.column)) for field in fields if field.name in unique],
        columns=[quote(str(field.column)) for field in fields if field.name not in unique],
    )
    return execute_select_into(model, fields, rows, suffix=f" {clause}")


def execute_select_into(
    model: type[Model], fields: Sequence[Field[Any, Any]], rows: QuerySet[Any, Any], *, suffix: str = ""
) -> int:
    """`INSERT INTO model (fields) SELECT …`; the number of rows inserted. One statement."""
    select = select_sql(rows)
    if select is None:
        return 0
    with connections[rows.db].cursor() as cursor:
        cursor.execute(f"{_insert_into(model, fields, rows.db)} {select[0]}{suffix}", select[1])
        return int(cursor.rowcount)


def _insert_into(model: type[Model], fields: _Fields, using: str) -> str:
    quote = connections[using].ops.quote_name
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
    quote = connections[using].ops.quote_name
    aliases = [KEY, *(WANTED.format(field.attname) for field in fields)]
    columns = [str(field.column) for field in (model._meta.pk, *fields)]
    named = [(quote(column), quote(alias)) for column, alias in zip(columns, aliases, strict=True)]
    row = dialect_of(using).row_word()
    return select_constants(rows, table=quote(model._meta.db_table), columns=named, row=row)


def _update(model: type[Model], fields: _Fields, select: _Select, *, using: str) -> int:
    connection = connections[using]
    quote = connection.ops.quote_name
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
