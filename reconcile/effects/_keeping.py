"""What a column would keep of a value that Python has made: the value that reading it back will yield.

The counterpart of `AsStored`, for values that the database doesn't compute. Comparing and writing both go
through this, so a repaired row is never found again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Context, Decimal
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
from django.db.models.expressions import Col
from django.utils import timezone

from reconcile.effects._json import as_json, same_json
from reconcile.sql.lookups import is_text, stored_field

__all__ = ["Keeper", "UnstorableError"]

_SQLITE_DIGITS = 15
"""Significant digits that Django takes from a float, as which SQLite keeps decimals."""


class UnstorableError(ValueError):
    """The column can't keep the value; the message says why, to stand after the value."""


@dataclass(frozen=True)
class Keeper:
    """What the column of `field` keeps, on the database `using`."""

    field: Field[Any, Any]
    using: str

    def kept(self, value: Any) -> Any:
        """The value as the column keeps it. Raises UnstorableError."""
        field = self._stored
        if hasattr(value, "resolve_expression"):
            raise UnstorableError("it is an expression, not a value")
        if isinstance(value, Model) and not isinstance(field, JSONField):
            value = getattr(value, getattr(self.field, "target_field", value._meta.pk).attname)
        if value is None:
            if not self.field.null:
                raise UnstorableError("the column can't be NULL")
            return None
        try:
            return self._round_trip(self._keep(field, value, self.using))
        except ValidationError as error:
            raise UnstorableError(" ".join(error.messages).rstrip(".")) from error
        except (ArithmeticError, TypeError, ValueError) as error:
            raise UnstorableError(str(error) or type(error).__name__) from error

    @cached_property
    def _stored(self) -> Field[Any, Any]:
        return stored_field(self.field)

    @cached_property
    def _keep(self) -> Callable[[Field[Any, Any], Any, str], Any]:
        if is_text(self._stored):
            return _text
        return next((keep for kind, keep in _KINDS if isinstance(self._stored, kind)), _other)

    @cached_property
    def _converts(self) -> Any:
        """The own conversion of a custom field."""
        convert = getattr(self._stored, "from_db_value", None)
        return None if isinstance(self._stored, JSONField) else convert

    def _round_trip(self, value: Any) -> Any:
        """Through the field's own conversion, where a custom field has one."""
        if self._converts is None:
            return value
        field = self._stored
        connection = connections[self.using]
        column = Col(field.model._meta.db_table, field)
        return self._converts(field.get_db_prep_save(value, connection), column, connection)

    @property
    def same(self) -> Callable[[Any, Any], bool]:
        """Whether what was read and what was kept are the same value."""
        field = self._stored
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
    least, most = connections[using].ops.integer_field_range(field.get_internal_type())
    if (least is not None and number < least) or (most is not None and number > most):
        raise UnstorableError(f"the column holds {least} to {most}")
    return number


def _decimal(field: Field[Any, Any], value: Any, using: str) -> Decimal:
    number: Decimal = field.to_python(value)
    if not number.is_finite():
        raise UnstorableError("it is no finite number")
    digits, places = field.max_digits, field.decimal_places  # type: ignore[attr-defined]
    if digits is None or places is None:
        return number
    step = Decimal(1).scaleb(-places)
    # The databases round a half away from zero, as ROUND_HALF_UP does.
    rounded = number.quantize(step, rounding=ROUND_HALF_UP, context=Context(prec=max(digits, 1) + 40))
    if abs(rounded) >= Decimal(10) ** (digits - places):
        raise UnstorableError(f"it has more than {digits} digits")
    if connections[using].vendor != "sqlite":
        return rounded
    # Note [Decimals on SQLite]: they are kept as floats, and read with 15 digits.
    read = Context(prec=_SQLITE_DIGITS).create_decimal_from_float(float(rounded))
    return read.quantize(step, context=field.context)  # type: ignore[attr-defined]


def _float(field: Field[Any, Any], value: Any, using: str) -> float:
    number = float(field.to_python(value))
    # MariaDB has no such numbers; SQLite's JSON, in which the journal is kept, neither.
    if not math.isfinite(number) and connections[using].vendor != "postgresql":
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
    return as_json(value, field, vendor=connections[using].vendor)  # type: ignore[arg-type]


def _other(field: Field[Any, Any], value: Any, using: str) -> Any:  # noqa: ARG001
    return field.to_python(field.get_prep_value(field.to_python(value)))


def _text(field: Field[Any, Any], value: Any, using: str) -> str:
    # A member of an enumeration is a text, and not what str() makes of it.
    text = str.__str__(value) if isinstance(value, str) else str(field.get_prep_value(value))
    if field.max_length is not None and not isinstance(field, TextField) and len(text) > field.max_length:
        raise UnstorableError(f"it has more than {field.max_length} characters")
    text.encode()
    if "\0" in text and connections[using].vendor == "postgresql":
        raise UnstorableError("PostgreSQL keeps no NUL character")
    return text


_KINDS: tuple[tuple[type[Field[Any, Any]], Callable[[Field[Any, Any], Any, str], Any]], ...] = (
    (JSONField, _json),
    (BinaryField, _bytes),
    (IntegerField, _integer),
    (DecimalField, _decimal),
    (FloatField, _float),
    (DateTimeField, _datetime),
)
