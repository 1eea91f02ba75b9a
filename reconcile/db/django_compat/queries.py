"""Queries, compilers and expressions: what is asked of a queryset, and of an expression, that somebody else has written."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db.models import Field, Model, OrderBy, QuerySet
from django.db.models.constants import (
    LOOKUP_SEP,  # What stands between the parts of a path, `__`.
)
from django.db.models.deletion import (
    Collector,  # What a delete gathers rows with, and asks whether it must read them.
)
from django.db.models.expressions import (
    Col,  # What a resolved expression has for a column.
    CombinedExpression,  # Arithmetic, which is put into words and looked through.
    NegatedExpression,  # A `~` before an expression, which is put into words and looked through.
    ResolvedOuterRef,  # What an OuterRef is while the query around is not yet known.
    Sliced,  # `F("name")[:3]`, which is put into words.
)
from django.db.models.functions.text import (
    ConcatPair,  # What Django makes of a Concat of several; nobody has written it.
)
from django.db.models.sql.compiler import (
    SQLCompiler,  # The type of what each as_sql() is given first.
)
from django.db.models.sql.constants import (
    LOUTER,  # How a derived table is joined.
)
from django.db.models.sql.datastructures import Join
from django.db.models.sql.query import (
    Query,  # What a queryset compiles, and what a subquery holds.
)
from django.db.models.sql.where import (
    AND,  # The connector of conditions that must all hold.
    ExtraWhere,  # What extra() has put into a filter.
    NothingNode,  # The filter of none().
    WhereNode,  # A resolved filter, which is compared, looked through and built.
)

from reconcile.db.django_compat.connections import BaseDatabaseWrapper

__all__ = [
    "AND",
    "LOOKUP_SEP",
    "LOUTER",
    "SQL",
    "Col",
    "CombinedExpression",
    "ConcatPair",
    "NegatedExpression",
    "NothingNode",
    "Query",
    "QueryShape",
    "SQLCompiler",
    "Selection",
    "Sliced",
    "WhereNode",
    "annotations_of",
    "base_alias",
    "column_of_outer_query",
    "columns_joined",
    "columns_selected",
    "combined_queries",
    "compile_expression",
    "compiler_of",
    "constructor_arguments",
    "copy_expression",
    "copy_query",
    "deletes_unread",
    "extra_sql",
    "filter_exactly",
    "filtered_relation_of",
    "is_aggregate_condition",
    "is_distinct",
    "is_never_missing",
    "is_parent_join",
    "is_whole_table",
    "join_condition",
    "join_restriction",
    "join_table",
    "ordering_of",
    "output_field_of",
    "python_source",
    "quote_alias",
    "raw_delete",
    "relation_joined",
    "rewrite_query",
    "rows_of_query",
    "selected_annotations",
    "selection_of",
    "shape_of",
    "slice_of",
    "slice_of_query",
    "split_lookup",
    "table_it_reads_from",
    "table_name",
    "tables_of",
    "tables_read",
    "ungroup",
    "where_of",
]


def tables_of(query: Query) -> Mapping[str, Any]:
    """`alias_map`: the tables of the query by alias, the SQL's joins and those that Django has trimmed away."""
    return query.alias_map


def tables_read(query: Query) -> dict[str, Any]:
    """`alias_refcount`: those of `tables_of` that stand in the SQL."""
    references = query.alias_refcount
    return {alias: table for alias, table in query.alias_map.items() if references.get(alias)}


def base_alias(query: Query) -> str:
    """`get_initial_alias()`: the alias of the query's own table, to which a derived one is joined."""
    return query.get_initial_alias()


def join_table(query: Query, table: Any) -> None:
    """`Query.join()`: join a table that the ORM renders, but doesn't build."""
    query.join(table)


def table_name(table: Any) -> str:
    """`table_name`: what the database calls one of `tables_of`, to find its indexes."""
    return str(table.table_name)


def relation_joined(table: Any) -> Any:
    """`join_field`: the relation that one of `tables_of` is joined by; None for the query's own table."""
    return getattr(table, "join_field", None)


