"""Every name of Django that its documentation doesn't describe and that we use: here and nowhere else, with a reason.

Django may change such a name in any release. `tests/db/test_django_compat.py` says for each what we rely on, and runs under
each version of Django that we support; ruff and that test keep the names out of all other modules.

Described is what the reference, the topics and the how-to guides speak of, and the feature flags of a database, to
whose source they refer. What an expression, a `Q` or a lookup is made of is read where it stands (`lhs`, `children`,
`connector`, `negated`), and so are `Options.pk`, `Options.concrete_model` and `Field.column`; the test pins these, too.

Nothing here costs a statement unless it says so.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db import connections, router
from django.db.backends.base.base import (
    BaseDatabaseWrapper,  # The type of a connection, which each as_sql() is given.
)
from django.db.backends.utils import (
    names_digest,  # The digest in a long name of a constraint, short and the same in each process.
)
from django.db.models import Field, Index, Model, OrderBy, QuerySet
from django.db.models.constants import (
    LOOKUP_SEP,  # What stands between the parts of a path, `__`.
)
from django.db.models.expressions import (
    Col,  # What a resolved expression has for a column.
    CombinedExpression,  # Arithmetic, which is put into words and looked through.
    NegatedExpression,  # A `~` before an expression, which is put into words and looked through.
    ResolvedOuterRef,  # What an OuterRef is while the query around is not yet known.
    Sliced,  # `F("name")[:3]`, which is put into words.
)
from django.db.models.fields import (
    NOT_PROVIDED,  # What db_default holds where a field has none.
)
from django.db.models.fields.reverse_related import (
    ManyToOneRel,  # The other side of a foreign key, as get_fields() lists it.
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
from django.dispatch import Signal

__all__ = [
    "AND",
    "INDEX_TYPE",
    "LOOKUP_SEP",
    "LOUTER",
    "NOT_PROVIDED",
    "SQL",
    "BaseDatabaseWrapper",
    "Col",
    "CombinedExpression",
    "ConcatPair",
    "ManyToOneRel",
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
    "begin_mode",
    "cast_type",
    "column_of_outer_query",
    "columns_joined",
    "columns_selected",
    "combined_queries",
    "compile_expression",
    "compiler_of",
    "connect",
    "constraints_in",
    "constructor_arguments",
    "copy_expression",
    "copy_query",
    "default_of",
    "driver_connection",
    "explicit_alias",
    "extra_sql",
    "filter_exactly",
    "filtered_relation_of",
    "flat_choices",
    "generic_relation_columns",
    "has_default",
    "has_pending_migrations",
    "hooks_on_commit",
    "in_transaction",
    "index_sql",
    "integer_range",
    "is_aggregate_condition",
    "is_distinct",
    "is_generic_relation",
    "is_mariadb",
    "is_migrated",
    "is_nested_in_transaction",
    "is_never_missing",
    "is_parent_join",
    "is_swapped",
    "is_whole_table",
    "join_condition",
    "join_restriction",
    "join_table",
    "managers_of",
    "many_to_many_columns",
    "many_to_many_owner",
    "mute_receivers",
    "mysql_version",
    "name_index",
    "names_digest",
    "ordering_of",
    "output_field_of",
    "own_columns",
    "own_many_to_many",
    "parent_links",
    "parents_of",
    "postgresql_version",
    "private_fields",
    "python_source",
    "quote_alias",
    "quoter",
    "raw_delete",
    "receivers_of",
    "referred_field",
    "relation_joined",
    "reverse_name",
    "reverse_relations",
    "rewrite_query",
    "selected_annotations",
    "selection_of",
    "settings_of",
    "shape_of",
    "slice_of",
    "split_lookup",
    "stand_in_for_server",
    "stored_tables",
    "subtract_times",
    "table_it_reads_from",
    "table_name",
    "table_names",
    "tables_of",
    "tables_read",
    "ungroup",
    "where_of",
    "write_in_values",
]


# Queries: what is asked of a queryset that somebody else has written.


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


def python_source(value: Any) -> str:
    """`MigrationWriter.serialize()`: a value as a migration would write it, for a constraint to be pasted."""
    # Only who asks for a constraint pays for the import of the migrations.
    from django.db.migrations.writer import MigrationWriter

    written, _ = MigrationWriter.serialize(value)
    return written


# Models and fields.


def own_columns(model: type[Model]) -> Sequence[Field[Any, Any]]:
    """`local_concrete_fields`: the columns of the model's own table, without its parents' and in their order."""
    return model._meta.local_concrete_fields


def own_many_to_many(model: type[Model]) -> Sequence[Any]:
    """`local_many_to_many`: the many-to-many fields that the model itself declares."""
    return model._meta.local_many_to_many


def private_fields(model: type[Model]) -> Sequence[Any]:
    """`private_fields`: generic foreign keys and relations, also where content types aren't installed."""
    return model._meta.private_fields


