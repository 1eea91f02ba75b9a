"""Whether the database rules out equal rows, and which unique constraint would."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.apps import apps
from django.core.exceptions import FieldError
from django.db import connections
from django.db.models import F, Field, Model, Q, QuerySet, UniqueConstraint
from django.db.models.functions import Now
from django.db.models.lookups import Lookup

from reconcile.core.declaration import field_or_key
from reconcile.db.columns import concrete_model
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import (
    AND,
    LOOKUP_SEP,
    Col,
    Query,
    WhereNode,
    names_digest,
    parents_of,
    python_source,
    where_of,
)
from reconcile.db.expressions import Column, columns_read, conjuncts, map_expression, path_of
from reconcile.db.uniques import Unique, is_in_database, is_made_by_django, uniques_of
from reconcile.errors import Refusal

__all__ = [
    "FOREIGN",
    "ConstraintAdvice",
    "advise_constraint",
    "filter_of",
    "is_covered",
    "is_covered_at_once",
    "is_filter",
    "own_fields",
]


def is_covered(every: QuerySet[Any], columns: Sequence[Any], *, nulls_distinct: bool, using: str) -> bool:
    """Whether a unique constraint forbids two rows of `every` that are equal in `columns`, which are expressions.

    A constraint on some of the columns covers them all. A conditional one counts if its condition is the filter of
    `every`, or one of the parts that all have to hold. Where NULL counts like any value, the constraint must say so,
    too, or none of its columns be null. One of a table that Django doesn't make counts nowhere.
    """
    return any(_covering_constraints(every, columns, nulls_distinct=nulls_distinct, using=using))


def is_covered_at_once(
    every: QuerySet[Any], columns: Sequence[Any], *, nulls_distinct: bool, using: str
) -> bool:
    """Same as `is_covered`, by constraints that the database checks in each statement.

    A deferred constraint is checked at COMMIT. Then it is too late for `get_or_create` to read the row again.
    """
    covering = _covering_constraints(every, columns, nulls_distinct=nulls_distinct, using=using)
    return any(unique.immediate for unique in covering)


def own_fields(model: type[Model], columns: Sequence[Any]) -> Iterator[Field[Any, Any]]:
    """The columns of `model` among the expressions; no path to another table, and no function of a column."""
    for column in columns:
        if isinstance(column, F):
            field = field_or_key(model, path_of(column))
            if field is not None:
                yield field


def is_filter(every: QuerySet[Any], condition: Q) -> bool:
    """Whether `every` is filtered by `condition`, and by nothing else."""
    return bool(where_of(every.query) == _where(every, condition))


def _covering_constraints(
    every: QuerySet[Any], columns: Sequence[Any], *, nulls_distinct: bool, using: str
) -> Iterator[Unique]:
    named = {*own_fields(every.model, columns)}
    if nulls_distinct:
        # Rows with NULL among them are no duplicates, so a constraint may leave them out.
        every = every.filter(**{f"{each.name}__isnull": False for each in named if each.null})
    return (
        unique
        for unique in _uniques_of_row(every.model, using)
        if unique.known
        and {*unique.fields} <= named
        and all(expression in columns for expression in unique.expressions)
        and (nulls_distinct or not unique.lets_null_repeat)
        and (unique.condition is None or _implies(every, unique.condition))
        and is_in_database(unique, using)
    )


def _uniques_of_row(model: type[Model], using: str) -> Iterator[Unique]:
    """The unique constraints on a row of the model, those of the parents that it inherits from among them."""
    for each in dict.fromkeys(concrete_model(table) for table in (model, *parents_of(model))):
        yield from uniques_of(each, using)


def _implies(every: QuerySet[Any], condition: Q) -> bool:
    """Whether each row of `every` meets the condition: it is the filter, or its parts are among those of the filter."""
    wanted = _where(every, condition)
    given = where_of(every.query)
    if given == wanted:
        return True
    return all(part in [*conjuncts(given)] for part in conjuncts(wanted))


def _where(every: QuerySet[Any], condition: Q) -> WhereNode:
    where: WhereNode = where_of(every.model._base_manager.filter(condition).query)
    return where


_LONGEST = 60
"""Characters of a name that every database keeps whole."""


@dataclass(frozen=True, kw_only=True)
class ConstraintAdvice:
    """The unique constraint that would raise a rule's guarantee to `constraint`.

    model, fields, django: the constraint, and how it is declared in `Meta.constraints` of the model; empty if
    there is none. refusal: why it would not help on this database, or why there is none; None if it helps. needs: the server that
    knows it, where another of its kind doesn't. foreign: the model is of another package, whose migrations are not the project's.
    """

    model: str = ""
    fields: tuple[str, ...] = ()
    django: str = ""
    refusal: Refusal | None = None
    needs: str = ""
    foreign: bool = False

    @property
    def helps(self) -> bool:
        """Whether the constraint would lift the rule on this database."""
        return bool(self.django) and self.refusal is None


FOREIGN = 'its Meta is not yours to edit. Add the constraint by a migration of your own, or leave it: silence=["reconcile.W001"].'
"""What is to be said of a constraint on another package's model."""


