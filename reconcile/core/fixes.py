"""What a finder gives to the remedies: one small value, of a class for each way in which rows are brought to what they must be.

A remedy says which of these classes it can use. A kind with a new way brings a class of its own beside its remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from django.db.models import Field, Model, Q, QuerySet

from reconcile.core.scopes import EVERYTHING, Keys, Scope
from reconcile.db.statements import KEY, WANTED
from reconcile.errors import Refusal

__all__ = [
    "Correction",
    "Derivation",
    "Fix",
    "Heights",
    "Insertion",
    "Levels",
    "Merging",
    "Overwriting",
    "Promise",
    "Rewrite",
    "Rewriting",
    "Rows",
]

Rows = QuerySet[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Fix:
    """Base of what a remedy needs. model: the model whose rows a repair writes."""

    model: type[Model]

    def selects(self) -> Iterator[Rows]:
        """The SELECTs by which a remedy reads what it writes, over all records. Costs no statement."""
        yield from ()


@dataclass(frozen=True, kw_only=True)
class Insertion(Fix):
    """What `Insert` needs: the rows that are owed, as a SELECT, and how to find them once written.

    selected: columns that the SELECT yields, under their attnames. makers: columns whose value Python makes, once for each row.
    rows_per_record: most rows that one record may need. owed_unchecked: same as `owed`, without the NOT EXISTS: for ON CONFLICT DO
    NOTHING.
    """

    selected: tuple[Field[Any, Any], ...]
    makers: Mapping[str, Callable[[], Any]]
    owed: Callable[[Scope], Rows]
    owed_unchecked: Callable[[Scope], Rows]
    present: Callable[[Scope], Rows]
    rows_per_record: int = 1

    def selects(self) -> Iterator[Rows]:
        """The rows that are owed."""
        yield self.owed(EVERYTHING)


@dataclass(frozen=True, kw_only=True)
class Derivation(Fix):
    """What `Insert` needs if only Python can compute the rows: instances of the missing rows.

    present: all rows that are linked with the records. identity: the columns that tell which row an instance is.
    """

    owed: Callable[[Keys], list[Model]]
    present: Callable[[Keys], Rows]
    identity: tuple[Field[Any, Any], ...]


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One stale row: the values that its columns must have, by attname, or why they can't be written."""

    key: Any
    values: Mapping[str, Any] = field(default_factory=dict)
    refusal: Refusal | None = None


@dataclass(frozen=True, kw_only=True)
class Overwriting(Fix):
    """What `Update` needs: the stale rows and the values that their `fields` must have.

    own: the rows are the records themselves, which the chunk has locked already. levels: set if records are computed from each
    other, so that some have to be repaired before others.
    """

    fields: tuple[Field[Any, Any], ...]
    own: bool
    levels: Levels | None = None

    def rewrites(self, keys: Keys) -> Iterator[Rewrite]:
        """The stale rows of the records of `keys`, each with its values. One statement, or those of the kind."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Correction(Overwriting):
    """The stale rows with their expected values, as a SELECT in `update_from`'s form.

    wanted: if rows drift because of neighbours, it is called only for rows that are locked and still drift.
    """

    wanted: Callable[[Scope], Rows]

    def selects(self) -> Iterator[Rows]:
        """The stale rows with their values."""
        yield self.wanted(EVERYTHING)

    def rewrites(self, keys: Keys) -> Iterator[Rewrite]:
        """What the SELECT yields. One statement."""
        names = [each.attname for each in self.fields]
        for key, *values in self.wanted(keys).values_list(KEY, *map(WANTED.format, names)):
            yield Rewrite(key, dict(zip(names, values, strict=True)))


@dataclass(frozen=True, kw_only=True)
class Rewriting(Overwriting):
    """The stale rows, each with its values, if only Python can compute these. wanted: reads and computes again at each call."""

    wanted: Callable[[Keys], Iterator[Rewrite]]

    def rewrites(self, keys: Keys) -> Iterator[Rewrite]:
        """What Python computes."""
        return self.wanted(keys)


@dataclass(frozen=True, kw_only=True)
class Promise(Fix):
    """What `Enqueue` needs if a receipt promises the effect.

    void: the condition on a receipt that no longer counts. version: names of the record's columns that the effect depends on.
    """

    name: str
    void: Q
    version: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Merging(Fix):
    """What `Merge` needs: the columns that a survivor takes over from its group.

    wanted: for the rows of these keys, which are whole groups, the survivors whose columns differ from the merged values: the
        key, then a value for each of `fields`. members: each row of the groups in scope, as pairs of its key and the key of the
        row that stays. deletable: returns the keys of rows that may be deleted; None for all.
    """

    fields: tuple[Field[Any, Any], ...]
    wanted: Callable[[Keys], Rows]
    members: Callable[[Scope], Rows]
    deletable: Callable[[Sequence[Any]], Sequence[Any]] | None = None


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

    def forget_unlimited(self) -> None:
        """Forget the records of which only is known that they were in no circle."""
        self.of = {node: height for node, height in self.of.items() if height != inf}

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
