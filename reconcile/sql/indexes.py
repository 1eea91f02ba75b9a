"""Which indexes the database has for a link, and the statement that would make one. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.db import connections
from django.db.models import Index, Model, Q, UniqueConstraint

from reconcile.sql.dialects import dialect_of
from reconcile.sql.expressions import names_in
from reconcile.sql.links import Link

__all__ = ["Indexes", "MissingIndex"]

_SERVING = frozenset({Index.suffix, "btree", "hash"})
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
        """What to make for `link`; None where an index serves it, or the table is a view."""
        if link.table not in self._tables or any(self._serves(link, *each) for each in self._of(link)):
            return None
        model = _model(link)
        index = Index(fields=[each.name for each in link.fields])
        index.set_name_with_model(model)
        declared = model._meta.managed and not model._meta.auto_created
        dialect = dialect_of(self.using)
        return MissingIndex(
            table=link.table,
            columns=tuple(str(each.column) for each in link.fields),
            create=dialect.create_index(model, index),
            django=f"models.Index(fields={_quoted(index.fields)})"
            if declared and dialect.can_declare(link.fields)
            else None,
        )

    def _of(self, link: Link) -> Iterator[tuple[str, list[str]]]:
        if link.table not in self._known:
            connection = connections[self.using]
            with connection.cursor() as cursor:
                self._known[link.table] = connection.introspection.get_constraints(cursor, link.table)
        for name, each in self._known[link.table].items():
            serving = not each["index"] or each.get("type", Index.suffix).lower() in _SERVING
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
        connection = connections[self.using]
        with connection.cursor() as cursor:
            listed = connection.introspection.get_table_list(cursor)
        return frozenset(each.name for each in listed if each.type in {"t", "p"})


def _model(link: Link) -> type[Model]:
    model: type[Model] = link.fields[0].model
    return model._meta.concrete_model or model


def _condition(model: type[Model], name: str) -> Q | None:
    """The condition of the model's index or constraint of this name; the database tells no one."""
    declared = [*model._meta.indexes, *model._meta.constraints]
    found = next((each for each in declared if each.name == name), None)
    return found.condition if isinstance(found, Index | UniqueConstraint) else None


def _quoted(names: Iterable[str]) -> str:
    return "[{}]".format(", ".join(f'"{name}"' for name in names))
