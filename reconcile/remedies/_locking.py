"""Locks on rows beside those of the chunk, which a remedy needs before it may believe what it finds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import Model

from reconcile.finders import Finder
from reconcile.sql.columns import inherited
from reconcile.sql.dialects import dialect_of
from reconcile.windows import Keys

__all__ = ["beside", "locked", "members", "secured"]


def locked(model: type[Model], keys: Iterable[Any], *, using: str) -> Keys:
    """Of `keys`, those of rows that no other session holds, now locked, in key order. One statement."""
    rows = model._base_manager.using(using).filter(Keys(list(keys)).on("pk")).order_by("pk")
    listed = dialect_of(using).locked(rows).values_list("pk", *inherited(model))
    return Keys([key for key, *_ in listed])


def members(finder: Finder, keys: Keys) -> dict[Any, Any]:
    """Each row of the groups that the rows of `keys` are in, with the one that stays. One statement."""
    return dict(finder.survivors(keys)) if finder.survivors else {}


def secured(finder: Finder, keys: Keys) -> tuple[Keys, list[Any]]:
    """Those of `keys` that still drift because of a row that is now locked, too; and those that others hold back.

    Without that lock another session could take the row that stays out of its group, and the repair the rest.
    Three statements; none for a finder that knows no survivors.
    """
    if finder.survivors is None:
        return keys, []
    stay = {survivor for key, survivor in members(finder, keys).items() if key != survivor}
    held = {*locked(finder.model, stay, using=finder.using).values}
    now, wanted = members(finder, keys), {*keys.values}
    drifted = {key: survivor for key, survivor in now.items() if key != survivor and key in wanted}
    free = [key for key, survivor in drifted.items() if survivor in held]
    return Keys(free), [key for key, survivor in drifted.items() if survivor not in held]


def beside(finder: Finder, keys: Keys) -> tuple[Keys, list[Any]]:
    """Those of `keys` beside which the rows like them that came first are now locked; and those that others hold back.

    Without that lock another session could take the first away, and the repair the rest. Two statements; none for a
    finder that tells of no rows that are alike.
    """
    if finder.alike is None or not keys.values:
        return keys, []
    link = {key: tuple(values) for key, *values in finder.alike(keys)}
    mine = {link[key] for key in keys.values if key in link}
    first = {key for key, values in link.items() if values in mine} - {*keys.values}
    missed = first - {*locked(finder.model, first, using=finder.using).values}
    busy = {link[key] for key in missed}
    free = [key for key in keys.values if link.get(key) not in busy]
    return Keys(free), [key for key in keys.values if link.get(key) in busy]
