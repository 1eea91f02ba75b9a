"""Writing back what a `pre_save` receiver changed on records: those columns, and never through `save()`."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from django.db.models import Field, Model

from reconcile.errors import ChunkConflictError
from reconcile.remedies._base import Journal
from reconcile.windows import Keys

__all__ = ["changes", "columns_of", "write_back"]

_Fields = tuple["Field[Any, Any]", ...]


def columns_of(record: Model) -> dict[Field[Any, Any], Any]:
    """The record's columns, as they would be stored. A copy: a receiver may change a value in place."""
    return {
        field: deepcopy(_stored(record, field))
        for field in record._meta.concrete_fields
        if not getattr(field, "generated", False)
    }


def _stored(record: Model, field: Field[Any, Any]) -> Any:
    value = getattr(record, field.attname)
    return value if hasattr(value, "resolve_expression") else field.get_prep_value(value)


def changes(record: Model, before: dict[Field[Any, Any], Any]) -> _Fields:
    """The columns whose values are no longer those of `before`. Raises ValueError for one that can't be written."""
    changed = tuple(field for field, value in columns_of(record).items() if value != before[field])
    concrete = record._meta.concrete_model or type(record)
    for field in changed:
        if field.primary_key:
            raise ValueError(f"it has changed the primary key from {before[field]!r} to {record.pk!r}")
        if field not in concrete._meta.local_concrete_fields:
            raise ValueError(f"it has changed {field.name!r}, which is stored in a parent's table")
    return changed


def write_back(
    model: type[Model], fields: _Fields, records: Sequence[Any], journal: Journal, *, using: str
) -> int:
    """Journal and update `fields` of the locked records; their number. Three statements, more for very many records."""
    noted = journal.before(model, fields, Keys([record.pk for record in records]))
    written = model._base_manager.using(using).bulk_update(records, [field.name for field in fields])
    completed = journal.after(model, fields)
    if not noted == written == completed:
        raise ChunkConflictError(f"{model._meta.label}: of {noted} changed records {written} were updated.")
    return written
