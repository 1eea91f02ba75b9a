"""`Update`: set stale columns to the values that they must have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from django.db.models import Field, JSONField, Model, Value
from django.db.models.functions import Cast

from reconcile.core.drift import STALE, Drift
from reconcile.core.finder import Finder
from reconcile.core.fixes import Correction, Rewrite, Rewriting
from reconcile.core.row_locks import lock_rows
from reconcile.core.scopes import Keys, blocks
from reconcile.core.verbs import UPDATE
from reconcile.core.wording.names import plural
from reconcile.db.columns import JSON_NULL
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import rows_in_statement
from reconcile.db.statements import KEY, select_sql, update_from
from reconcile.db.unexecuted import first_read, first_write
from reconcile.errors import ChunkConflictError, Fault, NotRepairedError
from reconcile.remedies.base import Journal, Remedy, WriteResult, WriteStep

__all__ = ["BATCH", "Update", "rewrite"]

BATCH = 500
"""Rows in one UPDATE, each with a branch of a CASE for each column."""


def rewrite(rewriting: Rewriting, keys: Keys, journal: Journal, *, using: str) -> WriteResult:
    """Journal, update and confirm the stale rows of `keys`; rows that can't be written are refused."""
    found = list(rewriting.wanted(keys))
    free, locked = {each.key for each in found}, 0
    if not rewriting.own:
        # The values are computed again once the rows are locked, since somebody may have written them meanwhile.
        free = {*lock_rows(rewriting.model, free, using=using).values}
        locked, found = len(found), [each for each in rewriting.wanted(keys) if each.key in free]
    stale = [each for each in found if each.refusal is None]
    recorded = journal.record_before(rewriting.model, rewriting.fields, Keys([each.key for each in stale]))
    written = _write(rewriting, stale, using)
    completed = journal.record_after(rewriting.model, rewriting.fields)
    if not recorded == written == completed:
        raise ChunkConflictError(
            f"{rewriting.model._meta.label}: of {recorded} stale rows {written} were updated; another session writes them."
        )
    refused = {each.key: each.refusal.reason for each in found if each.refusal is not None}
    if rewriting.own:
        return WriteResult.of(UPDATE, written, refused=refused, keys=[each.key for each in stale])
    locked -= len(found)
    if locked and any(each.key in free and each.refusal is None for each in rewriting.wanted(keys)):
        raise NotRepairedError(
            f"{rewriting.model._meta.label}: rows that nobody holds are still stale after the update."
        )
    return WriteResult.of(UPDATE, written, waiting_rows=locked, refused=refused)


def _write(rewriting: Rewriting, stale: Sequence[Rewrite], using: str) -> int:
    if not stale:
        return 0
    rows = [_instance(rewriting.model, each, rewriting.fields, using) for each in stale]
    manager = rewriting.model._base_manager.using(using)
    return int(manager.bulk_update(rows, [field.name for field in rewriting.fields], batch_size=BATCH))


def _instance(model: type[Model], row: Rewrite, fields: Iterable[Field[Any, Any]], using: str) -> Model:
    """An instance with its key alone: other columns are not read, and defaults are not called."""
    instance = model.from_db(using, [str(model._meta.pk.attname)], [row.key])
    for field in fields:
        value = row.values[field.attname]
        setattr(instance, field.attname, _as_document(value) if isinstance(field, JSONField) else value)
    return instance


def _as_document(value: Any) -> Any:
    """The value of a JSON column as `bulk_update` takes it, which would write None as the JSON value null."""
    if value is None:
        return Value(None)
    return Cast(Value("null"), JSONField()) if value is JSON_NULL else value