def columns_joined(table: Any) -> tuple[tuple[Any, Any], ...]:
    """`join_fields`: the pairs of columns that one of `tables_of` is joined on; none for the query's own table."""
    return getattr(table, "join_fields", None) or ()


def join_restriction(table: Any) -> Any:
    """`get_extra_restriction()`: what a join asks beside its columns: the content type, of a generic relation."""
    relation = relation_joined(table)
    return relation and relation.get_extra_restriction(table.table_alias, table.parent_alias)


def is_parent_join(table: Any) -> bool:
    """`parent_link`: whether one of `tables_of` holds the same row's columns, of a model that it inherits from."""
    referred = getattr(relation_joined(table), "remote_field", None)
    return bool(getattr(referred, "parent_link", False))


def is_whole_table(table: Any) -> bool:
    """`Join.filtered_relation`: whether one of `tables_of` is joined with nothing that says which part is needed."""
    return isinstance(table, Join) and table.filtered_relation is None


def is_never_missing(compiler: SQLCompiler, alias: str) -> bool:
    """`join_type`: whether each row that is compiled has a row of the table: it is joined, and not by an outer join."""
    table: Any = compiler.query.alias_map.get(alias)
    return table is not None and table.join_type != LOUTER


def join_condition(table: Any) -> Any:
    """`resolved_condition`: what a FilteredRelation says of the rows joined, which reads columns too; None for others."""
    return getattr(getattr(table, "filtered_relation", None), "resolved_condition", None)


def filtered_relation_of(table: Any) -> Any:
    """`Join.filtered_relation`: the FilteredRelation that one of `tables_of` is joined by; None for others."""
    return getattr(table, "filtered_relation", None)


def table_it_reads_from(query: Query) -> tuple[str, type[Model] | None]:
    """`alias_refcount`, `parent_alias`: the alias and the model of the table that the SQL begins with.

    Where `exclude` goes over many rows, Django makes a subquery whose own table it has trimmed away; its `model` is that of the trimmed one.
    """
    first = next((alias for alias, table in tables_read(query).items() if table.parent_alias is None), None)
    if first is None or query.model is None:
        return base_alias(query), query.model
    name = table_name(tables_of(query)[first])
    if name == query.model._meta.db_table:
        return first, query.model
    known = (each for each in apps.get_models(include_auto_created=True) if each._meta.db_table == name)
    return first, next(known, query.model)


def where_of(query: Query) -> Any:
    """`Query.where`: the resolved filter, to compare it, look through it and put it into words."""
    return query.where


def annotations_of(query: Query) -> Mapping[str, Any]:
    """`Query.annotations`: the resolved annotations and aliases by name, whose types are asked for."""
    return query.annotations


def selected_annotations(query: Query) -> Mapping[str, Any]:
    """`annotation_select`: those of `annotations_of` that are selected."""
    return query.annotation_select


def columns_selected(query: Query) -> tuple[Any, ...]:
    """`Query.select`: the columns that values() or only() names."""
    return tuple(query.select)


def ordering_of(query: Query) -> tuple[Any, ...]:
    """`Query.order_by`: what order_by() was given; `QuerySet.ordered` counts `Meta.ordering` as well."""
    return tuple(query.order_by)


def slice_of_query(query: Query) -> tuple[int, int | None]:
    """`low_mark`, `high_mark`: which of the rows the query has, from 0 on, and to before which."""
    return query.low_mark, query.high_mark


def rows_of_query(query: Query) -> QuerySet[Any, Any]:
    """The queryset of a subquery, by its model's base manager."""
    model: Any = query.model
    rows: QuerySet[Any, Any] = model._base_manager.all()
    rows.query = query.clone()
    return rows


def combined_queries(query: Query) -> tuple[Query, ...]:
    """`combined_queries`: the parts of a union, intersection or difference."""
    return tuple(query.combined_queries)


def is_distinct(query: Query) -> bool:
    """`Query.distinct`: whether the query hides records that it finds more than once."""
    return query.distinct


