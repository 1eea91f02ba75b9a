"""`Delete`: delete rows that no record owes, if no row refers to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set as AbstractSet
from dataclasses import dataclass
from typing import Any, ClassVar

from django.db import IntegrityError
from django.db.models import F, Model

from reconcile.core.drift import EXTRA, Drift
from reconcile.core.finder import Finder, Rows
from reconcile.core.scopes import Keys
from reconcile.core.verbs import DELETE
from reconcile.db.columns import concrete_model
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import raw_delete
from reconcile.db.expressions import Column, columns_of
from reconcile.db.schema import ForeignKeyInto
from reconcile.db.text_keys import AsText, SameText
from reconcile.db.unexecuted import first_read, first_write
from reconcile.errors import ChunkConflictError, Fault
from reconcile.remedies.base import Journal, Remedy, WriteResult, WriteStep
from reconcile.remedies.references import Reference, Referring, deletion_faults

__all__ = [
    "Delete",
    "Leaving",
    "delete_rows",
    "referred_rows",
    "spell_delete",
    "spell_references",
    "spell_refused",
]

Leaving = Callable[[Reference], "Sequence[AbstractSet[Any]]"]


@dataclass(frozen=True)
class Delete(Remedy):
    """Delete rows, with their whole images in the journal. For EXTRA, and only if a rule names it.

    A row that another row refers to is not deleted, whatever on_delete says: it is set aside with a reason that
    names the model, so nothing cascades. Only a foreign key with DO_NOTHING is passed over, if it has no constraint or
    its model is unmanaged, as that of a view is.
    What refers by a foreign key that the database alone has counts, too.
    Three statements, one for each column that refers to the rows, one more where generic foreign keys do, one for the
    catalogue; three more where the rows drift because of another, which is locked, too; two where they are beyond a number of
    rows, of which the first are.
    """

    verbs: ClassVar[Sequence[str]] = (DELETE,)

    def writes(self, finder: Finder) -> Iterable[Column]:
        """All columns of the deleted rows."""
        return columns_of(finder.model)

    def faults(self, drift: Drift, finder: Finder | None) -> Sequence[Fault]:
        """It serves EXTRA alone, and rows of one table."""
        if drift is not EXTRA:
            return (Fault("reconcile.E012", f"Delete() does not mend {drift} drift.", "Use Report()."),)
        return list(deletion_faults("Delete()", finder.model)) if finder else ()

    def spell(self, finder: Finder, keys: Keys) -> Iterator[WriteStep]:
        """What is read before, and the DELETE of the rows that nothing refers to."""
        again = first_read(lambda: finder.keys(keys), using=finder.using)
        yield WriteStep("Read which of them are extra still.", again)
        yield spell_references(finder, "Read whether a row refers to them")
        refused = self.refused(finder, keys)
        yield from spell_refused(refused)
        left = [key for key in keys.values if key not in refused]
        yield spell_delete(finder.model, left, using=finder.using)

    def refused(self, finder: Finder, keys: Keys) -> Mapping[Any, str]:
        """The rows that others refer to."""
        return dict(referred_rows(finder.model, keys, using=finder.using))

    def write(self, finder: Finder, keys: Keys, journal: Journal) -> WriteResult:
        """Journal and delete the rows of `keys` that still drift and that nothing refers to."""
        free, busy = finder.lock.lock_neighbours(finder.model, keys, finder.using)
        # MySQL can't delete from a table that a subquery reads, so the condition is asked beforehand, under the lock.
        extra = finder.keys(free)
        refused = dict(referred_rows(finder.model, Keys(extra), using=finder.using))
        deleted = delete_rows(
            finder.model, [key for key in extra if key not in refused], journal, using=finder.using
        )
        return WriteResult.of(DELETE, deleted, waiting=busy, refused=refused, keys=extra)


def spell_references(finder: Finder, words: str) -> WriteStep:
    """The words, and by which columns rows refer to those of the finder."""
    referring = Referring.to(finder.model, finder.using)
    names = [each.name for each in referring.all] + [each.table for each in referring.undeclared]
    return WriteStep(f"{words}: {', '.join(names) or 'nothing refers to this model'}.")


def spell_refused(refused: Mapping[Any, str]) -> Iterator[WriteStep]:
    """Which rows are left alone, and why, as things stand."""
    for key, why in refused.items():
        yield WriteStep(f"{key} is left alone: {why}")


def spell_delete(model: type[Model], keys: Sequence[Any], *, using: str) -> WriteStep:
    """The DELETE of rows, without it."""
    if not keys:
        return WriteStep("No row is left to delete.")
    rows = model._base_manager.using(using).filter(Keys(keys).on("pk"))
    return WriteStep("Delete the rows.", first_write(lambda: raw_delete(rows, using), using=using))


def delete_rows(
    model: type[Model], keys: Sequence[Any], journal: Journal, *, using: str, verb: str = DELETE
) -> int:
    """Journal and delete locked rows. Returns their number. Two or three statements."""
    if not keys:
        return 0
    _refuse_actions(model, Keys(keys), using=using)
    rows = model._base_manager.using(using).filter(Keys(keys).on("pk"))
    recorded = journal.record_deletes(model, rows, verb=verb)
    try:
        deleted = raw_delete(rows, using)
        dialect_of(using).check_references()
    except IntegrityError as error:
        # The references were looked for a moment ago, so this one is new, and the next try will see it.
        raise ChunkConflictError(
            f"{model._meta.label}: a row refers to one of those deleted: {error}"
        ) from error
    if recorded != deleted:
        raise ChunkConflictError(f"{model._meta.label}: of {recorded} rows {deleted} were deleted.")
    return deleted


def _refuse_actions(model: type[Model], keys: Keys, *, using: str) -> None:
    """Raise ChunkConflictError if the database would write other rows along with the DELETE. One statement for each key that acts."""
    referring = Referring(model=concrete_model(model), all=(), kinds=frozenset(), using=using)
    for each in referring.acting:
        if referring.referred_by(each, keys, leaving=True):
            raise ChunkConflictError(f"{model._meta.label}: {_why_referred(each)}")


def _why_referred(key: ForeignKeyInto) -> str:
    does = f" A DELETE would write these rows, too ({key.acts})." if key.acts else ""
    return f"Rows of the table {key.table} refer to it by {', '.join(key.columns)}.{does} Delete them first, or leave this one."


def referred_rows(
    model: type[Model],
    keys: Keys,
    *,
    using: str,
    leaving: Leaving = lambda _: (),
) -> Iterator[tuple[Any, str]]:
    """Find the rows that other rows refer to, each with the reason not to delete it.

    leaving: sets of keys of rows that won't refer to any by the reference any more; all that refer are read where there are
    some.
    """
    if not keys.values:
        return
    references = Referring.to(model, using)
    for foreign_key in references.undeclared:
        for key in references.referred_by(foreign_key, keys):
            yield key, _why_referred(foreign_key)
    for each in references.all:
        # What refers to the row in a parent's table may stay: that one isn't deleted.
        if each.binding and each.target.model is references.model:
            values = references.values(each, keys)
            rows = references.rows(each, values)
            if each.kind is not None and each.model is references.model:
                # No constraint keeps a row that refers to itself by a generic foreign key, which holds any key as text.
                own = AsText(F("pk"), field=each.target)
                rows = rows.exclude(SameText(own, AsText(F(each.column.attname), field=each.column)))
            # A text that only the collation takes for the key refers to nothing, or the database itself keeps the row.
            for value in _values_of_rows_that_stay(each, rows, leaving(each)):
                if value in values:
                    yield values[value], f"{each.name} refers to it. Delete that first, or leave this one."


def _values_of_rows_that_stay(
    reference: Reference, rows: Rows, leaving: Sequence[AbstractSet[Any]]
) -> Iterable[Any]:
    """The values of the reference's column in rows that stay."""
    name = reference.column.attname
    if not any(leaving):
        return rows.values_list(name, flat=True).distinct()
    pairs = rows.values_list(name, "pk").iterator()
    return {value for value, key in pairs if not any(key in each for each in leaving)}
