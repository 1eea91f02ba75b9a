"""Whether the database itself rules out that two records of a queryset are alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.db import connections
from django.db.models import F, Model, QuerySet, UniqueConstraint

from reconcile.declaring import field_named
from reconcile.sql.expressions import path_of

__all__ = ["is_covered"]


def is_covered(every: QuerySet[Any], columns: Sequence[Any], *, nulls_distinct: bool, using: str) -> bool:
    """True where a unique constraint lets no two records of `every` be alike in `columns`.

    A constraint on some of the columns covers them all. A conditional one counts if its condition is the filter of
    `every`. Where NULL counts like any value, the constraint must say so, too, or none of its columns be null.
    """
    paths = [path_of(column) for column in columns if isinstance(column, F)]
    meta = every.model._meta
    fields = (meta.pk if path == "pk" else field_named(every.model, path) for path in paths)
    named = {field.name for field in fields if field is not None}
    return any(
        {*names} <= named
        and all(expression in columns for expression in expressions)
        and (nulls_distinct or not nullable)
        for names, expressions, nullable in _unique(every, using)
    )


def _unique(every: QuerySet[Any], using: str) -> Iterator[tuple[Sequence[str], Sequence[Any], bool]]:
    """Each unique constraint that holds for all of `every`: its names, its expressions, and whether NULL escapes it."""
    model = every.model
    for column in model._meta.concrete_fields:
        if column.unique:
            yield (column.name,), (), column.null
    for names in model._meta.unique_together:
        yield names, (), _may_be_null(model, names)
    features = connections[using].features
    for each in model._meta.constraints:
        if not isinstance(each, UniqueConstraint):
            continue
        partial = each.condition is not None
        if partial and not (features.supports_partial_indexes and _is_filter(every, each.condition)):
            continue
        if each.expressions and not features.supports_expression_indexes:
            continue
        strict = each.nulls_distinct is False and features.supports_nulls_distinct_unique_constraints
        yield (
            each.fields,
            each.expressions,
            not strict and (bool(each.expressions) or _may_be_null(model, each.fields)),
        )


def _is_filter(every: QuerySet[Any], condition: Any) -> bool:
    return bool(every.query.where == every.model._base_manager.filter(condition).query.where)


def _may_be_null(model: type[Model], names: Sequence[str]) -> bool:
    fields = [field_named(model, name) for name in names]
    return any(field is None or field.null for field in fields)
