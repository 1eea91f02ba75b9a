"""What may set a record apart: the columns that are looked at, and what the value in each has."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from math import isfinite
from typing import Any
from uuid import UUID

from django.db.models import BinaryField, F, Field, GeneratedField, Model
from django.db.models.functions import Left
from django.db.models.lookups import IsNull
from django.utils import timezone

from reconcile.db.columns import INTEGERS, TEXTS, stored_field

__all__ = ["Observed", "Trait", "TraitKind", "is_ordered", "observed_columns", "traits_of"]

TEXT = 100
"""Characters of a text that are read. Longer ones are told apart by being there alone."""
BLOCK = 500
"""Integer keys of a block, as a bulk load makes them."""


class TraitKind(StrEnum):
    """In what way values are alike; of equal ones the first says most."""

    VALUE = "value"
    NULL = "null"
    FILLED = "filled"
    RANGE = "range"
    HOUR = "hour"
    DAY = "day"
    WEEKDAY = "weekday"
    HOUR_OF_DAY = "hour of day"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class Trait:
    """What records may have in one column. value: what they have; of a range its ends, which belong to it."""

    kind: TraitKind
    value: Any

    def holds(self, value: Any) -> bool:
        """Whether a value of the column has it."""
        if self.kind is TraitKind.RANGE:
            first, last = self.value
            return value is not None and bool(first <= value <= last)
        return self in traits_of(value, is_key=self.kind is TraitKind.BLOCK)

    def in_words(self, column: str) -> str:
        """`source = 'csv'`, `created_at on Tuesday 2026-11-24 from 14:02 to 14:05`."""
        return f"{column} {_IN_WORDS[self.kind](self.value)}"


@dataclass(frozen=True, kw_only=True)
class Observed:
    """A column that is looked at. name: as the model has it. field: its own. presence: only whether it is filled is looked at."""

    name: str
    field: Field[Any, Any]
    presence: bool = False
    cut: bool = False

    @property
    def is_key(self) -> bool:
        """Whether it is the records' own key, which no two share."""
        return bool(self.field.primary_key)

    @property
    def selected(self) -> Any:
        """What a statement selects for it: of documents nothing but whether they are there."""
        if self.presence:
            return IsNull(F(self.field.attname), False)
        return Left(self.field.attname, TEXT) if self.cut else F(self.field.attname)

    def read(self, value: Any) -> Any:
        """The value as it is compared: times in the project's time zone, and what can't be compared as something that is there."""
        if self.presence:
            return _FILLED if value else None
        if isinstance(value, datetime) and timezone.is_aware(value):
            return _local(value)
        if isinstance(value, Decimal | float) and not isfinite(value):
            return _FILLED
        if value is None or (self.cut and value == ""):
            return value
        long = self.cut and len(value) >= TEXT
        return _FILLED if long or not isinstance(value, _COMPARED) else value


def _local(value: datetime) -> datetime:
    """The time in the project's time zone; at the ends of the calendar as it is."""
    try:
        return timezone.localtime(value).replace(tzinfo=None)
    except OverflowError:
        return value.replace(tzinfo=None)


class _Filled:
    """Something is there, and nobody compares it."""

    def __repr__(self) -> str:
        return "filled"


_FILLED = _Filled()
_COMPARED = (bool, int, float, Decimal, str, date, time, timedelta, UUID)
_ORDERED = (int, float, Decimal, date)


def observed_columns(model: type[Model], left_out: Collection[str]) -> Sequence[Observed]:
    """The columns of a model that may tell, by their own names, but for those that are left out, and what the database computes; documents and long texts by their being there alone."""
    return [
        _observed(field)
        for field in model._meta.concrete_fields
        if field.attname not in left_out and not isinstance(field, BinaryField | GeneratedField)
    ]


