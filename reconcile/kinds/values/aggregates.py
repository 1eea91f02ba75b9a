"""The form that an aggregate over related rows takes: a join with the range in it, or a subquery of its own.

A join is the faster form on PostgreSQL, but two relations in one join multiply each other's rows. So it is used
for plain aggregates over one relation alone; any other aggregate becomes a subquery, and what is computed from
several of them is computed outside.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.db.models import (
    Aggregate,
    Count,
    DecimalField,
    DurationField,
    F,
    Field,
    FloatField,
    IntegerField,
    Model,
    OuterRef,
    Q,
    Subquery,
    Value,
)
from django.db.models.functions import Coalesce

from reconcile.core.declaration import field_named
from reconcile.core.finder import Source
from reconcile.db.comparisons import settle_types
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import (
    LOOKUP_SEP,
    CombinedExpression,
    ManyToOneRel,
    Query,
    copy_expression,
    is_aggregate_condition,
    referred_field,
    reverse_relations,
    ungroup,
)
from reconcile.db.expressions import aggregates_in, map_expression, names_in, nodes_in, path_of, rebase_paths

__all__ = ["JOINED", "aggregate_form", "joined_relation", "zero_if_none"]

JOINED = "_range"
"""Alias of the relation whose join has the range in it."""


def joined_relation(source: Source, expressions: Iterable[Any]) -> ManyToOneRel | None:
    """The reverse foreign key that all aggregates go over, where one join serves them all and is the best form."""
    if not dialect_of(source.using).aggregates_by_join:
        return None
    over = [expression for expression in expressions if any(aggregates_in(expression))]
    relations = {_relation(source.model, path) for expression in over for path in names_in(expression)}
    relation = next(iter(relations)) if len(relations) == 1 else None
    if (
        relation is None
        or relation.related_model is source.model
        or not all(_is_plain(expression, relation) for expression in over)
    ):
        return None
    return relation


def aggregate_form(
    source: Source, expression: Any, field: Field[Any, Any], relation: ManyToOneRel | None
) -> Any:
    """`expression` with each aggregate in the form in which it is computed; others stay as they are."""

    def form(node: Any) -> Any:
        if not isinstance(node, Aggregate):
            return node
        if relation is not None:
            return zero_if_none(
                rebase_paths(_by_link(node, relation), prefix=relation.name, onto=JOINED), node, field
            )
        moved = _by_subquery(source, node)
        return zero_if_none(moved, node, field) if node.empty_result_set_value is None else moved

    return map_expression(expression, form)


def zero_if_none(form: Any, aggregate: Aggregate, field: Field[Any, Any]) -> Any:
    """The sum of no rows is NULL; where the column can't be NULL, 0 is meant, or no time."""
    if field.null or aggregate.empty_result_set_value is not None:
        return form
    if isinstance(field, DurationField):
        return _OrZero(form, Value(timedelta(0)))
    return _OrZero(form, Value(0)) if isinstance(field, IntegerField | DecimalField | FloatField) else form


class _OrZero(Coalesce):
    """Of the aggregate's own type, so that an average is rounded for a column of integers."""

    def _resolve_output_field(self) -> Any:
        return self.get_source_expressions()[0].output_field


def _by_link(aggregate: Aggregate, relation: ManyToOneRel) -> Aggregate:
    """A plain count of the related rows counts their foreign key, not their key: its index alone answers."""
    first, *rest = aggregate.get_source_expressions()
    bare = isinstance(first, F) and path_of(first) == relation.name
    if not bare or not isinstance(aggregate, Count) or getattr(aggregate, "distinct", False):
        return aggregate
    counting: Aggregate = copy_expression(aggregate)
    counting.set_source_expressions([F(f"{relation.name}{LOOKUP_SEP}{relation.field.attname}"), *rest])
    return counting


def _is_plain(expression: Any, relation: ManyToOneRel) -> bool:
    """A bare aggregate of the related rows' own columns, so that no further join multiplies them."""
    if not isinstance(expression, Aggregate):
        return False
    columns = (path.partition(LOOKUP_SEP)[2] for path in names_in(expression))
    own = all(not rest or _is_own_column(relation.related_model, rest) for rest in columns)
    return own and all(_is_simple(each) for each in expression.get_source_expressions())


def _is_own_column(model: type[Model], path: str) -> bool:
    field = field_named(model, path)
    return field is not None and field.remote_field is None


def _is_simple(node: Any) -> bool:
    """Arithmetic and conditions on columns; of no row it is NULL, which is what a join yields for no row."""
    if node is None or (isinstance(node, F | Value | Q) and not isinstance(node, OuterRef)):
        return not _has_subquery(node)
    if isinstance(node, CombinedExpression):
        return all(_is_simple(each) for each in node.get_source_expressions())
    return is_aggregate_condition(node) and not _has_subquery(node)


def _has_subquery(node: Any) -> bool:
    """What a subquery names as outer is the record; where the related rows are selected, it would be one of them."""
    return any(isinstance(each, Query) for each in nodes_in(node))


def _relation(model: type[Model], path: str) -> ManyToOneRel | None:
    """The reverse foreign key to `model`'s own key that the path begins with."""
    head = path.split(LOOKUP_SEP, maxsplit=1)[0]
    relation = next((each for each in reverse_relations(model) if each.name == head), None)
    if not isinstance(relation, ManyToOneRel):
        return None
    return relation if referred_field(relation.field).primary_key else None


def _by_subquery(source: Source, aggregate: Aggregate) -> Subquery:
    """The aggregate in a subquery that yields one row whether or not there are any to aggregate."""
    relations = {_relation(source.model, path) for path in names_in(aggregate)}
    relation = next(iter(relations)) if len(relations) == 1 else None
    if relation is not None and all(_is_simple(each) for each in aggregate.get_source_expressions()):
        rows = relation.related_model._base_manager.using(source.using)
        rows = rows.filter(**{relation.field.name: OuterRef("pk")}).order_by()
        rows = rows.annotate(
            _value=rebase_paths(_by_link(aggregate, relation), prefix=relation.name, onto="")
        ).values("_value")
        # Without GROUP BY an aggregate of no rows is one row: 0 for a count, as in the join form.
        ungroup(rows)
    else:
        itself = source.model._base_manager.using(source.using).filter(pk=OuterRef("pk")).order_by()
        rows = itself.values("pk").annotate(_value=aggregate).values("_value")
    settle_types(rows.query)
    return Subquery(rows)
