"""What the database keeps unique: a model's unique columns and constraints, with what escapes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db import connections
from django.db.models import Deferrable, Field, Model, Q, UniqueConstraint

from reconcile.db.columns import concrete_model
from reconcile.db.django_compat import is_migrated, own_columns
from reconcile.db.schema import UniqueIndex, current_schema, known_table

__all__ = ["Unique", "is_in_database", "is_made_by_django", "may_be_deferrable", "uniques_of"]


@dataclass(frozen=True, kw_only=True)
class Unique:
    """Columns and expressions in which no two rows are alike; of those that meet the condition, if there is one.

    nulls_distinct: rows with NULL among them are told apart. immediate: each statement is held to it; else COMMIT alone
    is, so that a row is inserted beside its like and the error comes when nothing can be done about it any more.
    known: Django has made it; else the model declares it, and whether the table has it is somebody else's affair.
    table, name: the model's table, and the constraint's name; empty where Django makes one up.
    """

    table: type[Model]
    fields: tuple[Field[Any, Any], ...]
    expressions: tuple[Any, ...] = ()
    condition: Q | None = None
    nulls_distinct: bool = True
    immediate: bool = True
    known: bool = True
    name: str = ""

    @property
    def lets_null_repeat(self) -> bool:
        """Whether NULL gets any number of rows past it; of an expression nobody can tell that it is never NULL."""
        return self.nulls_distinct and (bool(self.expressions) or any(field.null for field in self.fields))


def uniques_of(model: type[Model], using: str) -> Iterator[Unique]:
    """What the table of `model` keeps unique on the database `using`, without the tables that it inherits from.

    A constraint counts where the database knows all that it says: Django makes none elsewhere. Costs no statement, but
    for a constraint that says whether NULLs are distinct, on PostgreSQL: Django asks for the version then.
    """
    concrete = concrete_model(model)
    meta = concrete._meta
    known = is_made_by_django(model, using)
    for column in own_columns(concrete):
        if column.unique:
            yield Unique(table=concrete, fields=(column,), known=known)
    for names in meta.unique_together:
        yield Unique(table=concrete, fields=_fields(model, names), known=known)
    for each in meta.constraints:
        if isinstance(each, UniqueConstraint) and _is_supported(each, using):
            yield Unique(
                table=concrete,
                name=each.name,
                fields=_fields(model, each.fields),
                expressions=tuple(each.expressions),
                condition=each.condition,
                nulls_distinct=each.nulls_distinct is not False,
                immediate=each.deferrable is not Deferrable.DEFERRED,
                known=known,
            )


def is_made_by_django(model: type[Model], using: str) -> bool:
    """Whether Django's migrations make the table of `model` on `using`, so that it has the constraints declared."""
    concrete = concrete_model(model)
    return bool(concrete._meta.managed) and is_migrated(concrete, using)


def is_in_database(unique: Unique, using: str) -> bool:
    """Whether the database has an index that forbids all that `unique` forbids. Where no schema is in use, it is believed.

    Any unique index over some of its columns will do. One with a condition or an expression goes by its name. One statement
    for each table, two on MariaDB.
    """
    schema = current_schema(using)
    if schema is None:
        return True
    table = schema.table_of(unique.table)
    found = table is not None and any(_forbids(index, unique) for index in table.uniques)
    if not found:
        schema.miss(
            unique.table, f"unique({', '.join([field.name for field in unique.fields] or [unique.name])})"
        )
    return found


def _forbids(index: UniqueIndex, unique: Unique) -> bool:
    if unique.immediate and index.deferred:
        return False
    if index.nulls_distinct and not unique.nulls_distinct and any(field.null for field in unique.fields):
        return False
    if unique.expressions or index.partial:
        return index.name == unique.name and index.partial == (unique.condition is not None)
    return {*index.columns} <= {str(field.column) for field in unique.fields}


def may_be_deferrable(model: type[Model], using: str) -> bool:
    """Whether a unique or exclusion constraint of the table can be deferred, or nobody knows."""
    concrete = concrete_model(model)
    table = known_table(concrete, using)
    if table is not None and any(index.deferrable for index in table.uniques):
        return True
    declared = any(getattr(each, "deferrable", None) is not None for each in concrete._meta.constraints)
    return declared or not is_made_by_django(model, using)


def _is_supported(constraint: UniqueConstraint, using: str) -> bool:
    """Whether Django makes the constraint on this database. Elsewhere it passes over it, with a warning at most."""
    features = connections[using].features
    # The last of them asks the server.
    return (
        (constraint.condition is None or features.supports_partial_indexes)
        and (constraint.deferrable is None or features.supports_deferrable_unique_constraints)
        and (not constraint.include or features.supports_covering_indexes)  # type: ignore[attr-defined]
        and (not constraint.expressions or features.supports_expression_indexes)
        and (constraint.nulls_distinct is None or features.supports_nulls_distinct_unique_constraints)
    )


def _fields(model: type[Model], names: Iterable[str]) -> tuple[Field[Any, Any], ...]:
    return tuple(model._meta.get_field(name) for name in names)  # type: ignore[misc]
