"""How far a candidate is true: of a sample of the records, and for which of them it isn't."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from django.db.models import BooleanField, DecimalField, Exists, Max, Min, Model, OuterRef

from reconcile.audit.drafts.candidates import Candidate, Child, columns_of

__all__ = [
    "RowOfEach",
    "Score",
    "best_of",
    "holds_for",
    "one_row_each",
    "owed_by",
    "sample_of",
    "score",
    "with_numbers",
]

SAMPLE = 5_000
"""Records that a candidate is compared on."""

PIECES = 25
"""Places in the range of keys from which the sample is taken."""

ENOUGH, FEW = 10, 5
"""Records with something to compare that a candidate needs, and that one needs whose name says it."""

LIKELY, NAMED = 0.9, 0.3
"""The share of these for which it has to hold; the share where its name says it."""

MOST_GIVEN, G_NEEDED = 20, 25.0
SURELY, MOSTLY = 0.95, 0.3


@dataclass(frozen=True, kw_only=True)
class Score:
    """How a candidate stands. looked: records of the sample. holds: those of which it is true. telling: those with something to compare, of which
    `right` are right. others: the keys of some for which it isn't true. lacking: all of these have nothing from which it could be computed. single: no record has more than one
    row from which it is computed.
    """

    candidate: Candidate
    looked: int
    holds: int
    telling: int
    right: int
    varied: bool
    others: tuple[Any, ...]
    lacking: bool = False
    single: bool = False

    @property
    def share(self) -> float:
        """For how many of those with something to compare it holds, of 1."""
        return self.right / self.telling if self.telling else 0.0

    @property
    def is_kept(self) -> bool:
        """Whether it is worth a draft."""
        needed = NAMED if self.candidate.named else LIKELY
        return (
            self.varied and self.telling >= (FEW if self.candidate.named else ENOUGH) and self.share >= needed
        )

    @property
    def rank(self) -> tuple[bool, float, int, int]:
        """Better candidates for a column have a larger one."""
        each = self.candidate
        return each.named, round(self.share, 3), each.alike, -each.simple


def sample_of(model: type[Model], using: str) -> list[Any]:
    """The keys of a sample: all if there are few, else from several places in the range of integer keys. At most 27 statements."""
    rows = model._base_manager.using(using)
    first = [*rows.order_by("pk").values_list("pk", flat=True)[: SAMPLE + 1]]
    if len(first) <= SAMPLE or not isinstance(first[0], int):
        return first[:SAMPLE]
    bounds = rows.aggregate(least=Min("pk"), most=Max("pk"))
    step = (bounds["most"] - bounds["least"]) // PIECES
    keys: dict[Any, None] = {}
    for number in range(PIECES):
        found = (
            rows.filter(pk__gte=bounds["least"] + number * step).order_by("pk").values_list("pk", flat=True)
        )
        keys.update(dict.fromkeys(found[: SAMPLE // PIECES]))
    return [*keys]


def score(candidate: Candidate, keys: Sequence[Any], using: str) -> Score:
    """Compare the candidate with the records of the sample. A statement for each 500."""
    looked = holds = telling = right = 0
    others: list[Any] = []
    lacking = True
    seen: tuple[set[Any], set[Any]] = (set(), set())
    for key, there, owed in _pairs(candidate, keys, using):
        is_right = _same(candidate, there, owed)
        looked += 1
        holds += is_right
        if owed not in (None, 0, ""):
            telling += 1
            right += is_right
            seen[0].add(owed)
        if there not in (None, 0, ""):
            seen[1].add(there)
        lacking = lacking and (is_right or owed in (None, 0, ""))
        if not is_right and len(others) < MOST_GIVEN:
            others.append(key)
    varied = all(len(each) > 1 for each in seen)
    return Score(
        candidate=candidate,
        looked=looked,
        holds=holds,
        telling=telling,
        right=right,
        varied=varied,
        others=tuple(others),
        lacking=lacking and bool(others),
    )


def holds_for(candidate: Candidate, key: Any, using: str) -> bool:
    """Whether the candidate gives what stands in the one record. One statement."""
    return any(_same(candidate, there, owed) for _, there, owed in _pairs(candidate, [key], using))


def owed_by(candidate: Candidate, keys: Sequence[Any], using: str) -> dict[Any, Any]:
    """What the candidate gives for each record, by its key. A statement for each 500."""
    return {key: owed for key, _, owed in _pairs(candidate, keys, using)}


def _pairs(candidate: Candidate, keys: Sequence[Any], using: str) -> Iterator[tuple[Any, Any, Any]]:
    rows = candidate.model._base_manager.using(using)
    if candidate.unless_null:
        rows = rows.exclude(**{candidate.unless_null: None})
    for start in range(0, len(keys), 500):
        found = rows.filter(pk__in=keys[start : start + 500]).order_by("pk")
        if candidate.made is not None:
            made = candidate.made
            for key, there, *read in found.values_list("pk", candidate.column, *candidate.reads):
                yield key, there, made(*read)
        else:
            yield from found.annotate(expected_here=candidate.expected).values_list(
                "pk", candidate.column, "expected_here"
            )


def _same(candidate: Candidate, there: Any, owed: Any) -> bool:
    if candidate.empty_is_zero and not owed and not there:
        return True
    field = candidate.model._meta.get_field(candidate.column)
    if isinstance(field, DecimalField) and there is not None and owed is not None:
        unit = Decimal(1).scaleb(-field.decimal_places)
        return bool(Decimal(there).quantize(unit) == Decimal(owed).quantize(unit))
    return bool(there == owed)


def with_numbers(found: Score, keys: Sequence[Any], using: str) -> Score:
    """The score with whether any record has more than one row from which it is computed. A statement for each 500 records."""
    child = found.candidate.many
    return found if child is None else replace(found, single=_most_per_record(child, keys, using) <= 1)


def best_of(scores: Iterable[Score]) -> list[Score]:
    """For each column the best candidate that is worth a draft."""
    by_column: dict[str, Score] = {}
    for each in scores:
        if each.is_kept and (
            each.candidate.column not in by_column or each.rank > by_column[each.candidate.column].rank
        ):
            by_column[each.candidate.column] = each
    return [*by_column.values()]


@dataclass(frozen=True, kw_only=True)
class RowOfEach:
    """A row that each record has, or each but those with a value in a column. constants: columns of the row that are the same in all. values: its
    columns that are columns of the record.
    """

    model: type[Model]
    child: Child
    looked: int
    holds: int
    without: tuple[str, Any] | None
    constants: Mapping[str, Any]
    values: Mapping[str, str]
    others: tuple[Any, ...]


def one_row_each(model: type[Model], child: Child, keys: Sequence[Any], using: str) -> RowOfEach | None:
    """Whether the records have one row each of the child; None if they don't. A few statements for each 500 records."""
    facts = [*_facts(model, child, keys, using)]
    if not child.single and _most_per_record(child, keys, using) > 1:
        return None
    having = [has for _, has, _ in facts]
    if sum(having) < ENOUGH:
        return None
    without = _reason_to_lack(facts) if not all(having) else None
    owing = [
        (key, has) for key, has, given in facts if without is None or given.get(without[0]) != without[1]
    ]
    holds = sum(has for _, has in owing)
    if 2 * (sum(having) - holds) > holds:
        # As many belong to those that are said to have none.
        return None
    if not owing or holds / len(owing) < (MOSTLY if child.single or without else LIKELY):
        return None
    rows = _rows(child, keys, using)
    return RowOfEach(
        model=model, child=child, looked=len(owing), holds=holds, without=without, constants=_constants(child, rows), values=_copied(model, child, rows, using),
        others=tuple(key for key, has in owing if not has)[:MOST_GIVEN],
    )  # fmt: skip


