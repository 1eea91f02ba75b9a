"""What a column holds, by the type that it has in the database."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import connections
from django.db.models import DecimalField, Field, Model

from reconcile.db.django_compat import LOOKUP_SEP, integer_range, own_columns, parents_of, referred_field

__all__ = [
    "INTEGERS",
    "JSON_NULL",
    "TEXTS",
    "are_told_apart",
    "column_at",
    "concrete_model",
    "decimal_limit",
    "fits",
    "holds_all_of",
    "is_exact_text",
    "is_in_range",
    "is_text",
    "label_of",
    "number_range",
    "parent_columns",
    "round_decimal",
    "stored_field",
]

INTEGERS = frozenset(
    {
        "AutoField", "BigAutoField", "SmallAutoField", "IntegerField", "BigIntegerField", "SmallIntegerField",
        "PositiveIntegerField", "PositiveBigIntegerField", "PositiveSmallIntegerField",
    }
)  # fmt: skip
TEXTS = frozenset(
    {"CharField", "TextField", "SlugField", "EmailField", "URLField", "FileField", "FilePathField"}
)


class _JsonNull:
    """The document null. Python reads it as None, as it reads a column without a document, which is NULL."""

    def __repr__(self) -> str:
        return "JSON null"


JSON_NULL = _JsonNull()


def concrete_model(model: type[Model]) -> type[Model]:
    """The model that a proxy's rows are of; any other model itself."""
    return model._meta.concrete_model or model


def label_of(model: type[Model]) -> str:
    """The label of the model whose table it is: a row is the same one whichever proxy it is read or written through."""
    return str(concrete_model(model)._meta.label)


def stored_field(field: Field[Any, Any]) -> Field[Any, Any]:
    """The field whose type the column has: for a foreign key the (last) field that it points at."""
    while field.remote_field is not None and (target := referred_field(field)) is not None:
        field = target
    return field


def is_text(field: Field[Any, Any]) -> bool:
    """True if the column holds characters, which a collation might fold."""
    return stored_field(field).get_internal_type() in TEXTS


def is_exact_text(field: Field[Any, Any]) -> bool:
    """True if values of the column are compared to the character: texts, but for those under a foreign key.

    The database compares a foreign key by the collation: what it takes for a reference is one, and no other row is owed.
    """
    return is_text(field) and not (field.remote_field is not None and getattr(field, "db_constraint", False))


def is_in_range(kind: str, number: int, using: str) -> bool:
    """Whether an integer column of this kind, by Django's name of it, holds the number on the database."""
    least, most = integer_range(connections[using], kind)
    return (least is None or number >= least) and (most is None or number <= most)


def decimal_limit(field: Field[Any, Any]) -> int | None:
    """The smallest number that has too many digits for the decimal column; None where nothing limits it, or it is of another type."""
    stored = stored_field(field)
    if not isinstance(stored, DecimalField) or stored.max_digits is None or stored.decimal_places is None:
        return None
    return int(10 ** (stored.max_digits - stored.decimal_places))


def number_range(field: Field[Any, Any], using: str) -> tuple[int, int] | None:
    """The least and the largest number that the integer column holds on the database; None where nothing limits it, or it is of another type."""
    kind = stored_field(field).get_internal_type()
    least, most = integer_range(connections[using], kind) if kind in INTEGERS else (None, None)
    return None if least is None or most is None else (least, most)


def holds_all_of(field: Field[Any, Any], other: Field[Any, Any], using: str) -> bool:
    """Whether the column has room for each number that `other`'s column holds, which is a number's, too."""
    limit, limit_there = decimal_limit(field), decimal_limit(other)
    if limit is not None and limit_there is not None:
        places, places_there = stored_field(field).decimal_places, stored_field(other).decimal_places  # type: ignore[attr-defined]
        # With more places, the largest number is rounded up to the limit itself.
        return limit_there < limit or (limit_there == limit and places_there <= places)
    there = (-limit_there, limit_there) if limit_there is not None else number_range(other, using)
    room = (1 - limit, limit - 1) if limit is not None else number_range(field, using)
    return there is not None and room is not None and room[0] <= there[0] and there[1] <= room[1]


def are_told_apart(field: Field[Any, Any], one: Any, two: Any) -> bool:
    """Whether the column holds two different values for certain if it is given these, however the database compares them."""
    try:
        first, second = _read_constant(field, one), _read_constant(field, two)
        if first is None or second is None:
            return False
        if isinstance(first, str) and isinstance(second, str):
            # Of other letters each collation has an opinion of its own, and it ignores some signs.
            plain = first.isascii() and second.isascii() and first.isprintable() and second.isprintable()
            return plain and first.casefold().rstrip() != second.casefold().rstrip()
        return bool(first != second)
    except (ValidationError, TypeError, ValueError, ArithmeticError):
        return False


def _read_constant(field: Field[Any, Any], value: Any) -> Any:
    """The value as the column gives it back: "1" as a number, a record as its key."""
    stored = stored_field(field)
    if isinstance(value, Model):
        value = getattr(value, stored.attname)
    read = stored.to_python(value)
    return round_decimal(stored, read) if isinstance(stored, DecimalField) and read is not None else read


def column_at(model: type[Model], path: str) -> Field[Any, Any] | None:
    """The column that a path of foreign keys ends at; None if it ends at none."""
    *way, last = path.split(LOOKUP_SEP)
    there: Any = model
    try:
        for name in way:
            there = there._meta.get_field(name).related_model
        field = there._meta.pk if last == "pk" else there._meta.get_field(last)
    except (FieldDoesNotExist, AttributeError):
        return None
    return field if isinstance(field, Field) and field.concrete else None


def fits(field: Field[Any, Any], number: Any, using: str) -> bool:
    """Whether the column has room for the number as the database gives it; True for what is no number."""
    stored = stored_field(field)
    if isinstance(stored, DecimalField) and isinstance(number, Decimal | float | int):
        try:
            round_decimal(stored, Decimal(str(number)))
        except ArithmeticError:
            return False
    if (limits := number_range(field, using)) is not None and isinstance(number, Decimal | float | int):
        return limits[0] <= number <= limits[1]
    return True


def round_decimal(field: DecimalField[Any, Any], number: Decimal) -> Decimal:
    """The number as the column stores it. Raises ArithmeticError if it has more digits than the column, or isn't finite."""
    digits, places, limit = field.max_digits, field.decimal_places, decimal_limit(field)
    if digits is None or places is None or limit is None:
        return number
    # The databases round a half away from zero, as ROUND_HALF_UP does.
    context = Context(prec=max(digits, 1) + 40)
    rounded = number.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP, context=context)
    if abs(rounded) >= limit:
        raise OverflowError(f"it has more than {digits} digits")
    return rounded


def parent_columns(model: type[Model]) -> list[str]:
    """A column of each other table that a row of the model is spread over, so that a SELECT of them reads all of it.

    Keys and what links the tables are none: the ORM takes them from the row's own table.
    """
    own = (
        next(
            (each.name for each in own_columns(parent) if each.remote_field is None and not each.primary_key),
            "",
        )
        for parent in parents_of(concrete_model(model))
    )
    return [name for name in own if name]
