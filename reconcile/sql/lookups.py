"""Expressions that compare values as the column stores them, on each database.

They are used as expressions (`filter(Differs(…))`), never registered: a lookup registered on `Field`
is not found on foreign keys.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import reduce
from operator import or_
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import DateTimeField, Expression, F, Field, Func, Q, TextField, Value
from django.db.models.expressions import Col
from django.db.models.functions import Cast, Round
from django.db.models.lookups import In
from django.db.models.sql.compiler import SQLCompiler

from reconcile.sql.columns import INTEGERS, TEXTS, is_text, stored_field
from reconcile.sql.comparisons import SQL, Beyond, Comparison
from reconcile.sql.holes import Hole, Later

__all__ = ["INTEGERS", "Among", "AsStored", "Differs", "Same", "any_differs", "is_text", "stored_field"]


class AsStored(Func):
    """`expression`, converted to what `field`'s column would store.

    Comparing and writing both go through this, so a repaired row is never found again: decimals are
    rounded to the column's places, hashes kept as text become text. Characters are never cut: a text
    too long for the column fails when it is written, rather than being shortened silently.
    """

    def __init__(self, expression: Any, *, field: Field[Any, Any]) -> None:
        super().__init__(expression, output_field=stored_field(field))

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any
    ) -> SQL:
        return compiler.compile(self._converted(connection))

    def _converted(self, connection: BaseDatabaseWrapper) -> Any:
        source: Any = self.get_source_expressions()[0]
        field = self.output_field
        if isinstance(source, Value) and _is_of(source, field) and not _needs_rounding(source, field):
            return _typed(source, field) if _taken_for_text(field, connection) else source
        if not isinstance(source, Value) and _same_storage(source, field, connection):
            return source
        if field.get_internal_type() in TEXTS:
            return Cast(source, TextField())
        if field.get_internal_type() == "DecimalField" and connection.vendor == "sqlite":
            # Note [Decimals on SQLite]: they are kept as floats, so the cast rounds nothing.
            places = field.decimal_places  # type: ignore[attr-defined]
            return Round(source, places, output_field=field)
        if connection.vendor == "sqlite" and isinstance(field, DateTimeField):
            # Its cast would cut the microseconds to milliseconds.
            return source
        return Cast(source, field)


def _is_of(value: Value, field: Field[Any, Any]) -> bool:
    kind = stored_field(value.output_field).get_internal_type() if value.value is not None else None
    return kind is None or kind == field.get_internal_type() or {kind, field.get_internal_type()} <= TEXTS


def _taken_for_text(field: Field[Any, Any], connection: BaseDatabaseWrapper) -> bool:
    """Where an untyped constant is text: for PostgreSQL any, for MySQL a date or time, when it is read back."""
    if connection.vendor == "mysql":
        return field.get_internal_type() in {"DateField", "DateTimeField", "TimeField"}
    return connection.vendor == "postgresql"


def _needs_rounding(value: Value, field: Field[Any, Any]) -> bool:
    """A constant with more decimals than the column has; MySQL's driver would send them all."""
    if field.get_internal_type() != "DecimalField" or value.value is None:
        return False
    exponent = Decimal(str(value.value)).as_tuple().exponent
    return not isinstance(exponent, int) or -exponent > field.decimal_places  # type: ignore[attr-defined]


def _typed(value: Value, field: Field[Any, Any]) -> Cast:
    return Cast(value, TextField() if field.get_internal_type() in TEXTS else field)


def _same_storage(expression: Expression, target: Field[Any, Any], connection: BaseDatabaseWrapper) -> bool:
    source = stored_field(expression.output_field)
    kinds = {source.get_internal_type(), target.get_internal_type()}
    if kinds <= INTEGERS or kinds <= TEXTS:
        return True
    if kinds == {"DecimalField"}:
        exact = connection.vendor != "sqlite" or isinstance(expression, Col)
        return exact and source.decimal_places == target.decimal_places  # type: ignore[attr-defined]
    return len(kinds) == 1


class Differs(Comparison):
    """True where the left side (a column) is not what the right side says; NULL equals NULL. Text compares exactly."""

    operator = "IS DISTINCT FROM"

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> SQL:
        return self._compared(
            compiler, connection, "%s COLLATE BINARY IS NOT %s" if self.text else "%s IS NOT %s"
        )

    def as_mysql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> SQL:
        template = "NOT (BINARY %s <=> BINARY %s)" if self.text else "NOT (%s <=> %s)"
        return self._compared(compiler, connection, template)


def any_differs(
    fields: Sequence[Field[Any, Any]],
    expected: Callable[[Field[Any, Any]], Any],
    tolerances: Mapping[Field[Any, Any], Any] | None = None,
) -> Q:
    """True where at least one of the columns is not what `expected` gives for it, give or take its tolerance."""

    def differs(field: Field[Any, Any]) -> Q:
        column, tolerance = F(field.attname), (tolerances or {}).get(field)
        if tolerance is None:
            return Q(Differs(column, expected(field), field=field))
        return Q(Beyond(column, expected(field), field=field, tolerance=tolerance))

    return reduce(or_, map(differs, fields))


class Same(Comparison):
    """True where a link column equals a value, by an index where there is one; text compares exactly.

    NULL equals nothing: a row without a link belongs to no record.
    """

    operator = "="

    def as_mysql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> SQL:
        folded, params = self.as_sql(compiler, connection)
        if not self.text:
            return folded, params
        exact, again = self._compared(compiler, connection, "BINARY %s = BINARY %s")
        # The folded comparison can use the index; the exact one has the last word.
        return f"({folded} AND {exact})", [*params, *again]


class Among(In):
    """`column IN (keys)`, with all keys in one parameter where the database can.

    5,000 placeholders cost more to write, send and parse than the lookup itself; SQLite also limits
    how many a statement may have. The keys are Python values as the key's field reads them.
    """

    def get_prep_lookup(self) -> Any:
        return self.rhs if isinstance(self.rhs, Later) else list(self.rhs)

    def as_postgresql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> SQL:
        lhs, params = self.process_lhs(compiler, connection)
        if self._integers:
            # As text it is one parameter to adapt, and not one for each key.
            return f"{lhs} = ANY(%s::bigint[])", [*params, self._given(_array)]
        return f"{lhs} = ANY(%s)", [*params, self._given(lambda keys: self._prepared(keys, connection))]

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> SQL:
        lhs, params = self.process_lhs(compiler, connection)
        keys = self._given(lambda keys: json.dumps(self._prepared(keys, connection), default=str))
        return f"{lhs} IN (SELECT value FROM json_each(%s))", [*params, keys]

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper
    ) -> SQL:
        lhs, params = self.process_lhs(compiler, connection)
        placeholders = ", ".join(["%s"] * len(self.rhs))
        return f"{lhs} IN ({placeholders})", [*params, *self._prepared(self.rhs, connection)]

    @property
    def _integers(self) -> bool:
        return stored_field(self.lhs.output_field).get_internal_type() in INTEGERS

    def _given(self, adapt: Callable[[Any], Any]) -> Any:
        """The one parameter that holds all keys, or the hole for it."""
        return Hole(self.rhs.name, adapt) if isinstance(self.rhs, Later) else adapt(self.rhs)

    def _prepared(self, keys: Iterable[Any], connection: BaseDatabaseWrapper) -> list[Any]:
        if self._integers:
            return list(keys)
        field = stored_field(self.lhs.output_field)
        return [field.get_db_prep_value(key, connection) for key in keys]


def _array(keys: Iterable[int]) -> str:
    return f"{{{','.join(map(str, keys))}}}"
