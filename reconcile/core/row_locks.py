"""Row locks that a remedy takes beside those of its chunk, before it may believe what it reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import Model

from reconcile.core.finder import Finder
from reconcile.core.scopes import Keys
from reconcile.db.columns import parent_columns
from reconcile.db.dialects import dialect_of

__all__ = ["group_members", "lock_alike", "lock_rows", "lock_survivors"]


def lock_rows(model: type[Model], keys: Iterable[Any], *, using: str, from_references: bool = False) -> Keys:
    """Lock the rows of `keys` in key order, and skip rows that other sessions have locked. Returns the locked keys. One statement.

    from_references: keep other sessions also from committing a row that refers to one of them.
    """
    rows = model._base_manager.using(using).filter(Keys(list(keys)).on("pk")).order_by("pk")
    locked = dialect_of(using).lock_free_rows(rows, from_references=from_references)
    listed = locked.values_list("pk", *parent_columns(model))
    return Keys([key for key, *_ in listed])


def group_members(finder: Finder, keys: Keys) -> dict[Any, Any]:
    """Map each row of the groups of `keys` to the row that stays. One statement."""
    return dict(finder.survivors(keys)) if finder.survivors else {}


def lock_survivors(finder: Finder, keys: Keys) -> tuple[Keys, list[Any]]:
    """Lock the rows that stay, and check again. Returns the keys that still drift beside a locked row, and those that must wait.

    Without that lock, another session could take the row that stays out of its group while the repair deletes the rest.
    Three statements; none for a finder without survivors.
    """
    if finder.survivors is None:
        return keys, []
    stay = {survivor for key, survivor in group_members(finder, keys).items() if key != survivor}
    locked = {*lock_rows(finder.model, stay, using=finder.using).values}
    now, wanted = group_members(finder, keys), {*keys.values}
    drifted = {key: survivor for key, survivor in now.items() if key != survivor and key in wanted}
    free = [key for key, survivor in drifted.items() if survivor in locked]
    return Keys(free), [key for key, survivor in drifted.items() if survivor not in locked]


def lock_alike(finder: Finder, keys: Keys) -> tuple[Keys, list[Any]]:
    """Lock the equal rows that came first. Returns the keys beside which they are locked, and those that must wait.

    Without that lock, another session could delete the first row while the repair deletes the rest. Two statements; none
    for a finder without `alike`.
    """
    if finder.alike is None or not keys.values:
        return keys, []
    link = {key: tuple(values) for key, *values in finder.alike(keys)}
    mine = {link[key] for key in keys.values if key in link}
    first = {key for key, values in link.items() if values in mine} - {*keys.values}
    missed = first - {*lock_rows(finder.model, first, using=finder.using).values}
    busy = {link[key] for key in missed}
    free = [key for key in keys.values if link.get(key) not in busy]
    return Keys(free), [key for key in keys.values if link.get(key) in busy]
