"""Which records a rule may be about: what is wrong with an `every=`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db.models import CompositePrimaryKey, Model, QuerySet

from reconcile.errors import Fault

__all__ = ["every_faults"]


def every_faults(every: Any) -> Iterator[Fault]:
    """A fault for each reason why `every` can't be walked in key order. Costs no statement."""
    if isinstance(every, type) and issubclass(every, Model):
        model = every
    elif isinstance(every, QuerySet):
        model = every.model
        yield from _queryset_faults(every)
    else:
        yield Fault("reconcile.E011", f"every= is {every!r}.", "Give a model or a queryset.")
        return
    if model._meta.abstract or model._meta.swapped:
        hint = "Give a model that has a table of its own."
        yield Fault("reconcile.E011", f"every= is {model.__name__}, which has no table.", hint)
    elif isinstance(model._meta.pk, CompositePrimaryKey):
        hint = "Keys of several columns are not served yet."
        yield Fault("reconcile.E015", f"every= is {model._meta.label}, whose primary key is composite.", hint)


def _queryset_faults(every: QuerySet[Any]) -> Iterator[Fault]:
    query = every.query
    walks = "a check walks all records in key order."
    refusals = (
        (query.is_sliced, "sliced", f"Remove the slice; {walks}"),
        (bool(query.order_by or query.extra_order_by), "ordered", f"Remove order_by(); {walks}"),
        (bool(query.combinator), "a union, intersection or difference", "Filter with Q objects instead."),
        (bool(query.distinct_fields), "distinct on fields", "Filter for the records that you mean."),
        (bool(query.select_for_update), "locking", "Remove select_for_update(); a repair locks by itself."),
        (
            getattr(every, "_fields", None) is not None,
            "a values() queryset",
            "Remove values(); a check needs records.",
        ),
        (query.group_by is not None, "aggregated", "Filter with Exists(…) instead."),
        (bool(query.extra), "extended by extra()", "Use expressions instead."),
    )
    for refused, what, hint in refusals:
        if refused:
            yield Fault("reconcile.E011", f"every= is {what}.", hint)
