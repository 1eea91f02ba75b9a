"""Rewriting the expressions of a rule: other prefix, pinned clock; and reading which columns they use."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

from django.core.exceptions import FieldError
from django.db.models import Aggregate, DateTimeField, F, Field, Model, OuterRef, Q, QuerySet, Value
from django.db.models.constants import LOOKUP_SEP
from django.db.models.expressions import Col
from django.db.models.functions import Now
from django.db.models.sql.datastructures import Join
from django.db.models.sql.query import Query

__all__ = [
    "Column",
    "aggregates_in",
    "columns_of",
    "columns_read",
    "joins",
    "joins_whole",
    "names_in",
    "path_of",
    "pinned",
    "pinned_queryset",
    "reads_alone",
    "reads_itself",
    "rebased",
]

Column = tuple[type[Model], str]
"""A column as (model, attname)."""


def path_of(reference: F) -> str:
    """The field path that an `F` or an `OuterRef` names."""
    name: str = reference.name  # type: ignore[attr-defined]
    return name


def mapped(node: Any, leaf: Callable[[Any], Any]) -> Any:  # noqa: PLR0911 - one for each shape of node
    """A copy of the expression tree `node` in which each node went through `leaf`, top first.

    `leaf` returns a replacement, or the node itself to have its children visited.
    """
    replaced = leaf(node)
    if replaced is not node:
        return replaced
    if isinstance(node, Q):
        clone = copy.copy(node)
        clone.children = [mapped(child, leaf) for child in node.children]
        return clone
    if isinstance(node, Query):
        return _mapped_query(node, leaf)
    if isinstance(node, tuple) and len(node) == 2:  # noqa: PLR2004
        return (node[0], _mapped_value(node[1], leaf))
    if not hasattr(node, "get_source_expressions"):
        return node
    sources = node.get_source_expressions()
    if not sources:
        return node
    clone = node.copy() if hasattr(node, "copy") else copy.copy(node)
    clone.set_source_expressions([None if each is None else mapped(each, leaf) for each in sources])
    return clone


def _mapped_value(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """What a condition compares with; of several values each, among which no text is a path."""
    if not isinstance(value, tuple | list):
        return mapped(value, leaf)
    return type(value)([_mapped_value(each, leaf) for each in value])


def _mapped_query(query: Query, leaf: Callable[[Any], Any]) -> Query:
    clone = query.clone()
    clone.where = mapped(clone.where, leaf)
    clone.annotations = {name: mapped(value, leaf) for name, value in clone.annotations.items()}
    return clone


def rebased(expression: Any, *, prefix: str, onto: str) -> Any:
    """`expression` with the paths below `prefix` moved to `onto`; an empty `onto` means the model itself.

    `Sum(F("items__price"))` from `items` onto `_items` becomes `Sum(F("_items__price"))`, and onto
    nothing `Sum(F("price"))`. Paths elsewhere stay as they are.
    """

    def moved(path: str) -> str:
        head, _, rest = path.partition(LOOKUP_SEP)
        if head != prefix:
            return path
        return LOOKUP_SEP.join(part for part in (onto, rest) if part) or "pk"

    def leaf(node: Any) -> Any:
        if isinstance(node, F) and not isinstance(node, OuterRef):
            return F(moved(path_of(node)))
        if isinstance(node, tuple) and isinstance(node[0], str):
            return (moved(node[0]), _mapped_value(node[1], leaf))
        return node

    return mapped(expression, leaf)


def pinned(expression: Any, now: datetime) -> Any:
    """`expression` with every `Now()` in it replaced by `now`, so that one run sees one clock."""
    return mapped(
        expression, lambda node: Value(now, output_field=DateTimeField()) if isinstance(node, Now) else node
    )


def pinned_queryset(queryset: QuerySet[Any], now: datetime) -> QuerySet[Any]:
    """`queryset` with every `Now()` in its filters and annotations replaced by `now`."""
    clone = queryset.all()
    clone.query = pinned(clone.query, now)
    return clone


def names_in(expression: Any) -> Iterator[str]:
    """The field paths that the expression names, as `F` and `Q` spell them."""
    if isinstance(expression, F):
        yield path_of(expression)
    elif isinstance(expression, tuple) and isinstance(expression[0], str):
        yield expression[0]
        values = expression[1] if isinstance(expression[1], tuple | list) else [expression[1]]
        for value in values:
            yield from () if isinstance(value, tuple) else names_in(value)
    elif isinstance(expression, Q):
        for child in expression.children:
            yield from names_in(child)
    elif hasattr(expression, "get_source_expressions"):
        for each in expression.get_source_expressions():
            yield from names_in(each)


def aggregates_in(expression: Any) -> Iterator[Aggregate]:
    """The aggregates of an unresolved expression, outermost first."""
    if isinstance(expression, Aggregate):
        yield expression
    elif hasattr(expression, "get_source_expressions"):
        for each in expression.get_source_expressions():
            yield from aggregates_in(each)


def joins(query: Query) -> bool:
    """True where the query reads another table beside its own."""
    return sum(1 for references in query.alias_refcount.values() if references) > 1


def joins_to_many(query: Query) -> bool:
    """True where the query may yield a record more than once: a join to many rows, or a DISTINCT that hides one."""
    if query.distinct:
        return True
    joins = (getattr(join, "join_field", None) for join in query.alias_map.values())
    return any(join is not None and not (join.many_to_one or join.one_to_one) for join in joins)


def joins_whole(query: Query) -> bool:
    """True where the query joins a table of which nothing says which part is needed."""
    joins = query.alias_map.items()
    return any(
        isinstance(join, Join) and join.filtered_relation is None and query.alias_refcount[alias]
        for alias, join in joins
    )


def reads_alone(queryset: QuerySet[Any]) -> bool:
    """Whether a row of the queryset is told by its own columns: no join, and no subquery in its conditions."""
    query = queryset.query
    return len(query.alias_map) <= 1 and not _has_subquery(query.where)


def reads_itself(queryset: QuerySet[Any]) -> bool:
    """Whether what the queryset selects of a row, and by which conditions, stands in that row; not in others of its table."""
    query = queryset.query
    return not joins(query) and not any(map(_has_subquery, (query.where, *query.annotations.values())))


def _has_subquery(node: Any) -> bool:
    if isinstance(node, Query):
        return True
    sources: list[Any] = node.get_source_expressions() if hasattr(node, "get_source_expressions") else []
    return any(_has_subquery(each) for each in [*sources, *getattr(node, "children", ())])


def columns_of(model: type[Model]) -> frozenset[Column]:
    """All columns of the model: what a row that comes or goes changes."""
    concrete = model._meta.concrete_model or model
    return frozenset((concrete, field.attname) for field in concrete._meta.concrete_fields)


def columns_read(queryset: QuerySet[Any]) -> frozenset[Column]:
    """The columns that a queryset selects, or its conditions, annotations, joins and orders read; subqueries' too."""
    return frozenset(_columns(queryset.query))


