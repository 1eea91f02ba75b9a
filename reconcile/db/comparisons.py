"""Comparisons of values as the column stores them: exact for text, but under a foreign key; `Differs` is NULL-safe.

They are used as expressions (`filter(Differs(…))`), never registered: a lookup registered on `Field`
is not found on foreign keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import partial, reduce
from operator import or_
from typing import Any

from django.core.exceptions import FieldError
from django.db import connections
from django.db.models import (
    BigIntegerField,
    BooleanField,
    Count,
    DateField,
    DateTimeField,
    DecimalField,
    DurationField,
    Expression,
    F,
    Field,
    FloatField,
    Func,
    IntegerField,
    Model,
    Q,
    QuerySet,
    Subquery,
    TextField,
    TimeField,
    Value,
)
from django.db.models.functions import Cast, Round
from django.db.models.lookups import In, Lookup

from reconcile.db.columns import (
    INTEGERS,
    TEXTS,
    column_at,
    decimal_limit,
    holds_all_of,
    is_exact_text,
    is_text,
    number_range,
    stored_field,
)
from reconcile.db.dialects import Forms, forms_of, spell
from reconcile.db.django_compat import (
    SQL,
    BaseDatabaseWrapper,
    Col,
    CombinedExpression,
    SQLCompiler,
    compile_expression,
    subtract_times,
)
from reconcile.db.expressions import nodes_in, path_of
from reconcile.db.placeholders import PendingKeys
from reconcile.db.text_keys import AsText

__all__ = [
    "INTEGERS",
    "Among",
    "AmongRows",
    "AsReadBack",
    "AsStored",
    "Beyond",
    "Bytewise",
    "Comparison",
    "Differs",
    "Overflow",
    "Overflows",
    "PrefixOf",
    "Same",
    "any_differs",
    "is_text",
    "overflows",
    "settle_types",
    "stored_field",
]


NUMBERS = IntegerField, DecimalField, FloatField


@dataclass(frozen=True)
class Overflow:
    """What tells the rows whose expected values don't fit their columns, and the columns' names. of_dates: dates are among them."""

    condition: Q
    columns: tuple[str, ...]
    of_dates: bool = False

    def __str__(self) -> str:
        return f"the value is too large for {' or '.join(map(repr, self.columns))}"


class Comparison(Lookup):
    """A comparison of two expressions, as a lookup: MySQL compares anything else with TRUE, past its indexes."""

    prepare_rhs = False

    def __init__(self, lhs: Any, rhs: Any, *, field: Field[Any, Any]) -> None:
        super().__init__(lhs, rhs)
        self.text = is_exact_text(field)

    def template(self, forms: Forms) -> str:
        """The SQL, with lhs and rhs in it."""
        raise NotImplementedError

    def as_sql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> SQL:
        lhs, rhs = self.process_lhs(compiler, connection), self.process_rhs(compiler, connection)
        return spell(self.template(forms_of(connection)), lhs=lhs, rhs=rhs)


class Beyond(Comparison):
    """True if a number or a time is further from what the right side says than `tolerance`, or only one is NULL."""

    def __init__(self, lhs: Any, rhs: Any, *, field: Field[Any, Any], tolerance: Any) -> None:
        super().__init__(lhs, rhs, field=field)
        self.stored = stored_field(field)
        self.tolerance = tolerance

    def as_sql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> SQL:
        lhs = self.process_lhs(compiler, connection)
        rhs = self.process_rhs(compiler, connection)
        apart, params = self._difference(connection, lhs, rhs)
        limits = [self._limit(connection, limit) for limit in (-self.tolerance, self.tolerance)]
        # The difference is NULL where a side is; then they differ unless both are.
        one_is_null = f"({lhs[0]} IS NULL) <> ({rhs[0]} IS NULL)"
        return f"COALESCE({apart} NOT BETWEEN %s AND %s, {one_is_null})", (*params, *limits, *lhs[1], *rhs[1])

    def _difference(self, connection: BaseDatabaseWrapper, lhs: SQL, rhs: SQL) -> SQL:
        if isinstance(self.tolerance, timedelta):
            return subtract_times(connection, self.stored.get_internal_type(), lhs, rhs)
        return spell(forms_of(connection).difference(self.stored), lhs=lhs, rhs=rhs)

    def _limit(self, connection: BaseDatabaseWrapper, limit: Any) -> Any:
        if isinstance(limit, timedelta):
            return DurationField().get_db_prep_value(limit, connection)
        return forms_of(connection).number(limit)


class PrefixOf(Comparison):
    """True if a text column is the beginning of a value, to the character. No wildcard means anything."""

    def template(self, forms: Forms) -> str:
        return forms.prefix_of


class AsStored(Func):
    """`expression`, converted to what `field`'s column would store.

    Comparing and writing both go through this, so a repaired row is never found again: decimals are
    rounded to the column's places, hashes kept as text become text. Nothing is cut to what the column holds, which one
    database does silently and another refuses for the whole statement: a text that is too long, or a number that is too
    large, is unlike any stored one, and fails when it is written. `Overflows` tells such numbers.
    """

    def __init__(self, expression: Any, *, field: Field[Any, Any]) -> None:
        super().__init__(expression, output_field=stored_field(field))

    def resolve_expression(self, *given: Any, **options: Any) -> Any:
        """The same over columns of a query; what mixes numbers in it takes the type that holds them all."""
        resolved = super().resolve_expression(*given, **options)
        settle_types(resolved.get_source_expressions()[0])
        return resolved

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any
    ) -> SQL:
        return compile_expression(compiler, self._convert(forms_of(connection)))

    def _convert(self, forms: Forms) -> Any:
        source: Any = self.get_source_expressions()[0]
        field = self.output_field
        kind = field.get_internal_type()
        if isinstance(source, Value) and _is_of(source, field) and not _needs_rounding(source, field):
            return _cast_to_type(source, field) if forms.untyped_constant_is_text(kind) else source
        if not isinstance(source, Value) and _same_storage(source, field, forms):
            return source
        if kind in TEXTS:
            return AsText(source, field=source.output_field)
        return _widest_cast(source, field, forms)


class AsReadBack(AsStored):
    """Same as `AsStored`, spelled as the column is: a constant decimal has just its places, so that an image of it is that of the column."""

    def _convert(self, forms: Forms) -> Any:
        field = self.output_field
        if isinstance(field, DecimalField) and not forms.keeps_decimals_as_floats:
            return _round_to_places(self.get_source_expressions()[0], field, forms)
        if isinstance(field, FloatField) and forms.most_digits is None:
            # Of an integer times 1.0 a database may make a decimal, which it writes with its places.
            return Cast(self.get_source_expressions()[0], FloatField())
        return super()._convert(forms)


def settle_types(resolved: Any) -> None:
    """Settle the types of a resolved expression or query, from what stands innermost on. Django 6 asks a Subquery for its type as it resolves it."""
    for node in reversed(list(nodes_in(resolved, subqueries=True))):
        _settle_type(node)


def _settle_type(node: Any) -> None:
    """Give a node over numbers of several types, which Django asks an output_field for, the type that holds them all."""
    try:
        _ = getattr(node, "output_field", None)
    except FieldError:
        if not hasattr(node, "get_source_fields"):
            raise
        kinds = [stored_field(kind) for kind in node.get_source_fields() if kind is not None]
        if kinds and all(isinstance(kind, NUMBERS) for kind in kinds):
            floats = any(isinstance(kind, FloatField) for kind in kinds)
            node.output_field = FloatField() if floats else DecimalField()


def _widest_cast(source: Any, field: Field[Any, Any], forms: Forms) -> Any:
    """The value in the column's type; a number in the largest of its kind, and a boolean as the number 0 or 1."""
    if isinstance(field, BooleanField) and isinstance(stored_field(source.output_field), NUMBERS):
        return _IsNotZero(source)
    if isinstance(stored_field(source.output_field), BooleanField) and isinstance(field, NUMBERS):
        # PostgreSQL knows this cast to an integer of 32 bits alone.
        source = Cast(source, IntegerField())
    if isinstance(field, DecimalField):
        return _round_to_places(source, field, forms)
    if field.get_internal_type() in INTEGERS:
        return _round_to_integer(source, forms)
    if forms.keeps_times_as_texts and isinstance(field, DateField | TimeField):
        return _time_as_text(source, field)
    return Cast(source, field)