def advise_constraint(
    model: type[Model], columns: Sequence[Any], *, condition: Q, nulls_distinct: bool, using: str
) -> ConstraintAdvice:
    """The constraint that lets no two rows of `model` that meet `condition` be alike in `columns`, expressions.

    nulls_distinct: NULL in one of the columns makes rows different. Costs no statement.
    """
    fields = tuple(own_fields(model, columns))
    plain = len(fields) == len(columns)
    homes = (
        {field.model for field in fields} if plain else {home for home, _ in _columns_read_by(model, columns)}
    )
    if refusal := _refuse_one_table(model, columns, homes, condition):
        return ConstraintAdvice(refusal=refusal)
    home: type[Model] = next(iter(homes))
    nullable = not plain or any(field.null for field in fields)
    strict = not nulls_distinct and nullable
    if refusal := _refuse_declared(home, fields if plain else (), condition, strict=strict):
        return ConstraintAdvice(refusal=refusal)
    names = (
        tuple(field.name for field in fields)
        if plain
        else tuple(sorted(attname for _, attname in _columns_read_by(model, columns)))
    )
    arguments = [
        *([f"fields=[{', '.join(map(_quote, names))}]"] if plain else map(_expression_source, columns)),
        *([f"condition={_condition_source(condition)}"] if condition else []),
        *(["nulls_distinct=False"] if strict else []),
        f"name={_quote(_constraint_name(home, names))}",
    ]
    return ConstraintAdvice(
        model=home._meta.label,
        fields=names,
        django=f"models.UniqueConstraint({', '.join(arguments)})",
        refusal=_refuse_unsupported(
            home, fields, partial=bool(condition), expressions=not plain, strict=strict, using=using
        ),
        needs="PostgreSQL 15" if strict else "",
        foreign=is_foreign(home),
    )


def is_foreign(model: type[Model]) -> bool:
    """Whether the model is of an installed package, and not of the project."""
    home = Path(apps.get_app_config(model._meta.app_label).path)
    return any(part in {"site-packages", "dist-packages"} for part in home.parts)


def _refuse_declared(
    model: type[Model], fields: Sequence[Field[Any, Any]], condition: Q, *, strict: bool
) -> Refusal | None:
    """Why another would not help, where the model has a constraint on just these columns under just this condition; None if it hasn't."""
    names = {field.name for field in fields}
    for each in model._meta.constraints:
        if isinstance(each, UniqueConstraint) and names and {*each.fields} == names:
            same = _where(model._base_manager.all(), each.condition or Q()) == _where(
                model._base_manager.all(), condition
            )
            if same and (each.nulls_distinct is False) is strict:
                return Refusal(
                    f"{model._meta.label} declares one already, {each.name!r}. It doesn't count here: this database has no such "
                    "constraint, or holds it back until COMMIT, or lets NULL past it."
                )
    return None


