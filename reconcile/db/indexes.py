"""Indexes: by which columns a statement looks rows up, which indexes serve that, and which one is missing.

Worked out from the compiled query, so that whatever wrote it is served. The table that a statement walks
through is none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from django.core.exceptions import EmptyResultSet, FullResultSet
from django.db import connections
from django.db.models import Field, Index, Model, Q, QuerySet, UniqueConstraint
from django.db.models.lookups import Exact, GreaterThan, IsNull, LessThanOrEqual

from reconcile.db.columns import concrete_model
from reconcile.db.comparisons import AmongRows, Bytewise, Same
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import (
    INDEX_TYPE,
    Col,
    Query,
    SQLCompiler,
    columns_joined,
    combined_queries,
    compiler_of,
    constraints_in,
    join_restriction,
    many_to_many_owner,
    name_index,
    selected_annotations,
    stored_tables,
    table_name,
    tables_read,
    where_of,
)
from reconcile.db.expressions import conjuncts, names_in, nodes_in
from reconcile.db.printing import Symbol

__all__ = ["Indexes", "Link", "MissingIndex", "is_indexed", "links_of"]


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
    compiler = compiler_of(queryset.query, connections[queryset.db])
    return tuple(dict.fromkeys(_links(queryset.query, compiler)))


def _links(node: Any, compiler: SQLCompiler) -> Iterator[Link]:
    members = (each.rhs for each in nodes_in(node) if isinstance(each, AmongRows))
    sets = [next(_queries(each)) for each in members]
    for query in _queries(node):
        yield from _links_of_query(query, compiler, is_set=any(query is each for each in sets))
        for inner in (where_of(query), *selected_annotations(query).values(), *combined_queries(query)):
            yield from _links(inner, compiler)


def _queries(node: Any) -> Iterator[Query]:
    return (each for each in nodes_in(node) if isinstance(each, Query))


def _links_of_query(query: Query, compiler: SQLCompiler, *, is_set: bool) -> Iterator[Link]:
    used = tables_read(query)
    sought = {alias: _Sought() for alias in used}
    for alias, table in used.items():
        _note_join(table, sought[alias])
    # An alternative leads to no row by itself, so it isn't taken apart.
    for condition in conjuncts(where_of(query), *map(join_restriction, used.values())):
        _note_condition(condition, sought, compiler)
    # A check makes the set whole; a repair looks up the few that it needs.
    for selected in selected_annotations(query).values() if is_set else ():
        bare = selected.get_source_expressions()[0] if isinstance(selected, Bytewise) else selected
        if column := _own_column(bare, sought, compiler):
            sought[column.alias].by(column.target)
    for alias, each in sought.items():
        if each.fields:
            yield Link(table=table_name(used[alias]), fields=tuple(each.fields), fixed=frozenset(each.fixed))


def _note_join(join: Any, sought: _Sought) -> None:
    for _, column in columns_joined(join):
        sought.by(column)


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
    if any(_queries(other)):
        return
    aliases = {each.alias for each in _columns(other)}
    if not aliases:
        sought[column.alias].fixed.add(str(column.target.column))
    elif not aliases & sought.keys():
        sought[column.alias].by(column.target)


def _own_column(side: Any, sought: dict[str, _Sought], compiler: SQLCompiler) -> Col | None:
    """The column that `side` is, if it is one of the query's own and stands bare, so that an index of it serves."""
    columns = [*_columns(side)]
    if len(columns) != 1 or columns[0].alias not in sought:
        return None
    try:
        bare = compiler.compile(side)[0] == compiler.compile(columns[0])[0]
    except (EmptyResultSet, FullResultSet):
        return None
    return columns[0] if bare else None


def _columns(node: Any) -> Iterator[Col]:
    return (each for each in nodes_in(node) if isinstance(each, Col))


_SERVING = frozenset({INDEX_TYPE, "btree", "hash"})
"""Kinds of index that find a value; a fulltext or spatial one doesn't."""


@dataclass(frozen=True, kw_only=True)
class MissingIndex:
    """A link without an index.

    create: the statement that would make one on this database. django: the same for `Meta.indexes`; None for a
    model that Django doesn't manage, and where Django can't declare the index.
    """

    table: str
    columns: tuple[str, ...]
    create: str
    django: str | None


class Indexes:
    """The indexes of one database, each table's asked for once; for the length of one report."""

    def __init__(self, using: str) -> None:
        self.using = using
        self._known: dict[str, Mapping[str, Any]] = {}

    def missing(self, link: Link) -> MissingIndex | None:
        """What to make for `link`; None if an index serves it, or the table is a view."""
        if link.table not in self._tables or any(self._serves(link, *each) for each in self._of(link)):
            return None
        model = _model(link)
        index = Index(fields=[each.name for each in link.fields])
        name_index(index, model)
        declared = model._meta.managed and many_to_many_owner(model) is None
        dialect = dialect_of(self.using)
        return MissingIndex(
            table=link.table,
            columns=tuple(str(each.column) for each in link.fields),
            create=dialect.create_index(model, index),
            django=f"models.Index(fields={_quote_names(index.fields)})"
            if declared and dialect.can_declare(link.fields)
            else None,
        )

    def _of(self, link: Link) -> Iterator[tuple[str, list[str]]]:
        if link.table not in self._known:
            self._known[link.table] = constraints_in(connections[self.using], link.table)
        for name, each in self._known[link.table].items():
            serving = not each["index"] or each.get("type", INDEX_TYPE).lower() in _SERVING
            if serving and (each["index"] or each["unique"] or each["primary_key"]):
                yield name, each["columns"]

    def _serves(self, link: Link, name: str, columns: list[str]) -> bool:
        """An index serves by its leading columns: those of the link, and those that are compared with constants."""
        sought = {str(each.column) for each in link.fields}
        for column in columns:
            if column in sought:
                return self._holds(_condition(_model(link), name), link)
            if column not in link.fixed:
                return False
        return False

    def _holds(self, condition: Q | None, link: Link) -> bool:
        """A partial index serves a statement that names what it is partial by."""
        fields = {each.name: str(each.column) for each in _model(link)._meta.concrete_fields}
        named = {path.split("__")[0] for path in names_in(condition or Q())}
        return {fields.get(name, name) for name in named} <= link.fixed

    @cached_property
    def _tables(self) -> frozenset[str]:
        return stored_tables(connections[self.using])


def is_indexed(field: Field[Any, Any]) -> bool:
    """Whether the model declares an index that begins with the column, for all of its rows."""
    # The stubs don't know db_index.
    own: Any = field
    if own.primary_key or own.unique or own.db_index:
        return True
    options = field.model._meta
    declared = (
        list(each.fields)
        for each in [*options.indexes, *options.constraints]
        if isinstance(each, Index | UniqueConstraint) and each.condition is None
    )
    together: Any = options.unique_together
    return any(names[:1] == [field.name] for names in [*declared, *map(list, together)])


def _model(link: Link) -> type[Model]:
    model: type[Model] = link.fields[0].model
    return concrete_model(model)


def _condition(model: type[Model], name: str) -> Q | None:
    """The condition of the model's index or constraint of this name; the database tells no one."""
    declared = [*model._meta.indexes, *model._meta.constraints]
    found = next((each for each in declared if each.name == name), None)
    return found.condition if isinstance(found, Index | UniqueConstraint) else None


def _quote_names(names: Iterable[str]) -> str:
    return "[{}]".format(", ".join(f'"{name}"' for name in names))
