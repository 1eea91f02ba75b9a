"""The records that are compared: drifted ones and others, a sample of each where there are many."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import BigIntegerField, CharField, ExpressionWrapper, F, Model, Q
from django.db.models.functions import MD5, Cast, Left
from django.db.models.lookups import LessThan

from reconcile.core.finder import Finder, PythonFinder, Source
from reconcile.core.fixes import Rows
from reconcile.core.scopes import EVERYTHING, Keys
from reconcile.db.columns import INTEGERS, stored_field
from reconcile.db.dialects import dialect_of
from reconcile.detect.checking import RuleCheck
from reconcile.detect.culprit.traits import Observed

__all__ = ["DRIFTED", "Samples", "read_samples"]

DRIFTED = 20_000
"""Drifted records that are compared, about."""
OTHERS = 10_000
"""Others that are compared, about."""
READ = 100_000
"""Rows that one statement reads at most, however the keys lie."""

Rows_ = Sequence[Sequence[Any]]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Drifted records and others, each with the values of the columns. all_others: how many there are. unread: names of columns that could not be read."""

    drifted: Rows_
    others: Rows_
    columns: Sequence[Observed]
    all_others: int
    unread: tuple[str, ...] = ()


def read_samples(
    finder: Finder, source: Source, columns: Sequence[Observed], found: RuleCheck, number: int
) -> Samples:
    """Read drifted records and others. number: how many drift.

    The same records at each call. Two statements; one more for rows that nothing owes, whose number a check doesn't know, and one where
    Python tells what drifts. Where a column holds what can't be read, one for each column to find it.
    """
    sampling = _Sampling(finder, source, found, number)
    try:
        with dialect_of(finder.using).protect_transaction():
            drifted, others = sampling.read(columns)
    except Exception:
        readable = [each for each in columns if sampling.can_read(each)]
        if len(readable) == len(columns):
            raise
        drifted, others = sampling.read(readable)
        unread = tuple(each.name for each in columns if each not in readable)
        return Samples(
            drifted=drifted,
            others=others,
            columns=readable,
            all_others=sampling.all_others,
            unread=unread,
        )
    return Samples(drifted=drifted, others=others, columns=columns, all_others=sampling.all_others)


class _Sampling:
    """The rows of one kind of drift that are compared."""

    def __init__(self, finder: Finder, source: Source, found: RuleCheck, number: int) -> None:
        self.finder = finder
        rows = finder.model._base_manager.using(finder.using).order_by()
        is_source = finder.model is source.model
        all_rows = found.tally.checked if is_source else rows.count()
        one_in = _one_in(number, DRIFTED)
        self.drifted, self.knows = _drifted(finder, found, one_in, number)
        # Of others no more than of the drifted, so that each drifted record among these is one of those.
        self.all_others = max(all_rows - number, 0)
        others_in = max(one_in, _one_in(self.all_others, OTHERS))
        population = source.records(EVERYTHING) if is_source else rows
        self.population = population.filter(_sampled(finder.model, others_in))

    def read(self, columns: Sequence[Observed]) -> tuple[Rows_, Rows_]:
        """The drifted records and the others."""
        drifted = dict(_read(self.drifted, columns))
        others = dict(_read(self.population, columns))
        drifting = drifted.keys() if self.knows else _drifting(self.finder, [*others])
        return [*drifted.values()], [row for key, row in others.items() if key not in drifting]

    def can_read(self, column: Observed) -> bool:
        """Whether nothing in the column keeps it from being read."""
        try:
            with dialect_of(self.finder.using).protect_transaction():
                for rows in (self.drifted, self.population):
                    for _ in _read(rows, [column]):
                        pass
        except Exception:  # noqa: BLE001 - a field may make anything of what stands in its column
            return False
        return True


def _drifted(finder: Finder, found: RuleCheck, one_in: int, number: int) -> tuple[Rows, bool]:
    """The drifted rows that are read, and whether every one is among them that `_sampled` takes."""
    rows = finder.model._base_manager.using(finder.using).order_by()
    kept = found.kept.get(finder.drift)
    if (
        kept is not None
        and kept.complete
        and one_in == 1
        and len(kept.keys) + len(kept.unevaluable) == number
    ):
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
    """Which part of the rows to take so that about as many are left as are wanted: one in so many."""
    return max(math.ceil(number / wanted), 1)


MODULUS, FACTOR = 2**31 - 1, 1_583_458_089
"""Of a multiplicative generator (L'Ecuyer 1999, table 2): keys that follow each other, or come in steps, are scattered by it."""


def _sampled(model: type[Model], one_in: int) -> Q:
    """Takes one row in so many, by a hash of its key. What is taken of a larger number is among what is taken of a smaller."""
    if one_in == 1:
        return Q()
    if stored_field(model._meta.pk).get_internal_type() in INTEGERS:
        key = Cast(F("pk"), BigIntegerField())
        # Twice, since the remainder of a negative key is negative.
        scattered = ((key % MODULUS + MODULUS) % MODULUS * FACTOR) % MODULUS
        left = ExpressionWrapper(scattered, output_field=BigIntegerField())
        return Q(LessThan(left, MODULUS // one_in))
    beginning = Left(MD5(Cast("pk", CharField())), 6)
    return Q(LessThan(beginning, f"{16**6 // one_in:06x}"))
