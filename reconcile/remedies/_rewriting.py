"""Writing values that only Python can tell: computed from the locked rows, written in batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.db.models import Field, JSONField, Model, Value

from reconcile.errors import ChunkConflictError, NotMendedError
from reconcile.finders import Rewrite, Rewriting
from reconcile.remedies._base import Journal, Wrote
from reconcile.remedies._locking import locked
from reconcile.windows import Keys

__all__ = ["BATCH", "rewrite"]

BATCH = 500
"""Rows that one statement writes, each with a branch of a CASE for each column."""


def rewrite(rewriting: Rewriting, keys: Keys, journal: Journal, *, using: str) -> Wrote:
    """Journal, update and confirm the stale rows of `keys`; what can't be written is refused."""
    found = list(rewriting.wanted(keys))
    free, held = {each.key for each in found}, 0
    if not rewriting.own:
        # The values are computed again once the rows are locked, since somebody may have written them meanwhile.
        free = {*locked(rewriting.model, free, using=using).values}
        held, found = len(found), [each for each in rewriting.wanted(keys) if each.key in free]
    stale = [each for each in found if not each.refused]
    noted = journal.before(rewriting.model, rewriting.fields, Keys([each.key for each in stale]))
    written = _write(rewriting, stale, using)
    completed = journal.after(rewriting.model, rewriting.fields)
    if not noted == written == completed:
        raise ChunkConflictError(
            f"{rewriting.model._meta.label}: of {noted} stale rows {written} were updated; another session writes them."
        )
    refused = {each.key: each.refused for each in found if each.refused}
    if rewriting.own:
        return Wrote.of("update", written, refused=refused, keys=[each.key for each in stale])
    held -= len(found)
    if held and any(each.key in free and not each.refused for each in rewriting.wanted(keys)):
        raise NotMendedError(
            f"{rewriting.model._meta.label}: rows that nobody holds are still stale after the update."
        )
    return Wrote.of("update", written, held=held, refused=refused)


def _write(rewriting: Rewriting, stale: Sequence[Rewrite], using: str) -> int:
    if not stale:
        return 0
    rows = [_instance(rewriting.model, each, rewriting.fields, using) for each in stale]
    manager = rewriting.model._base_manager.using(using)
    return int(manager.bulk_update(rows, [field.name for field in rewriting.fields], batch_size=BATCH))


def _instance(model: type[Model], row: Rewrite, fields: Iterable[Field[Any, Any]], using: str) -> Model:
    """An instance with its key alone; its other columns stay unread, and their defaults uncalled."""
    instance = model.from_db(using, [str(model._meta.pk.attname)], [row.key])
    for field in fields:
        value = row.values[field.attname]
        # None would be written as the JSON value null.
        setattr(
            instance, field.attname, Value(None) if value is None and isinstance(field, JSONField) else value
        )
    return instance
