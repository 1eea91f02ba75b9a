"""By which columns a statement looks up the rows of a table, over and over: joins, correlations, ranges of keys.

Worked out from the compiled query, so that whatever wrote it is served. The table that a statement walks
through is none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import EmptyResultSet, FullResultSet
from django.db.models import Field, QuerySet
from django.db.models.expressions import Col
from django.db.models.lookups import Exact, GreaterThan, IsNull, LessThanOrEqual
from django.db.models.sql.compiler import SQLCompiler
from django.db.models.sql.query import Query
from django.db.models.sql.where import AND, WhereNode

from reconcile.sql.lookups import Same
from reconcile.sql.printing import Symbol

__all__ = ["Link", "links_of"]


@dataclass(frozen=True, kw_only=True)
class Link:
    """The columns by which a statement looks up rows of `table`.

    fixed: names of further columns that it compares with constants, so that an index may begin with them.
    """

    table: str
    fields: tuple[Field[Any, Any], ...]
    fixed: frozenset[str]


@dataclass
class _Sought:
    """What a query asks of one of its tables."""

    fields: list[Field[Any, Any]] = field(default_factory=list)
    fixed: set[str] = field(default_factory=set)

    def by(self, column: Any) -> None:
        if isinstance(column, Field) and column not in self.fields:
            self.fields.append(column)


def links_of(queryset: QuerySet[Any, Any]) -> tuple[Link, ...]:
    """The links of the queryset and of its subqueries, each once. A bound of a range is known by its being a Symbol."""
    compiler = queryset.query.get_compiler(queryset.db)
    return tuple(dict.fromkeys(_links(queryset.query, compiler)))


def _links(node: Any, compiler: SQLCompiler) -> Iterator[Link]:
    if isinstance(node, Query):
        yield from _links_of_query(node, compiler)
        for inner in (node.where, *node.annotation_select.values(), *node.combined_queries):
            yield from _links(inner, compiler)
    elif hasattr(node, "get_source_expressions"):
        for each in node.get_source_expressions():
            yield from _links(each, compiler)


def _links_of_query(query: Query, compiler: SQLCompiler) -> Iterator[Link]:
    used = [alias for alias in query.alias_map if query.alias_refcount.get(alias)]
    sought = {alias: _Sought() for alias in used}
    for alias in used:
        _note_join(query.alias_map[alias], sought[alias])
    for condition in _conditions([query.where, *map(_restriction, map(query.alias_map.get, used))]):
        _note_condition(condition, sought, compiler)
    for alias, each in sought.items():
        if each.fields:
            table = query.alias_map[alias].table_name
            yield Link(table=str(table), fields=tuple(each.fields), fixed=frozenset(each.fixed))


def _note_join(join: Any, sought: _Sought) -> None:
    for _, column in getattr(join, "join_fields", None) or ():
        sought.by(column)


def _restriction(join: Any) -> Any:
    """What a join asks beside its columns: the content type, where a generic relation is followed."""
    relation = getattr(join, "join_field", None)
    return relation and relation.get_extra_restriction(join.table_alias, join.parent_alias)


def _conditions(nodes: Iterable[Any]) -> Iterator[Any]:
    """The conditions that must all hold; an alternative leads to no row by itself."""
    for node in nodes:
        if not isinstance(node, WhereNode):
            yield node
        elif not node.negated and (node.connector == AND or len(node.children) == 1):
            yield from _conditions(node.children)


def _note_condition(condition: Any, sought: dict[str, _Sought], compiler: SQLCompiler) -> None:
    if isinstance(condition, Exact | Same):
        for side, other in ((condition.lhs, condition.rhs), (condition.rhs, condition.lhs)):
            _note_equality(side, other, sought, compiler)
    elif isinstance(condition, IsNull) and condition.rhs:
        _note_equality(condition.lhs, None, sought, compiler)
    elif isinstance(condition, GreaterThan | LessThanOrEqual) and isinstance(condition.rhs, Symbol):
        column = _own_column(condition.lhs, sought, compiler)
        if column is not None:
            sought[column.alias].by(column.target)


def _note_equality(side: Any, other: Any, sought: dict[str, _Sought], compiler: SQLCompiler) -> None:
    column = _own_column(side, sought, compiler)
    if column is None:
        return
    nodes = list(_leaves(other))
    if any(isinstance(node, Query) for node in nodes):
        return
    aliases = {node.alias for node in nodes if isinstance(node, Col)}
    if not aliases:
        sought[column.alias].fixed.add(str(column.target.column))
    elif not aliases & sought.keys():
        sought[column.alias].by(column.target)


def _own_column(side: Any, sought: dict[str, _Sought], compiler: SQLCompiler) -> Col | None:
    """The column that `side` is, if it is one of the query's own and stands bare, so that an index of it serves."""
    columns = [node for node in _leaves(side) if isinstance(node, Col)]
    if len(columns) != 1 or columns[0].alias not in sought:
        return None
    try:
        bare = compiler.compile(side)[0] == compiler.compile(columns[0])[0]
    except (EmptyResultSet, FullResultSet):
        return None
    return columns[0] if bare else None


def _leaves(node: Any) -> Iterator[Any]:
    if isinstance(node, Query | Col):
        yield node
    elif hasattr(node, "get_source_expressions"):
        for each in node.get_source_expressions():
            yield from _leaves(each)
