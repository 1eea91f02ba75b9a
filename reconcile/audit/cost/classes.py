"""Classes of records that cost alike: told by one of their columns, or two, and a range where no column tells."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import BooleanField, Model

from reconcile.audit.cost.counting import Counted

__all__ = ["CostClass", "Presence", "Sample", "classes_in", "features_of"]

DEPTH = 2
"""Columns that tell a class."""
TELLING = 0.5
"""A column tells K if no more than this part of the differences is left within its values."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One record, what its effects cost, and what may tell its class: choices, truths and NULLs by column."""

    key: Any
    features: Mapping[str, Any]
    counted: Counted


@dataclass(frozen=True, kw_only=True)
class CostClass:
    """Records that cost alike. said: what they have in common, empty if these are all. least, most: of K. rows: how many were counted."""

    said: str
    least: int
    most: int
    rows: int


def features_of(row: Model) -> dict[str, Any]:
    """What may tell the class of a record, by column."""
    found: dict[str, Any] = {}
    for each in row._meta.concrete_fields:
        value = getattr(row, each.attname)
        if each.choices or isinstance(each, BooleanField):
            found[each.name] = value if value.__hash__ else str(value)
        elif each.null and not each.primary_key:
            found[each.name] = Presence(value is None)
    return found


@dataclass(frozen=True)
class Presence:
    """Whether a column holds something."""

    is_null: bool

    def __str__(self) -> str:
        return "NULL" if self.is_null else "not NULL"


def classes_in(samples: Sequence[Sample]) -> list[CostClass]:
    """The classes, the dearest first. Those of which one column tells K are split by it."""
    found = [*_split(samples, (), DEPTH)]
    merged: dict[tuple[int, int], list[tuple[str, int]]] = defaultdict(list)
    for said, its in found:
        ks = [each.counted.k for each in its]
        merged[min(ks), max(ks)].append((said, len(its)))
    return sorted(
        (
            CostClass(
                said=" or ".join(dict.fromkeys(said for said, _ in those)) if len(merged) > 1 else "",
                least=least,
                most=most,
                rows=sum(rows for _, rows in those),
            )
            for (least, most), those in merged.items()
        ),
        key=lambda each: (-each.most, -each.least),
    )


def _split(
    samples: Sequence[Sample], said: tuple[str, ...], depth: int
) -> list[tuple[str, Sequence[Sample]]]:
    """The samples by the column that tells K best, as long as one does."""
    if _spread(samples) and depth:
        groups = min(_groupings(samples), key=_rank, default=None)
        if groups is not None and _rank(groups)[0] <= TELLING * _spread(samples) * len(samples):
            return [part for one, its in groups[1].items() for part in _split(its, (*said, one), depth - 1)]
    return [(", ".join(said), samples)]


Grouping = tuple[int, Mapping[str, Sequence[Sample]]]


def _groupings(samples: Sequence[Sample]) -> list[Grouping]:
    """For each column that differs among them the samples by its values, with its place: choices and truths come before NULLs."""
    found: list[Grouping] = []
    for place, name in enumerate(dict.fromkeys(name for each in samples for name in each.features)):
        groups: dict[str, list[Sample]] = defaultdict(list)
        for each in samples:
            groups[_said(name, each.features.get(name))].append(each)
        is_null = any(isinstance(each.features.get(name), Presence) for each in samples)
        if len(groups) > 1:
            found.append((place + (1_000 if is_null else 0), groups))
    return found


def _said(name: str, value: Any) -> str:
    return (
        f"{name} {value}" if isinstance(value, Presence) else f"{name} = {getattr(value, 'value', value)!r}"
    )


def _rank(grouping: Grouping) -> tuple[int, int, int]:
    """What is left untold by the column, then how many parts it makes, then its place."""
    place, groups = grouping
    return sum(_spread(its) * len(its) for its in groups.values()), len(groups), place


def _spread(samples: Sequence[Sample]) -> int:
    ks = [each.counted.k for each in samples]
    return max(ks, default=0) - min(ks, default=0)