def _time_as_text(source: Any, field: Field[Any, Any]) -> Any:
    """As Django spells it: SQLite's cast cuts the microseconds to milliseconds, and keeps a date for a time of day."""
    kind = stored_field(source.output_field)
    if isinstance(field, DateTimeField):
        return _Midnight(source) if _is_date(kind) else source
    if isinstance(field, TimeField) and isinstance(kind, DateTimeField):
        return _TimeOfDay(source)
    return Cast(source, field)


def _is_date(field: Field[Any, Any]) -> bool:
    return isinstance(field, DateField) and not isinstance(field, DateTimeField)


class _Midnight(Func):
    """Where times are texts, a date as the time at which it begins."""

    template = "(%(expressions)s || ' 00:00:00')"
    output_field = DateTimeField()


class _TimeOfDay(Func):
    """Where times are texts, what stands behind the date of a time."""

    template = "SUBSTR(%(expressions)s, 12)"
    output_field = TimeField()


def _round_to_places(source: Any, field: DecimalField[Any, Any], forms: Forms) -> Any:
    """The number with the column's places, however many digits it has before the point."""
    if forms.most_digits is not None:
        return Cast(source, DecimalField(max_digits=forms.most_digits, decimal_places=field.decimal_places))
    # Note [Decimals on SQLite]: they are kept as floats there, so a cast rounds nothing.
    number = source if forms.keeps_decimals_as_floats else _Numeric(source)
    return number if field.decimal_places is None else Round(number, field.decimal_places, output_field=field)


