"""`HaveValues`: the record's own columns equal a constant, an expression or an aggregate.

STALE is the only drift: the record is there, with other values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db.models import (
    Aggregate,
    DecimalField,
    F,
    Field,
    FilteredRelation,
    FloatField,
    IntegerField,
    Model,
    OuterRef,
    Subquery,
    Value,
)
from django.db.models.constants import LOOKUP_SEP
from django.db.models.fields.reverse_related import ManyToOneRel
from django.db.models.functions import Coalesce

from reconcile.declaring import as_expression, column_faults, expression_faults, field_named
from reconcile.drift import STALE, Guarantee
from reconcile.errors import Fault
from reconcile.finders import Correction, Finder, Rows, Source
from reconcile.sql.dialects import dialect_of
from reconcile.sql.expressions import Column, aggregates_in, names_in, pinned, rebased
from reconcile.sql.lookups import AsStored
from reconcile.sql.statements import KEY, WANTED
from reconcile.sql.wording import any_differs, in_words
from reconcile.windows import Scope

__all__ = ["HaveValues"]

_JOINED = "_range"
"""Alias of the relation whose join has the range in it."""


class HaveValues:
    """Every record's columns must equal what is given for them: `HaveValues(item_count=Count("items"))`.

    A constant, an expression over the record and over what its foreign keys lead to, or an aggregate over
    a relation. The sum of no rows is 0 where the column can't be NULL. Values are compared as the column
    stores them, NULL equal to NULL. A check costs one statement a window; a repair writes only the rows and
    columns that differ, in four statements a chunk.
    """

    def __init__(self, **columns: Any) -> None:
        self.columns = columns

    def __repr__(self) -> str:
        return f"HaveValues({', '.join(f'{name}={value!r}' for name, value in self.columns.items())})"

    def faults(self, model: type[Model]) -> Iterator[Fault]:
        """Unknown columns, and paths in the expressions that lead nowhere."""
        if not self.columns:
            yield Fault(
                "reconcile.E012", "HaveValues() names no column.", "Give at least one: HaveValues(column=…)."
            )
        yield from column_faults(model, "HaveValues", iter(self.columns))
        for name, value in self.columns.items():
            field = field_named(model, name)
            if field is None:
                continue
            if field.primary_key:
                yield Fault(
                    "reconcile.E012", f"HaveValues: {name!r} is the primary key.", "A key is never repaired."
                )
            yield from expression_faults(model, value, field, f"HaveValues({name}=…)", aggregates=True)

    def sentence(self, model: type[Model]) -> str:  # noqa: ARG002
        """`have item_count = Count(items)`."""
        return f"have {in_words(self.columns)}"

    def guarantee(self, model: type[Model], using: str) -> Guarantee:  # noqa: ARG002
        """A: the record's own row is locked while its columns are compared and written."""
        return "A"

    def writes(self, model: type[Model]) -> frozenset[Column]:
        """The record's own columns."""
        return frozenset(
            (model._meta.concrete_model or model, field.attname) for field in self._fields(model)
        )

    def finders(self, source: Source) -> tuple[Finder, ...]:
        """One: the stale records."""
        fields = self._fields(source.model)

        def wanted(scope: Scope) -> Rows:
            rows = self._expecting(source, scope).annotate(**{KEY: F("pk")})
            rows = rows.filter(any_differs(fields, lambda field: F(WANTED.format(field.attname))))
            listed: Rows = rows.values_list(KEY, *(WANTED.format(field.attname) for field in fields))
            return listed

        def find(scope: Scope) -> Rows:
            rows = self._expecting(source, scope, alias=True)
            return rows.filter(any_differs(fields, lambda field: F(WANTED.format(field.attname))))

        correction = Correction(model=source.model, fields=fields, wanted=wanted, own=True)
        return (Finder(drift=STALE, model=source.model, carried=True, find=find, correction=correction),)

    def _fields(self, model: type[Model]) -> tuple[Field[Any, Any], ...]:
        return tuple(field for name in self.columns if (field := field_named(model, name)) is not None)

    def _expecting(self, source: Source, scope: Scope, *, alias: bool = False) -> Rows:
        """The records, each with the value that each column should have."""
        rows = source.records(scope)
        expressions = {
            field: pinned(as_expression(value, field), source.now)
            for field, value in zip(self._fields(source.model), self.columns.values(), strict=True)
        }
        relation = _only_relation(source, expressions)
        if relation is not None:
            link = f"{relation.name}{LOOKUP_SEP}{relation.field.name}"
            rows = rows.alias(**{_JOINED: FilteredRelation(relation.name, condition=scope.on(link))})
        wanted = {}
        for field, expression in expressions.items():
            if any(aggregates_in(expression)):
                form = (
                    rebased(expression, prefix=relation.name, onto=_JOINED)
                    if relation
                    else (_by_subquery(source, expression))
                )
                expression = _zero_if_none(form, expression, field)  # noqa: PLW2901
            wanted[WANTED.format(field.attname)] = AsStored(expression, field=field)
        expecting: Rows = rows.alias(**wanted) if alias else rows.annotate(**wanted)
        return expecting


