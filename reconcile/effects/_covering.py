"""Whether the database itself rules out that two rows of a queryset are alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.db.models import F, Field, Model, Q, QuerySet
from django.db.models.sql.where import AND, WhereNode

from reconcile.declaring import field_named
from reconcile.sql.expressions import path_of
from reconcile.sql.uniques import Unique, uniques_of

__all__ = ["is_covered", "is_covered_at_once", "is_filter", "own_fields"]


def is_covered(every: QuerySet[Any], columns: Sequence[Any], *, nulls_distinct: bool, using: str) -> bool:
    """True where a unique constraint lets no two rows of `every` be alike in `columns`, which are expressions.

    A constraint on some of the columns covers them all. A conditional one counts if its condition is the filter of
    `every`, or one of the parts that all have to hold. Where NULL counts like any value, the constraint must say so,
    too, or none of its columns be null. One of a table that Django doesn't make counts nowhere.
    """
    return any(_covering(every, columns, nulls_distinct=nulls_distinct, using=using))


def is_covered_at_once(
    every: QuerySet[Any], columns: Sequence[Any], *, nulls_distinct: bool, using: str
) -> bool:
    """As `is_covered`, by a constraint that holds for each statement.

    Under one that is looked at when COMMIT comes, whoever looks and inserts can't look again, as `get_or_create` does.
    """
    covering = _covering(every, columns, nulls_distinct=nulls_distinct, using=using)
    return any(unique.at_once for unique in covering)


def own_fields(model: type[Model], columns: Sequence[Any]) -> Iterator[Field[Any, Any]]:
    """The columns of `model` among the expressions; no path to another table, and no function of a column."""
    for column in columns:
        if isinstance(column, F):
            path = path_of(column)
            field = model._meta.pk if path == "pk" else field_named(model, path)
            if field is not None:
                yield field


def is_filter(every: QuerySet[Any], condition: Q) -> bool:
    """Whether `every` is filtered by `condition`, and by nothing else."""
    return bool(every.query.where == _where(every, condition))


def _covering(
    every: QuerySet[Any], columns: Sequence[Any], *, nulls_distinct: bool, using: str
) -> Iterator[Unique]:
    named = {*own_fields(every.model, columns)}
    return (
        unique
        for unique in _all(every.model, using)
        if unique.known
        and {*unique.fields} <= named
        and all(expression in columns for expression in unique.expressions)
        and (nulls_distinct or not unique.escaped)
        and (unique.condition is None or _implies(every, unique.condition))
    )


def _all(model: type[Model], using: str) -> Iterator[Unique]:
    """What holds for the rows of a model: a row that continues others is as unique as each of them."""
    for each in dict.fromkeys(
        table._meta.concrete_model or table for table in (model, *model._meta.get_parent_list())
    ):
        yield from uniques_of(each, using)


def _implies(every: QuerySet[Any], condition: Q) -> bool:
    """Whether each row of `every` meets the condition: it is the filter, or its parts are among those of the filter."""
    wanted = _where(every, condition)
    if every.query.where == wanted:
        return True
    return all(part in _parts(every.query.where) for part in _parts(wanted))


def _parts(where: Any) -> list[Any]:
    """What all has to hold."""
    if (
        not isinstance(where, WhereNode)
        or where.negated
        or (where.connector != AND and len(where.children) > 1)
    ):
        return [where]
    return [part for child in where.children for part in _parts(child)]


def _where(every: QuerySet[Any], condition: Q) -> WhereNode:
    where: WhereNode = every.model._base_manager.filter(condition).query.where
    return where