def _is_of(value: Value, field: Field[Any, Any]) -> bool:
    kind = stored_field(value.output_field).get_internal_type() if value.value is not None else None
    return kind is None or kind == field.get_internal_type() or {kind, field.get_internal_type()} <= TEXTS


def _needs_rounding(value: Value, field: Field[Any, Any]) -> bool:
    """A constant with more decimals than the column has; MySQL's driver would send them all."""
    if field.get_internal_type() != "DecimalField" or value.value is None:
        return False
    exponent = Decimal(str(value.value)).as_tuple().exponent
    return not isinstance(exponent, int) or -exponent > field.decimal_places  # type: ignore[attr-defined]


def _cast_to_type(value: Value, field: Field[Any, Any]) -> Cast:
    return Cast(value, TextField() if field.get_internal_type() in TEXTS else field)


def _same_storage(expression: Expression, target: Field[Any, Any], forms: Forms) -> bool:
    source = stored_field(expression.output_field)
    kinds = {source.get_internal_type(), target.get_internal_type()}
    if kinds <= INTEGERS and forms.divides_integers_to_fractions and _may_be_a_fraction(expression):
        return False
    if kinds <= INTEGERS or kinds <= TEXTS:
        return True
    if kinds == {"DecimalField"}:
        exact = not forms.keeps_decimals_as_floats or isinstance(expression, Col)
        return exact and source.decimal_places == target.decimal_places  # type: ignore[attr-defined]
    return len(kinds) == 1


def _may_be_a_fraction(expression: Expression) -> bool:
    """Whether MariaDB may give a fraction where Django expects an integer: it divides integers to the last decimal."""
    return any(
        isinstance(each, CombinedExpression)
        and each.connector in {CombinedExpression.DIV, CombinedExpression.POW}
        for each in nodes_in(expression)
    )


