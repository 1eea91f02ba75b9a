"""The two statement headers that the ORM can't write. What is below a header is the ORM's own SELECT.

Identifiers go through `quote_name`; values are always parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.models import Field, Model, QuerySet

from reconcile.sql.constants import batches, select_constants
from reconcile.sql.dialects import dialect_of

__all__ = [
    "KEY",
    "WANTED",
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
    connection = connections[rows.db]
    quote = connection.ops.quote_name
    columns = ", ".join(quote(str(field.column)) for field in fields)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {quote(model._meta.db_table)} ({columns}) {select[0]}{suffix}", select[1]
        )
        return int(cursor.rowcount)


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
