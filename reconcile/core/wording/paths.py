"""Paths in words: how a query comes to a column, step by step, and whose column it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from django.core.exceptions import FieldDoesNotExist, FieldError
from django.db.models import Field, Model
from django.db.models.lookups import Transform

from reconcile.db.django_compat import (
    LOOKUP_SEP,
    Col,
    Query,
    filtered_relation_of,
    is_generic_relation,
    is_parent_join,
    many_to_many_columns,
    many_to_many_owner,
    own_many_to_many,
    relation_joined,
    reverse_name,
    split_lookup,
    table_it_reads_from,
    tables_of,
    tables_read,
)
from reconcile.db.expressions import rebase_paths

__all__ = ["column_in_words", "field_of_path", "has_alias", "lookup_of_path"]


def has_alias(query: Query, alias: str) -> bool:
    """Whether the alias is one of the query's own tables."""
    return alias in tables_of(query)


def column_in_words(query: Query, column: Col, condition_in_words: Callable[[Any], str]) -> str:
    """`parent.customer.name`: the steps from the query's own table to the column, and its name.

    A table that is come to twice from one row has a number, `items#2.price`: it is another row. `condition_in_words`
    says what a FilteredRelation asks.
    """
    steps = _steps(query, column.alias, condition_in_words)
    name = str(column.target.name)
    if steps and steps[-1].startswith(_THROUGH):
        # The other key of a table between two models: its relation is the path.
        steps[-1] = steps[-1].removeprefix(_THROUGH)
        name = "" if name in _keys_between(column.target.model) else name
    return ".".join(part for part in (*steps, name) if part).replace(_THROUGH, "")


_THROUGH = "\0"
"""Before the step to a table that Django made for a many-to-many field, which is passed without a word."""


def _keys_between(model: type[Model]) -> set[str]:
    owner = many_to_many_owner(model)
    found = (each for each in own_many_to_many(owner) if each.remote_field.through is model) if owner else ()
    return {name for each in found for name in many_to_many_columns(each)}


def _steps(query: Query, alias: str, condition_in_words: Callable[[Any], str]) -> list[str]:
    tables = tables_of(query)
    table = tables.get(alias)
    if table is None or alias == table_it_reads_from(query)[0]:
        return []
    before = _steps(query, table.parent_alias, condition_in_words)
    if is_parent_join(table):
        return before
    if before and before[-1].startswith(_THROUGH):
        return [*before[:-1], before[-1].removeprefix(_THROUGH)]
    step = _step(table, condition_in_words)
    number = _number(query, alias)
    return [*before, step if number == 1 else f"{step}#{number}"]


def _number(query: Query, alias: str) -> int:
    """The place of the table among those that the query comes to by the same step from the same row, from 1 on."""
    tables, read = tables_of(query), tables_read(query)
    table = tables[alias]
    alike = [
        name
        for name, each in tables.items()
        if (name in read or name == alias)
        and getattr(each, "parent_alias", None) == table.parent_alias
        and relation_joined(each) is relation_joined(table)
        and filtered_relation_of(each) == filtered_relation_of(table)
    ]
    return alike.index(alias) + 1


def _step(table: Any, condition_in_words: Callable[[Any], str]) -> str:
    filtered = filtered_relation_of(table)
    if filtered is None:
        return _relation_in_words(relation_joined(table))
    # Django has put the alias into the condition's paths.
    asked = rebase_paths(filtered.condition, prefix=filtered.alias, onto=filtered.relation_name)
    return f"({filtered.relation_name.replace(LOOKUP_SEP, '.')} where {condition_in_words(asked)})"


def _relation_in_words(relation: Any) -> str:
    """What a path calls the relation that a table is joined by, whichever side it is come from."""
    if relation is None:
        return "?"
    if not relation.auto_created or relation.concrete:
        # A foreign key from its own side; a generic relation from the other.
        return reverse_name(relation) if is_generic_relation(relation) else str(relation.name)
    if is_generic_relation(relation.field):
        return str(relation.field.name)
    through = many_to_many_owner(relation.related_model)
    return f"{_THROUGH}{_many_to_many_name(relation)}" if through else str(relation.name)


def _many_to_many_name(relation: Any) -> str:
    """The many-to-many field whose table is come to; from the other side the name that it has there."""
    owner = many_to_many_owner(relation.related_model)
    for field in own_many_to_many(owner) if owner else ():
        if field.remote_field.through is relation.related_model:
            forward, _ = many_to_many_columns(field)
            return str(field.name if relation.field.name == forward else reverse_name(field))
    return str(relation.name)


def lookup_of_path(model: type[Model] | None, path: str) -> tuple[str, str]:
    """A path of a `Q` in words, and the lookup at its end; `exact` where it names none."""
    parts, lookups = _split(model, path)
    lookup = "exact"
    if lookups and not _is_transform(field_of_path(model, parts), lookups[-1]):
        *lookups, lookup = lookups
    return ".".join([*parts, *lookups]), lookup


_LOOKUPS = frozenset(Field().get_lookups())
"""Those that any column has, for a path of which it isn't known where it begins."""


def _split(model: type[Model] | None, path: str) -> tuple[list[str], list[str]]:
    if model is not None:
        with suppress(FieldError):
            lookups, parts = split_lookup(model._base_manager.all().query, path)
            return list(parts), list(lookups)
    *parts, last = path.split(LOOKUP_SEP)
    known = bool(parts) and last in _LOOKUPS
    return (parts, [last]) if known else ([*parts, last], [])


def _is_transform(field: Any, lookup: str) -> bool:
    found = field.get_lookups().get(lookup) if field is not None else None
    return isinstance(found, type) and issubclass(found, Transform)


def field_of_path(model: type[Model] | None, parts: list[str]) -> Any:
    """The column at the end of a path; None where it leads to none."""
    field: Any = None
    for field in _fields(model, parts):
        if field is None:
            return None
    return field


def _fields(model: type[Model] | None, parts: list[str]) -> Iterator[Any]:
    for part in parts:
        field: Any = None
        if model is not None:
            with suppress(FieldDoesNotExist):
                field = model._meta.pk if part == "pk" else model._meta.get_field(part)
        yield field
        model = getattr(field, "related_model", None)