def _zero_if_none(form: Any, expression: Any, field: Field[Any, Any]) -> Any:
    """The sum of no rows is NULL; where the column can't be NULL, 0 is meant."""
    numeric = isinstance(field, IntegerField | DecimalField | FloatField)
    if field.null or not numeric or not isinstance(expression, Aggregate):
        return form
    return Coalesce(form, Value(0), output_field=type(field)())


def _only_relation(source: Source, expressions: dict[Field[Any, Any], Any]) -> ManyToOneRel | None:
    """The reverse foreign key that all aggregates go over, if there is just one and a join is the best form.

    Two relations in one join would multiply each other's rows, so each then gets a subquery of its own.
    """
    if not dialect_of(source.using).aggregates_by_join:
        return None
    relations = {
        _relation(source.model, path)
        for expression in expressions.values()
        for aggregate in aggregates_in(expression)
        for path in names_in(aggregate)
    }
    relation = next(iter(relations)) if len(relations) == 1 else None
    plain = all(
        not any(aggregates_in(expression)) or _relation_only(source.model, expression, relation)
        for expression in expressions.values()
    )
    return relation if plain else None


def _relation_only(model: type[Model], expression: Any, relation: ManyToOneRel | None) -> bool:
    return relation is not None and all(_relation(model, path) == relation for path in names_in(expression))


def _relation(model: type[Model], path: str) -> ManyToOneRel | None:
    """The reverse foreign key to `model`'s own key that the path begins with."""
    head = path.split(LOOKUP_SEP, maxsplit=1)[0]
    relation = next((each for each in model._meta.related_objects if each.name == head), None)
    if not isinstance(relation, ManyToOneRel):
        return None
    return relation if relation.field.target_field.primary_key else None


def _by_subquery(source: Source, expression: Any) -> Subquery:
    """The expression, aggregated in a subquery that yields one row whether or not there are any to aggregate."""
    relations = {_relation(source.model, path) for path in names_in(expression)}
    relation = next(iter(relations)) if len(relations) == 1 else None
    if relation is not None:
        manager = relation.related_model._base_manager.using(source.using)
        rows = manager.filter(**{relation.field.name: OuterRef("pk")}).order_by()
        rows = rows.annotate(_value=rebased(expression, prefix=relation.name, onto="")).values("_value")
        # Without GROUP BY an aggregate of no rows is one row: 0 for a count, as in the join form.
        rows.query.group_by = None
        return Subquery(rows)
    itself = source.model._base_manager.using(source.using).filter(pk=OuterRef("pk")).order_by()
    return Subquery(itself.values("pk").annotate(_value=expression).values("_value"))
