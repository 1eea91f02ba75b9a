"""Compares what two paths did, each run twice: what differs between two runs of one path says nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from reconcile.audit.capture.capturing import Captured
from reconcile.audit.parity.canonical import Canonical, Entry, Mask
from reconcile.audit.parity.schema import Schema

__all__ = ["Difference", "Parity", "compare"]

_MOST_PAIRED = 200
"""Entries of one table that are paired by what they have in common; of more, the rest stand alone."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing that only one path did, or that both did with other values.

    kind: `insert`, `update`, `delete`, `task` or `mail`. name: of the table or task. one, other: the values on each path, None where it did no such
    thing. times: how often. by_reference: the rows are alike, and other rows refer to them.
    """

    kind: str
    name: str
    one: Mapping[str, str] | None
    other: Mapping[str, str] | None
    times: int = 1
    by_reference: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """What is different where both paths did such a thing."""
        if self.one is None or self.other is None:
            return ()
        return tuple(
            each for each in {**self.one, **self.other} if self.one.get(each) != self.other.get(each)
        )


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How two paths compare. volatile: what differs between two runs of one path, so that only its shape was compared.

    unsteady: what one path did in one of its two runs and not in the other, by path; nothing is said of what differs then. is_empty: neither path did anything, nor asked the database.
    """

    differences: Sequence[Difference]
    volatile: Mask
    unsteady: Mapping[str, Sequence[Difference]]
    is_empty: bool = False

    @property
    def is_same(self) -> bool:
        """Whether both paths leave the same."""
        return not (self.differences or any(self.unsteady.values()))


def compare(
    one: Sequence[Captured], other: Sequence[Captured], schema: Schema, volatile: Mask = frozenset()
) -> Parity:
    """Compare two runs of each path."""
    mask = _learn(other, schema, _learn(one, schema, volatile))
    first, second = ([Canonical(each, schema, mask) for each in runs] for runs in (one, other))
    unsteady = {name: [*_differences(*runs)] for name, runs in (("one", first), ("two", second))}
    found = [] if any(unsteady.values()) else [*_differences(first[0], second[0])]
    return Parity(
        differences=found,
        volatile=mask - volatile,
        unsteady={name: each for name, each in unsteady.items() if each},
        is_empty=not any(each.entries or each.captured.statements.total for each in (*first, *second)),
    )


def _learn(runs: Sequence[Captured], schema: Schema, mask: Mask) -> Mask:
    """The mask with what differs between the runs of one path. What refers to a row differs with it, so the columns come one after the other."""
    while True:
        columns = [_by_column(Canonical(each, schema, mask).entries) for each in runs]
        new = {name for name in {*columns[0], *columns[1]} if columns[0].get(name) != columns[1].get(name)}
        loose = {each for each in new if not _is_reference(schema, *each)} or new
        if not loose - mask:
            return mask
        mask |= frozenset(loose)


def _by_column(entries: Counter[Entry]) -> dict[tuple[str, str], Counter[str]]:
    found: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for entry, times in entries.items():
        for column, value in entry.values:
            if column != "key":
                found[entry.name, column][value] += times
    return found


def _is_reference(schema: Schema, name: str, column: str) -> bool:
    table = schema.table(name)
    return column in table.references or column in table.generic


def _differences(one: Canonical, other: Canonical) -> Iterator[Difference]:
    found = [*_between(one.entries, other.entries, by_reference=False)]
    yield from found or _between(one.told_apart, other.told_apart, by_reference=True)


def _between(one: Counter[Entry], other: Counter[Entry], *, by_reference: bool) -> Iterator[Difference]:
    left, right = one - other, other - one
    for kind, name in sorted({(each.kind, each.name) for each in (*left, *right)}):
        mine = [each for each in left if (each.kind, each.name) == (kind, name)]
        theirs = [each for each in right if (each.kind, each.name) == (kind, name)]
        for first, second in _paired(mine, theirs):
            times = max(left[first] if first else 0, right[second] if second else 0)
            yield Difference(
                kind=kind,
                name=name,
                one=first.as_dict if first else None,
                other=second.as_dict if second else None,
                times=times,
                by_reference=by_reference,
            )


def _paired(mine: Sequence[Entry], theirs: Sequence[Entry]) -> Iterator[tuple[Entry | None, Entry | None]]:
    """Each entry with the one of the other path that has most in common with it."""
    left = [*theirs]
    for each in mine:
        near = max(left[:_MOST_PAIRED], key=lambda one: _in_common(each, one), default=None)
        if near is not None and _in_common(each, near):
            left.remove(near)
            yield each, near
        else:
            yield each, None
    yield from ((None, each) for each in left)


def _in_common(one: Entry, other: Entry) -> int:
    return len({*one.values} & {*other.values})
