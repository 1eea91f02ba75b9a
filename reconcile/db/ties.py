"""Which tables a SELECT reads, and how the rows of each are tied to those of others by foreign keys.

A row is tied to another by a join, by an equality that all rows of its query must meet, or by being among the keys of a subquery. What is
tied by anything else than a foreign key is not tied here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps
from django.db.models import Field, ForeignKey, Model, QuerySet
from django.db.models.lookups import Exact, In

from reconcile.db.columns import concrete_model
from reconcile.db.comparisons import AmongRows, AsStored, Bytewise, Same
from reconcile.db.derived_tables import DerivedColumn, DerivedTable
from reconcile.db.django_compat import (
    AND,
    Col,
    Query,
    WhereNode,
    annotations_of,
    base_alias,
    columns_joined,
    columns_selected,
    join_condition,
    referred_field,
    selected_annotations,
    table_name,
    tables_of,
    tables_read,
    where_of,
)
from reconcile.db.expressions import nodes_in

__all__ = ["KeyStep", "TableRead", "Ties", "ties_of"]


@dataclass(frozen=True, slots=True)
class KeyStep:
    """A foreign key, from the rows that refer to those that they refer to, or back."""

    key: ForeignKey[Any, Any]
    back: bool


@dataclass(eq=False)
class TableRead:
    """A table where a SELECT reads it, with the tables whose rows it is tied to, and the foreign keys between."""

    model: type[Model]
    tied: list[tuple[TableRead, Sequence[KeyStep]]] = field(default_factory=list)

    def ways_to(self, goals: Sequence[TableRead]) -> Iterator[Sequence[KeyStep]]:
        """The shortest way to each of the goals that it is tied to."""
        ways: dict[TableRead, Sequence[KeyStep]] = {self: ()}
        ahead = [self]
        while ahead:
            here = ahead.pop(0)
            for there, steps in here.tied:
                if there not in ways:
                    ways[there] = (*ways[here], *steps)
                    ahead.append(there)
        yield from (ways[goal] for goal in goals if goal in ways)


@dataclass
class Ties:
    """The tables that a SELECT reads; the first is that of its own rows."""

    tables: list[TableRead] = field(default_factory=list)
    models: Mapping[str, type[Model]] = field(default_factory=dict)
    _members: dict[int, Mapping[str, TableRead]] = field(default_factory=dict)

    def visit(self, query: Query, outside: Mapping[str, TableRead]) -> Mapping[str, TableRead]:
        """Add the tables of the query and of all queries in it. Returns them by their aliases."""
        own = self._tables_of(query)
        inside = {**outside, **own}
        for alias, join in tables_of(query).items():
            if alias in own:
                self._join(alias, join, inside)
            elif isinstance(join, DerivedTable):
                self._join_derived(join, inside)
        for equality in _conjuncts(where_of(query)):
            self._tie_columns(equality.lhs, inside, equality.rhs, inside)
        nodes = (where_of(query), *columns_selected(query), *annotations_of(query).values())
        for node in nodes:
            self._visit_nodes(node, inside)
        return inside

    def _tables_of(self, query: Query) -> dict[str, TableRead]:
        read = {base_alias(query), *tables_read(query)}
        found = {
            alias: TableRead(self.models[table_name(table)])
            for alias, table in tables_of(query).items()
            if alias in read and table_name(table) in self.models
        }
        self.tables += found.values()
        return found

    def _join(self, alias: str, join: Any, inside: Mapping[str, TableRead]) -> None:
        for one, other in columns_joined(join):
            if join.parent_alias in inside and isinstance(one, Field) and isinstance(other, Field):
                _tie(inside[join.parent_alias], one, inside[alias], other)
        self._visit_nodes(join_condition(join), inside)

    def _join_derived(self, join: DerivedTable, inside: Mapping[str, TableRead]) -> None:
        there, columns = self.visit(join.query, {}), selected_annotations(join.query)
        for equality in _conjuncts(join.on):
            if isinstance(equality.lhs, DerivedColumn):
                self._tie_columns(equality.rhs, inside, columns[str(equality.lhs.target.column)], there)

    def _visit_nodes(self, node: Any, inside: Mapping[str, TableRead]) -> None:
        if node is None:
            return
        for each in nodes_in(node):
            if isinstance(each, Query):
                self._members[id(each)] = self.visit(each, inside)
        for each in nodes_in(node):
            if isinstance(each, In | AmongRows):
                self._tie_members(each, inside)

    def _tie_members(self, membership: Any, inside: Mapping[str, TableRead]) -> None:
        """Tie the columns that must be among those which a subquery selects."""
        query = getattr(membership.rhs, "query", membership.rhs)
        if isinstance(query, Query) and id(query) in self._members:
            columns = (
                membership.lhs.get_source_expressions()
                if isinstance(membership, AmongRows)
                else [membership.lhs]
            )
            for one, other in zip(
                columns, [*columns_selected(query), *selected_annotations(query).values()], strict=False
            ):
                self._tie_columns(one, inside, other, self._members[id(query)])

    @staticmethod
    def _tie_columns(
        one: Any, inside: Mapping[str, TableRead], other: Any, there: Mapping[str, TableRead]
    ) -> None:
        one, other = _bare(one), _bare(other)
        if isinstance(one, Col) and isinstance(other, Col) and one.alias in inside and other.alias in there:
            _tie(inside[one.alias], one.target, there[other.alias], other.target)


def _bare(expression: Any) -> Any:
    """The column itself, of one that is compared as another stores it."""
    while isinstance(expression, AsStored | Bytewise):
        (expression,) = expression.get_source_expressions()
    return expression


def _conjuncts(node: Any) -> Iterator[Any]:
    if isinstance(node, WhereNode):
        if node.connector == AND and not node.negated:
            for each in node.children:
                yield from _conjuncts(each)
    elif isinstance(node, Exact | Same):
        yield node


def _tie(one: TableRead, column: Field[Any, Any], other: TableRead, its: Field[Any, Any]) -> None:
    steps = _steps(column, its)
    if steps is not None:
        one.tied.append((other, steps))
        other.tied.append((one, [KeyStep(each.key, not each.back) for each in reversed(steps)]))


def _steps(one: Field[Any, Any], other: Field[Any, Any]) -> Sequence[KeyStep] | None:
    """The foreign keys by which equal values of the columns tie rows; None if they don't."""
    if isinstance(one, ForeignKey) and _is_same(referred_field(one), other):
        return [KeyStep(one, back=False)]
    if isinstance(other, ForeignKey) and _is_same(referred_field(other), one):
        return [KeyStep(other, back=True)]
    if (
        isinstance(one, ForeignKey)
        and isinstance(other, ForeignKey)
        and _is_same(referred_field(one), referred_field(other))
    ):
        return [KeyStep(one, back=False), KeyStep(other, back=True)]
    return [] if one.primary_key and _is_same(one, other) else None


def _is_same(one: Field[Any, Any], other: Field[Any, Any]) -> bool:
    return concrete_model(one.model) is concrete_model(other.model) and one.column == other.column


def ties_of(queryset: QuerySet[Any]) -> Ties:
    """The tables that the queryset reads, tied as far as foreign keys tie them."""
    models = {
        model._meta.db_table: concrete_model(model) for model in apps.get_models(include_auto_created=True)
    }
    ties = Ties(models=models)
    ties.visit(queryset.query, {})
    return ties
