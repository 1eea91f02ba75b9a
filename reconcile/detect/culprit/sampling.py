"""The records that are compared: drifted ones and others, a sample of each where there are many."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

from django.db.models import BigIntegerField, CharField, ExpressionWrapper, F, Model, Q
from django.db.models.functions import MD5, Cast, Left
from django.db.models.lookups import Exact, LessThan

from reconcile.core.finder import Finder, PythonFinder, Source
from reconcile.core.fixes import Rows
from reconcile.core.scopes import EVERYTHING, Keys
from reconcile.db.columns import INTEGERS, stored_field
from reconcile.detect.checking import RuleCheck
from reconcile.detect.culprit.traits import Observed

__all__ = ["read_samples"]

DRIFTED = 20_000
"""Drifted records that are compared, about."""
OTHERS = 10_000
"""Others that are compared, about."""
READ = 100_000
"""Rows that one statement reads at most, however the keys lie."""

Samples = tuple[Sequence[Sequence[Any]], Sequence[Sequence[Any]]]


def read_samples(
    finder: Finder, source: Source, columns: Sequence[Observed], found: RuleCheck, number: int
) -> Samples:
    """Read drifted records and others: for each the values of the columns. number: how many drift.

    The same records at each call. Two statements; one more for rows that nothing owes, whose number a check doesn't know, and one where
    Python tells what drifts.
    """  # fmt: skip
    rows = finder.model._base_manager.using(finder.using).order_by()
    is_source = finder.model is source.model
    all_rows = found.tally.checked if is_source else rows.count()
    one_in = _one_in(number, DRIFTED)
    drifted_rows, known = _drifted(finder, found, one_in)
    drifted = dict(_read(drifted_rows, columns))
    # A multiple, so that each drifted record among these is one of those.
    others_in = one_in * _one_in(max(all_rows - number, 0) // one_in, OTHERS)
    population = source.records(EVERYTHING) if is_source else rows
    others = dict(_read(population.filter(_sampled(finder.model, others_in)), columns))
    drifting = drifted.keys() if known else _drifting(finder, [*others])
    return [*drifted.values()], [row for key, row in others.items() if key not in drifting]


def _drifted(finder: Finder, found: RuleCheck, one_in: int) -> tuple[Rows, bool]:
    """The drifted rows that are read, and whether every one is among them that `_sampled` takes."""
    rows = finder.model._base_manager.using(finder.using).order_by()
    kept = found.kept.get(finder.drift)
    if kept is not None and kept.complete and one_in == 1:
        return rows.filter(Keys(kept.keys).on("pk")), True
    if isinstance(finder, PythonFinder):
        return rows.filter(Keys(_drawn(finder)).on("pk")), False
    drifting = finder.find(EVERYTHING).order_by().values("pk")
    return rows.filter(_sampled(finder.model, one_in), pk__in=drifting), True


def _drawn(finder: PythonFinder) -> list[Any]:
    """Keys of drifted rows, drawn by chance from all of them as they come (reservoir sampling), the same ones each time."""
    chance = random.Random(0)  # noqa: S311 - nothing secret
    drawn: list[Any] = []
    for at, (key, _) in enumerate(finder.sift(EVERYTHING)):
        if len(drawn) < DRIFTED:
            drawn.append(key)
        elif (place := chance.randrange(at + 1)) < DRIFTED:
            drawn[place] = key
    return drawn


def _drifting(finder: Finder, keys: Sequence[Any]) -> set[Any]:
    return set(finder.keys(Keys(keys))) if keys else set()


def _read(rows: Rows, columns: Sequence[Observed]) -> Iterator[tuple[Any, list[Any]]]:
    """Each row's key, and its values."""
    selected = {f"_seen_{number}": each.selected for number, each in enumerate(columns)}
    for key, *values in rows.order_by().values_list("pk", *selected.values())[:READ]:
        yield key, [column.read(value) for column, value in zip(columns, values, strict=True)]


def _one_in(number: int, wanted: int) -> int:
    """Which part of the rows to take so that about as many are left as are wanted: one in a prime, with which no habit of keys goes along."""
    least = math.ceil(number / wanted)
    return next(each for each in range(max(least, 1), 2 * least + 3) if each == 1 or _is_prime(each))


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % each for each in range(2, math.isqrt(number) + 1))


def _sampled(model: type[Model], one_in: int) -> Q:
    """Takes one row in so many, by its key; those of a multiple are among those of a number."""
    if one_in == 1:
        return Q()
    if stored_field(model._meta.pk).get_internal_type() in INTEGERS:
        left = ExpressionWrapper(F("pk") % one_in, output_field=BigIntegerField())
        return Q(Exact(left, 0))
    beginning = Left(MD5(Cast("pk", CharField())), 6)
    return Q(LessThan(beginning, f"{16**6 // one_in:06x}"))