@dataclass(frozen=True)
class Update(Remedy):
    """Write only the rule's columns, only where they differ, never through `save()`. The default for STALE.

    Four statements: the stale keys, their images, the update, the images after it. On MariaDB and MySQL what is to be
    written is read first, in a statement of its own. One more where the stale rows are not the records
    themselves and have to be locked first, another where fewer of them are stale than records were found, and where other
    sessions hold some; three more where a row is stale because of another, which is locked, too.
    Values that only Python can tell are computed again from the locked records, and written 500 rows a statement.
    """

    verbs: ClassVar[Sequence[str]] = (UPDATE,)

    def faults(self, drift: Drift, finder: Finder | None) -> Sequence[Fault]:
        """It serves STALE alone."""
        mends = drift is STALE
        if finder is not None:
            mends = isinstance(finder.fix, Correction | Rewriting)
        if mends:
            return ()
        return (Fault("reconcile.E012", f"Update() does not mend {drift} drift.", "Use Report()."),)

    def spell(self, finder: Finder, keys: Keys) -> Iterator[WriteStep]:
        """The UPDATE, and what it needs beforehand: the lock of rows that are not the records themselves, and the values."""
        fix, using = finder.fix, finder.using
        if isinstance(fix, Rewriting):
            rows = [each for each in fix.wanted(keys) if each.refusal is None]
            if not fix.own:
                yield _spell_lock(fix.model, [each.key for each in rows], using)
            most = min(BATCH, max(rows_in_statement(using, ["pk", "pk", *fix.fields], rows), 1))
            words = f"Update {plural(len(rows), 'row')} to what Python computes from the records."
            for some in blocks(rows, most):
                yield WriteStep(words, first_write(partial(_write, fix, some, using), using=using))
                words = ""
        elif isinstance(fix, Correction):
            wanted = fix.wanted(keys)
            stale = Keys(list(wanted.values_list(KEY, flat=True)))
            if not fix.own:
                yield _spell_lock(fix.model, stale.values, using)
            wanted = wanted.filter(stale.on("pk"))
            if dialect_of(using).locks_what_it_reads:
                words = "Read what they must be: an UPDATE would lock each row that it reads."
                yield WriteStep(words, select_sql(wanted))
            update = partial(update_from, fix.model, fix.fields, wanted)
            yield WriteStep("Update the rows to what they must be.", first_write(update, using=using))

    def write(self, finder: Finder, keys: Keys, journal: Journal) -> WriteResult:
        """Journal, update and confirm the stale rows of `keys`."""
        correction = finder.fix
        if isinstance(correction, Rewriting):
            return rewrite(correction, keys, journal, using=finder.using)
        if not isinstance(correction, Correction):
            raise TypeError(f"{finder.drift} drift of {finder.model._meta.label} has nothing to update.")
        keys, busy = finder.lock.lock_neighbours(finder.model, keys, finder.using)
        wanted = correction.wanted(keys)
        stale = Keys(list(wanted.values_list(KEY, flat=True)))
        free = stale if correction.own else lock_rows(correction.model, stale.values, using=wanted.db)
        locked = {*stale.values} - {*free.values}
        records = stale.values if correction.own else _drifted_keys(finder, keys, stale)
        recorded = journal.record_before(correction.model, correction.fields, free)
        written = update_from(correction.model, correction.fields, wanted.filter(free.on("pk")))
        completed = journal.record_after(correction.model, correction.fields)
        if not recorded == written == completed:
            raise ChunkConflictError(
                f"{correction.model._meta.label}: of {recorded} stale rows {written} were updated; another session "
                "writes what they are computed from."
            )
        if locked and not locked.issuperset(wanted.values_list(KEY, flat=True)):
            raise NotRepairedError(
                f"{correction.model._meta.label}: rows that nobody holds are still stale after the update."
            )
        return WriteResult.of(UPDATE, written, waiting=busy, waiting_rows=len(locked), keys=records)


def _spell_lock(model: type[Model], keys: Iterable[Any], using: str) -> WriteStep:
    words = "Lock the stale rows, and skip those that another session has locked."
    return WriteStep(words, first_read(lambda: lock_rows(model, [*keys], using=using), using=using))


def _drifted_keys(finder: Finder, keys: Keys, stale: Keys) -> Sequence[Any] | None:
    """The keys that still drift; None if all may. One statement if fewer rows are stale than there are records."""
    return finder.keys(keys) if len(stale.values) < len(keys.values) else None
