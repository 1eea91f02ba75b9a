"""What a rule compiles to: at most three querysets of what is wrong, and what each remedy needs.

Nothing after this point knows what a rule means. A kind of rule makes a Finder for one database and one moment; it lives as
long as a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import islice
from typing import Any

from django.db.models import BooleanField, Count, ExpressionWrapper, Field, Model, Q, QuerySet

from reconcile.core.drift import STALE, Drift, Tally
from reconcile.core.scopes import EVERYTHING, Keys, Scope, Window
from reconcile.db.comparisons import Overflow
from reconcile.db.expressions import joins_to_many, prepare_queryset
from reconcile.errors import Refusal

__all__ = [
    "PAGE",
    "Correction",
    "Derivation",
    "Finder",
    "Heights",
    "Insertion",
    "Levels",
    "Merging",
    "Page",
    "Promise",
    "Rewrite",
    "Rewriting",
    "Rows",
    "Source",
    "read_pages",
    "tally_in_one_statement",
]

Rows = QuerySet[Any, Any]


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


@dataclass(frozen=True, kw_only=True)
class Insertion:
    """What `Insert` needs: the rows that are owed, as a SELECT, and how to find them once written.

    selected: columns that the SELECT yields, under their attnames. makers: columns whose value Python makes, once for each row.
    rows_per_record: most rows that one record may need. owed_unchecked: same as `owed`, without the NOT EXISTS: for ON CONFLICT DO
    NOTHING.
    """

    model: type[Model]
    selected: tuple[Field[Any, Any], ...]
    makers: Mapping[str, Callable[[], Any]]
    owed: Callable[[Scope], Rows]
    owed_unchecked: Callable[[Scope], Rows]
    present: Callable[[Scope], Rows]
    rows_per_record: int = 1


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What `Update` needs: the stale rows with their expected values, as a SELECT in `update_from`'s form.

    own: the rows are the records themselves, which the chunk has locked already. wanted: if the finder has `survivors`, it is
    called only for rows that are locked and still drift.
    """

    model: type[Model]
    fields: tuple[Field[Any, Any], ...]
    wanted: Callable[[Scope], Rows]
    own: bool


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One stale row: the values that its columns must have, by attname, or why they can't be written."""

    key: Any
    values: Mapping[str, Any] = field(default_factory=dict)
    refusal: Refusal | None = None


@dataclass(frozen=True, kw_only=True)
class Rewriting:
    """What `Update` needs if only Python can compute the values: the stale rows, each with its values.

    wanted: reads and computes again at each call. own: as in `Correction`.
    """

    model: type[Model]
    fields: tuple[Field[Any, Any], ...]
    wanted: Callable[[Keys], Iterator[Rewrite]]
    own: bool


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """What `Insert` needs if only Python can compute the rows: instances of the missing rows.

    present: all rows that are linked with the records. identity: the columns that tell which row an instance is.
    """

    model: type[Model]
    owed: Callable[[Keys], list[Model]]
    present: Callable[[Keys], Rows]
    identity: tuple[Field[Any, Any], ...]


@dataclass
class Heights:
    """The levels of records that are in no circle.

    of: by the key of a record and a column, how many others it is computed from, one after the other; where only the way back is
    known, so many less than nothing are computed from it. lowest: the least so far, also of those that were forgotten.
    """

    of: dict[tuple[Any, str], float] = field(default_factory=dict)
    lowest: float = 0

    def add(self, found: Mapping[tuple[Any, str], float]) -> None:
        """Add heights."""
        self.of |= found
        self.lowest = min([self.lowest, *found.values()])

    def above_lowest(self, keys: Iterable[Any]) -> Mapping[Any, float]:
        """For each key how many levels at most lie between its record's columns and the lowest."""
        highest = dict.fromkeys(keys, self.lowest)
        for (key, _), height in self.of.items():
            if key in highest:
                highest[key] = max(height, highest[key])
        return {key: height - self.lowest for key, height in highest.items()}


