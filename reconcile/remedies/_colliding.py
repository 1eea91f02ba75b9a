"""Which rows would break a unique constraint of their model once they refer to another row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import BooleanField, Case, Model, Value, When

from reconcile.sql.uniques import Unique, uniques_of

__all__ = ["Colliding", "unique_with"]


@dataclass(frozen=True)
class Colliding:
    """A unique constraint on columns, asked which rows would break it."""

    unique: Unique

    @property
    def columns(self) -> tuple[str, ...]:
        """By attname."""
        return tuple(field.attname for field in self.unique.fields)

    @property
    def applies(self) -> Case | Value:
        """As an expression: whether the constraint is about a row at all."""
        if self.unique.condition is None:
            return Value(True)
        return Case(
            When(self.unique.condition, then=Value(True)), default=Value(False), output_field=BooleanField()
        )

    def colliding(self, rows: Iterable[tuple[Any, Mapping[str, Any]]]) -> Iterator[tuple[Any, Any]]:
        """Of rows by key, with the values that they are to have: each that comes to be as an earlier one, with that."""
        first: dict[tuple[Any, ...], Any] = {}
        for key, values in rows:
            told = tuple(None if values[name] is None else str(values[name]) for name in self.columns)
            if self.unique.nulls_distinct and None in told:
                continue
            if told in first:
                yield key, first[told]
            first.setdefault(told, key)


def unique_with(model: type[Model], columns: set[str], using: str) -> Sequence[Colliding]:
    """The unique constraints of `model` that one of `columns` (attnames) is part of.

    Constraints on expressions are not among them: what breaks one is found out by the database.
    """
    found = (Colliding(unique) for unique in uniques_of(model, using) if not unique.expressions)
    return [each for each in found if columns & {*each.columns}]
