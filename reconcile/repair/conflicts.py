"""Conflicts: records that owe a unique value which another row has.

Where that one drifts, too, they can have it one after the other, the record first whose value is free: 3 → 4, then 2 → 3, then
1 → 2. Records that owe each other's values in a circle can't.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Q, Value

from reconcile.core.finder import Finder
from reconcile.core.fixes import Derivation, Insertion, Overwriting
from reconcile.core.scopes import Keys, blocks
from reconcile.db.columns import stored_field
from reconcile.db.django_compat import NOT_PROVIDED
from reconcile.db.uniques import Unique, uniques_of

__all__ = ["name_holder", "order_conflicts"]

Values = Mapping[str, Any]


@dataclass(frozen=True)
class _Owed:
    """One row that is to be updated: the record that it is repaired for, and its values by attname."""

    record: Any
    values: Values


def order_conflicts(finder: Finder, keys: Sequence[Any]) -> tuple[list[Any], set[Any]]:
    """The keys in an order in which each finds its value free, as far as these records alone decide; and those of swaps.

    Two statements for each 5,000 records; one more for each record whose rows are of another table.
    """
    rows_owed = dict(_rows_owed(finder, keys))
    uniques = _unique_columns(finder, rows_owed)
    there = _read_rows(finder, rows_owed, sorted({name for names in uniques for name in names}))
    waits_for: dict[Any, set[Any]] = {key: set() for key in keys}
    for row, holder in _holders(rows_owed, there, uniques):
        one, other = rows_owed[row].record, rows_owed[holder].record
        if one != other:
            waits_for[one].add(other)
    ordered, swaps = _sort(keys, waits_for)
    return [*ordered, *(key for key in keys if key in swaps)], swaps


def name_holder(finder: Finder, key: Any) -> str:
    """Which row has a unique value that the record owes, as a sentence; empty if none has, or nobody can tell.

    Two statements, and one or two for each unique constraint of the table.
    """
    model, using = finder.model_written, finder.using
    uniques = [each for each in uniques_of(model, using) if each.fields and not each.expressions]
    for row, values in _rows_wanted(finder, key):
        for unique in uniques:
            names = [field.attname for field in unique.fields]
            given = {name: values.get(name) for name in names}
            if None in given.values() or not _is_held_to(unique, values, using):
                continue
            others = model._base_manager.using(using).filter(unique.condition or Q(), **given)
            holder = others.exclude(pk=row).values_list("pk", flat=True).first()
            if holder is not None:
                return f"{model._meta.label} {holder} has the same {' and '.join(field.name for field in unique.fields)}."
    return ""


def _rows_wanted(finder: Finder, key: Any) -> Iterator[tuple[Any, Values]]:
    """The rows that the record owes, each with its key, None for a new one, and its values as far as they are known beforehand."""
    fix, keys = finder.fix, Keys([key])
    if isinstance(fix, Insertion):
        names = [field.attname for field in fix.selected]
        yield from ((None, dict(zip(names, values, strict=True))) for values in fix.owed(keys))
    elif isinstance(fix, Derivation):
        names = [field.attname for field in fix.model._meta.concrete_fields]
        yield from ((None, {name: getattr(row, name) for name in names}) for row in fix.owed(keys))
    else:
        owed = dict(_rows_owed(finder, [key]))
        columns = [field.attname for field in finder.model_written._meta.concrete_fields]
        for row, there in _read_rows(finder, owed, columns).items():
            yield row, {**there, **owed[row].values}


def _is_held_to(unique: Unique, values: Values, using: str) -> bool:
    """Whether a row of these values meets the condition of the constraint; not, if nobody can tell. One statement, if there is one."""
    if unique.condition is None:
        return True
    columns = unique.table._meta.concrete_fields
    # What is given no value is NULL, but for what the database or Python makes.
    known = [
        field
        for field in columns
        if field.attname in values
        or (field.null and field.db_default is NOT_PROVIDED and not field.primary_key)
    ]
    typed = {
        name: Value(values.get(field.attname), output_field=stored_field(field))
        for field in known
        for name in {field.name, field.attname}
    }
    return bool(unique.condition.check(typed, using=using))


def _rows_owed(finder: Finder, keys: Sequence[Any]) -> Iterator[tuple[Any, _Owed]]:
    """The rows that are to be updated, by their keys."""
    fix = finder.fix
    if not isinstance(fix, Overwriting):
        return
    # Of the rows of another table only the record that they are asked for tells whose they are.
    for block in blocks(keys) if fix.own else ([key] for key in keys):
        for each in fix.rewrites(Keys(block)):
            if each.refusal is None:
                yield each.key, _Owed(each.key if fix.own else block[0], each.values)


def _read_rows(finder: Finder, keys: Iterable[Any], columns: Sequence[str]) -> dict[Any, Values]:
    """The columns of the rows as they are."""
    rows = finder.model_written._base_manager.using(finder.using)
    found: dict[Any, Values] = {}
    for block in blocks(keys):
        for key, *values in rows.filter(pk__in=block).values_list("pk", *columns):
            found[key] = dict(zip(columns, values, strict=True))
    return found


def _unique_columns(finder: Finder, rows_owed: Mapping[Any, _Owed]) -> list[tuple[str, ...]]:
    """The columns of each unique constraint that has one of the columns written."""
    written = {name for owed in rows_owed.values() for name in owed.values}
    uniques = uniques_of(finder.model_written, finder.using)
    names = [tuple(field.attname for field in each.fields) for each in uniques]
    return [each for each in names if written & {*each}]


def _holders(
    rows_owed: Mapping[Any, _Owed],
    there: Mapping[Any, Values],
    uniques: Sequence[tuple[str, ...]],
) -> Iterator[tuple[Any, Any]]:
    """Each row with another that still has what it owes."""
    for names in uniques:
        holders = {_place(values[name] for name in names): key for key, values in there.items()}
        for key, values in there.items():
            owed = rows_owed[key].values
            holder = holders.get(_place(owed.get(name, values[name]) for name in names))
            if holder is not None and holder != key:
                yield key, holder


def _place(values: Iterable[Any]) -> tuple[Any, ...]:
    """The values as a place in an index. Texts are folded, as some collations do: a place too many only changes the order."""
    return tuple(each.casefold().rstrip() if isinstance(each, str) else each for each in values)


def _sort(keys: Sequence[Any], waits_for: Mapping[Any, set[Any]]) -> tuple[list[Any], set[Any]]:
    """The keys so that each comes after those that it waits for, and the keys for which there is no such place."""
    followers: dict[Any, list[Any]] = {}
    open_ones = {key: len(waits_for.get(key, ())) for key in keys}
    for key in keys:
        for holder in waits_for.get(key, ()):
            followers.setdefault(holder, []).append(key)
    ready = [key for key in keys if not open_ones[key]]
    ordered: list[Any] = []
    while ready:
        key = ready.pop()
        ordered.append(key)
        for follower in followers.get(key, ()):
            open_ones[follower] -= 1
            if not open_ones[follower]:
                ready.append(follower)
    return ordered, {*keys} - {*ordered}
