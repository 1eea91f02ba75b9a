"""Rewriting the expressions of a rule: other paths, one clock, prefixes by ranges; and reading which columns they use."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

from django.core.exceptions import FieldError
from django.db.models import Aggregate, DateTimeField, F, Field, Model, OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Now

from reconcile.db.begins import Begins
from reconcile.db.columns import concrete_model
from reconcile.db.django_compat import (
    AND,
    LOOKUP_SEP,
    Col,
    Query,
    WhereNode,
    annotations_of,
    base_alias,
    column_of_outer_query,
    columns_joined,
    columns_selected,
    copy_expression,
    copy_query,
    is_distinct,
    is_parent_join,
    is_whole_table,
    join_condition,
    ordering_of,
    relation_joined,
    rewrite_query,
    tables_of,
    tables_read,
    where_of,
)
from reconcile.db.strict_casts import StrictCast
from reconcile.errors import Refusal

__all__ = [
    "Column",
    "aggregates_in",
    "columns_of",
    "columns_read",
    "columns_read_of_others",
    "conjuncts",
    "joins",
    "joins_whole",
    "names_in",
    "nodes_in",
    "path_of",
    "prepare",
    "prepare_queryset",
    "reads_alone",
    "reads_itself",
    "rebase_paths",
]

Column = tuple[type[Model], str]
"""A column as (model, attname)."""


def path_of(reference: F) -> str:
    """The field path that an `F` or an `OuterRef` names."""
    name: str = reference.name  # type: ignore[attr-defined]
    return name


def map_expression(node: Any, leaf: Callable[[Any], Any], *, subqueries: bool = False) -> Any:  # noqa: PLR0911 - one for each shape of node
    """A copy of the expression tree `node` in which each node went through `leaf`, top first.

    `leaf` returns a replacement, or the node itself to have its children visited. subqueries: visit their conditions and
    annotations, too; without it a subquery is one node, since its names and aggregates are of other rows.
    """
    replaced = leaf(node)
    if replaced is not node:
        return replaced
    if isinstance(node, Q):
        clone = copy.copy(node)
        clone.children = [map_expression(child, leaf, subqueries=subqueries) for child in node.children]
        return clone
    if isinstance(node, Query):
        visit = partial(map_expression, leaf=leaf, subqueries=True)
        return rewrite_query(node, visit) if subqueries else node
    if isinstance(node, tuple) and len(node) == 2:  # noqa: PLR2004
        return (node[0], _map_value(node[1], leaf, subqueries=subqueries))
    if not hasattr(node, "get_source_expressions"):
        return node
    sources = node.get_source_expressions()
    if not sources:
        return node
    clone = copy_expression(node)
    clone.set_source_expressions(
        [None if each is None else map_expression(each, leaf, subqueries=subqueries) for each in sources]
    )
    return clone


def _map_value(value: Any, leaf: Callable[[Any], Any], *, subqueries: bool = False) -> Any:
    """What a condition compares with; of several values each, among which no text is a path."""
    if not isinstance(value, tuple | list):
        return map_expression(value, leaf, subqueries=subqueries)
    return type(value)([_map_value(each, leaf, subqueries=subqueries) for each in value])


def rebase_paths(expression: Any, *, prefix: str, onto: str) -> Any:
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
            return (moved(node[0]), _map_value(node[1], leaf))
        return node

    return map_expression(expression, leaf)


def prepare(expression: Any, now: datetime) -> Any:
    """`expression` as the statements of one run have it.

    Every `Now()` is replaced by `now`, so that one run sees one clock. A prefix that is another column's value is looked up by a
    range: see `Begins`. A cast of what can't be cast is an error: see `StrictCast`.
    """
    pinned = Value(now, output_field=DateTimeField())

    def leaf(node: Any) -> Any:
        if isinstance(node, Now):
            return pinned
        if StrictCast.improves(node):
            (source,) = node.get_source_expressions()
            return StrictCast(prepare(source, now), node.output_field)
        return Begins(node.lhs, prepare(node.rhs, now)) if Begins.improves(node) else node

    return map_expression(expression, leaf, subqueries=True)


def prepare_queryset(queryset: QuerySet[Any], now: datetime) -> QuerySet[Any]:
    """`queryset` with its filters and annotations as `prepare` makes them."""
    clone = queryset.all()
    clone.query = prepare(clone.query, now)
    return clone


class NamedRow(Subquery):
    """The key of one row that a rule names: the same for all records, so that the database looks it up once a statement.

    words: what it is the key of.
    """

    is_constant = True
    """No record has another, so that rows of another key are none of the rule's."""

    def __init__(self, rows: QuerySet[Any], words: str) -> None:
        self.words = words
        self._rows = rows.order_by("pk")
        super().__init__(self._rows.values("pk")[:1])

    def in_words(self, model: type[Model] | None) -> str:  # noqa: ARG002
        """What it is the key of."""
        return self.words

    def refusal(self, using: str) -> Refusal | None:
        """Why it names no row, or more than one; None if it names one. One statement."""
        found = self._rows.using(using)[:2].count()
        if found == 1:
            return None
        label = self._rows.model._meta.label
        if found:
            return Refusal(
                f'{self.words} is more than one {label}. Name it by a Subquery: Subquery({label.rpartition(".")[2]}.objects.filter(…).values("pk")[:1]).'
            )
        return Refusal(
            f"There isn't {self.words} on {using!r}, so that no record would owe anything. Is the name right, and is everything migrated?"
        )


