"""`HaveValues`: the record's own columns equal a constant, an expression or an aggregate.

STALE is the only drift: the record is there, with other values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.db.models import F, Field, FilteredRelation, Model, Q
from django.db.models.constants import LOOKUP_SEP

from reconcile.declaring import as_expression, column_faults, expression_faults, field_named
from reconcile.drift import STALE, Drift, Guarantee
from reconcile.effects._aggregates import JOINED, aggregated, joined_relation
from reconcile.effects._from_python import needs_python, written_fields
from reconcile.effects._levels import level_faults, levels
from reconcile.effects._python_faults import python_value_faults
from reconcile.effects._python_values import python_finder
from reconcile.errors import Fault
from reconcile.finders import Correction, Finder, Rows, Source
from reconcile.remedies import Remedy
from reconcile.sql.expressions import Column, names_in, pinned
from reconcile.sql.lookups import AsStored, any_differs
from reconcile.sql.statements import KEY, WANTED
from reconcile.sql.wording import in_words
from reconcile.windows import Scope

__all__ = ["HaveValues"]


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
        by_python, columns = self._divided(model)
        yield from python_value_faults(model, by_python)
        yield from column_faults(model, "HaveValues", iter(columns))
        for name, value in columns.items():
            field = field_named(model, name)
            if field is None:
                continue
            if field.primary_key:
                yield Fault(
                    "reconcile.E012", f"HaveValues: {name!r} is the primary key.", "A key is never repaired."
                )
            yield from expression_faults(model, value, field, f"HaveValues({name}=…)", aggregates=True)
        yield from level_faults(model, self._fields(model), self._paths(), "HaveValues")

    def sentence(self, model: type[Model]) -> str:  # noqa: ARG002
        """`have item_count = Count(items)`."""
        return f"have {in_words(self.columns)}"

    def guarantee(self, model: type[Model], using: str) -> Guarantee:  # noqa: ARG002
        """A: the record's own row is locked while its columns are compared and written."""
        return "A"

    def writes(self, model: type[Model]) -> frozenset[Column]:
        """The record's own columns."""
        return frozenset(
            (model._meta.concrete_model or model, field.attname)
            for field in written_fields(model, iter(self.columns))
        )

    def remedies(self) -> Mapping[Drift, Remedy]:
        """The usual ones."""
        return {}

    def finders(self, source: Source) -> tuple[Finder, ...]:
        """One: the stale records."""
        by_python, columns = self._divided(source.model)
        if by_python:
            return (HaveValues(**columns)._sifted(source, by_python),)
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
        return (
            Finder(
                drift=STALE, model=source.model, carried=True, find=find, correction=correction,
                levels=levels(source.model, fields, self._paths(), find),
            ),
        )  # fmt: skip

    def _paths(self) -> Iterator[str]:
        """The paths that the expressions read."""
        for value in self.columns.values():
            yield from names_in(value)

    def _divided(self, model: type[Model]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The columns whose values only Python can tell, and the others."""
        by_python = {name: value for name, value in self.columns.items() if needs_python(model, name, value)}
        return by_python, {name: value for name, value in self.columns.items() if name not in by_python}

    def _sifted(self, source: Source, by_python: Mapping[str, Any]) -> Finder:
        """The stale records, where Python tells the values of some columns beside these."""
        fields = self._fields(source.model)

        def expecting(scope: Scope) -> Rows:
            return self._expecting(source, scope) if fields else source.records(scope)

        differing = any_differs(fields, lambda field: F(WANTED.format(field.attname))) if fields else Q()
        return python_finder(source, by_python, beside=fields, expecting=expecting, differing=differing)

    def _fields(self, model: type[Model]) -> tuple[Field[Any, Any], ...]:
        return tuple(field for name in self.columns if (field := field_named(model, name)) is not None)

    def _expecting(self, source: Source, scope: Scope, *, alias: bool = False) -> Rows:
        """The records, each with the value that each column should have."""
        rows = source.records(scope)
        expressions = {
            field: pinned(as_expression(value, field), source.now)
            for field, value in zip(self._fields(source.model), self.columns.values(), strict=True)
        }
        relation = joined_relation(source, expressions.values())
        if relation is not None:
            link = f"{relation.name}{LOOKUP_SEP}{relation.field.name}"
            rows = rows.alias(**{JOINED: FilteredRelation(relation.name, condition=scope.on(link))})
        wanted = {
            WANTED.format(field.attname): AsStored(
                aggregated(source, expression, field, relation), field=field
            )
            for field, expression in expressions.items()
        }
        expecting: Rows = rows.alias(**wanted) if alias else rows.annotate(**wanted)
        return expecting
