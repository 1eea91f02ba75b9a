"""The G-test: which traits are over-represented among drifted records, and when none is.

Source: the log-likelihood ratio of a table of two by two (Dunning 1993), G = 2 Σ observed · ln(observed / expected). Its threshold rises with the
number of traits that are tried, so that chance alone doesn't reach it.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reconcile.detect.culprit.traits import Observed, Trait, TraitKind, is_ordered, traits_of

__all__ = ["FEWEST", "Clue", "clues_in"]

FEWEST = 5
"""Drifted records that must have a trait."""
LEAST = 25.0
"""The least G of a clue. Random drift in 100,000 records with 14 columns scored up to 15.5; planted causes 354 and more."""
SHARE = 0.1
"""The least part of the drifted records that have a clue's trait."""
ODDS = 2.0
"""How many times likelier a record with the trait must be to drift."""
PARTS = (1.0, 0.995, 0.98, 0.95, 0.9, 0.8, 0.5)
"""Which part of the drifted values a range holds; those that it doesn't may have drifted for another reason."""
MOST = 3
"""Clues that are told."""

Row = Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class Clue:
    """One trait that is over-represented. has: the trait in words. share, of_others: of the drifted records, and of the others, 0 to 1. score: G."""

    column: str
    has: str
    share: float
    of_others: float
    score: float
    rows: str = "drifted"

    def __str__(self) -> str:
        """`97 % of the missing have source = 'csv' (3 % of the others)`."""
        of = "All the" if self.share == 1 else f"{_percent(self.share)} of the"
        others = f"{_percent(self.of_others)}" if self.of_others else "none"
        return f"{of} {self.rows} have {self.has} ({others} of the others)"


HUNDREDTH = 0.01


def _percent(share: float) -> str:
    """`97 %`, `0.3 %`. What isn't all is never said to be 100 %, nor what isn't nothing to be 0 %."""
    if HUNDREDTH <= share <= 1 - HUNDREDTH:
        return f"{share:.0%}".replace("%", " %")
    return f"{100 * min(max(share, 0.001), 0.999):.1f} %"


