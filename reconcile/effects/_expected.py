"""The value that each column of a record should have, as expressions over prepared records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import Field, FilteredRelation
from django.db.models.constants import LOOKUP_SEP

from reconcile.declaring import as_expression
from reconcile.effects._aggregates import JOINED, aggregated, joined_relation
from reconcile.effects._derived import Derived
from reconcile.effects.within import exact
from reconcile.finders import Rows, Source
from reconcile.sql.expressions import joins_whole, pinned
from reconcile.windows import EVERYTHING, Scope

__all__ = ["carried", "expected", "window"]


def carried(source: Source, values: Mapping[Field[Any, Any], Any]) -> bool:
    """Whether a window costs no more than its share of the whole, for the records and for each of the values.

    A table that is joined without the range would be read whole by each window.
    """
    derived = ((field, exact(value)) for field, value in values.items())
    if not all(value.carried(source, field) for field, value in derived if isinstance(value, Derived)):
        return False
    rows, found = expected(source, EVERYTHING, values)
    named = {f"_{field.attname}": value for field, value in found.items()}
    return not joins_whole(source.every.query) and not joins_whole(rows.alias(**named).query)


def window(source: Source, values: Mapping[Field[Any, Any], Any]) -> int | None:
    """Keys in a window, where one of the values asks for another number than the usual."""
    derived = ((field, exact(value)) for field, value in values.items())
    sizes = [value.window(source, field) for field, value in derived if isinstance(value, Derived)]
    return next((size for size in sizes if size), None)


def expected(
    source: Source, scope: Scope, values: Mapping[Field[Any, Any], Any]
) -> tuple[Rows, dict[Field[Any, Any], Any]]:
    """The records in scope, and an expression over them for each column that `values` names."""
    given = {field: exact(value) for field, value in values.items()}
    plain = {
        field: pinned(as_expression(value, field), source.now)
        for field, value in given.items()
        if not isinstance(value, Derived)
    }
    rows = source.records(scope)
    relation = joined_relation(source, plain.values())
    if relation is not None:
        link = f"{relation.name}{LOOKUP_SEP}{relation.field.name}"
        rows = rows.alias(**{JOINED: FilteredRelation(relation.name, condition=scope.on(link))})
    found = {field: aggregated(source, value, field, relation) for field, value in plain.items()}
    for field, value in given.items():
        if isinstance(value, Derived):
            rows, found[field] = value.onto(rows, source, scope, field)
    return rows, found