@dataclass(frozen=True, kw_only=True)
class QueryShape:
    """What a queryset does beside filtering records."""

    sliced: bool
    ordered: bool
    combined: bool
    distinct_on: bool
    locking: bool
    values: bool
    grouped: bool
    windowed: bool
    extended: bool


def shape_of(queryset: QuerySet[Any, Any]) -> QueryShape:
    """`is_sliced`, `combinator`, `group_by`, `contains_over_clause` and their like, `QuerySet._fields` for values()."""
    query = queryset.query
    return QueryShape(
        sliced=query.is_sliced,
        ordered=bool(query.order_by or query.extra_order_by),
        combined=bool(query.combinator),
        distinct_on=bool(query.distinct_fields),
        locking=bool(query.select_for_update),
        values=getattr(queryset, "_fields", None) is not None,
        grouped=query.group_by is not None,
        windowed=where_of(query).contains_over_clause
        or any(each.contains_over_clause for each in annotations_of(query).values()),
        extended=bool(query.extra),
    )


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a subquery does beside filtering rows: which of them it gives, of each what, and in which order.

    low, high: rows are given from `low`, counted from 0, to before `high`. order: terms as `order_by` takes them; Meta.ordering
    where it decides which rows these are. joined_by, parts: `union` and the queries that it joins. extra, tables: SQL that extra() has added, by name, and tables.
    """

    low: int
    high: int | None
    distinct: bool
    distinct_on: tuple[str, ...]
    columns: tuple[Any, ...]
    groups: tuple[Any, ...]
    order: tuple[Any, ...]
    joined_by: str
    parts: tuple[Query, ...]
    extra: Mapping[str, Any]
    tables: tuple[str, ...]


def selection_of(query: Query) -> Selection:
    """`low_mark`, `select`, `group_by`, `combinator`, `default_ordering` and their like."""
    return Selection(
        low=query.low_mark, high=query.high_mark, distinct=query.distinct, distinct_on=tuple(query.distinct_fields),
        columns=(*query.select, *query.annotation_select.values()),
        groups=tuple(query.group_by) if isinstance(query.group_by, tuple) else (),
        order=tuple(_order_of(query)), joined_by=f"{query.combinator or ''}{' all' if query.combinator_all else ''}", parts=tuple(query.combined_queries),
        extra=query.extra, tables=tuple(query.extra_tables),
    )  # fmt: skip


def _order_of(query: Query) -> Iterator[Any]:
    terms: Any = query.extra_order_by or query.order_by
    if not terms and query.default_ordering and query.is_sliced and query.model is not None:
        terms = query.model._meta.ordering
    for term in terms:
        named = query.annotations.get(term.removeprefix("-")) if isinstance(term, str) else None
        expression = OrderBy(named, descending=term.startswith("-")) if named is not None else term
        yield expression if query.standard_ordering else _reversed(expression)


def slice_of(reference: Sliced) -> tuple[Any, int, int | None]:
    """`Sliced.obj`, `start`, `length`: what is sliced, from which character on, counted from 0, and to before which."""
    piece: Any = reference
    start = piece.start - 1
    return piece.obj, start, None if piece.length is None else start + piece.length


def _reversed(term: Any) -> Any:
    if isinstance(term, str):
        return term.removeprefix("-") if term.startswith("-") else f"-{term}"
    term = copy.copy(term) if isinstance(term, OrderBy) else OrderBy(term)
    term.reverse_ordering()
    return term


def ungroup(queryset: QuerySet[Any, Any]) -> None:
    """`Query.group_by`: take GROUP BY away, so that an aggregate of no rows is one row."""
    queryset.query.group_by = None


def filter_exactly(queryset: QuerySet[Any, Any], condition: Any) -> QuerySet[Any, Any]:
    """`Query.where`: a copy of `queryset` with one part of its resolved filter in the place of the whole."""
    part = queryset.all()
    part.query.where = WhereNode([condition])
    return part


def copy_query(query: Query) -> Query:
    """`clone()`: a copy, for what joins tables while it is resolved."""
    return query.clone()


def rewrite_query(query: Query, rewrite: Callable[[Any], Any]) -> Query:
    """A copy of `query` in which `rewrite` was applied to the filter and to each annotation, as nothing else can be."""
    clone = query.clone()
    clone.where = rewrite(clone.where)
    clone.annotations = {name: rewrite(value) for name, value in clone.annotations.items()}
    return clone


def split_lookup(query: Query, path: str) -> tuple[Sequence[str], Sequence[str]]:
    """`solve_lookup_type()`: the lookups at the end of a path, and the parts before them. Raises FieldError."""
    lookups, parts, _ = query.solve_lookup_type(path)
    return lookups, parts


def compiler_of(query: Query, connection: BaseDatabaseWrapper) -> SQLCompiler:
    """`get_compiler()`: gives SELECT and parameters apart, which `str(query)` doesn't."""
    compiler: SQLCompiler = query.get_compiler(connection=connection)
    return compiler


