"""The scope of a statement, a window of keys or a set of keys; and how a check walks through windows.

Note [Pinned upper bound]: the largest key is read once, at the start. Records made during the walk are
left to the next run; without the bound a busy table would never be walked to its end.

Note [Range on both sides]: the same scope is put on the records and on what is linked with them. With
the range on the records alone, every window reads the whole linked table: fifteen times slower, measured
on 1,000,000 orders.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Any, TypeVar

from django.db.models import F, Field, Model, Q, QuerySet
from django.db.models.lookups import GreaterThan, LessThanOrEqual

from reconcile.db.columns import INTEGERS, stored_field
from reconcile.db.comparisons import Among
from reconcile.db.expressions import path_of

__all__ = [
    "BLOCK",
    "EVERYTHING",
    "SORTED",
    "Coverage",
    "Keys",
    "Scope",
    "Window",
    "blocks",
    "carries_range",
    "walk",
]

T = TypeVar("T")

SIZE = 100_000
"""Keys in a window. Smaller windows cost more statements; larger ones no longer fit in memory as a hash."""

SORTED = 500_000
"""Keys in a window where the linked rows are sorted rather than hashed: a sort goes to disk in either case, and linked rows
that lie scattered over their table are read from all of its pages by each window."""

BLOCK = 5_000
"""Keys, or rows that were read, that one statement is asked about."""

_SPARSE = 4
"""Integer keys are stepped through arithmetically where at least one in this many is known to be used."""


class Coverage(StrEnum):
    """How much of a rule was looked at. Only what was looked at as a whole says anything of what was not found."""

    FULL = "full"
    """All records."""
    RANGE = "range"
    """A range of keys."""
    KEYS = "keys"
    """Some records, by their keys."""


@dataclass(frozen=True, slots=True)
class Window:
    """Key range `(after, upto]` that a check reads; None is an open end."""

    after: Any = None
    upto: Any = None

    @property
    def coverage(self) -> Coverage:
        """All, if it has no end on either side."""
        return Coverage.FULL if self.after is None and self.upto is None else Coverage.RANGE

    def on(self, path: str) -> Q:
        """The range as a condition on the column that `path` names."""
        condition = Q()
        if self.after is not None:
            condition &= Q(GreaterThan(F(path), self.after))
        if self.upto is not None:
            condition &= Q(LessThanOrEqual(F(path), self.upto))
        return condition


@dataclass(frozen=True, slots=True)
class Keys:
    """An explicit set of keys: what one chunk repairs, or for a statement that is filled in later a name for them."""

    values: Sequence[Any]

    @property
    def coverage(self) -> Coverage:
        """These alone."""
        return Coverage.KEYS

    def on(self, path: str) -> Q:
        """Membership as a condition on the column that `path` names."""
        if not self.values:
            return Q(**{f"{path}__in": ()})
        return Q(Among(F(path), self.values))


Scope = Window | Keys
EVERYTHING = Window()


def blocks(values: Iterable[T], size: int = BLOCK) -> Iterator[list[T]]:
    """The values in their order, as many at a time as one statement is asked about."""
    ahead = iter(values)
    while block := list(islice(ahead, size)):
        yield block


def carries_range(model: type[Model], column: Field[Any, Any], value: Any) -> bool:
    """Whether `value` is the key of a record of `model`, and a range of keys is a range of `column`. See Note [Range on both sides]."""
    key = model._meta.pk
    kind = stored_field(key).get_internal_type()
    # Only where both order their values alike.
    alike = INTEGERS if kind in INTEGERS else {kind}
    names_key = isinstance(value, F) and path_of(value) in {"pk", key.name, key.attname}
    return names_key and stored_field(column).get_internal_type() in alike


def walk(
    model: type[Model], *, using: str, records: int = 0, size: int | None = None, after: Any = None
) -> Iterator[Window]:
    """Windows of about `size` keys of `model`, in key order, from `after` to the pinned largest key.

    Where keys are integers and `records` (a count of rows known to lie in the table) shows them to be
    dense, the bounds are computed and the walk costs two statements; elsewhere each bound is found
    through the key's index, one statement a window. An empty table has no window.
    """
    size = SIZE if size is None else size
    keys = model._base_manager.using(using).order_by("pk").values_list("pk", flat=True)
    last = keys.last()
    first = keys.first() if after is None else after
    if last is None or first is None:
        return
    # Whether a key lies beyond another is for the database to say: uuids and texts have its order, not Python's.
    if after is not None and not keys.filter(GreaterThan(F("pk"), after)).exists():
        return
    dense = isinstance(last, int) and last - first < _SPARSE * max(records, size)
    below = first - 1 if dense and after is None else after
    steps: Iterable[Any] = (
        [*range(below + size, last, size), last] if dense else _keyset_steps(keys, after, last, size)
    )
    for upto in steps:
        yield Window(after, upto)
        after = upto


def _keyset_steps(keys: QuerySet[Any, Any], after: Any, last: Any, size: int) -> Iterator[Any]:
    """Upper bounds that have exactly `size` keys between them, each found through the key's index."""
    while True:
        ahead = keys.filter(pk__lte=last)
        if after is not None:
            ahead = ahead.filter(pk__gt=after)
        upto = ahead[size - 1 : size].first()
        if upto is None or upto == last:
            yield last
            return
        yield upto
        after = upto
