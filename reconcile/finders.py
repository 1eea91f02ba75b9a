"""What a rule compiles to: at most three querysets of what is wrong, and what each remedy needs.

Nothing past this point knows what a rule means. A Finder is made by an effect for one database and one
moment, and lives as long as a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import islice
from typing import Any

from django.db.models import Field, Model, Q, QuerySet

from reconcile.drift import Drift, Tally
from reconcile.sql.expressions import joins_to_many, pinned_queryset
from reconcile.windows import EVERYTHING, Keys, Scope, Window

__all__ = [
    "Correction", "Derivation", "Finder", "Insertion", "Levels", "Merging", "Promise", "Rewrite", "Rewriting", "Rows",
    "Source",
]  # fmt: skip

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
        """The records in scope that are old enough to be judged."""
        return self.owing(scope).filter(self.settled)

    def owing(self, scope: Scope) -> Rows:
        """The records in scope, young ones too: what they owe is rightly there, however young they are."""
        every = pinned_queryset(self.every, self.now).using(self.using).order_by()
        if not joins_to_many(every.query):
            return every.filter(scope.on("pk"))
        # A filter that joins to many rows yields a record once for each; a membership test, only once.
        keys = every.filter(scope.on("pk")).values("pk")
        return self.model._base_manager.using(self.using).filter(scope.on("pk")).filter(pk__in=keys)


@dataclass(frozen=True, kw_only=True)
class Insertion:
    """What `Insert` needs: the rows that are owed, as a SELECT, and how to find them once written.

    `selected` are columns that the SELECT yields, under their attnames; `made` are columns of which a
    value is made in Python, once for each row. `passes` is how often a record may need one more row. `claimed` is `owed`
    without the look whether the row is there, if a unique constraint makes up for it.
    """

    model: type[Model]
    selected: tuple[Field[Any, Any], ...]
    made: Mapping[str, Callable[[], Any]]
    owed: Callable[[Scope], Rows]
    claimed: Callable[[Scope], Rows]
    present: Callable[[Scope], Rows]
    passes: int = 1


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What `Update` needs: the stale rows with their expected values, as a SELECT in `update_from`'s form.

    `own` says that the rows are the records themselves, which the chunk has locked already. Of a finder with
    `survivors`, `wanted` is asked for rows alone that are known to drift under their locks.
    """

    model: type[Model]
    fields: tuple[Field[Any, Any], ...]
    wanted: Callable[[Scope], Rows]
    own: bool


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One stale row: the values that its columns should have, by attname; or why they can't be written."""

    key: Any
    values: Mapping[str, Any] = field(default_factory=dict)
    refused: str = ""


@dataclass(frozen=True, kw_only=True)
class Rewriting:
    """What `Update` needs where only Python can tell the values: the stale rows, each with its values.

    `wanted` reads and computes anew each time. `own` as in `Correction`.
    """

    model: type[Model]
    fields: tuple[Field[Any, Any], ...]
    wanted: Callable[[Keys], Iterator[Rewrite]]
    own: bool


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """What `Insert` needs where only Python can tell the rows: instances of those that the records lack.

    `present` are all rows that are linked with the records; `identity` says which of them an instance is.
    """

    model: type[Model]
    owed: Callable[[Keys], list[Model]]
    present: Callable[[Keys], Rows]
    identity: tuple[Field[Any, Any], ...]