def reverse_relations(model: type[Model]) -> Sequence[Any]:
    """`related_objects`: the relations from other models, with what get_fields() adds to them left out."""
    return model._meta.related_objects


def managers_of(model: type[Model]) -> Sequence[Any]:
    """`Options.managers`: the managers of the model, its parents' among them."""
    return list(model._meta.managers)


def parents_of(model: type[Model]) -> Sequence[type[Model]]:
    """`get_parent_list()`: the models over whose tables a row is spread, nearest first."""
    return list(model._meta.get_parent_list())


def parent_links(model: type[Model]) -> list[Field[Any, Any]]:
    """`Options.parents`: the columns by which a row continues one of another table."""
    return [link for link in model._meta.parents.values() if link is not None]


def is_swapped(model: type[Model]) -> bool:
    """`Options.swapped`: whether a setting puts another model in this one's place, so that it has no table."""
    return bool(model._meta.swapped)


def many_to_many_owner(model: type[Model]) -> type[Model] | None:
    """`Options.auto_created`: the model for whose many-to-many field Django made this one; None for any other."""
    # The stubs take what Django sets for a flag.
    owner: Any = model._meta.auto_created
    return owner or None


def many_to_many_columns(field: Any) -> tuple[str, str]:
    """`m2m_field_name()`, `m2m_reverse_field_name()`: the foreign keys to the field's own model and to the other."""
    return field.m2m_field_name(), field.m2m_reverse_field_name()


def reverse_name(field: Any) -> str:
    """`related_query_name()`: what a path from the other side calls a relation."""
    return str(field.related_query_name())


def flat_choices(field: Any) -> Sequence[tuple[Any, Any]]:
    """`flatchoices`: values and labels of a column's choices, out of their groups; none for a column without."""
    return getattr(field, "flatchoices", None) or ()


def generic_relation_columns(relation: Any) -> tuple[str, str]:
    """`content_type_field_name`, `object_id_field_name`: the columns that a GenericRelation is followed by."""
    return relation.content_type_field_name, relation.object_id_field_name


def is_generic_relation(field: Any) -> bool:
    """`object_id_field_name`: whether it is a GenericRelation, also where content types aren't installed."""
    return hasattr(field, "object_id_field_name")


def referred_field(field: Any) -> Any:
    """`target_field`: the column that a foreign key points at, by no other name to be had; None for any other field."""
    return getattr(field, "target_field", None)


def has_default(field: Field[Any, Any]) -> bool:
    """`Field.has_default()`: whether default= was given; None may be given, too."""
    return field.has_default()


def default_of(field: Field[Any, Any]) -> Any:
    """`Field.get_default()`: what save() would store where nothing was given: the default, an empty text or None."""
    return field.get_default()


def cast_type(field: Field[Any, Any], connection: BaseDatabaseWrapper) -> str:
    """`cast_db_type()`: the column's type as CAST takes it, without what only CREATE TABLE takes."""
    return str(field.cast_db_type(connection))


# Indexes.