def _round_to_integer(source: Any, forms: Forms) -> Any:
    """The number without its fraction. A fraction may be larger than the largest integer, which a cast would refuse or clip."""
    is_fraction = isinstance(stored_field(source.output_field), DecimalField | FloatField)
    if not is_fraction:
        return Cast(source, BigIntegerField())
    if template := forms.whole_number():
        return _WholeNumber(source, template)
    if forms.most_digits is not None:
        return Cast(source, DecimalField(max_digits=forms.most_digits, decimal_places=0))
    return Round(_Numeric(source), output_field=DecimalField())


class _IsNotZero(Func):
    """What a number is as a boolean, in each database the same: PostgreSQL casts integers of 32 bits alone, others keep a 2."""

    template = "(%(expressions)s <> 0)"
    output_field = BooleanField()


class _WholeNumber(Func):
    """A number without its fraction, as the template of a form has it."""

    output_field = BigIntegerField()

    def __init__(self, number: Any, template: str) -> None:
        super().__init__(number)
        self.form = template

    def as_sql(  # type: ignore[override]
        self,
        compiler: SQLCompiler,
        connection: BaseDatabaseWrapper,  # noqa: ARG002
        **_: Any,
    ) -> SQL:
        return spell(self.form, number=compile_expression(compiler, self.get_source_expressions()[0]))


class _Numeric(Func):
    """A decimal of any size, which Django's Cast has no name for."""

    template = "CAST(%(expressions)s AS numeric)"
    output_field = DecimalField()


class Overflows(Func):
    """True if a number, as `AsStored` gives it, is larger or smaller than any that `field`'s column holds. False for NULL."""

    output_field = BooleanField()

    def __init__(self, expression: Any, *, field: Field[Any, Any]) -> None:
        super().__init__(expression)
        self.column = field

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any
    ) -> SQL:
        sql, params = compile_expression(compiler, self.get_source_expressions()[0])
        if (limit := decimal_limit(self.column)) is not None:
            # Above the largest there is nothing between; as floats, SQLite's, the largest of many digits is the limit itself.
            return f"COALESCE(ABS({sql}) >= {limit}, 0 = 1)", params
        if _keeps_any_date(self.column, connection):
            # Python ends with the year 9999, and with it the driver: what is beyond, or is infinite, can't be read again.
            return (
                f"COALESCE({sql} NOT BETWEEN DATE '0001-01-01' AND TIMESTAMP '9999-12-31 23:59:59.999999', 0 = 1)",
                params,
            )
        limits = number_range(self.column, connection.alias)
        if limits is None:
            return "(0 = 1)", ()
        least, most = limits
        return f"COALESCE({sql} NOT BETWEEN {least} AND {most}, 0 = 1)", params


class Differs(Comparison):
    """True if the left side (a column) is not what the right side says; NULL equals NULL. Text compares exactly."""

    def template(self, forms: Forms) -> str:
        return forms.differs_as_text if self.text else forms.differs


def overflows(
    model: type[Model],
    values: Mapping[Field[Any, Any], Any],
    expected: Callable[[Field[Any, Any]], Any],
    using: str,
) -> Overflow | None:
    """What tells that a value over records of `model` doesn't fit its column, where `expected` gives it as stored; None if all do."""
    limited = [field for field, value in values.items() if not _always_fits(model, value, field, using)]
    if not limited:
        return None
    conditions = (Q(Overflows(expected(field), field=field)) for field in limited)
    of_dates = any(_keeps_any_date(field, connections[using]) for field in limited)
    return Overflow(reduce(or_, conditions), tuple(field.name for field in limited), of_dates)


def _keeps_any_date(field: Field[Any, Any], connection: BaseDatabaseWrapper) -> bool:
    """Whether the database keeps dates in the column that Django can't read: PostgreSQL's go on for 290,000 years."""
    return forms_of(connection).keeps_any_date and isinstance(stored_field(field), DateField)


