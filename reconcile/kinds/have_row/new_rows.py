"""Which value each column of an inserted row gets, and whether the database or Python makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from typing import Any

from django.db.models import DateField, DateTimeField, Field, Model, TimeField, Value
from django.utils import timezone

from reconcile.db.columns import concrete_model
from reconcile.db.django_compat import NOT_PROVIDED, default_of, has_default, own_columns

__all__ = ["NoValueError", "PerRow", "new_row_values", "split_by_maker"]

_CLOCKS: tuple[Callable[[], Any], ...] = (timezone.now, datetime.now, date.today)
_EMPTY: tuple[Callable[[], Any], ...] = (dict, list, str, int, float, bool, tuple, set)


class NoValueError(LookupError):
    """A column that may not be NULL gets no value from anywhere. Its argument is the column's name."""


@dataclass(frozen=True)
class PerRow:
    """A value that must be made in Python, once for each row: a token, a uuid."""

    make: Callable[[], Any]


def new_row_values(
    model: type[Model], given: Mapping[Field[Any, Any], Any], *, now: datetime | None
) -> dict[Field[Any, Any], Any]:
    """Expression or PerRow for each column of a new row that the database doesn't fill by itself.

    `given` are the rule's; for the rest the field's default counts. Clocks give `now`, pinned for the run. A row of
    a model that inherits from another table has its own columns alone, the link to the parent's row among them.
    Raises NoValueError.
    """
    values: dict[Field[Any, Any], Any] = {}
    for field in own_columns(concrete_model(model)):
        if field in given:
            values[field] = given[field]
        elif not _is_filled_by_database(field):
            values[field] = _default_value(field, now)
    return values


def split_by_maker(
    values: Mapping[Field[Any, Any], Any],
) -> tuple[dict[Field[Any, Any], Any], dict[str, Callable[[], Any]]]:
    """The columns that the database computes, and those that Python makes once a row.

    Where Python makes any, it brings the constants along, rather than sending them there and back.
    """
    by_python = any(isinstance(value, PerRow) for value in values.values())
    made = {
        field.attname: value.make if isinstance(value, PerRow) else partial(getattr, value, "value")
        for field, value in values.items()
        if isinstance(value, PerRow) or (by_python and isinstance(value, Value))
    }
    return {field: value for field, value in values.items() if field.attname not in made}, made


def _is_filled_by_database(field: Field[Any, Any]) -> bool:
    if getattr(field, "generated", False) or getattr(field, "db_default", NOT_PROVIDED) is not NOT_PROVIDED:
        return True
    automatic = field.get_internal_type() in {"AutoField", "BigAutoField", "SmallAutoField"}
    nothing = field.null and (not has_default(field) or field.default is None)
    return automatic or (nothing and not _is_computed_on_save(field))


def _default_value(field: Field[Any, Any], now: datetime | None) -> Any:
    clock = isinstance(field, DateField | TimeField) and (field.auto_now or field.auto_now_add)
    if clock or field.default in _CLOCKS:
        return _clock_value(field, now or timezone.now())
    if _is_computed_on_save(field):
        return PerRow(lambda: field.pre_save(field.model(), True))
    if callable(field.default) and field.default not in _EMPTY and has_default(field):
        return PerRow(field.default)
    value = default_of(field)
    if value is None and not field.null:
        raise NoValueError(field.name)
    return Value(value, output_field=field)


def _clock_value(field: Field[Any, Any], now: datetime) -> Value:
    if isinstance(field, DateTimeField):
        return Value(now, output_field=field)
    local = timezone.localtime(now) if timezone.is_aware(now) else now
    return Value(local.time() if isinstance(field, TimeField) else local.date(), output_field=field)


def _is_computed_on_save(field: Field[Any, Any]) -> bool:
    """True if the field class computes its value as a row is saved, as slug and token fields do."""
    own = type(field).pre_save
    return (
        own is not Field.pre_save
        and not isinstance(field, DateField | TimeField)
        and not hasattr(field, "upload_to")
    )