@dataclass(frozen=True, kw_only=True)
class Levels:
    """For a rule that computes a record from other records of the same rule: which of them are to be first.

    ready: the drifted records in scope of which no record that they are computed from has drifted. sources: the
    drifted records that the record of a key is computed from. path: how the rule names them.
    """

    ready: Callable[[Scope], Rows]
    sources: Callable[[Any], Rows]
    path: str


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What `Enqueue` needs where a receipt tells that the effect is on its way.

    `void` is the condition on a receipt that doesn't count any more.
    """

    name: str
    void: Q


@dataclass(frozen=True, kw_only=True)
class Merging:
    """What `Merge` needs: the columns that a survivor takes over from its group.

    wanted: of just the rows of the given keys, whole groups, the survivors whose columns differ from what the
        group comes to: the key, then a value for each of `fields`.
    """

    fields: tuple[Field[Any, Any], ...]
    wanted: Callable[[Keys], Rows]


@dataclass(frozen=True, kw_only=True)
class Finder:
    """One kind of drift of one rule: the drifted rows in any scope.

    `model` is the model of the rows whose keys are found. `carried` says that the scope reaches the linked
    side too; where it doesn't, windows would each read the linked table whole, so one statement without
    a window is the faster way.

    find: the drifted rows as a queryset. window: keys in a window, where another number than the usual is faster.
    counted: their number, where counting has a faster form.
    sifted: their keys, in key order and one at a time, where only Python can tell which rows drift; `find`
        then is a queryset of just these keys.
    reads: the rows that `sifted` reads, as a queryset, for people and for the order of rules.
    levels: set where records are computed from each other, so that some have to be mended before others.
    ranged: a window is a range of the found rows' own keys; `find` then may give a union for it, which can be
        counted, ordered and cut, but not filtered. asks: what `find` looks for in a range depends on what the
        database holds, so that its SQL can't be told without it.
    survivors: where rows drift because of another row of their group, each row of the groups that the scope's rows
        are in, as pairs of its key and the key of the one that stays. A remedy locks that one first.
    alike: where rows drift because others like them came first, those others and the rows of the keys themselves: the
        key, then what they have in common. A remedy that deletes locks the others first.
    exclusive: tables that a chunk locks before any row, since no lock on a row keeps other sessions from inserting the
        row that the chunk inserts.
    deletable: of the keys of rows that are about to be deleted, those that may be; all, where it is None.
    insertion, correction, …: what a remedy of that name needs; None where there is nothing for it to do.
    """

    drift: Drift
    model: type[Model]
    carried: bool
    find: Callable[[Scope], Rows]
    window: int | None = None
    counted: Callable[[Scope], int] | None = None
    tallied: Callable[[], Tally] | None = None
    sifted: Callable[[Scope], Iterator[Any]] | None = None
    reads: Callable[[Scope], Rows] | None = None
    ranged: bool = False
    asks: bool = False
    survivors: Callable[[Scope], Rows] | None = None
    alike: Callable[[Keys], Rows] | None = None
    exclusive: tuple[type[Model], ...] = ()
    deletable: Callable[[Sequence[Any]], Sequence[Any]] | None = None
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

    def read(self, scope: Scope) -> Rows | None:
        """What a check reads for this drift, for people to look at; None where the effect doesn't say."""
        if self.sifted is None:
            return self.find(scope)
        return self.reads(scope) if self.reads else None

    def look(self, scope: Scope, samples: int) -> tuple[int, Sequence[Any]]:
        """How many rows drift in scope, and the first `samples` of their keys. One statement, or two."""
        if self.sifted is not None:
            keys = self.sifted(scope)
            first = list(islice(keys, samples))
            return len(first) + sum(1 for _ in keys), first
        number = self.count(scope)
        return number, self.keys(scope, limit=samples) if number and samples else ()

    def count(self, scope: Scope) -> int:
        """Drifted rows in scope. One statement, two where surplus rows are counted by group."""
        if self.sifted is not None:
            return sum(1 for _ in self.sifted(scope))
        return self.counted(scope) if self.counted else self.find(scope).count()

    def keys(self, scope: Scope, *, limit: int | None = None) -> Sequence[Any]:
        """Keys of the drifted rows in scope, in key order; the first `limit` where one is given. One statement."""
        if self.sifted is not None:
            return list(islice(self.sifted(scope), limit))
        return list(self.find(scope).order_by("pk").values_list("pk", flat=True)[:limit])

    def beyond(self, after: Any, *, limit: int) -> Sequence[Any]:
        """The first `limit` keys beyond `after` of all drifted rows, in key order. One statement."""
        if self.sifted is not None or self.ranged:
            return self.keys(Window(after), limit=limit)
        rows = self.find(EVERYTHING).filter(Window(after).on("pk"))
        return list(rows.order_by("pk").values_list("pk", flat=True)[:limit])
