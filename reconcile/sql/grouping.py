"""Expressions by which rows are told apart in groups, and found again by what a group has in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import BooleanField, Func, QuerySet, Subquery
from django.db.models.lookups import Lookup
from django.db.models.sql.compiler import SQLCompiler

from reconcile.sql.lookups import is_text, stored_field

__all__ = ["AmongRows", "Bytewise"]

_SQL = tuple[str, list[Any] | tuple[Any, ...]]


class Bytewise(Func):
    """`expression` as something to group by: texts that differ only in case or trailing spaces stay apart."""

    arity = 1

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any
    ) -> _SQL:
        sql, params = compiler.compile(self.get_source_expressions()[0])
        return self._exact(connection.vendor).replace("%s", sql, 1), params

    def _exact(self, vendor: str) -> str:
        field = stored_field(self.output_field)
        if not is_text(field):
            return "%s"
        if vendor == "mysql":
            return "CAST(%s AS BINARY)"
        # Elsewhere only a collation that the column asks for folds; without one the column's index can be used.
        folds = getattr(field, "db_collation", None)
        return ('%s COLLATE "C"' if vendor == "postgresql" else "%s COLLATE BINARY") if folds else "%s"


class _Row(Func):
    template = "(%(expressions)s)"
    output_field = BooleanField()


class AmongRows(Lookup):
    """`(column, …) IN (SELECT …)`, compared as the database compares: texts that its collation folds are equal."""

    prepare_rhs = False

    def __init__(self, columns: Sequence[Any], rows: QuerySet[Any, Any]) -> None:
        # Of several columns it has no type of its own, which Django 6 asks for.
        super().__init__(_Row(*columns), Subquery(rows, output_field=BooleanField()))

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper
    ) -> _SQL:
        columns, params = self.process_lhs(compiler, connection)
        rows, more = self.process_rhs(compiler, connection)
        return f"{columns} IN {rows}", [*params, *more]
