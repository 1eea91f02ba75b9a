"""The rows of a judgement: what is there, what is owed, and what would be inserted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Any

from django.db.models import Field, Model, Value

from reconcile.drift import EXTRA
from reconcile.finders import Correction, Finder, Insertion
from reconcile.judging._values import UNSAID, Cell, Made, Row
from reconcile.sql.expressions import Column, columns_read
from reconcile.sql.lookups import stored_field
from reconcile.sql.statements import KEY, WANTED
from reconcile.windows import Keys

__all__ = ["linked_rows", "new_rows", "row", "wanted_values"]

SHOWN = 10
"""Rows that belong to one record and are shown; there may be any number."""

Wanted = Mapping[type[Model], Mapping[Any, Mapping[str, Any]]]
"""By model and key, the values that columns should have."""


def wanted_values(finders: Iterable[Finder], scope: Keys) -> Wanted:
    """What corrections would write. One statement for each correction."""
    return {
        correction.model: {
            key: {
                field.attname: _rounded(field, value)
                for field, value in zip(correction.fields, values, strict=True)
            }
            for key, *values in correction.wanted(scope).values_list(
                KEY, *(WANTED.format(field.attname) for field in correction.fields)
            )
        }
        for correction in _corrections(finders)
    }


def row(
    model: type[Model],
    key: Any,
    finders: Sequence[Finder],
    wanted: Wanted,
    *,
    using: str,
    judged: bool,
) -> Row:
    """The row of this key with the columns that the finders read. One statement.

    Where the record is `judged`, a column that a correction compares and would not write holds what it should.
    """
    compared = {
        field.attname for each in _corrections(finders) if each.model is model for field in each.fields
    }
    owed = wanted.get(model, {}).get(key, {})
    fields = _shown(model, finders)
    rows = model._base_manager.using(using).filter(Keys([key]).on("pk"))
    found = next(iter(rows.values_list(*(field.attname for field in fields))), None)
    there = dict(zip((field.attname for field in fields), found or (), strict=False))
    cells = tuple(
        Cell(column=name, there=value, owed=owed.get(name, value) if judged and name in compared else UNSAID)
        for name, value in there.items()
    )
    return Row(model=model._meta.label, key=key, cells=cells)


def linked_rows(
    finders: Sequence[Finder], scope: Keys, wanted: Wanted, *, using: str, judged: bool
) -> tuple[tuple[Row, ...], int]:
    """Rows that belong to the record, the first few of them, and how many more there are."""
    of_record = [each for each in finders if each.drift is not EXTRA]
    linked = dict.fromkeys(_linked_keys(of_record, scope, wanted))
    shown = list(linked)[:SHOWN]
    rows = []
    for model, key in shown:
        there = row(model, key, finders, wanted, using=using, judged=judged)
        surplus = [each for each in finders if each.drift is EXTRA and each.model is model]
        rows.append(replace(there, extra=any(key in each.keys(Keys([key])) for each in surplus)))
    return tuple(rows), len(linked) - len(shown)


def new_rows(insertion: Insertion, scope: Keys) -> tuple[Row, ...]:
    """The rows that an insert would write for a record that drifts. Two statements."""
    lacking = max(insertion.passes - insertion.present(scope).count(), 1)
    made = [Cell(column=name, owed=_made(make)) for name, make in insertion.made.items()]
    rows = []
    for values in insertion.owed(scope):
        pairs = zip(insertion.selected, values, strict=True)
        cells = [Cell(column=field.attname, owed=_rounded(field, value)) for field, value in pairs]
        rows += [Row(model=insertion.model._meta.label, key=None, cells=(*cells, *made))] * lacking
    return tuple(rows)


def _rounded(field: Field[Any, Any], value: Any) -> Any:
    """A decimal with the column's places: SQLite hands out what is computed with more."""
    places = getattr(stored_field(field), "decimal_places", None)
    return value if places is None or not isinstance(value, Decimal) else round(value, places)


def _made(make: Any) -> Any:
    """A constant that Python brings along is known; what a function will give is not, and it isn't called."""
    if isinstance(make, partial) and make.func is getattr and isinstance(make.args[0], Value):
        return make()
    return Made()


def _linked_keys(finders: Sequence[Finder], scope: Keys, wanted: Wanted) -> Iterator[tuple[type[Model], Any]]:
    for finder in finders:
        if finder.insertion is not None:
            present = finder.insertion.present(scope).order_by("pk")
            yield from ((finder.insertion.model, key) for key in present.values_list("pk", flat=True))
    for correction in _corrections(finders):
        if not correction.own:
            yield from ((correction.model, key) for key in wanted.get(correction.model, ()))


def _corrections(finders: Iterable[Finder]) -> Iterator[Correction]:
    return (finder.correction for finder in finders if finder.correction is not None)


def _shown(model: type[Model], finders: Sequence[Finder]) -> list[Field[Any, Any]]:
    """The key and the columns that the rule reads; all of them where an effect doesn't say what it reads."""
    everything: list[Field[Any, Any]] = list(model._meta.concrete_fields)
    read: set[Column] = set()
    for finder in finders:
        rows = finder.read(Keys(()))
        if rows is None:
            return everything
        read |= columns_read(rows)
    return [
        field
        for field in everything
        if field.primary_key or ((field.model._meta.concrete_model or field.model), field.attname) in read
    ]