def _always_fits(model: type[Model], value: Any, field: Field[Any, Any], using: str) -> bool:
    """A constant was looked at where it was declared, and a plain count never grows that large."""
    dated = _keeps_any_date(field, connections[using])
    limited = dated or decimal_limit(field) is not None or number_range(field, using) is not None
    if not limited or isinstance(value, Count | Value) or not hasattr(value, "resolve_expression"):
        return True
    # An OuterRef is an F, too, and names another row's column.
    source = column_at(model, path_of(value)) if type(value) is F else None
    if source is not None and dated:
        return isinstance(stored_field(source), DateField)
    return source is not None and holds_all_of(field, source, using)


def any_differs(
    fields: Sequence[Field[Any, Any]],
    expected: Callable[[Field[Any, Any]], Any],
    tolerances: Mapping[Field[Any, Any], Any] | None = None,
) -> Q:
    """True if at least one of the columns is not what `expected` gives for it, give or take its tolerance."""

    def differs(field: Field[Any, Any]) -> Q:
        column, tolerance = F(field.attname), (tolerances or {}).get(field)
        if tolerance is None:
            return Q(Differs(column, expected(field), field=field))
        return Q(Beyond(column, expected(field), field=field, tolerance=tolerance))

    return reduce(or_, map(differs, fields))


class Same(Comparison):
    """True if a link column equals a value, by an index where there is one; text compares exactly.

    NULL equals nothing: a row without a link belongs to no record.
    """

    def template(self, forms: Forms) -> str:
        return forms.links_as_text if self.text else "{lhs} = {rhs}"


class Among(In):
    """`column IN (keys)`, with all keys in one parameter where the database can.

    5,000 placeholders cost more to write, send and parse than the lookup itself; SQLite also limits
    how many a statement may have. The keys are Python values as the key's field reads them.
    """

    def get_prep_lookup(self) -> Any:
        return self.rhs if isinstance(self.rhs, PendingKeys) else list(self.rhs)

    def as_sql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> SQL:
        lhs, params = self.process_lhs(compiler, connection)
        prepare = partial(self._prepare_keys, connection=connection)
        among = forms_of(connection).among(self.rhs, integers=self._integers, prepare=prepare)
        if among is not None:
            return f"{lhs} {among[0]}", (*params, *among[1])
        placeholders = ", ".join(["%s"] * len(self.rhs))
        return f"{lhs} IN ({placeholders})", (*params, *prepare(self.rhs))

    @property
    def _integers(self) -> bool:
        return stored_field(self.lhs.output_field).get_internal_type() in INTEGERS

    def _prepare_keys(self, keys: Iterable[Any], connection: BaseDatabaseWrapper) -> list[Any]:
        if self._integers:
            return list(keys)
        field = stored_field(self.lhs.output_field)
        return [field.get_db_prep_value(key, connection) for key in keys]


class Bytewise(Func):
    """`expression` as something to group by: texts that differ only in case or trailing spaces stay apart."""

    arity = 1

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any
    ) -> SQL:
        text = compile_expression(compiler, self.get_source_expressions()[0])
        return spell(self._template(forms_of(connection)), text=text)

    def _template(self, forms: Forms) -> str:
        source = self.get_source_expressions()[0]
        # A column under a foreign key has the output of the one that it refers to.
        if not is_exact_text(source.target if isinstance(source, Col) else self.output_field):
            return "{text}"
        collated = getattr(stored_field(self.output_field), "db_collation", None)
        # Without a collation of its own the column's index can be used, but where the usual one folds.
        return forms.exact_collated_text if collated else forms.exact_text


class _Row(Func):
    template = "(%(expressions)s)"
    output_field = BooleanField()


class AmongRows(Lookup):
    """`(column, …) IN (SELECT …)`, compared as the database compares: texts that its collation folds are equal."""

    prepare_rhs = False

    def __init__(self, columns: Sequence[Any], rows: QuerySet[Any, Any]) -> None:
        # Of several columns it has no type of its own, which Django 6 asks for.
        super().__init__(_Row(*columns), Subquery(rows, output_field=BooleanField()))

    def as_sql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> SQL:
        columns, params = self.process_lhs(compiler, connection)
        rows, more = self.process_rhs(compiler, connection)
        return f"{columns} IN {rows}", (*params, *more)