def _columns(node: Any) -> Iterator[Column]:
    if isinstance(node, Col):
        yield _column(node.target)
    elif isinstance(node, Query):
        yield from _columns_of_query(node)
    elif hasattr(node, "get_source_expressions"):
        yield from _columns_of_all(node.get_source_expressions())


def _columns_of_query(query: Query) -> Iterator[Column]:
    yield from _columns(query.where)
    yield from _columns_of_all((*query.select, *query.annotations.values(), *_ordering(query)))
    for alias, join in query.alias_map.items():
        # A join to a key that the column itself holds has been trimmed away, and isn't in the SQL.
        columns = getattr(join, "join_fields", None) if query.alias_refcount[alias] else None
        for pair in columns or ():
            for field in pair:
                if isinstance(field, Field):
                    yield _column(field)
        derived = getattr(join, "query", None)
        if isinstance(derived, Query):
            yield from _columns_of_query(derived)
    for related in getattr(query, "_filtered_relations", {}).values():
        yield from _columns(getattr(related, "resolved_condition", None))


def _ordering(query: Query) -> Iterator[Any]:
    """What the query is ordered by; only a name that leads nowhere is left out."""
    for each in query.order_by:
        term: Any = F(each.removeprefix("-")) if isinstance(each, str) else each
        with suppress(FieldError):
            yield term.resolve_expression(query.clone())


def _columns_of_all(nodes: Iterable[Any]) -> Iterator[Column]:
    for node in nodes:
        yield from _columns(node)


def _column(field: Field[Any, Any]) -> Column:
    return (field.model._meta.concrete_model or field.model, field.attname)
