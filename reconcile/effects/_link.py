"""What the link of a `HaveRow` is: its columns, the one that carries a range of keys, and whether it is unique."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from django.db.models import F, Field, Model, Q, QuerySet, Value

from reconcile.declaring import as_expression, field_named
from reconcile.effects._bounds import Bounds
from reconcile.effects._columns import PerRow
from reconcile.effects._covering import is_covered_at_once
from reconcile.effects.within import exact
from reconcile.sql.expressions import path_of
from reconcile.sql.lookups import INTEGERS, stored_field

__all__ = ["RowSpec", "carrier", "carries", "given_columns", "is_linked", "is_unique", "linked_rows", "terms"]


class RowSpec(Protocol):
    """What a `HaveRow` declares."""

    @property
    def model(self) -> type[Model]: ...
    @property
    def link(self) -> Mapping[str, Any]: ...
    @property
    def values(self) -> Mapping[str, Any]: ...
    @property
    def create_only(self) -> Mapping[str, Any]: ...
    @property
    def where(self) -> Q: ...
    @property
    def bounds(self) -> Bounds: ...


def terms(model: type[Model], named: Mapping[str, Any]) -> dict[Field[Any, Any], Any]:
    """The columns of `model` that `named` names, each with what stands for it."""
    found = ((field_named(model, name), value) for name, value in named.items())
    return {column: value for column, value in found if column is not None}


def given_columns(must: RowSpec) -> dict[Field[Any, Any], Any]:
    """What the rule gives for columns of a new row: expressions, or PerRow for what is called once a row."""
    given: dict[Field[Any, Any], Any] = {}
    for option in (must.link, must.values, must.create_only):
        for column, value in terms(must.model, option).items():
            called = callable(value) and not hasattr(value, "resolve_expression")
            given[column] = PerRow(value) if called else as_expression(exact(value), column)
    return given


def carrier(must: RowSpec, model: type[Model]) -> Field[Any, Any] | None:
    """The link column that holds the record's own key, so that a range of keys is a range of it."""
    link = terms(must.model, must.link).items()
    return next((column for column, value in link if carries(model, column, value)), None)


def carries(model: type[Model], column: Field[Any, Any], value: Any) -> bool:
    """Whether `value` is the key of a record of `model`, and a range of keys is a range of `column`."""
    key = model._meta.pk
    kind = stored_field(key).get_internal_type()
    # Only where both order their values alike.
    alike = INTEGERS if kind in INTEGERS else {kind}
    names_key = isinstance(value, F) and path_of(value) in {"pk", key.name, key.attname}
    return names_key and stored_field(column).get_internal_type() in alike


def is_unique(must: RowSpec, using: str, *, key: Sequence[str] = ()) -> bool:
    """Whether the database itself allows one row at most for each link, or for each link and key.

    NULL in the link links with nothing, so it may escape the constraint; in the key it counts like any value. A
    constraint that is looked at when COMMIT comes is none: the error would be a live handler's, and come too late for it.
    """
    if must.bounds.n != 1:
        return False
    link = [F(column.name) for column in terms(must.model, must.link)]
    keys = [column for name in key if (column := field_named(must.model, name)) is not None]
    rows = linked_rows(must).filter(is_linked(must))
    told = [*link, *(F(column.name) for column in keys if not column.null)]
    whole = [*link, *(F(column.name) for column in keys)]
    return is_covered_at_once(rows, told, nulls_distinct=True, using=using) or is_covered_at_once(
        rows, whole, nulls_distinct=False, using=using
    )


def is_linked(must: RowSpec) -> Q:
    """The condition on a row that it may be a record's at all: nothing owes, or forbids, one whose link is NULL."""
    return Q(**{f"{column.name}__isnull": False for column in terms(must.model, must.link) if column.null})


def linked_rows(must: RowSpec) -> QuerySet[Any]:
    """The rows that count, as a queryset of their own table: those of `where` that have the link's constants."""
    constants = {
        column.attname: constant.value
        for column, value in terms(must.model, must.link).items()
        if isinstance(constant := as_expression(value, column), Value)
    }
    return must.model._base_manager.filter(must.where, **constants)
