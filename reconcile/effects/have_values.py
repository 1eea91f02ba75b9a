"""`HaveValues`: the record's own columns equal a constant, an expression or an aggregate.

STALE is the only drift: the record is there, with other values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from django.db.models import F, Field, Model, Q

from reconcile.declaring import column_faults, expression_faults, field_named
from reconcile.drift import STALE, Drift, Guarantee, Tally
from reconcile.effects._derived import Derived
from reconcile.effects._expected import carried, expected, window
from reconcile.effects._from_python import FromPython, needs_python, written_fields
from reconcile.effects._levels import level_faults, levels
from reconcile.effects._link import terms
from reconcile.effects._python_faults import python_value_faults
from reconcile.effects._python_values import python_finder
from reconcile.effects._tally import in_one_statement
from reconcile.effects.within import Within, exact, tolerances
from reconcile.errors import Fault
from reconcile.finders import Correction, Finder, Rows, Source
from reconcile.remedies import Remedy
from reconcile.sql.expressions import Column, names_in
from reconcile.sql.lookups import AsStored, any_differs
from reconcile.sql.statements import KEY, WANTED
from reconcile.sql.wording import in_words
from reconcile.windows import EVERYTHING, Scope

__all__ = ["HaveValues"]


class HaveValues:
    """Every record's columns must equal what is given for them: `HaveValues(item_count=Count("items"))`.

    A constant, an expression over the record and over what its foreign keys lead to, an aggregate over
    a relation, `Latest(…)`, `LookedUp(…)`; with a tolerance, `Within(…)` any of them. The sum of no rows is 0 where the column can't be NULL. Values are compared as the column
    stores them, NULL equal to NULL. A check costs one statement a window; a repair writes only the rows and
    columns that differ, in four statements a chunk.
    """

    def __init__(self, **columns: Any) -> None:
        self.columns = columns

    def __repr__(self) -> str:
        return f"HaveValues({', '.join(f'{name}={value!r}' for name, value in self.columns.items())})"

    def faults(self, model: type[Model]) -> Iterator[Fault]:
        """Unknown columns, paths in the expressions that lead nowhere, and values that wait for themselves."""
        found = list(self._column_faults(model))
        yield from found
        if not found:
            written = written_fields(model, iter(self.columns))
            yield from self._own_faults(
                model, {name for each in written for name in (each.name, each.attname)}
            )

    def _column_faults(self, model: type[Model]) -> Iterator[Fault]:
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
            yield from self._value_faults(model, field, value, f"HaveValues({name}=…)")
        written = written_fields(model, iter(self.columns))
        yield from level_faults(model, written, self._paths(), "HaveValues")

    def _own_faults(self, model: type[Model], written: set[str]) -> Iterator[Fault]:
        """Rows of the same model, asked for what the rule writes: there is no telling which must be first."""
        for name, value in self.columns.items():
            derived = exact(value)
            rows, read = derived.reads(model) if isinstance(derived, Derived) else (None, frozenset())
            own = rows is not None and rows._meta.concrete_model is model._meta.concrete_model
            if own and read & written:
                said = f"HaveValues({name}=…): {type(derived).__name__} reads {min(read & written)!r}, which the rule writes"
                hint = (
                    f"Read it by a path of one step, such as F('parent__{name}') or Max('children__{name}')."
                )
                yield Fault("reconcile.E015", f"{said} in other records.", hint)

    def _value_faults(
        self, model: type[Model], field: Field[Any, Any], value: Any, where: str
    ) -> Iterator[Fault]:
        if isinstance(value, Within):
            yield from value.faults(field, where)
        value = exact(value)
        if isinstance(value, Derived):
            yield from value.faults(model, field, where)
        elif not isinstance(value, Within):
            yield from expression_faults(model, value, field, where, aggregates=True)

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
            return (self._sifted(source, by_python, columns),)
        values = self._values(source.model)
        fields = tuple(values)
        differs = any_differs(fields, _wanted, tolerances(values))

        def wanted(scope: Scope) -> Rows:
            rows = self._expecting(source, scope).annotate(**{KEY: F("pk")})
            listed: Rows = rows.filter(differs).values_list(
                KEY, *(WANTED.format(field.attname) for field in fields)
            )
            return listed

        def find(scope: Scope) -> Rows:
            return self._expecting(source, scope, alias=True).filter(differs)

        whole = not carried(source, values)
        finder = Finder(
            drift=STALE, model=source.model, carried=not whole, find=find, window=window(source, values),
            correction=Correction(model=source.model, fields=fields, wanted=wanted, own=True),
            tallied=self._tally(source, differs) if whole else None,
            levels=levels(source.model, fields, self._paths(), find),
        )  # fmt: skip
        return (finder,)

    def _tally(self, source: Source, differs: Q) -> Callable[[], Tally] | None:
        """Counts records and drift in one statement; None where an aggregate groups the rows by record."""
        rows = self._expecting(replace(source, settled=Q()), EVERYTHING)
        if rows.query.group_by is not None:
            return None
        return in_one_statement(source, rows, differs)

    def _paths(self) -> Iterator[str]:
        """The paths that the values read."""
        for value in self.columns.values():
            if isinstance(value, FromPython):
                yield from (path for path in value.reads if isinstance(path, str))
            else:
                yield from names_in(exact(value))

    def _divided(self, model: type[Model]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The columns whose values only Python can tell, and the others."""
        by_python = {name: value for name, value in self.columns.items() if needs_python(model, name, value)}
        return by_python, {name: value for name, value in self.columns.items() if name not in by_python}

    def _sifted(self, source: Source, by_python: Mapping[str, Any], columns: Mapping[str, Any]) -> Finder:
        """The stale records, where Python tells the values of some columns beside these."""
        beside = HaveValues(**columns)
        values = beside._values(source.model)
        fields = tuple(values)

        def expecting(scope: Scope) -> Rows:
            return beside._expecting(source, scope) if fields else source.records(scope)

        differing = any_differs(fields, _wanted, tolerances(values)) if fields else Q()
        finder = python_finder(source, by_python, beside=fields, expecting=expecting, differing=differing)
        written = written_fields(source.model, iter(self.columns))
        return replace(finder, levels=levels(source.model, written, self._paths(), finder.find))

    def _values(self, model: type[Model]) -> dict[Field[Any, Any], Any]:
        return terms(model, self.columns)

    def _fields(self, model: type[Model]) -> tuple[Field[Any, Any], ...]:
        return tuple(self._values(model))

    def _expecting(self, source: Source, scope: Scope, *, alias: bool = False) -> Rows:
        """The records, each with the value that each column should have."""
        rows, found = expected(source, scope, self._values(source.model))
        wanted = {
            WANTED.format(field.attname): AsStored(value, field=field) for field, value in found.items()
        }
        expecting: Rows = rows.alias(**wanted) if alias else rows.annotate(**wanted)
        return expecting


def _wanted(field: Field[Any, Any]) -> F:
    return F(WANTED.format(field.attname))
