"""What the database keeps unique: a model's unique columns and constraints, with what escapes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db import connections
from django.db.models import Field, Model, Q, UniqueConstraint

__all__ = ["Unique", "uniques_of"]


@dataclass(frozen=True, kw_only=True)
class Unique:
    """Columns and expressions in which no two rows are alike; of those that meet the condition, if there is one.

    nulls_distinct: rows with NULL among them are told apart.
    """

    fields: tuple[Field[Any, Any], ...]
    expressions: tuple[Any, ...] = ()
    condition: Q | None = None
    nulls_distinct: bool = True

    @property
    def escaped(self) -> bool:
        """Whether NULL gets any number of rows past it; of an expression nobody can tell that it is never NULL."""
        return self.nulls_distinct and (bool(self.expressions) or any(field.null for field in self.fields))


def uniques_of(model: type[Model], using: str) -> Iterator[Unique]:
    """What the table of `model` keeps unique on the database `using`, without the tables that it inherits from.

    Conditions and expressions count where the database knows them: Django makes no such constraint elsewhere. Costs
    no statement, but for a constraint with `nulls_distinct=False` on PostgreSQL: Django asks for the version then.
    """
    meta = (model._meta.concrete_model or model)._meta
    for column in meta.local_concrete_fields:
        if column.unique:
            yield Unique(fields=(column,))
    for names in meta.unique_together:
        yield Unique(fields=_fields(model, names))
    features = connections[using].features
    for each in meta.constraints:
        if not isinstance(each, UniqueConstraint):
            continue
        if each.condition is not None and not features.supports_partial_indexes:
            continue
        if each.expressions and not features.supports_expression_indexes:
            continue
        # In this order, since the second asks the server.
        alike = each.nulls_distinct is False and features.supports_nulls_distinct_unique_constraints
        yield Unique(
            fields=_fields(model, each.fields),
            expressions=tuple(each.expressions),
            condition=each.condition,
            nulls_distinct=not alike,
        )


def _fields(model: type[Model], names: Iterable[str]) -> tuple[Field[Any, Any], ...]:
    return tuple(model._meta.get_field(name) for name in names)  # type: ignore[misc]