def _observed(field: Field[Any, Any]) -> Observed:
    kind = stored_field(field).get_internal_type()
    plain = kind in INTEGERS | TEXTS | _PLAIN
    is_long = kind in TEXTS and not 0 < (stored_field(field).max_length or 0) < TEXT
    return Observed(name=field.name, field=field, presence=not plain, cut=is_long)


_PLAIN = frozenset(
    {
        "BooleanField", "NullBooleanField", "DateField", "DateTimeField", "TimeField", "DurationField", "DecimalField", "FloatField", "UUIDField",
        "GenericIPAddressField", "IPAddressField",
    }
)  # fmt: skip


def is_ordered(value: Any) -> bool:
    """Whether values of this kind have ranges."""
    return isinstance(value, _ORDERED) and not isinstance(value, bool)


def traits_of(value: Any, *, is_key: bool = False) -> Iterator[Trait]:
    """What a value has, ranges apart."""
    if value is None:
        yield Trait(TraitKind.NULL, None)
        return
    yield Trait(TraitKind.FILLED, None)
    if is_key:
        if isinstance(value, int):
            yield Trait(TraitKind.BLOCK, value // BLOCK)
    elif isinstance(value, date):
        yield from _traits_of_time(value)
    elif value is not _FILLED and not isinstance(value, float):
        yield Trait(TraitKind.VALUE, value)


def _traits_of_time(value: date) -> Iterator[Trait]:
    day = value.date() if isinstance(value, datetime) else value
    yield Trait(TraitKind.DAY, day)
    yield Trait(TraitKind.WEEKDAY, day.weekday())
    if isinstance(value, datetime):
        yield Trait(TraitKind.HOUR, value.replace(minute=0, second=0, microsecond=0))
        yield Trait(TraitKind.HOUR_OF_DAY, value.hour)


_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _day_in_words(day: date) -> str:
    return f"{_DAYS[day.weekday()]} {day:%Y-%m-%d}"


def _value_in_words(value: Any) -> str:
    return repr(value) if isinstance(value, str) else str(value)


def _range_in_words(ends: tuple[Any, Any]) -> str:
    first, last = ends
    if first == last:
        on = isinstance(first, date) and not isinstance(first, datetime)
        return f"{'on' if on else '='} {_end_in_words(first)}"
    if isinstance(first, datetime) and first.date() == last.date():
        return f"on {_day_in_words(first)} {_times_in_words(first, last)}"
    return f"from {_end_in_words(first)} to {_end_in_words(last)}"


def _times_in_words(first: datetime, last: datetime) -> str:
    """The shortest that tells them apart: minutes, seconds, or what the second is divided into."""
    forms = [(f"{first:{form}}", f"{last:{form}}") for form in ("%H:%M", "%H:%M:%S", "%H:%M:%S.%f")]
    one, two = next((each for each in forms if each[0] != each[1]), forms[-1])
    return f"from {one} to {two}"


def _end_in_words(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{_day_in_words(value)} {value:%H:%M:%S}"
    if isinstance(value, date):
        return _day_in_words(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


_IN_WORDS: Mapping[TraitKind, Callable[[Any], str]] = {
    TraitKind.VALUE: lambda value: f"= {_value_in_words(value)}",
    TraitKind.NULL: lambda _: "NULL",
    TraitKind.FILLED: lambda _: "not NULL",
    TraitKind.RANGE: _range_in_words,
    TraitKind.HOUR: lambda hour: (
        f"on {_day_in_words(hour)} from {hour:%H}:00 to {(hour + timedelta(hours=1)):%H}:00"
    ),
    TraitKind.DAY: lambda day: f"on {_day_in_words(day)}",
    TraitKind.WEEKDAY: lambda day: f"on a {_DAYS[day]}",
    TraitKind.HOUR_OF_DAY: lambda hour: f"between {hour:02}:00 and {(hour + 1) % 24:02}:00",
    TraitKind.BLOCK: lambda block: f"from {block * BLOCK:,} to {block * BLOCK + BLOCK - 1:,}",
}