def _refuse_one_table(
    model: type[Model], columns: Sequence[Any], homes: set[type[Model]], condition: Q
) -> Refusal | None:
    """Why no constraint of one table can say it; None if one can."""
    if len(homes) != 1 or any(isinstance(each, F) and LOOKUP_SEP in path_of(each) for each in columns):
        return Refusal(
            "What tells the rows apart stands in several tables; a unique constraint is about one."
        )
    if condition and not _is_constant(model, condition, homes):
        return Refusal(
            "Other tables, or the clock, tell which rows count; no constraint's condition reads those."
        )
    return None


def filter_of(every: QuerySet[Any]) -> Q | None:
    """The filter of `every` as a condition on its own columns; None if it can't be written as one."""
    try:
        condition = _as_condition(where_of(every.query))
        same = condition is not None and is_filter(every, condition)
    except FieldError:
        return None
    return condition if same else None


def _as_condition(node: Any) -> Q | None:
    if isinstance(node, WhereNode):
        parts = [_as_condition(child) for child in node.children]
        if None in parts or node.connector not in {AND, "OR"}:
            return None
        condition = Q(*(part for part in parts if part is not None), _connector=node.connector)
        return ~condition if node.negated else condition
    if isinstance(node, Lookup) and isinstance(node.lhs, Col) and not hasattr(node.rhs, "resolve_expression"):
        name = node.lhs.target.name
        return Q(**{name if node.lookup_name == "exact" else f"{name}__{node.lookup_name}": node.rhs})
    return None


def _columns_read_by(model: type[Model], columns: Sequence[Any]) -> frozenset[Column]:
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

    map_expression(condition, leaf)
    rows = model._base_manager.filter(condition)
    return not clocks and {home for home, _ in columns_read(rows.only("pk"))} <= homes


def _refuse_unsupported(
    model: type[Model],
    fields: Sequence[Field[Any, Any]],
    *,
    partial: bool,
    expressions: bool,
    strict: bool,
    using: str,
) -> Refusal | None:
    """Why the database `using` can't have the constraint; None if it can."""
    features = connections[using].features
    if not is_made_by_django(model, using):
        return Refusal("Django doesn't manage the table, so that nobody knows which constraints it has.")
    if partial and not features.supports_partial_indexes:
        return Refusal("This database has no unique constraints with a condition.")
    if expressions and not features.supports_expression_indexes:
        return Refusal("This database has no unique constraints on expressions.")
    if strict and not features.supports_nulls_distinct_unique_constraints:
        return Refusal(
            "NULL counts like any value here, and on this database it gets past unique constraints."
        )
    if not dialect_of(using).can_declare(fields):
        return Refusal("A text or bytes of any length can't be unique on this database.")
    return None


def _constraint_name(model: type[Model], names: Sequence[str]) -> str:
    meta = model._meta
    name = "_".join([meta.app_label, str(meta.model_name), *names, "once"])
    if len(name) <= _LONGEST:
        return name
    digest = names_digest(*names, length=6)
    return f"{'_'.join([meta.app_label, str(meta.model_name)])[: _LONGEST - 12]}_{digest}_once"


def _condition_source(condition: Q) -> str:
    plain = not condition.negated and (condition.connector == AND or len(condition.children) == 1)
    if plain and all(isinstance(child, tuple) for child in condition.children):
        return (
            f"models.Q({', '.join(f'{name}={_value_source(value)}' for name, value in condition.children)})"  # type: ignore[misc]
        )
    return _value_source(condition)


def _expression_source(expression: Any) -> str:
    return _quote(path_of(expression)) if isinstance(expression, F) else _value_source(expression)


def _value_source(value: Any) -> str:
    """A value as Python writes it, with the names that a module of models has."""
    if isinstance(value, str):
        return _quote(str(value))
    return re.sub(r"django\.db\.models\.functions\.\w+\.", "", python_source(value))


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
