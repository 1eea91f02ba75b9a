"""What a rule compiles to: at most three finders of what is wrong, each with what a remedy needs.

Nothing after this point knows what a rule means. A kind of rule makes a Finder for one database and one moment; it lives as
long as a run. What finders give to remedies is in `fixes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, ClassVar

from django.db.models import BooleanField, Count, ExpressionWrapper, Model, Q

from reconcile.core.drift import STALE, Bound, Drift, Tally
from reconcile.core.fixes import Fix, Levels, Overwriting, Rows
from reconcile.core.row_locks import Lock
from reconcile.core.scopes import EVERYTHING, Keys, Scope, Window, blocks
from reconcile.db.comparisons import Overflow
from reconcile.db.expressions import joins_to_many, prepare_queryset
from reconcile.errors import Refusal

__all__ = [
    "PAGE",
    "Finder",
    "GroupFinder",
    "Look",
    "OwnRangeFinder",
    "Page",
    "PythonFinder",
    "QueryFinder",
    "Rows",
    "Source",
    "Unwritable",
    "read_pages",
    "tally_in_one_statement",
]


@dataclass(frozen=True, kw_only=True)
class Source:
    """The records that `every=` names, on one database, at one pinned moment."""

    every: Rows
    using: str
    now: datetime
    settled: Q = field(default_factory=Q)

    @property
    def model(self) -> type[Model]:
        """The records' model."""
        return self.every.model

    def records(self, scope: Scope) -> Rows:
        """The records in scope that are old enough to be checked."""
        return self.records_of_any_age(scope).filter(self.settled)

    def records_of_any_age(self, scope: Scope) -> Rows:
        """The records in scope, young ones too: a young record may rightly have its rows already."""
        every = prepare_queryset(self.every, self.now).using(self.using).order_by()
        if not joins_to_many(every.query):
            return every.filter(scope.on("pk"))
        # A filter that joins to many rows yields a record several times; a membership test yields it once.
        keys = every.filter(scope.on("pk")).values("pk")
        return self.model._base_manager.using(self.using).filter(scope.on("pk")).filter(pk__in=keys)


@dataclass(frozen=True, slots=True)
class Unwritable:
    """Drifted rows whose values no repair can write: their number, and why: for all of them, or for the first."""

    number: int = 0
    why: str = ""
    of_all: bool = False

    def __add__(self, other: Unwritable) -> Unwritable:
        return Unwritable(
            self.number + other.number, self.why or other.why, of_all=self.of_all or other.of_all
        )

    def in_words(self, drift: Drift) -> str:
        """What is to be said of them."""
        said = f"{self.number:,} of the {drift} records can't be repaired"
        if self.of_all:
            return f"{said}: {self.why}."
        return f"{said}. {'' if self.number == 1 else 'The first: '}{self.why}"


@dataclass(frozen=True, slots=True)
class Look:
    """What a finder has seen in one scope.

    number: drifted rows. samples: keys that a person should look at. keys: all of them, in key order; None if they were not asked for,
    or are more than were. starts: at how many rows a discrepancy starts that goes on in others.
    """

    number: int = 0
    samples: Sequence[Any] = ()
    keys: Sequence[Any] | None = None
    unwritable: Unwritable = field(default_factory=Unwritable)
    starts: int = 0