def _facts(
    model: type[Model], child: Child, keys: Sequence[Any], using: str
) -> Iterator[tuple[Any, bool, dict[str, Any]]]:
    given = [each.name for each in columns_of(model) if each.choices or isinstance(each, BooleanField)]
    has = Exists(child.model._base_manager.filter(**{child.key: OuterRef("pk")}))
    for start in range(0, len(keys), 500):
        rows = model._base_manager.using(using).filter(pk__in=keys[start : start + 500]).annotate(has_row=has)
        for key, has_row, *values in rows.values_list("pk", "has_row", *given):
            yield key, bool(has_row), dict(zip(given, values, strict=True))


def _most_per_record(child: Child, keys: Sequence[Any], using: str) -> int:
    counted: Counter[Any] = Counter()
    for start in range(0, len(keys), 500):
        rows = child.model._base_manager.using(using).filter(
            **{f"{child.key}__in": keys[start : start + 500]}
        )
        counted.update(rows.values_list(child.key, flat=True))
    return max(counted.values(), default=0)


def _reason_to_lack(facts: Sequence[tuple[Any, bool, dict[str, Any]]]) -> tuple[str, Any] | None:
    """The value of a column that tells best which records lack the row, by the G-test; None if none does."""
    found: dict[tuple[str, Any], list[bool]] = defaultdict(list)
    for _, has, given in facts:
        for name, value in given.items():
            found[name, value].append(has)
    lacking = sum(not has for _, has, _ in facts)
    scored = []
    for pair, having in found.items():
        lacks = having.count(False)
        if lacks / len(having) >= SURELY and len(having) < len(facts):
            scored.append((_g(lacks, len(having), lacking, len(facts)), pair))
    best = max(scored, key=lambda each: each[0], default=None)
    return best[1] if best is not None and best[0] >= G_NEEDED else None


