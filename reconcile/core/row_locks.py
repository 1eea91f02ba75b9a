"""What a chunk locks beside the drifted rows themselves, before a remedy may believe what it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Model, QuerySet

from reconcile.core.scopes import Keys, Scope
from reconcile.db.columns import parent_columns
from reconcile.db.dialects import dialect_of

__all__ = ["Earlier", "Lock", "Neighbours", "Survivors", "lock_rows"]

Rows = QuerySet[Any, Any]


def lock_rows(model: type[Model], keys: Iterable[Any], *, using: str, from_references: bool = False) -> Keys:
    """Lock the rows of `keys` in key order, and skip rows that other sessions have locked. Returns the locked keys. One statement.

    from_references: keep other sessions also from committing a row that refers to one of them.
    """
    rows = model._base_manager.using(using).filter(Keys(list(keys)).on("pk")).order_by("pk")
    locked = dialect_of(using).lock_free_rows(rows, from_references=from_references)
    listed = locked.values_list("pk", *parent_columns(model))
    return Keys([key for key, *_ in listed])


class Neighbours:
    """Rows because of which others drift."""

    def lock(self, model: type[Model], keys: Keys, using: str) -> tuple[Keys, Sequence[Any]]:
        """Lock the neighbours of `keys`. Returns the keys that drift beside locked rows, and those that must wait."""
        raise NotImplementedError


@dataclass(frozen=True)
class Survivors(Neighbours):
    """The rows that stay in their groups.

    members: each row of the groups in scope, as pairs of its key and the key of the row that stays.
    """

    members: Callable[[Scope], Rows]

    def lock(self, model: type[Model], keys: Keys, using: str) -> tuple[Keys, Sequence[Any]]:
        """Lock the rows that stay, and check again.

        Without that lock, another session could take the row that stays out of its group while the repair deletes the rest.
        Three statements.
        """
        stay = {survivor for key, survivor in self.members(keys) if key != survivor}
        locked = {*lock_rows(model, stay, using=using).values}
        wanted = {*keys.values}
        drifted = {key: survivor for key, survivor in self.members(keys) if key != survivor and key in wanted}
        free = [key for key, survivor in drifted.items() if survivor in locked]
        return Keys(free), [key for key, survivor in drifted.items() if survivor not in locked]


@dataclass(frozen=True)
class Earlier(Neighbours):
    """Equal rows that came first. alike: these rows and the rows of the keys, as the key and then what they have in common."""

    alike: Callable[[Keys], Rows]

    def lock(self, model: type[Model], keys: Keys, using: str) -> tuple[Keys, Sequence[Any]]:
        """Lock the equal rows that came first.

        Without that lock, another session could delete the first row while the repair deletes the rest. Two statements.
        """
        if not keys.values:
            return keys, ()
        link = {key: tuple(values) for key, *values in self.alike(keys)}
        mine = {link[key] for key in keys.values if key in link}
        first = {key for key, values in link.items() if values in mine} - {*keys.values}
        missed = first - {*lock_rows(model, first, using=using).values}
        busy = {link[key] for key in missed}
        free = [key for key in keys.values if link.get(key) not in busy]
        return Keys(free), [key for key in keys.values if link.get(key) in busy]


@dataclass(frozen=True, kw_only=True)
class Lock:
    """What a chunk locks beside the rows that it repairs.

    tables: before any row, since no row lock keeps other sessions from inserting the same row. neighbours: what a remedy locks
    before it writes.
    """

    tables: tuple[type[Model], ...] = ()
    neighbours: Neighbours | None = None

    def lock_neighbours(self, model: type[Model], keys: Keys, using: str) -> tuple[Keys, Sequence[Any]]:
        """Lock the neighbours of the rows of `keys`, as `Neighbours.lock` says; no statement without any."""
        return self.neighbours.lock(model, keys, using) if self.neighbours else (keys, ())