INDEX_TYPE = Index.suffix
"""`Index.suffix`: the type by which `constraints_in` names a plain index on SQLite."""


def name_index(index: Index, model: type[Model]) -> None:
    """`set_name_with_model()`: give the index the name that Django would give it in a migration."""
    index.set_name_with_model(model)


def index_sql(index: Index, model: type[Model], connection: BaseDatabaseWrapper, **options: Any) -> str:
    """`Index.create_sql()`: the statement that would make the index, for people to run."""
    # Outside its own `with` the editor only words statements.
    return str(index.create_sql(model, connection.schema_editor(), **options))


def constraints_in(connection: BaseDatabaseWrapper, table: str) -> Mapping[str, Mapping[str, Any]]:
    """`introspection.get_constraints()`: the table's keys, indexes and constraints by name. A few statements."""
    with connection.cursor() as cursor:
        return connection.introspection.get_constraints(cursor, table)


def stored_tables(connection: BaseDatabaseWrapper) -> frozenset[str]:
    """`introspection.get_table_list()`: the tables that there are, partitioned ones too, views not. One statement."""
    with connection.cursor() as cursor:
        listed = connection.introspection.get_table_list(cursor)
    return frozenset(each.name for each in listed if each.type in {"t", "p"})


def table_names(connection: BaseDatabaseWrapper) -> Sequence[str]:
    """`introspection.table_names()`: whether our own tables were made. One statement."""
    return connection.introspection.table_names()


# Connections: what hand-made SQL and the protocol need to know.


def quoter(connection: BaseDatabaseWrapper) -> Callable[[str], str]:
    """`ops.quote_name()`: the function that quotes a name for this database."""
    return connection.ops.quote_name


def subtract_times(connection: BaseDatabaseWrapper, kind: str, lhs: Any, rhs: Any) -> tuple[str, Any]:
    """`ops.subtract_temporals()`: SQL and parameters of a difference of two times, as the ORM words it."""
    return connection.ops.subtract_temporals(kind, lhs, rhs)


def integer_range(connection: BaseDatabaseWrapper, kind: str) -> tuple[int | None, int | None]:
    """`ops.integer_field_range()`: the least and the largest that an integer column holds; None if nothing limits it."""
    return connection.ops.integer_field_range(kind)


def write_in_values(connection: BaseDatabaseWrapper, sql: str, params: Sequence[Any]) -> str:
    """`ops.compose_sql()` of PostgreSQL: the statement with its values written in."""
    written: str = connection.ops.compose_sql(sql, tuple(params))  # type: ignore[attr-defined]
    return written


def driver_connection(connection: BaseDatabaseWrapper) -> Any:
    """`connection.connection`: the driver's own connection; None if none is open."""
    return connection.connection


def has_pending_migrations(connection: BaseDatabaseWrapper) -> bool:
    """`MigrationExecutor.migration_plan()`: whether `migrate` would change the database. Two statements. Raises its error."""
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connection)
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def connect(connection: BaseDatabaseWrapper) -> None:
    """`ensure_connection()`: connect now, so that a database that can't be reached is told here. Raises its error."""
    connection.ensure_connection()


def settings_of(connection: BaseDatabaseWrapper) -> Mapping[str, Any]:
    """`settings_dict`: host and name of the database that is really used, which a test's may differ from."""
    return connection.settings_dict


def in_transaction(using: str) -> bool:
    """`in_atomic_block`: whether an atomic() of the caller's is open, which only the caller can try again."""
    return connections[using].in_atomic_block


def explicit_alias(queryset: QuerySet[Any]) -> str | None:
    """`_db`: the database that somebody has chosen for the queryset by `using()`; None if a router chooses."""
    alias: str | None = queryset._db  # type: ignore[attr-defined]
    return alias


def is_nested_in_transaction(using: str) -> bool:
    """`atomic_blocks`: whether an atomic() is open that is not a test case's, so that a durable one can't be begun."""
    return any(not getattr(block, "_from_testcase", False) for block in connections[using].atomic_blocks)