def _g(lacks: int, group: int, lacking: int, total: int) -> float:
    """G of a table of two by two: the group and the rest, with and without the row."""
    cells = (
        (lacks, group, lacking),
        (group - lacks, group, total - lacking),
        (lacking - lacks, total - group, lacking),
        (total - group - lacking + lacks, total - group, total - lacking),
    )
    return 2 * sum(
        seen * math.log(seen * total / (row * column))
        for seen, row, column in cells
        if seen and row and column
    )


def _rows(child: Child, keys: Sequence[Any], using: str) -> list[dict[str, Any]]:
    names = [each.name for each in columns_of(child.model)]
    return [
        *child.model._base_manager.using(using)
        .filter(**{f"{child.key}__in": keys[:500]})
        .values("pk", child.key, *names)
    ]


def _constants(child: Child, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Text columns of few letters that are the same in all rows, so that they say what kind of row it is."""
    found = {}
    for column in columns_of(child.model):
        values = {each[column.name] for each in rows}
        is_kind = bool(column.choices) or column.name in {"kind", "type", "event", "name", "code"}
        if is_kind and len(values) == 1 and isinstance(value := next(iter(values)), str) and value:
            found[column.name] = value
    return found


def _copied(
    model: type[Model], child: Child, rows: Sequence[Mapping[str, Any]], using: str
) -> dict[str, str]:
    """Columns of the row that are a column of the record, in nearly all that have something to compare."""
    names = [each.name for each in columns_of(model)]
    of_rows = model._base_manager.using(using).filter(pk__in={row[child.key] for row in rows})
    records = {each["pk"]: each for each in of_rows.values("pk", *names)}
    found = {}
    for column in columns_of(child.model):
        if column.choices or getattr(column, "auto_now", False) or getattr(column, "auto_now_add", False):
            continue
        for own in (
            each
            for each in columns_of(model)
            if isinstance(column, DecimalField) and isinstance(each, DecimalField)
        ):
            pairs = [
                (row[column.name], records[row[child.key]][own.name])
                for row in rows
                if row[child.key] in records
            ]
            told = [pair for pair in pairs if pair[1]]
            if (
                len(told) >= ENOUGH
                and len({owed for _, owed in told}) > 1
                and sum(there == owed for there, owed in told) / len(told) >= MOSTLY
            ):
                found[column.name] = own.name
    return found