@dataclass(frozen=True, kw_only=True)
class Finder:
    """One kind of drift of one rule: the drifted rows in any scope. A class for each way of finding them.

    model: the model of the rows whose keys are found. in_windows: the scope reaches the linked side too; if it does not, each
    window would read the whole linked table, so one statement without a window is faster. window: keys in a window, if another
    number than the usual is faster. near: the rows of `model` that belong to the records of these keys, which may drift or not; None if
    they are the records themselves, or don't tell. near_is_all: whether `near` has all that these records may once have owed, and not only
    what they owe now. lock: what a chunk locks beside these rows. fix: what a remedy needs; None if it
    needs no more than the keys. advice: what somebody may do who takes these rows for no drift. bound: whether a
    repair writes one row for each that drifts, or may write more. count_to_write: counts the rows that it writes, where they are not as
    many as drift.
    """

    drift: Drift
    model: type[Model]
    using: str
    in_windows: bool = False
    window: int | None = None
    near: Callable[[Keys], Rows] | None = None
    near_is_all: bool = True
    lock: Lock = field(default_factory=Lock)
    fix: Fix | None = None
    advice: str = ""
    bound: Bound = Bound.EXACT
    count_to_write: Callable[[Scope], int] | None = None

    own_key_range: ClassVar[bool] = False
    """A window is a range of the found rows' own keys, and not of the records'."""
    in_groups: ClassVar[bool] = False
    """Rows drift beside others, so that no part of the table tells by itself which of them do."""
    needs_python: ClassVar[bool] = False
    """Only Python can tell which of the rows that are read drift."""
    needs_database: ClassVar[bool] = False
    """The SQL depends on what the database has, so it can't be shown without it."""

    def keys(self, scope: Scope, *, limit: int | None = None) -> Sequence[Any]:
        """The keys of the drifted rows in scope, in key order, the first `limit` if given. One statement."""
        raise NotImplementedError

    def count(self, scope: Scope) -> int:
        """Count the drifted rows in scope. One statement, two if surplus rows are counted by group."""
        raise NotImplementedError

    def find(self, scope: Scope) -> Rows:
        """The drifted rows in scope, as a queryset."""
        raise NotImplementedError

    def look(self, scope: Scope, *, samples: int, keep: int | None = None) -> Look:
        """What a check is to know of the scope, with up to `samples` keys for people, and all keys if they are at most `keep`."""
        raise NotImplementedError

    def reads(self, scope: Scope) -> Rows | None:
        """The rows that a check reads, for people and for the order of rules; None if it doesn't say."""
        raise NotImplementedError

    def keys_after(self, after: Any, *, limit: int) -> Sequence[Any]:
        """The first `limit` keys after `after` of all drifted rows, in key order. One statement."""
        return self.keys(Window(after), limit=limit)

    def tally(self, samples: int) -> tuple[Tally, Look] | None:  # noqa: ARG002
        """Count the records and their drift, in one statement; None if that isn't possible."""
        return None

    def unwritable(self, keys: Sequence[Any]) -> Mapping[Any, str]:  # noqa: ARG002
        """Those of the drifted keys whose values don't fit their columns, each with the reason. One statement; none if they always fit."""
        return {}

    def scopes_of(self, records: Sequence[Any]) -> Iterator[Keys]:
        """The scopes that have the rows of the records of these keys. One statement for each block of them, if the rows aren't the records."""
        for block in blocks(records):
            if self.near is None:
                yield Keys(block)
            else:
                yield from map(
                    Keys, blocks(self.near(Keys(block)).order_by("pk").values_list("pk", flat=True))
                )

    @property
    def model_written(self) -> type[Model]:
        """The model whose rows a repair writes."""
        return self.model if self.fix is None else self.fix.model

    @property
    def levels(self) -> Levels | None:
        """The order in which the records have to be repaired, if they are computed from each other."""
        return self.fix.levels if isinstance(self.fix, Overwriting) else None

    def selects(self) -> Iterator[Rows]:
        """The SELECTs by which it finds drift and what a remedy would write, over all records. Costs no statement."""
        # With an empty set of keys the database isn't asked for what the SQL depends on.
        if (rows := self.reads(Keys(()) if self.needs_database else EVERYTHING)) is not None:
            yield rows
        if self.fix is not None:
            yield from self.fix.selects()


