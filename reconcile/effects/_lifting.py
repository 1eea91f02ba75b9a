"""The unique constraint that would lift a rule to guarantee A, as a model declares it; or why none would."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import FieldError
from django.db import connections
from django.db.backends.utils import names_digest
from django.db.migrations.writer import MigrationWriter
from django.db.models import F, Field, Model, Q, QuerySet
from django.db.models.constants import LOOKUP_SEP
from django.db.models.expressions import Col
from django.db.models.functions import Now
from django.db.models.lookups import Lookup
from django.db.models.sql.query import Query
from django.db.models.sql.where import AND, WhereNode

from reconcile.effects._covering import is_filter, own_fields
from reconcile.sql.dialects import dialect_of
from reconcile.sql.expressions import Column, columns_read, mapped, path_of
from reconcile.sql.uniques import is_made_by_django

__all__ = ["Lift", "filter_of", "lifted"]

_LONGEST = 60
"""Characters of a name that every database keeps whole."""


@dataclass(frozen=True, kw_only=True)
class Lift:
    """What would lift a rule to guarantee A.

    model, fields, django: the constraint, and how it is declared in `Meta.constraints` of the model; empty where
    there is none. why_not: why it would not help on this database, or why there is none; empty where it helps.
    needs: the server that knows it, where another of its kind doesn't.
    """

    model: str = ""
    fields: tuple[str, ...] = ()
    django: str = ""
    why_not: str = ""
    needs: str = ""

    @property
    def helps(self) -> bool:
        """Whether the constraint would lift the rule on this database."""
        return bool(self.django) and not self.why_not


def lifted(
    model: type[Model], columns: Sequence[Any], *, condition: Q, nulls_distinct: bool, using: str
) -> Lift:
    """The constraint that lets no two rows of `model` that meet `condition` be alike in `columns`, expressions.

    nulls_distinct: NULL in one of the columns makes rows different. Costs no statement.
    """
    fields = tuple(own_fields(model, columns))
    plain = len(fields) == len(columns)
    homes = {field.model for field in fields} if plain else {home for home, _ in _read(model, columns)}
    if len(homes) != 1 or any(isinstance(each, F) and LOOKUP_SEP in path_of(each) for each in columns):
        return Lift(
            why_not="What tells the rows apart stands in several tables; a unique constraint is about one."
        )
    if condition and not _is_constant(model, condition, homes):
        return Lift(
            why_not="Other tables, or the clock, tell which rows count; no constraint's condition reads those."
        )
    home: type[Model] = next(iter(homes))
    nullable = not plain or any(field.null for field in fields)
    strict = not nulls_distinct and nullable
    names = (
        tuple(field.name for field in fields)
        if plain
        else tuple(sorted(attname for _, attname in _read(model, columns)))
    )
    stated = [f"fields=[{', '.join(map(_quoted, names))}]"] if plain else [*map(_expression, columns)]
    stated += [f"condition={_condition(condition)}"] if condition else []
    stated += ["nulls_distinct=False"] if strict else []
    stated += [f"name={_quoted(_name(home, names))}"]
    return Lift(
        model=home._meta.label,
        fields=names,
        django=f"models.UniqueConstraint({', '.join(stated)})",
        why_not=_unsupported(
            home, fields, partial=bool(condition), expressions=not plain, strict=strict, using=using
        ),
        needs="PostgreSQL 15" if strict else "",
    )


def filter_of(every: QuerySet[Any]) -> Q | None:
    """The filter of `every` as a condition on its own columns; None where it can't be told as one."""
    try:
        condition = _told(every.query.where)
        same = condition is not None and is_filter(every, condition)
    except FieldError:
        return None
    return condition if same else None


def _told(node: Any) -> Q | None:
    if isinstance(node, WhereNode):
        parts = [_told(child) for child in node.children]
        if None in parts or node.connector not in {AND, "OR"}:
            return None
        condition = Q(*(part for part in parts if part is not None), _connector=node.connector)
        return ~condition if node.negated else condition
    if isinstance(node, Lookup) and isinstance(node.lhs, Col) and not hasattr(node.rhs, "resolve_expression"):
        name = node.lhs.target.name
        return Q(**{name if node.lookup_name == "exact" else f"{name}__{node.lookup_name}": node.rhs})
    return None


def _read(model: type[Model], columns: Sequence[Any]) -> frozenset[Column]:
    """What the expressions read."""
    named = {f"_by_{number}": each for number, each in enumerate(columns)}
    return columns_read(model._base_manager.annotate(**named).values(*named))


def _is_constant(model: type[Model], condition: Q, homes: set[type[Model]]) -> bool:
    """Whether the condition reads the row's own table and nothing else, and is as true tomorrow as today."""
    clocks: list[Any] = []

    def leaf(node: Any) -> Any:
        if isinstance(node, Now | Query):
            clocks.append(node)
        return node

    mapped(condition, leaf)
    rows = model._base_manager.filter(condition)
    return not clocks and {home for home, _ in columns_read(rows.only("pk"))} <= homes


def _unsupported(
    model: type[Model],
    fields: Sequence[Field[Any, Any]],
    *,
    partial: bool,
    expressions: bool,
    strict: bool,
    using: str,
) -> str:
    """What of the constraint the database `using` doesn't know; empty where it knows it all."""
    features = connections[using].features
    if not is_made_by_django(model, using):
        return "Django doesn't manage the table, so that nobody knows which constraints it has."
    if partial and not features.supports_partial_indexes:
        return "This database has no unique constraints with a condition."
    if expressions and not features.supports_expression_indexes:
        return "This database has no unique constraints on expressions."
    if strict and not features.supports_nulls_distinct_unique_constraints:
        return "NULL counts like any value here, and on this database it gets past unique constraints."
    if not dialect_of(using).can_declare(fields):
        return "A text or bytes of any length can't be unique on this database."
    return ""


def _name(model: type[Model], names: Sequence[str]) -> str:
    meta = model._meta
    name = "_".join([meta.app_label, str(meta.model_name), *names, "once"])
    if len(name) <= _LONGEST:
        return name
    digest = names_digest(*names, length=6)
    return f"{'_'.join([meta.app_label, str(meta.model_name)])[: _LONGEST - 12]}_{digest}_once"


def _condition(condition: Q) -> str:
    plain = not condition.negated and (condition.connector == AND or len(condition.children) == 1)
    if plain and all(isinstance(child, tuple) for child in condition.children):
        return f"models.Q({', '.join(f'{name}={_source(value)}' for name, value in condition.children)})"  # type: ignore[misc]
    return _source(condition)


def _expression(expression: Any) -> str:
    return _quoted(path_of(expression)) if isinstance(expression, F) else _source(expression)


def _source(value: Any) -> str:
    """A value as Python writes it, with the names that a module of models has."""
    if isinstance(value, str):
        return _quoted(str(value))
    written, _ = MigrationWriter.serialize(value)
    return re.sub(r"django\.db\.models\.functions\.\w+\.", "", written)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
