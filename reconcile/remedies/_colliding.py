"""Which rows would break a unique constraint of their model once they refer to another row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connections
from django.db.models import BooleanField, Case, Model, Q, UniqueConstraint, Value, When

from reconcile.declaring import field_named

__all__ = ["Unique", "unique_with"]


@dataclass(frozen=True, kw_only=True)
class Unique:
    """Columns, by attname, that no two rows of a model have alike; of those that meet the condition, if there is one."""

    columns: tuple[str, ...]
    condition: Q | None = None
    nulls_distinct: bool = True

    @property
    def applies(self) -> Case | Value:
        """As an expression: whether the constraint is about a row at all."""
        if self.condition is None:
            return Value(True)
        return Case(When(self.condition, then=Value(True)), default=Value(False), output_field=BooleanField())

    def colliding(self, rows: Iterable[tuple[Any, Mapping[str, Any]]]) -> Iterator[tuple[Any, Any]]:
        """Of rows by key, with the values that they are to have: each that comes to be as an earlier one, with that."""
        first: dict[tuple[Any, ...], Any] = {}
        for key, values in rows:
            told = tuple(None if values[name] is None else str(values[name]) for name in self.columns)
            if self.nulls_distinct and None in told:
                continue
            if told in first:
                yield key, first[told]
            first.setdefault(told, key)


def unique_with(model: type[Model], columns: set[str], using: str) -> Sequence[Unique]:
    """The unique constraints of `model` that one of `columns` (attnames) is part of.

    Constraints on expressions are not among them: what breaks one is found out by the database.
    """
    return [each for each in _all(model, using) if columns & {*each.columns}]


def _all(model: type[Model], using: str) -> Iterator[Unique]:
    features = connections[using].features
    for column in model._meta.local_concrete_fields:
        if column.unique:
            yield Unique(columns=(column.attname,))
    for names in model._meta.unique_together:
        yield Unique(columns=_attnames(model, names))
    for each in model._meta.constraints:
        if isinstance(each, UniqueConstraint) and each.fields:
            if each.condition is not None and not features.supports_partial_indexes:
                continue
            alike = each.nulls_distinct is False and features.supports_nulls_distinct_unique_constraints
            yield Unique(
                columns=_attnames(model, each.fields), condition=each.condition, nulls_distinct=not alike
            )


def _attnames(model: type[Model], names: Iterable[str]) -> tuple[str, ...]:
    fields = (field_named(model, name) for name in names)
    return tuple(field.attname for field in fields if field is not None)