def hooks_on_commit(using: str) -> list[Any]:
    """`run_on_commit`: what is to be done after COMMIT, as (savepoints, function, robust); the list itself."""
    hooks: list[Any] = connections[using].run_on_commit
    return hooks


@contextmanager
def begin_mode(connection: BaseDatabaseWrapper, mode: str) -> Iterator[None]:
    """`transaction_mode`: on SQLite, the word after BEGIN, which the settings give for all transactions alike."""
    wrapper: Any = connection
    # Connecting sets the mode from the settings, so it has to come first.
    connect(wrapper)
    before = wrapper.transaction_mode
    wrapper.transaction_mode = mode
    try:
        yield
    finally:
        wrapper.transaction_mode = before


def is_mariadb(connection: BaseDatabaseWrapper) -> bool:
    """`mysql_is_mariadb`: the one vendor "mysql" is two servers, with other locks. Asks the server once."""
    wrapper: Any = connection
    return bool(wrapper.mysql_is_mariadb)


def mysql_version(connection: BaseDatabaseWrapper) -> tuple[int, ...]:
    """`mysql_version`: the isolation level's variable has another name since MariaDB 11.1. Asks the server once."""
    wrapper: Any = connection
    version: tuple[int, ...] = wrapper.mysql_version
    return version


def postgresql_version(connection: BaseDatabaseWrapper) -> int:
    """`pg_version`: 140000 for 14.0; older servers lack a setting of the chunk's. Asks the server once."""
    wrapper: Any = connection
    return int(wrapper.pg_version)


def is_utf8(connection: BaseDatabaseWrapper) -> bool:
    """Whether the PostgreSQL server keeps texts as UTF-8, as the driver was told when it connected; no if there is no session."""
    session: Any = connection.connection
    if session is None:
        return False
    read = getattr(session.info, "parameter_status", None) or session.get_parameter_status
    return read("server_encoding") in {"UTF8", b"UTF8"}


@contextmanager
def stand_in_for_server(
    connection: BaseDatabaseWrapper, facts: Mapping[str, Any], *, forgetting: Iterable[str] = ()
) -> Iterator[None]:
    """`features_class`: while statements are compiled to be read, `facts` stand in for what Django asks the server.

    `forgetting` are facts that it works out of these; it keeps them all, and its features, as attributes.
    """
    remembered: dict[str, Any] = vars(connection)
    names = ("features", *facts, *forgetting)
    before = {name: remembered.pop(name) for name in names if name in remembered}
    remembered.update(facts)
    remembered["features"] = connection.features_class(connection)
    try:
        yield
    finally:
        for name in names:
            remembered.pop(name, None)
        remembered.update(before)


def is_migrated(model: type[Model], using: str) -> bool:
    """`router.allow_migrate_model()`: whether the table is made on this database, with the hints of migrate."""
    return router.allow_migrate_model(using, model)


# Signals.


def receivers_of(signal: Signal) -> list[tuple[int, Any]]:
    """`Signal.receivers`: the identity of the sender that each listens to, and the receiver; None for one that is gone.

    Django's versions append other things to an entry; it begins with (receiver's id, sender's id) and the receiver.
    """
    entries: list[Any] = list(signal.receivers)
    return [
        (key[1], reference() if isinstance(reference, weakref.ReferenceType) else reference)
        for key, reference, *_ in entries
    ]


@contextmanager
def mute_receivers(signals: Iterable[Signal]) -> Iterator[None]:
    """`Signal.receivers`, `sender_receivers_cache`: while the block runs, nobody in this process hears these signals."""
    kept: list[tuple[Any, Any]] = [(signal, signal.receivers) for signal in signals]
    try:
        for signal, _ in kept:
            signal.receivers = []
            signal.sender_receivers_cache.clear()
        yield
    finally:
        for signal, receivers in kept:
            signal.receivers = receivers
            signal.sender_receivers_cache.clear()
