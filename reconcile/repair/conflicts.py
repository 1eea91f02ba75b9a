"""Conflicts: records that owe a unique value which another drifted record still has.

One after the other they can have it, the record first whose value is free: 3 → 4, then 2 → 3, then 1 → 2. Records that owe each
other's values in a circle can't.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reconcile.core.finder import Finder
from reconcile.core.scopes import Keys, blocks
from reconcile.db.statements import KEY, WANTED
from reconcile.db.uniques import uniques_of

__all__ = ["may_conflict", "order_conflicts"]

Values = Mapping[str, Any]


def may_conflict(finder: Finder) -> bool:
    """Whether a repair updates the records' own columns, so that one may free what another owes."""
    return finder.rewriting is not None or (finder.correction is not None and finder.correction.own)


def order_conflicts(finder: Finder, keys: Sequence[Any]) -> tuple[list[Any], set[Any]]:
    """The keys in an order in which each finds its value free, as far as these records alone decide; and those of swaps.

    Two statements for each 5,000 records.
    """
    wanted = {key: values for block in blocks(keys) for key, values in _wanted(finder, Keys(block))}
    columns = sorted({name for names in _unique_columns(finder, wanted) for name in names})
    rows = finder.model._base_manager.using(finder.using)
    there: dict[Any, dict[str, Any]] = {}
    for block in blocks(keys):
        for key, *values in rows.filter(pk__in=block).values_list("pk", *columns):
            there[key] = dict(zip(columns, values, strict=True))
    waits_for = _holders(wanted, there, _unique_columns(finder, wanted))
    ordered, swaps = _sort(keys, waits_for)
    return [*ordered, *(key for key in keys if key in swaps)], swaps


def _wanted(finder: Finder, keys: Keys) -> Iterator[tuple[Any, Values]]:
    """The values that the records owe, by key."""
    if finder.rewriting is not None:
        yield from ((each.key, each.values) for each in finder.rewriting.wanted(keys) if not each.refusal)
    elif finder.correction is not None:
        names = [field.attname for field in finder.correction.fields]
        for key, *values in finder.correction.wanted(keys).values_list(KEY, *map(WANTED.format, names)):
            yield key, dict(zip(names, values, strict=True))


def _unique_columns(finder: Finder, wanted: Mapping[Any, Values]) -> list[tuple[str, ...]]:
    """The columns of each unique constraint that has one of the columns written."""
    written = {name for values in wanted.values() for name in values}
    names = [tuple(field.attname for field in each.fields) for each in uniques_of(finder.model, finder.using)]
    return [each for each in names if written & {*each}]


def _holders(
    wanted: Mapping[Any, Values], there: Mapping[Any, Values], uniques: Sequence[tuple[str, ...]]
) -> dict[Any, set[Any]]:
    """For each record the others that still have what it owes."""
    waits_for: dict[Any, set[Any]] = {key: set() for key in there}
    for names in uniques:
        holders = {tuple(values[name] for name in names): key for key, values in there.items()}
        for key, values in there.items():
            owed = tuple(wanted.get(key, {}).get(name, values[name]) for name in names)
            holder = holders.get(owed)
            if holder is not None and holder != key:
                waits_for[key].add(holder)
    return waits_for


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