@dataclass(frozen=True, kw_only=True)
class Levels:
    """The order of a rule that computes records from other records of the same rule.

    ready: the drifted records in scope whose own sources don't drift. circles: the records of these keys that are computed from
    themselves in the end, drifted or not, each with its circle; the second argument has what is known to be in none, and gets the
    heights of the others. path: the path by which the rule names them.
    """

    ready: Callable[[Scope], Rows]
    circles: Callable[[Sequence[Any], Heights], Mapping[Any, Sequence[Any]]]
    path: str


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What `Enqueue` needs if a receipt promises the effect.

    void: the condition on a receipt that no longer counts.
    """

    name: str
    void: Q


@dataclass(frozen=True, kw_only=True)
class Merging:
    """What `Merge` needs: the columns that a survivor takes over from its group.

    wanted: for the rows of these keys, which are whole groups, the survivors whose columns differ from the merged values: the
        key, then a value for each of `fields`.
    """

    fields: tuple[Field[Any, Any], ...]
    wanted: Callable[[Keys], Rows]


@dataclass(frozen=True, kw_only=True)
class Finder:
    """One kind of drift of one rule: the drifted rows in any scope.

    model: the model of the rows whose keys are found. in_windows: the scope reaches the linked side too; if it does not, each
        window would read the whole linked table, so one statement without a window is faster.
    find: the drifted rows as a queryset. window: keys in a window, if another number than the usual is faster.
    count_rows: counts the drifted rows, if there is a faster form. tally_all: counts records and drifted rows in one
        statement, if that is possible.
    keys_from_python: the drifted keys in key order, one at a time, if only Python can tell which rows drift. `find` is then
        a queryset of just these keys. refused_so_far: how many of the keys that were
        found have values that can't be written, and the reason of the first.
    reads: the rows that `keys_from_python` reads, as a queryset, for people and for the order of rules.
    levels: set if records are computed from each other, so that some have to be repaired before others.
    own_key_range: a window is a range of the found rows' own keys. `find` may then return a union, which can be counted, ordered and
        sliced, but not filtered. needs_database: the SQL of `find` depends on what the database has, so it can't be shown without it.
    survivors: if rows drift because of another row of their group: each row of the groups in scope, as pairs of its key and
        the key of the row that stays. A remedy locks the row that stays first.
    alike: if rows drift because equal rows came first: these rows and the rows of the keys, as the key and then what they
        have in common. A remedy that deletes locks the earlier rows first.
    tables_to_lock: tables that a chunk locks before any row, since no row lock keeps other sessions from inserting the same row.
    deletable: returns the keys of rows that may be deleted; None for all.
    starts: the rows of `find` where a discrepancy starts that goes on in the others; None if each row drifts by itself.
    overflow: tells those of the rows of `find` whose expected values don't fit their columns; None if they always do.
    insertion, correction, …: what a remedy of that name needs; None if it has nothing to do.
    """

    drift: Drift
    model: type[Model]
    in_windows: bool
    find: Callable[[Scope], Rows]
    window: int | None = None
    count_rows: Callable[[Scope], int] | None = None
    tally_all: Callable[[], Tally] | None = None
    keys_from_python: Callable[[Scope], Iterator[Any]] | None = None
    refused_so_far: Callable[[], tuple[int, str]] = lambda: (0, "")
    reads: Callable[[Scope], Rows] | None = None
    own_key_range: bool = False
    needs_database: bool = False
    survivors: Callable[[Scope], Rows] | None = None
    alike: Callable[[Keys], Rows] | None = None
    tables_to_lock: tuple[type[Model], ...] = ()
    deletable: Callable[[Sequence[Any]], Sequence[Any]] | None = None
    starts: Callable[[Scope], Rows] | None = None
    overflow: Overflow | None = None
    insertion: Insertion | None = None
    correction: Correction | None = None
    rewriting: Rewriting | None = None
    derivation: Derivation | None = None
    merging: Merging | None = None
    levels: Levels | None = None
    promise: Promise | None = None

    @cached_property
    def using(self) -> str:
        """Alias of the database that the rows are on."""
        return self.find(Keys(())).db

    @property
    def model_written(self) -> type[Model]:
        """The model whose rows a repair writes."""
        writes = self.insertion or self.correction or self.rewriting or self.derivation
        return writes.model if writes is not None else self.model

    def read(self, scope: Scope) -> Rows | None:
        """The rows that a check reads for this drift, for people to look at; None if the kind doesn't say."""
        if self.keys_from_python is None:
            return self.find(scope)
        return self.reads(scope) if self.reads else None

    def selects(self) -> Iterator[Rows]:
        """The SELECTs by which it finds drift and what a remedy would write, over all records. Costs no statement."""
        # With an empty set of keys the database isn't asked for what the SQL depends on.
        if (rows := self.read(Keys(()) if self.needs_database else EVERYTHING)) is not None:
            yield rows
        if self.insertion is not None:
            yield self.insertion.owed(EVERYTHING)
        if self.correction is not None:
            yield self.correction.wanted(EVERYTHING)

    def count_and_sample(self, scope: Scope, samples: int) -> tuple[int, int, Sequence[Any]]:
        """Count as `count_with_overflow` does, and read the first `samples` keys. One statement, or two."""
        if self.keys_from_python is not None:
            keys = self.keys_from_python(scope)
            first = list(islice(keys, samples))
            return len(first) + sum(1 for _ in keys), 0, first
        number, large = self.count_with_overflow(scope)
        return number, large, self.sample(scope, samples) if number and samples else ()

    def sample(self, scope: Scope, limit: int) -> Sequence[Any]:
        """The first keys in scope that a person should look at: where a discrepancy starts, if it goes on. One statement."""
        if self.starts is None:
            return self.keys(scope, limit=limit)
        return list(self.starts(scope).order_by("pk").values_list("pk", flat=True)[:limit])

    def count(self, scope: Scope) -> int:
        """Count the drifted rows in scope. One statement, two if surplus rows are counted by group."""
        if self.keys_from_python is not None:
            return sum(1 for _ in self.keys_from_python(scope))
        return self.count_rows(scope) if self.count_rows else self.find(scope).count()

    def count_with_overflow(self, scope: Scope) -> tuple[int, int]:
        """Count the drifted rows in scope, and those of them whose expected values don't fit their columns. As many statements as `count`."""
        if self.overflow is None:
            return self.count(scope), 0
        found = self._with_overflow(scope, self.overflow).aggregate(
            _all=Count("pk"), _large=Count("pk", filter=Q(_overflows=True))
        )
        return found["_all"], found["_large"]

    def keys_with_overflow(self, scope: Scope, limit: int) -> tuple[Sequence[Any], int]:
        """Read the first keys as `keys` does, and count those whose expected values don't fit. One statement."""
        if self.overflow is None:
            return self.keys(scope, limit=limit), 0
        rows = self._with_overflow(scope, self.overflow).order_by("pk")
        found = list(rows.values_list("pk", "_overflows")[:limit])
        return [key for key, _ in found], sum(bool(overflows) for _, overflows in found)

    def _with_overflow(self, scope: Scope, overflow: Overflow) -> Rows:
        condition = ExpressionWrapper(overflow.condition, output_field=BooleanField())
        rows: Rows = self.find(scope).annotate(_overflows=condition)
        return rows

    def overflowing_keys(self, keys: Sequence[Any]) -> Sequence[Any]:
        """Those of the keys. One statement; none if they always fit."""
        if self.overflow is None:
            return ()
        found = self.find(Keys(keys)).filter(self.overflow.condition)
        return list(found.order_by("pk").values_list("pk", flat=True))

    def keys(self, scope: Scope, *, limit: int | None = None) -> Sequence[Any]:
        """The keys of the drifted rows in scope, in key order, the first `limit` if given. One statement."""
        if self.keys_from_python is not None:
            return list(islice(self.keys_from_python(scope), limit))
        return list(self.find(scope).order_by("pk").values_list("pk", flat=True)[:limit])

    def keys_after(self, after: Any, *, limit: int) -> Sequence[Any]:
        """The first `limit` keys after `after` of all drifted rows, in key order. One statement."""
        if self.keys_from_python is not None or self.own_key_range:
            return self.keys(Window(after), limit=limit)
        rows = self.find(EVERYTHING).filter(Window(after).on("pk"))
        return list(rows.order_by("pk").values_list("pk", flat=True)[:limit])


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
