"""`HaveValues`: the declaration, and its finder where the database computes all values.

Values that only Python can compute are in `python_finder`.

STALE is the only drift: the record is there, with other values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from django.db.models import F, Field, FilteredRelation, Model, Q, QuerySet

from reconcile.core.declaration import as_expression, column_faults, expression_faults, field_named
from reconcile.core.drift import STALE, Guarantee, Tally
from reconcile.core.finder import Finder, QueryFinder, Rows, Source, tally_in_one_statement
from reconcile.core.fixes import Correction
from reconcile.core.options import is_list
from reconcile.core.scopes import EVERYTHING, Scope
from reconcile.core.wording.terms import in_words
from reconcile.db.columns import concrete_model
from reconcile.db.comparisons import AsStored, any_differs, overflows
from reconcile.db.django_compat import LOOKUP_SEP, shape_of
from reconcile.db.expressions import (
    Column,
    columns_read_of_others,
    joins_whole,
    names_in,
    prepare,
)
from reconcile.db.statements import KEY, WANTED
from reconcile.errors import Fault
from reconcile.kinds.base import Effect
from reconcile.kinds.have_row.link import link_terms
from reconcile.kinds.have_values.first_rows import first_rows
from reconcile.kinds.have_values.python_finder import python_finder
from reconcile.kinds.have_values.trees import Firsts, Reads, is_upward, level_columns, level_faults, levels
from reconcile.kinds.values.aggregates import JOINED, aggregate_form, joined_relation
from reconcile.kinds.values.base import DerivedValue
from reconcile.kinds.values.from_python import FromPython, needs_python, python_value_faults, written_fields
from reconcile.kinds.values.storable import writable_rows
from reconcile.kinds.values.within import Within, tolerances, without_tolerance

__all__ = ["HaveValues", "expected_values", "is_carried", "window_size"]


def is_carried(source: Source, values: Mapping[Field[Any, Any], Any]) -> bool:
    """Whether a window costs no more than its share of the whole, for the records and for each of the values.

    A table that is joined without the range would be read whole by each window.
    """
    unwrapped = ((field, without_tolerance(value)) for field, value in values.items())
    if not all(
        value.in_windows(source, field) for field, value in unwrapped if isinstance(value, DerivedValue)
    ):
        return False
    rows, found = expected_values(source, EVERYTHING, values)
    named = {f"_{field.attname}": value for field, value in found.items()}
    return not joins_whole(source.every.query) and not joins_whole(rows.alias(**named).query)


def window_size(source: Source, values: Mapping[Field[Any, Any], Any]) -> int | None:
    """Keys in a window, where one of the values asks for another number than the usual."""
    unwrapped = ((field, without_tolerance(value)) for field, value in values.items())
    sizes = [
        value.window_size(source, field) for field, value in unwrapped if isinstance(value, DerivedValue)
    ]
    return next((size for size in sizes if size), None)


def expected_values(
    source: Source, scope: Scope, values: Mapping[Field[Any, Any], Any]
) -> tuple[Rows, dict[Field[Any, Any], Any]]:
    """The records in scope, and an expression over them for each column that `values` names."""
    given = {field: without_tolerance(value) for field, value in values.items()}
    plain = {
        field: prepare(as_expression(value, field), source.now)
        for field, value in given.items()
        if not isinstance(value, DerivedValue)
    }
    rows = source.records(scope)
    relation = joined_relation(source, plain.values())
    if relation is not None:
        link = f"{relation.name}{LOOKUP_SEP}{relation.field.name}"
        rows = rows.alias(**{JOINED: FilteredRelation(relation.name, condition=scope.on(link))})
    found = {field: aggregate_form(source, value, field, relation) for field, value in plain.items()}
    for field, value in given.items():
        if isinstance(value, DerivedValue):
            rows, found[field] = value.add_to(rows, source, scope, field)
    return rows, found


class HaveValues(Effect):
    """Every record's columns must equal what is given for them: `HaveValues(item_count=Count("items"))`.

    A constant, an expression over the record and over what its foreign keys lead to, an aggregate over
    a relation, `Latest(…)`, `LookedUp(…)`; with a tolerance, `Within(…)` any of them. The sum of no rows is 0 if the column can't be NULL. Values are compared as the column
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
        by_python, columns = self._split_by_python(model)
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
        yield from level_faults(model, self._reads(model), "HaveValues")
        yield from self._own_record_faults(model)

    def _own_record_faults(self, model: type[Model]) -> Iterator[Fault]:
        """A value that reads another column that the rule writes: both are written at once, so it would follow the old one."""
        reads = self._reads(model)
        for field, paths in reads.items():
            for other in reads:
                if other is not field and {other.name, other.attname} & {*paths}:
                    message = f"HaveValues({field.name}=…): it reads {other.name!r}, which the rule writes in the same statement."
                    hint = f"Write a rule of its own for {field.name!r}: it runs after the one that writes {other.name!r}."
                    yield Fault("reconcile.E015", message, hint)

    def _own_faults(self, model: type[Model], written: set[str]) -> Iterator[Fault]:
        """Rows of the same model, asked for what the rule writes: there is no telling which must be first."""
        for name, value in self.columns.items():
            derived = without_tolerance(value)
            rows, read = derived.reads(model) if isinstance(derived, DerivedValue) else (None, frozenset())
            own = rows is not None and concrete_model(rows) is concrete_model(model)
            if own and read & written:
                message = f"HaveValues({name}=…): {type(derived).__name__} reads {min(read & written)!r}, which the rule writes"
                hint = f"Read it by a path of one step, such as F('parent__{name}') or Max('children__{name}'), or by a Subquery of one row."
                yield Fault("reconcile.E015", f"{message} in other records.", hint)

    def _value_faults(
        self, model: type[Model], field: Field[Any, Any], value: Any, where: str
    ) -> Iterator[Fault]:
        if isinstance(value, Within):
            yield from value.faults(field, where)
        value = without_tolerance(value)
        if isinstance(value, DerivedValue):
            yield from value.faults(model, field, where)
        elif not isinstance(value, Within):
            yield from expression_faults(model, value, field, where, aggregates=True)

    def sentence(self, model: type[Model]) -> str:
        """`have item_count = Count(items)`."""
        return f"have {in_words(self.columns, model)}"

    def guarantee(self, model: type[Model], using: str) -> Guarantee:  # noqa: ARG002
        """CONSTRAINT: the record's own row is locked while its columns are compared and written."""
        return Guarantee.CONSTRAINT

    def writes(self, model: type[Model]) -> frozenset[Column]:
        """The record's own columns."""
        return frozenset(
            (concrete_model(model), field.attname) for field in written_fields(model, iter(self.columns))
        )

    def reads_of_others(self, every: QuerySet[Any]) -> frozenset[Column]:
        """Without those that are read by one step: their order is that of levels, and needs no rounds."""
        found = super().reads_of_others(every)
        firsts = self._firsts(every.model)
        if firsts is None or any(
            isinstance(each, DerivedValue) for each in self._given(every.model).values()
        ):
            return found
        by_level = level_columns(every.model, self._reads(every.model), firsts)
        in_order = {(concrete_model(every.model), attname) for attname in by_level}
        return found - in_order | columns_read_of_others(every)

    def finders(self, source: Source) -> tuple[Finder, ...]:
        """One: the stale records."""
        by_python, columns = self._split_by_python(source.model)
        if by_python:
            return (self._python_finder(source, by_python, columns),)
        values = self._values(source.model)
        fields = tuple(values)
        differs = any_differs(fields, _wanted_column, tolerances(values))

        given = {field: without_tolerance(value) for field, value in values.items()}
        # Of a value that is no expression itself only the column that it is joined as tells the size.
        sized = {
            field: _wanted_column(field) if isinstance(value, DerivedValue) else value
            for field, value in given.items()
        }
        overflow = overflows(source.model, sized, _wanted_column, source.using)

        def wanted(scope: Scope) -> Rows:
            rows = self._with_expected_values(source, scope).annotate(**{KEY: F("pk")})
            listed: Rows = writable_rows(rows.filter(differs), overflow).values_list(
                KEY, *(WANTED.format(field.attname) for field in fields)
            )
            return listed

        def find(scope: Scope) -> Rows:
            return self._with_expected_values(source, scope, alias=True).filter(differs)

        whole = not is_carried(source, values)
        in_order = levels(
            source, self._reads(source.model), self._firsts(source.model, source.now) or {}, find
        )
        finder = QueryFinder(
            drift=STALE, model=source.model, using=source.using, in_windows=not whole, query=find,
            window=window_size(source, values), tally_all=self._tally(source, differs) if whole else None,
            starts=self._starts(source, given, find), overflow=overflow,
            fix=Correction(model=source.model, fields=fields, wanted=wanted, own=True, levels=in_order),
        )  # fmt: skip
        return (finder,)

    def _tally(self, source: Source, differs: Q) -> Callable[[], Tally] | None:
        """Counts records and drift in one statement; None if an aggregate groups the rows by record."""
        rows = self._with_expected_values(replace(source, settled=Q()), EVERYTHING)
        if shape_of(rows).grouped:
            return None
        return tally_in_one_statement(source, rows, differs)

    def _starts(
        self, source: Source, given: Mapping[Field[Any, Any], Any], find: Callable[[Scope], Rows]
    ) -> Callable[[Scope], Rows] | None:
        """Where the discrepancies start, if the only column is one whose values go on from record to record."""
        ((field, value), *others) = given.items()
        if others or not isinstance(value, DerivedValue):
            return None
        derived = value
        if derived.starts(find(EVERYTHING), source, EVERYTHING, field) is None:
            return None

        def starts(scope: Scope) -> Rows:
            rows, condition = derived.starts(find(scope), source, scope, field) or (find(scope), Q())
            found: Rows = rows.filter(condition)
            return found

        return starts

    def _reads(self, model: type[Model]) -> Reads:
        """For each column the paths that its value reads."""
        reads: dict[Field[Any, Any], list[str]] = {}
        for name, value in self.columns.items():
            for field in written_fields(model, iter([name])):
                reads.setdefault(field, []).extend(_paths_of(value))
        return reads

    def _given(self, model: type[Model]) -> Mapping[Field[Any, Any], Any]:
        """The values without their tolerances."""
        return {field: without_tolerance(value) for field, value in self._values(model).items()}

    def _firsts(self, model: type[Model], now: datetime | None = None) -> Firsts | None:
        """The subqueries that read what the rule writes, each in one other record; None if one reads it in another way."""
        given = self._given(model)
        plain = {
            field: as_expression(value, field)
            for field, value in given.items()
            if not isinstance(value, DerivedValue)
        }
        if now is not None:
            plain = {field: prepare(value, now) for field, value in plain.items()}
        found = first_rows(model, plain)
        return found if not found or is_upward(model, self._reads(model)) else None

    def _split_by_python(self, model: type[Model]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The columns whose values only Python can compute, and the others."""
        by_python = {name: value for name, value in self.columns.items() if needs_python(model, name, value)}
        return by_python, {name: value for name, value in self.columns.items() if name not in by_python}

    def _python_finder(
        self, source: Source, by_python: Mapping[str, Any], columns: Mapping[str, Any]
    ) -> Finder:
        """The finder if Python computes `by_python`, and the database `columns`."""
        beside = HaveValues(**columns)
        values = beside._values(source.model)
        fields = tuple(values)

        def select_expected(scope: Scope) -> Rows:
            return beside._with_expected_values(source, scope) if fields else source.records(scope)

        differing = any_differs(fields, _wanted_column, tolerances(values)) if fields else Q()
        reads, firsts = self._reads(source.model), beside._firsts(source.model, source.now) or {}
        return python_finder(
            source, by_python, beside=fields, select_expected=select_expected, differing=differing,
            order=lambda find: levels(source, reads, firsts, find),
        )  # fmt: skip

    def _values(self, model: type[Model]) -> dict[Field[Any, Any], Any]:
        return link_terms(model, self.columns)

    def _fields(self, model: type[Model]) -> tuple[Field[Any, Any], ...]:
        return tuple(self._values(model))

    def _with_expected_values(self, source: Source, scope: Scope, *, alias: bool = False) -> Rows:
        """The records, each with the value that each column should have."""
        rows, found = expected_values(source, scope, self._values(source.model))
        wanted = {
            WANTED.format(field.attname): AsStored(value, field=field) for field, value in found.items()
        }
        with_values: Rows = rows.alias(**wanted) if alias else rows.annotate(**wanted)
        return with_values


def _paths_of(value: Any) -> Iterator[str]:
    if isinstance(value, FromPython):
        reads = value.reads if is_list(value.reads) else ()
        return (path for path in reads if isinstance(path, str))
    return names_in(without_tolerance(value))


def _wanted_column(field: Field[Any, Any]) -> F:
    return F(WANTED.format(field.attname))