def nodes_in(node: Any, *, until: tuple[type, ...] = (), subqueries: bool = False) -> Iterator[Any]:
    """Yield the nodes of an expression tree, top first; of a Q also its pairs of path and value.

    until: kinds of node below which nothing is visited. subqueries: visit their conditions and annotations, too; without
    it a subquery is one node.
    """
    yield node
    if isinstance(node, until):
        return
    for each in _parts(node, subqueries=subqueries):
        yield from nodes_in(each, until=until, subqueries=subqueries)


def _parts(node: Any, *, subqueries: bool) -> Iterable[Any]:
    if isinstance(node, QuerySet):
        return (node.query,) if subqueries else ()
    if isinstance(node, Query):
        return (where_of(node), *annotations_of(node).values()) if subqueries else ()
    if isinstance(node, Q):
        return node.children
    if _is_pair(node):
        # Of several values each is a part; among them no pair is one of path and value.
        values = node[1] if isinstance(node[1], tuple | list) else [node[1]]
        return [value for value in values if not isinstance(value, tuple)]
    if hasattr(node, "get_source_expressions"):
        parts: Iterable[Any] = node.get_source_expressions()
        return parts
    return ()


def _is_pair(node: Any) -> bool:
    """Whether it is a path with what a Q compares it with."""
    return isinstance(node, tuple) and len(node) == 2 and isinstance(node[0], str)  # noqa: PLR2004


def names_in(expression: Any) -> Iterator[str]:
    """The field paths that the expression names, as `F` and `Q` spell them."""
    for node in nodes_in(expression):
        if isinstance(node, F):
            yield path_of(node)
        elif _is_pair(node):
            yield node[0]


def outer_names_in(query: Query) -> Iterator[str]:
    """The paths of the row around the query that its conditions name."""
    return (path_of(node) for node in nodes_in(where_of(query)) if column_of_outer_query(node))


def aggregates_in(expression: Any) -> Iterator[Aggregate]:
    """The aggregates of an unresolved expression, outermost first; those in the conditions of a Q aside."""
    return (node for node in nodes_in(expression, until=(Aggregate, Q)) if isinstance(node, Aggregate))


def conjuncts(*conditions: Any) -> Iterator[Any]:
    """Yield the conditions that must all hold: what AND joins is taken apart."""
    for each in conditions:
        if (
            isinstance(each, WhereNode)
            and not each.negated
            and (each.connector == AND or len(each.children) == 1)
        ):
            yield from conjuncts(*each.children)
        else:
            yield each