@dataclass(frozen=True, slots=True)
class _Table:
    """How many drifted and other records have a trait, and how many there are."""

    drifted: int
    others: int
    all_drifted: int
    all_others: int

    @property
    def score(self) -> float:
        """G; 0 where the trait is not over-represented, or by too little to be of use."""
        share, of_others = self.drifted / (self.all_drifted or 1), self.others / (self.all_others or 1)
        if self.drifted < FEWEST or share < SHARE or share <= of_others or not self._is_likelier:
            return 0.0
        total = self.all_drifted + self.all_others
        with_it = self.drifted + self.others
        cells = (
            (self.drifted, self.all_drifted * with_it),
            (self.others, self.all_others * with_it),
            (self.all_drifted - self.drifted, self.all_drifted * (total - with_it)),
            (self.all_others - self.others, self.all_others * (total - with_it)),
        )
        return 2 * sum(seen * math.log(seen * total / expected) for seen, expected in cells if seen)

    @property
    def _is_likelier(self) -> bool:
        without, others_without = self.all_drifted - self.drifted, self.all_others - self.others
        return self.drifted * others_without >= ODDS * self.others * without


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A trait of one column, in its table."""

    at: int
    column: Observed
    trait: Trait
    table: _Table
    score: float

    @property
    def rank(self) -> tuple[Any, ...]:
        """The strongest first; of equal ones what says most to a person, and keys last."""
        return (-round(self.score, 3), self.column.is_key, [*TraitKind].index(self.trait.kind))


def clues_in(
    columns: Sequence[Observed], drifted: Sequence[Row], others: Sequence[Row], rows: str
) -> tuple[Clue, ...]:
    """The traits that set the drifted records apart, the strongest first; none if nothing stands out.

    Each record is a sequence with a value for each column. A weaker clue is told if it stands out beside the stronger ones, and doesn't only
    follow from them.
    """  # fmt: skip
    tried = 0
    best: list[_Candidate] = []
    for at, column in enumerate(columns):
        one, two = [row[at] for row in drifted], [row[at] for row in others]
        found = [*_candidates(at, column, one, two)]
        tried += len(found) + (len(one) if any(map(is_ordered, one)) else 0)
        best += sorted((each for each in found if each.score), key=lambda each: each.rank)[:1]
    least = max(LEAST, 2 * math.log(100 * max(tried, 1)))
    standing = sorted((each for each in best if each.score >= least), key=lambda each: each.rank)
    kept: list[_Candidate] = []
    for each in standing:
        if len(kept) < MOST and all(_adds(each, other, drifted, others, least) for other in kept):
            kept.append(each)
    return tuple(_clue(each, rows) for each in kept)


def _clue(each: _Candidate, rows: str) -> Clue:
    table = each.table
    return Clue(
        column=each.column.name,
        has=each.trait.in_words(each.column.name),
        share=table.drifted / table.all_drifted,
        of_others=table.others / table.all_others,
        score=round(each.score, 1),
        rows=rows,
    )


def _candidates(at: int, column: Observed, drifted: Row, others: Row) -> Iterator[_Candidate]:
    """The traits that enough of the drifted records have, each with its table."""
    count = Counter(trait for value in drifted for trait in traits_of(value, is_key=column.is_key))
    of_others = Counter(trait for value in others for trait in traits_of(value, is_key=column.is_key))
    for trait, number in count.items():
        if number >= FEWEST:
            table = _Table(number, of_others[trait], len(drifted), len(others))
            yield _Candidate(at, column, trait, table, table.score)
    yield from _range_candidates(at, column, drifted, others)


def _range_candidates(at: int, column: Observed, drifted: Row, others: Row) -> Iterator[_Candidate]:
    ordered = sorted(value for value in drifted if is_ordered(value))
    if len(ordered) < FEWEST:
        return
    among = sorted(value for value in others if is_ordered(value))
    for first, last in dict.fromkeys(_ranges(ordered)):
        inside, of_others = (
            bisect_right(values, last) - bisect_left(values, first) for values in (ordered, among)
        )
        table = _Table(inside, of_others, len(drifted), len(others))
        yield _Candidate(at, column, Trait(TraitKind.RANGE, (first, last)), table, table.score)


def _ranges(ordered: Row) -> Iterator[tuple[Any, Any]]:
    """The shortest that hold so many of the values."""
    number = len(ordered)
    for part in PARTS:
        width = max(math.ceil(number * part), 2) - 1
        start = min(range(number - width), key=lambda at: ordered[at + width] - ordered[at])
        yield ordered[start], ordered[start + width]


def _adds(
    each: _Candidate, other: _Candidate, drifted: Sequence[Row], others: Sequence[Row], least: float
) -> bool:
    """Whether a weaker clue says more than a stronger: it stands out among the records that have that, or that don't, or says the same of nearly all."""
    same = each.table.drifted >= 0.9 * other.table.drifted and each.table.others <= 1.5 * other.table.others + FEWEST  # fmt: skip
    if each.column.is_key and same and other.trait.kind is not TraitKind.VALUE:
        # A person remembers when it was, not which keys were given then.
        return False
    holds = _holding(other)
    return same or any(
        _table_within(each, [row for row in drifted if holds(row) is having], [row for row in others if holds(row) is having]).score >= least
        for having in (True, False)
    )  # fmt: skip


def _holding(candidate: _Candidate) -> Callable[[Row], bool]:
    return lambda row: candidate.trait.holds(row[candidate.at])


def _table_within(each: _Candidate, drifted: Sequence[Row], others: Sequence[Row]) -> _Table:
    holds = _holding(each)
    return _Table(sum(map(holds, drifted)), sum(map(holds, others)), len(drifted), len(others))
