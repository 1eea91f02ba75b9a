"""The table of receipts: which receipt is a record's, and receipts made of records by one `INSERT … SELECT`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.db.models import CharField, DateTimeField, F, Field, Model, OuterRef, QuerySet, Value

from reconcile.sql.lookups import Same
from reconcile.sql.texts import AsText

if TYPE_CHECKING:
    from reconcile.models import Receipt

__all__ = ["UNIQUE", "Rows", "columns", "every", "label_of", "named", "of_record", "receipt", "selected"]

Rows = QuerySet[Any, Any]
_NAMES = ("name", "model", "key", "state", "recorded_at")
UNIQUE = ("name", "model", "key")
"""Columns of which no two receipts have the same values."""


def receipt() -> type[Receipt]:
    """The model; asked for late, since rule files and the command line import this before Django has its models."""
    from reconcile.models import Receipt

    return Receipt


def label_of(model: type[Model]) -> str:
    """The label that receipts of `model` have: a proxy's are those of its table."""
    label: str = (model._meta.concrete_model or model)._meta.label
    return label


def of_record(name: str, model: type[Model], using: str, key: str = "pk") -> Rows:
    """The receipt for the record of the outer query, which is one of `model` with its key at the path `key`."""
    text = AsText(OuterRef(key), field=model._meta.pk)
    return named(name, model, using).filter(Same(F("key"), text, field=_field("key")))


def selected(name: str, rows: Rows, *, state: str, recorded_at: datetime) -> Rows:
    """A receipt for each of `rows`, in key order, so that two callers wait for each other and don't deadlock."""
    values = {
        "name": Value(name, output_field=CharField()),
        "model": Value(label_of(rows.model), output_field=CharField()),
        "key": AsText(F("pk"), field=rows.model._meta.pk),
        "state": Value(str(state), output_field=CharField()),
        "recorded_at": Value(recorded_at, output_field=DateTimeField()),
    }
    aliased = {f"_receipt_{column}": value for column, value in values.items()}
    receipts: Rows = rows.order_by("pk").annotate(**aliased).values_list(*aliased)
    return receipts


def named(name: str, model: type[Model], using: str) -> Rows:
    return every(using).filter(name=name, model=label_of(model))


def every(using: str) -> Rows:
    return receipt()._base_manager.using(using).order_by()


def columns() -> list[Field[Any, Any]]:
    return [_field(name) for name in _NAMES]


def _field(name: str) -> Field[Any, Any]:
    return next(each for each in receipt()._meta.concrete_fields if each.name == name)