def quote_alias(compiler: SQLCompiler, alias: str) -> str:
    """The alias as `Col` spells it, by the name that Django 6.1 has given the method."""
    renamed: Callable[[str], str] | None = getattr(compiler, "quote_name", None)
    return renamed(alias) if renamed else compiler.quote_name_unless_alias(alias)


def raw_delete(rows: QuerySet[Any, Any], using: str) -> int:
    """`_raw_delete()`: one DELETE without reading the rows, signals or cascades; the number of rows. One statement."""
    deleted: int = rows._raw_delete(using)
    return deleted


# Expressions.

SQL = tuple[str, tuple[Any, ...]]
"""What as_sql() returns: the parameters as a tuple, which Django asks for from version 6 on."""


def compile_expression(compiler: SQLCompiler, node: Any) -> SQL:
    """`SQLCompiler.compile()`: SQL and parameters of a part, as a tuple where Django still makes a list."""
    sql, params = compiler.compile(node)
    return sql, tuple(params)


def copy_expression(node: Any) -> Any:
    """`copy()`: a copy that set_source_expressions() may be called on; a Func's shares no list with the original."""
    return node.copy() if hasattr(node, "copy") else copy.copy(node)


def column_of_outer_query(reference: Any) -> bool:
    """`ResolvedOuterRef`: whether a path is one of the row around the subquery in which it stands."""
    return isinstance(reference, ResolvedOuterRef)


def output_field_of(value: Any) -> Field[Any, Any] | None:
    """`_output_field_or_none`: the type of an expression; None where it has none yet, for which `output_field` raises."""
    found: Field[Any, Any] | None = getattr(value, "_output_field_or_none", None)
    return found


def extra_sql(node: Any) -> tuple[Sequence[str], Sequence[Any]] | None:
    """`ExtraWhere`: the SQL that extra() has put into a filter, and its parameters; None for anything else."""
    return (node.sqls, node.params or ()) if isinstance(node, ExtraWhere) else None


def constructor_arguments(value: Any) -> tuple[tuple[Any, ...], Mapping[str, Any]] | None:
    """`_constructor_args`: what an expression was made with; None for what Django doesn't deconstruct."""
    made: tuple[tuple[Any, ...], Mapping[str, Any]] | None = getattr(value, "_constructor_args", None)
    return made


def is_aggregate_condition(node: Any) -> bool:
    """`AggregateFilter`: since Django 6 an aggregate's condition stands in an expression of its own."""
    return type(node).__name__ == "AggregateFilter"


def deletes_unread(model: type[Model], using: str) -> bool:
    """`Collector.can_fast_delete()`: whether Django deletes a queryset of the model by one statement, without reading its rows. Costs no statement."""
    rows = model._base_manager.using(using).all()
    return bool(Collector(using=using, origin=rows).can_fast_delete(rows))


def python_source(value: Any) -> str:
    """`MigrationWriter.serialize()`: a value as a migration would write it, for a constraint to be pasted."""
    # Only who asks for a constraint pays for the import of the migrations.
    from django.db.migrations.writer import MigrationWriter

    written, _ = MigrationWriter.serialize(value)
    return written