@dataclass(frozen=True, kw_only=True)
class QueryFinder(Finder):
    """Finds the drifted rows by a queryset.

    query: the drifted rows in scope. count_rows: counts them, if there is a faster form. tally_all: counts records and drifted
    rows in one statement, if that is possible. starts: the rows of `query` where a discrepancy starts that goes on in the
    others; None if each row drifts by itself. overflow: tells those of the rows whose expected values don't fit their columns;
    None if they always do.
    """

    query: Callable[[Scope], Rows]
    count_rows: Callable[[Scope], int] | None = None
    tally_all: Callable[[], Tally] | None = None
    starts: Callable[[Scope], Rows] | None = None
    overflow: Overflow | None = None

    def find(self, scope: Scope) -> Rows:
        """The drifted rows in scope."""
        return self.query(scope)

    def reads(self, scope: Scope) -> Rows | None:
        """The drifted rows: the database tells which."""
        return self.query(scope)

    def keys(self, scope: Scope, *, limit: int | None = None) -> Sequence[Any]:
        """The keys of the drifted rows in scope, in key order, the first `limit` if given. One statement."""
        return list(self.query(scope).order_by("pk").values_list("pk", flat=True)[:limit])

    def keys_after(self, after: Any, *, limit: int) -> Sequence[Any]:
        """The first `limit` keys after `after` of all drifted rows, in key order. One statement."""
        rows = self.query(EVERYTHING).filter(Window(after).on("pk"))
        return list(rows.order_by("pk").values_list("pk", flat=True)[:limit])

    def count(self, scope: Scope) -> int:
        """Count the drifted rows in scope. One statement, two if surplus rows are counted by group."""
        return self.count_rows(scope) if self.count_rows else self.query(scope).count()

    def look(self, scope: Scope, *, samples: int, keep: int | None = None) -> Look:
        """What a check is to know of the scope. One statement for the keys; or one for the count, and one for samples."""
        if keep is not None and (look := self._look_at_keys(scope, samples, keep)):
            return look
        return self._look_around(scope, self._count_with_overflow(scope), samples)

    def tally(self, samples: int) -> tuple[Tally, Look] | None:
        """Count the records and their drift, in one statement; None if that isn't possible. One more if any drifts."""
        if self.tally_all is None:
            return None
        tally = self.tally_all()
        number, unwritable = tally[self.drift], Unwritable()
        if number and self.overflow:
            _, unwritable = self._count_with_overflow(EVERYTHING)
        return tally, self._look_around(EVERYTHING, (number, unwritable), samples)

    def unwritable(self, keys: Sequence[Any]) -> Mapping[Any, str]:
        """Those of the drifted keys whose values don't fit their columns, each with the reason. One statement; none if they always fit."""
        if self.overflow is None:
            return {}
        found = self.query(Keys(keys)).filter(self.overflow.condition)
        return dict.fromkeys(found.order_by("pk").values_list("pk", flat=True), str(self.overflow))

    def _look_at_keys(self, scope: Scope, samples: int, keep: int) -> Look | None:
        """Look by reading all keys; None if there are more than `keep`."""
        keys, unwritable = self._keys_with_overflow(scope, keep + 1)
        if len(keys) > keep:
            return None
        first = self._sample(scope, samples) if self.starts is not None and keys else keys[:samples]
        return Look(len(keys), first, keys, unwritable, self._count_starts(scope, len(keys)))

    def _look_around(self, scope: Scope, counted: tuple[int, Unwritable], samples: int) -> Look:
        """Add samples, and where the discrepancies start, to what was counted in the scope."""
        number, unwritable = counted
        first = self._sample(scope, samples) if number and samples else ()
        return Look(number, first, None, unwritable, self._count_starts(scope, number))

    def _sample(self, scope: Scope, limit: int) -> Sequence[Any]:
        """The first keys in scope that a person should look at: where a discrepancy starts, if it goes on. One statement."""
        rows = (self.starts or self.query)(scope)
        return list(rows.order_by("pk").values_list("pk", flat=True)[:limit])

    def _count_starts(self, scope: Scope, drifted: int) -> int:
        return self.starts(scope).count() if drifted and self.starts else 0

    def _count_with_overflow(self, scope: Scope) -> tuple[int, Unwritable]:
        """Count the drifted rows in scope, and those of them whose expected values don't fit. As many statements as `count`."""
        if self.overflow is None:
            return self.count(scope), Unwritable()
        rows = self._with_overflow(scope, self.overflow)
        found = rows.aggregate(_all=Count("pk"), _large=Count("pk", filter=Q(_overflows=True)))
        return found["_all"], _too_large(found["_large"], self.overflow)

    def _keys_with_overflow(self, scope: Scope, limit: int) -> tuple[Sequence[Any], Unwritable]:
        """Read the first keys as `keys` does, and count those whose expected values don't fit. One statement."""
        if self.overflow is None:
            return self.keys(scope, limit=limit), Unwritable()
        rows = self._with_overflow(scope, self.overflow).order_by("pk")
        found = list(rows.values_list("pk", "_overflows")[:limit])
        return [key for key, _ in found], _too_large(sum(bool(each) for _, each in found), self.overflow)

    def _with_overflow(self, scope: Scope, overflow: Overflow) -> Rows:
        condition = ExpressionWrapper(overflow.condition, output_field=BooleanField())
        rows: Rows = self.query(scope).annotate(_overflows=condition)
        return rows