def joins(query: Query) -> bool:
    """True if the query reads another table beside its own."""
    return len(tables_read(query)) > 1


def joins_to_many(query: Query) -> bool:
    """True if the query may yield a record more than once: a join to many rows, or a DISTINCT that hides one."""
    if is_distinct(query):
        return True
    joins = map(relation_joined, tables_of(query).values())
    return any(join is not None and not (join.many_to_one or join.one_to_one) for join in joins)


def joins_whole(query: Query) -> bool:
    """True if the query joins a table of which nothing says which part is needed."""
    return any(map(is_whole_table, tables_read(query).values()))


def reads_alone(queryset: QuerySet[Any]) -> bool:
    """Whether a row of the queryset is told by its own columns: no join, and no subquery in its conditions."""
    query = queryset.query
    return len(tables_of(query)) <= 1 and not _has_subquery(where_of(query))


def reads_itself(queryset: QuerySet[Any]) -> bool:
    """Whether what the queryset selects of a row, and by which conditions, stands in that row; not in others of its table."""
    query = queryset.query
    parts = (where_of(query), *annotations_of(query).values())
    return not joins(query) and not any(map(_has_subquery, parts))


def _has_subquery(node: Any) -> bool:
    return any(isinstance(each, Query) for each in nodes_in(node))


def columns_of(model: type[Model]) -> frozenset[Column]:
    """All columns of the model: what a row that comes or goes changes."""
    concrete = concrete_model(model)
    return frozenset((concrete, field.attname) for field in concrete._meta.concrete_fields)


def columns_read(queryset: QuerySet[Any]) -> frozenset[Column]:
    """The columns that a queryset selects, or its conditions, annotations, joins and orders read; subqueries' too."""
    return frozenset(_columns_of_query(queryset.query, own=frozenset()))


def columns_read_of_others(queryset: QuerySet[Any]) -> frozenset[Column]:
    """Those that are read in other rows than the one that is selected: joined ones, and those of subqueries.

    The rows of an inherited model's parents belong to the row itself.
    """
    return frozenset(_columns_of_query(queryset.query, own=_own_aliases(queryset.query)))


def _own_aliases(query: Query) -> frozenset[str]:
    """The aliases of the query's own table and of its parents'."""
    own = {base_alias(query)}
    for alias, table in tables_of(query).items():
        if is_parent_join(table) and table.parent_alias in own:
            own.add(alias)
    return frozenset(own)


def _columns(node: Any, own: frozenset[str]) -> Iterator[Column]:
    for each in nodes_in(node):
        if isinstance(each, Col):
            if each.alias not in own:
                yield _column(each.target)
        elif isinstance(each, Query):
            # What an alias of its own names is another row.
            yield from _columns_of_query(each, own - tables_of(each).keys())


def _columns_of_query(query: Query, own: frozenset[str]) -> Iterator[Column]:
    for node in (
        where_of(query),
        *columns_selected(query),
        *annotations_of(query).values(),
        *_ordering(query),
    ):
        yield from _columns(node, own)
    used = tables_read(query)
    for alias, join in tables_of(query).items():
        # A join to a key that the column itself holds has been trimmed away, and isn't in the SQL.
        for pair in columns_joined(join) if alias in used else ():
            for side, field in zip((join.parent_alias, alias), pair, strict=True):
                if isinstance(field, Field) and side not in own:
                    yield _column(field)
        yield from _columns(join_condition(join), own)
        derived = getattr(join, "query", None)
        if isinstance(derived, Query):
            yield from _columns_of_query(derived, own - tables_of(derived).keys())


def _ordering(query: Query) -> Iterator[Any]:
    """What the query is ordered by; only a name that leads nowhere is left out."""
    for each in ordering_of(query):
        term: Any = F(each.removeprefix("-")) if isinstance(each, str) else each
        with suppress(FieldError):
            yield term.resolve_expression(copy_query(query))


def _column(field: Field[Any, Any]) -> Column:
    return (concrete_model(field.model), field.attname)
