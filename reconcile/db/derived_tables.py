"""A left join with a derived table, `LEFT JOIN (SELECT …) ON (…)`: the ORM renders such a join, but doesn't build it.

What is derived is read once for all records in scope, where a correlated subquery would be run once for each.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from django.db.models import Field, QuerySet

from reconcile.db.columns import stored_field
from reconcile.db.comparisons import Same
from reconcile.db.django_compat import (
    AND,
    LOUTER,
    SQL,
    BaseDatabaseWrapper,
    Col,
    Query,
    SQLCompiler,
    WhereNode,
    base_alias,
    compiler_of,
    join_table,
    quote_alias,
    selected_annotations,
    tables_of,
)

__all__ = ["DerivedColumn", "DerivedTable", "left_join"]


class DerivedColumn(Col):
    """A column of a derived table."""

    @property
    def identity(self) -> tuple[Any, ...]:
        """Alias and name; that of `Col` takes two columns of one type for the same."""
        return (type(self), self.alias, self.target.column)


class DerivedTable:
    """An entry of `Query.alias_map`, with what Django asks of one."""

    join_type = LOUTER
    nullable = True
    filtered_relation = None

    def __init__(
        self, *, query: Query, on: WhereNode, table_name: str, table_alias: str, parent_alias: str
    ) -> None:
        self.query = query
        # What Django knows the entry by; the alias changes where the query becomes a subquery.
        self.table_name = table_name
        self.on = on
        self.table_alias = table_alias
        self.parent_alias = parent_alias

    def as_sql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> SQL:
        """The join clause and its parameters."""
        inner, params = compiler_of(self.query, connection).as_sql()
        on, more = self.on.as_sql(compiler, connection)
        alias = quote_alias(compiler, self.table_alias)
        return f"{self.join_type} ({inner}) {alias} ON ({on})", (*params, *more)

    def relabeled_clone(self, change_map: dict[str | None, str]) -> DerivedTable:
        """The same join under other aliases. The derived table itself has aliases of its own."""
        return DerivedTable(
            query=self.query,
            on=self.on.relabeled_clone(change_map),
            table_name=self.table_name,
            table_alias=change_map.get(self.table_alias, self.table_alias),
            parent_alias=change_map.get(self.parent_alias, self.parent_alias),
        )

    def promote(self) -> DerivedTable:
        """It is an outer join already."""
        return self

    demote = promote


def left_join(
    records: QuerySet[Any, Any], table: QuerySet[Any, Any], on: Mapping[str, tuple[Field[Any, Any], Any]]
) -> tuple[QuerySet[Any, Any], dict[str, DerivedColumn]]:
    """`records`, each joined with the row of `table` that belongs to it; and the columns of `table`, by name.

    `table` is a `values()` queryset of annotations alone, with one row at most for each set of values of the
    columns in `on`. `on` gives for each of these a field of its type and the expression over the record that
    it equals.
    """
    joined = records.all()
    query = joined.query
    parent = base_alias(query)
    alias = f"_derived_{len(tables_of(query))}"
    columns = {
        name: DerivedColumn(alias, _target(table, name, annotation.output_field))
        for name, annotation in selected_annotations(table.query).items()
    }
    condition = WhereNode()
    for name, (field, value) in on.items():
        condition.add(Same(columns[name], value, field=field).resolve_expression(query), AND)
    # Resolving may have joined what the expressions lead over; this join comes after those.
    entry = DerivedTable(
        query=table.query, on=condition, table_name=alias, table_alias=alias, parent_alias=parent
    )
    join_table(query, entry)
    return joined, columns


def _target(table: QuerySet[Any, Any], name: str, field: Field[Any, Any]) -> Field[Any, Any]:
    """A field that stands for a column of the derived table."""
    target = copy.copy(stored_field(field))
    target.model = table.model
    target.name = target.attname = target.column = name
    # Django groups by a primary key alone; a derived table's columns depend on none.
    target.primary_key = False
    return target
