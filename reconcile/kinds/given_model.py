"""A queryset where a declaration wants a model: its model, and its filter as a condition on the rows that count."""

from __future__ import annotations

from typing import Any

from django.db.models import Q, QuerySet

from reconcile.db.django_compat import shape_of
from reconcile.kinds.uniqueness import filter_of

__all__ = ["take_queryset"]


def take_queryset(declaration: Any) -> None:
    """If `model` of the declaration is a queryset, put its model there, and its filter into `where`; for frozen ones, as they are made.

    A queryset that does more than filter stays, so that the declaration is at fault. Costs no statement.
    """
    given = declaration.model
    if not isinstance(given, QuerySet) or any(_does_more(given)):
        return
    condition = filter_of(given)
    if condition is None:
        condition = Q(pk__in=given.order_by().values("pk"))
    where = declaration.where & condition if isinstance(declaration.where, Q) else declaration.where
    object.__setattr__(declaration, "model", given.model)
    object.__setattr__(declaration, "where", where)


def _does_more(queryset: QuerySet[Any]) -> tuple[bool, ...]:
    """What the queryset does beside filtering."""
    shape = shape_of(queryset)
    return (
        shape.sliced, shape.combined, shape.distinct_on, shape.locking, shape.values, shape.grouped, shape.windowed, shape.extended,
    )  # fmt: skip
