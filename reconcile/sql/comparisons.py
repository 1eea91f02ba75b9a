"""Comparisons of two expressions: the base of them all, and those beside equality."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import DecimalField, DurationField, Field
from django.db.models.lookups import Lookup
from django.db.models.sql.compiler import SQLCompiler

from reconcile.sql.columns import INTEGERS, is_text, stored_field

__all__ = ["SQL", "Beyond", "Comparison", "PrefixOf"]

SQL = tuple[str, list[Any] | tuple[Any, ...]]
"""A piece of SQL and its parameters."""


class Comparison(Lookup):
    """A comparison of two expressions, as a lookup: MySQL compares anything else with TRUE, past its indexes."""

    prepare_rhs = False
    operator: ClassVar[str]

    def __init__(self, lhs: Any, rhs: Any, *, field: Field[Any, Any]) -> None:
        super().__init__(lhs, rhs)
        self.text = is_text(field)

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper
    ) -> SQL:
        return self._compared(compiler, connection, f"%s {self.operator} %s")

    def _compared(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, template: str) -> SQL:
        lhs, lhs_params = self.process_lhs(compiler, connection)
        rhs, rhs_params = self.process_rhs(compiler, connection)
        return template % (lhs, rhs), [*lhs_params, *rhs_params]


class Beyond(Comparison):
    """True where a number or a time is further from what the right side says than `tolerance`, or only one is NULL."""

    def __init__(self, lhs: Any, rhs: Any, *, field: Field[Any, Any], tolerance: Any) -> None:
        super().__init__(lhs, rhs, field=field)
        self.stored = stored_field(field)
        self.tolerance = tolerance

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper
    ) -> SQL:
        lhs = self.process_lhs(compiler, connection)
        rhs = self.process_rhs(compiler, connection)
        apart, params = self._difference(connection, lhs, rhs)
        limits = (self._limit(connection, limit) for limit in (-self.tolerance, self.tolerance))
        # The difference is NULL where a side is; then they differ unless both are.
        one_is_null = f"({lhs[0]} IS NULL) <> ({rhs[0]} IS NULL)"
        return f"COALESCE({apart} NOT BETWEEN %s AND %s, {one_is_null})", [*params, *limits, *lhs[1], *rhs[1]]

    def _difference(self, connection: BaseDatabaseWrapper, lhs: SQL, rhs: SQL) -> SQL:
        kind, params = self.stored.get_internal_type(), [*lhs[1], *rhs[1]]
        if isinstance(self.tolerance, timedelta):
            return connection.ops.subtract_temporals(kind, lhs, rhs)
        if connection.vendor == "mysql" and kind in INTEGERS:
            # A difference of unsigned integers below 0 is an error there.
            return f"(CAST({lhs[0]} AS DECIMAL(65, 0)) - {rhs[0]})", params
        if connection.vendor == "sqlite" and isinstance(self.stored, DecimalField):
            # See Note [Decimals on SQLite].
            return f"ROUND({lhs[0]} - {rhs[0]}, {self.stored.decimal_places})", params
        return f"({lhs[0]} - {rhs[0]})", params

    def _limit(self, connection: BaseDatabaseWrapper, limit: Any) -> Any:
        if isinstance(limit, timedelta):
            return DurationField().get_db_prep_value(limit, connection)
        return float(limit) if connection.vendor == "sqlite" else limit


class PrefixOf(Comparison):
    """True where a text column is the beginning of a value, to the character. No wildcard means anything."""

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper
    ) -> SQL:
        return self._begins(compiler, connection, "SUBSTR({rhs}, 1, LENGTH({lhs})) = {lhs}")

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> SQL:
        return self._begins(compiler, connection, "SUBSTR({rhs}, 1, LENGTH({lhs})) = {lhs} COLLATE BINARY")

    def as_mysql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> SQL:
        return self._begins(compiler, connection, "LEFT(BINARY {rhs}, LENGTH({lhs})) = BINARY {lhs}")

    def _begins(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, template: str) -> SQL:
        lhs, lhs_params = self.process_lhs(compiler, connection)
        rhs, rhs_params = self.process_rhs(compiler, connection)
        return template.format(lhs=lhs, rhs=rhs), [*rhs_params, *lhs_params, *lhs_params]
