"""What a column stores of a value that Python computed, as reading it back would return it.

The counterpart of `AsStored`, for values that the database doesn't compute. Comparing and writing both go
through this, so a repaired row is never found again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Context, Decimal
from functools import cached_property
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import connections
from django.db.models import (
    BinaryField,
    DateTimeField,
    DecimalField,
    Field,
    FloatField,
    IntegerField,
    JSONField,
    Model,
    TextField,
)
from django.utils import timezone

from reconcile.core.finder import Rows
from reconcile.db.columns import is_in_range, is_text, round_decimal, stored_field
from reconcile.db.comparisons import Overflow
from reconcile.db.dialects import dialect_of, forms_of
from reconcile.db.django_compat import Col, integer_range, referred_field
from reconcile.kinds.values.json_values import as_json, same_json

__all__ = ["ColumnStorage", "UnstorableError", "writable_rows"]

_SQLITE_DIGITS = 15
"""Significant digits that Django takes from a float, as which SQLite keeps decimals."""


def writable_rows(rows: Rows, overflow: Overflow | None) -> Rows:
    """`rows`, without those whose values don't fit their columns, where the database would keep them, and Django not read them again.

    Databases but SQLite refuse such a number, and PostgreSQL keeps such a date.
    """
    if overflow is None or (dialect_of(rows.db).refuses_large_numbers and not overflow.of_dates):
        return rows
    return rows.filter(~overflow.condition)


class UnstorableError(ValueError):
    """The column can't store the value. The message says why; it follows the value in a sentence."""


@dataclass(frozen=True)
class ColumnStorage:
    """How the column of `field` stores values, on the database `using`."""

    field: Field[Any, Any]
    using: str

    def stored_value(self, value: Any) -> Any:
        """The value as the column stores it. Raises UnstorableError if it can't."""
        field = self._column
        if hasattr(value, "resolve_expression"):
            raise UnstorableError("it is an expression, not a value")
        if isinstance(value, Model) and not isinstance(field, JSONField):
            value = getattr(value, (referred_field(self.field) or value._meta.pk).attname)
        if value is None:
            if not self.field.null:
                raise UnstorableError("the column can't be NULL")
            return None
        try:
            return self._round_trip(self._converter(field, value, self.using))
        except ValidationError as error:
            raise UnstorableError(" ".join(error.messages).rstrip(".")) from error
        except (ArithmeticError, TypeError, ValueError) as error:
            raise UnstorableError(str(error) or type(error).__name__) from error

    @cached_property
    def _column(self) -> Field[Any, Any]:
        return stored_field(self.field)

    @cached_property
    def _converter(self) -> Callable[[Field[Any, Any], Any, str], Any]:
        if is_text(self._column):
            return _text
        return next((convert for kind, convert in _CONVERTERS if isinstance(self._column, kind)), _other)

    @cached_property
    def _field_conversion(self) -> Any:
        """The own conversion of a custom field."""
        convert = getattr(self._column, "from_db_value", None)
        return None if isinstance(self._column, JSONField) else convert

    def _round_trip(self, value: Any) -> Any:
        """Through the field's own conversion, where a custom field has one."""
        if self._field_conversion is None:
            return value
        field = self._column
        connection = connections[self.using]
        column = Col(field.model._meta.db_table, field)
        return self._field_conversion(field.get_db_prep_save(value, connection), column, connection)

    @property
    def same(self) -> Callable[[Any, Any], bool]:
        """Whether what was read and what was kept are the same value."""
        field = self._column
        if isinstance(field, JSONField):
            return same_json
        if isinstance(field, BinaryField):
            return lambda left, right: (left if left is None else bytes(left)) == right
        if isinstance(field, FloatField):
            return lambda left, right: left == right or (_is_nan(left) and _is_nan(right))
        return lambda left, right: bool(left == right)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _integer(field: Field[Any, Any], value: Any, using: str) -> int:
    if isinstance(value, float | Decimal) and value != int(value):
        raise UnstorableError("it is no whole number")
    number = int(field.to_python(value))
    if not is_in_range(field.get_internal_type(), number, using):
        least, most = integer_range(connections[using], field.get_internal_type())
        raise UnstorableError(f"the column holds {least} to {most}")
    return number


def _decimal(field: Any, value: Any, using: str) -> Decimal:
    number: Decimal = field.to_python(value)
    if not number.is_finite():
        raise UnstorableError("it is no finite number")
    rounded = round_decimal(field, number)
    places = field.decimal_places
    if places is None or not forms_of(connections[using]).keeps_decimals_as_floats:
        return rounded
    # Note [Decimals on SQLite]: they are kept as floats, and read with 15 digits.
    read = Context(prec=_SQLITE_DIGITS).create_decimal_from_float(float(rounded))
    return read.quantize(Decimal(1).scaleb(-places), context=field.context)


def _float(field: Field[Any, Any], value: Any, using: str) -> float:
    number = float(field.to_python(value))
    # MariaDB has no such numbers; SQLite's JSON, in which the journal is kept, neither.
    if not math.isfinite(number) and not forms_of(connections[using]).keeps_infinity:
        raise UnstorableError("it is no finite number")
    return number


def _datetime(field: Field[Any, Any], value: Any, using: str) -> datetime:  # noqa: ARG001
    if isinstance(value, date) and not isinstance(value, datetime):
        raise UnstorableError("it is a date without a time")
    moment: datetime = field.to_python(value)
    if settings.USE_TZ and timezone.is_naive(moment):
        raise UnstorableError("it has no time zone")
    if not settings.USE_TZ and timezone.is_aware(moment):
        raise UnstorableError("it has a time zone, and USE_TZ is off")
    return moment


def _bytes(field: Field[Any, Any], value: Any, using: str) -> bytes:  # noqa: ARG001
    if not isinstance(value, bytes | bytearray | memoryview):
        raise UnstorableError("it is not bytes")
    return bytes(value)


def _json(field: Field[Any, Any], value: Any, using: str) -> Any:
    return as_json(value, field, forms=forms_of(connections[using]))  # type: ignore[arg-type]


def _other(field: Field[Any, Any], value: Any, using: str) -> Any:  # noqa: ARG001
    return field.to_python(field.get_prep_value(field.to_python(value)))


def _text(field: Field[Any, Any], value: Any, using: str) -> str:
    # A member of an enumeration is a text, and not what str() makes of it.
    text = str.__str__(value) if isinstance(value, str) else str(field.get_prep_value(value))
    if field.max_length is not None and not isinstance(field, TextField) and len(text) > field.max_length:
        raise UnstorableError(f"it has more than {field.max_length} characters")
    text.encode()
    forms = forms_of(connections[using])
    if "\0" in text and not forms.keeps_nul:
        raise UnstorableError(f"{forms.title} keeps no NUL character")
    return text


_CONVERTERS: tuple[tuple[type[Field[Any, Any]], Callable[[Field[Any, Any], Any, str], Any]], ...] = (
    (JSONField, _json),
    (BinaryField, _bytes),
    (IntegerField, _integer),
    (DecimalField, _decimal),
    (FloatField, _float),
    (DateTimeField, _datetime),
)