def _too_large(number: int, overflow: Overflow) -> Unwritable:
    return Unwritable(number, str(overflow), of_all=True) if number else Unwritable()


@dataclass(frozen=True, kw_only=True)
class OwnRangeFinder(QueryFinder):
    """Finds the drifted rows by a queryset whose windows are ranges of these rows' own keys.

    The queryset of a range may be a union, which can be counted, ordered and sliced, but not filtered.
    """

    own_key_range: ClassVar[bool] = True

    def keys_after(self, after: Any, *, limit: int) -> Sequence[Any]:
        """The first `limit` keys after `after` of all drifted rows, in key order. One statement."""
        return self.keys(Window(after), limit=limit)


@dataclass(frozen=True, kw_only=True)
class GroupFinder(QueryFinder):
    """Finds rows that drift because of other rows of their group, by a queryset over the whole table."""

    in_groups: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class PythonFinder(Finder):
    """Finds the drifted rows by reading records, if only Python can tell which rows drift.

    sift: the drifted keys in key order, one at a time, each with why its values can't be written, if so. rows_read: the rows
    that it reads, as a queryset.
    """

    in_windows: bool = True
    sift: Callable[[Scope], Iterator[tuple[Any, Refusal | None]]]
    rows_read: Callable[[Scope], Rows] | None = None

    needs_python: ClassVar[bool] = True

    def keys(self, scope: Scope, *, limit: int | None = None) -> Sequence[Any]:
        """The keys of the drifted rows in scope, in key order, the first `limit` if given. One statement a page."""
        return [key for key, _ in islice(self.sift(scope), limit)]

    def count(self, scope: Scope) -> int:
        """Count the drifted rows in scope. One statement a page."""
        return sum(1 for _ in self.sift(scope))

    def find(self, scope: Scope) -> Rows:
        """The drifted rows in scope, by the keys that Python has told."""
        return self.model._base_manager.using(self.using).filter(Keys(self.keys(scope)).on("pk"))

    def reads(self, scope: Scope) -> Rows | None:
        """The rows that Python reads; None if the kind doesn't say."""
        return self.rows_read(scope) if self.rows_read else None

    def look(self, scope: Scope, *, samples: int, keep: int | None = None) -> Look:
        """What a check is to know of the scope, in one reading. One statement a page."""
        number, refused, why, kept = 0, 0, "", list[Any]()
        most = max(samples, keep or 0)
        for key, refusal in self.sift(scope):
            number += 1
            if len(kept) < most:
                kept.append(key)
            if refusal is not None:
                refused, why = refused + 1, why or refusal.reason
        whole = keep is not None and number <= keep
        return Look(number, kept[:samples], kept if whole else None, Unwritable(refused, why))


def tally_in_one_statement(source: Source, rows: Rows, drifted: Q) -> Callable[[], Tally]:
    """Return what counts `rows`, which are the records of any age, and the drifted ones among those of age, in one statement."""

    def tally() -> Tally:
        counts = {"_all": Count("pk"), "_drifted": Count("pk", filter=source.settled & drifted)}
        if source.settled:
            counts["_due"] = Count("pk", filter=source.settled)
        found = rows.aggregate(**counts)
        due = found.get("_due", found["_all"])
        return Tally(checked=due, settling=found["_all"] - due, drifted={STALE: found["_drifted"]})

    return tally


PAGE = 10_000
"""Records in one read. Fewer cost more statements; more cost memory, if columns hold long texts."""

Page = tuple[Scope, list[tuple[Any, ...]]]


def read_pages(read: Callable[[Scope], Rows], scope: Scope, size: int = PAGE) -> Iterator[Page]:
    """Yield what `read` selects in `scope`, in key order, page by page, each with its part of the scope.

    `read` selects the key first. The parts together are the whole scope, even if there is nothing to read. Plain statements:
    the server keeps a copy of the whole result for a server-side cursor outside a transaction, and MySQL has none.
    """
    if isinstance(scope, Keys):
        yield scope, list(read(scope).order_by("pk"))
        return
    after, upto = scope.after, scope.upto
    while True:
        page = list(read(Window(after, upto)).order_by("pk")[:size])
        if len(page) < size or page[-1][0] == upto:
            yield Window(after, upto), page
            return
        last = page[-1][0]
        yield Window(after, last), page
        after = last
