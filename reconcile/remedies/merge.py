"""`Merge`: make one row of several, and let what referred to the others refer to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from django.db.models import Q
from django.db.models.fields.reverse_related import ManyToOneRel

from reconcile.drift import Drift, Written
from reconcile.errors import ChunkConflictError, Fault
from reconcile.finders import Finder, Merging
from reconcile.remedies._base import Journal, Mending, Wrote
from reconcile.remedies._locking import locked, members
from reconcile.remedies._referring import Referring, deletion_faults
from reconcile.remedies._repointing import examined
from reconcile.remedies.delete import delete_rows
from reconcile.sql.cases import BATCH, chosen
from reconcile.sql.expressions import Column, columns_of
from reconcile.windows import Keys

__all__ = ["Merge"]


@dataclass(frozen=True)
class Merge(Mending):
    """The row that stays takes over columns and references of its group; the others are journalled and deleted.

    Groups are merged whole, also where a chunk ends within one, so sums are over all their rows. A group of which
    another session holds a row, or a row that refers to one, is left for later. A group whose references would
    collide in a unique constraint of the model that refers is refused with a reason; only many-to-many rows that
    Django itself keeps are then deleted as the duplicates they have become.

    Nine statements a chunk, one for each model that refers, four more where rows of it are to be repointed, and
    one more for each 1,000 rows that one of them updates beyond the first. The keys of what refers to duplicates
    are held in memory.
    """

    verb: ClassVar[str] = "delete"

    def writes(self, finder: Finder) -> Iterable[Column]:
        """All columns of the rows, and those by which other rows refer to them."""
        relations = finder.model._meta.get_fields(include_hidden=True)
        fields = (each.field for each in relations if isinstance(each, ManyToOneRel))
        return columns_of(finder.model) | {(each.model, each.attname) for each in fields}

    def faults(self, drift: Drift, finder: Finder | None) -> Sequence[Fault]:
        """Only what says how to can be merged, and only in one table."""
        if finder is None or finder.merging is None:
            hint = "Say how in BeUnique(…, merge={…}), or use Report()."
            return (Fault("reconcile.E012", f"Merge() does not mend this {drift} drift.", hint),)
        return list(deletion_faults("Merge()", finder.model))

    def write(self, finder: Finder, keys: Keys, journal: Journal) -> Wrote:
        """Merge the whole groups of the rows of `keys`."""
        merging, using = finder.merging, finder.using
        if merging is None:
            raise TypeError(f"{finder.drift} drift of {finder.model._meta.label} has nothing to merge.")
        groups, waiting = _whole_groups(finder, keys)
        referring = Referring.to(finder.model, using) if groups else None
        repointings = examined(referring, groups) if referring else []
        refused = {survivor: why for each in reversed(repointings) for survivor, why in each.refused.items()}
        busy = {survivor for each in repointings for survivor in each.busy} - {*refused}
        busy |= _unseen(finder, groups)
        left = {other: stays for other, stays in groups.items() if stays not in busy and stays not in refused}
        taken = _taken_over(merging, left)
        written = Written()
        for each in repointings:
            written += each.write(left, journal)
        written.delete += delete_rows(finder.model, [*left], journal, using=using)
        # Last, when the rows are gone whose values the one that stays may take in a unique column.
        written.update += _take_over(finder, merging, taken, journal)
        return Wrote(
            written=written,
            busy=[*waiting, *(key for key in keys.values if groups.get(key) in busy)],
            refused={key: refused[groups[key]] for key in keys.values if groups.get(key) in refused},
            keys=[key for key in keys.values if key in left],
        )


def _unseen(finder: Finder, groups: Mapping[Any, Any]) -> set[Any]:
    """The rows that stay of groups of which a row may not be deleted yet. One statement, none without such a guard."""
    if finder.deletable is None or not groups:
        return set()
    free = {*finder.deletable([*groups])}
    return {stays for other, stays in groups.items() if other not in free}


def _whole_groups(finder: Finder, keys: Keys) -> tuple[dict[Any, Any], list[Any]]:
    """The groups of `keys` that no other session holds a row of, as other -> survivor, now locked whole.

    And those of `keys` that drift in a group of which another session holds a row. Three statements.
    """
    held = {*locked(finder.model, members(finder, keys), using=finder.using).values}
    now = members(finder, keys)
    busy = {survivor for member, survivor in now.items() if member not in held}
    others = {member: survivor for member, survivor in now.items() if member != survivor}
    free = {member: survivor for member, survivor in others.items() if survivor not in busy}
    return free, [key for key in keys.values if others.get(key) in busy]


def _taken_over(merging: Merging, groups: Mapping[Any, Any]) -> dict[Any, Sequence[Any]]:
    """What the columns of the rows that stay become, where they differ. One statement."""
    if not merging.fields or not groups:
        return {}
    rows = merging.wanted(Keys([*dict.fromkeys([*groups, *groups.values()])]))
    taken = {key: values for key, *values in rows}
    if not {*taken} <= {*groups.values()}:
        raise ChunkConflictError(f"{rows.model._meta.label}: another row than before would stay.")
    return taken


def _take_over(finder: Finder, merging: Merging, taken: Mapping[Any, Sequence[Any]], journal: Journal) -> int:
    """Journal and update the rows that stay. Three statements, one more for each 1,000 rows beyond the first."""
    if not taken:
        return 0
    model, keys = finder.model, [*taken]
    noted = journal.before(model, merging.fields, Keys(keys))
    written = 0
    for start in range(0, len(keys), BATCH):
        some = keys[start : start + BATCH]
        values = {
            field.attname: chosen(field, [(Q(pk=key), taken[key][place]) for key in some], using=finder.using)
            for place, field in enumerate(merging.fields)
        }
        written += model._base_manager.using(finder.using).filter(Keys(some).on("pk")).update(**values)
    completed = journal.after(model, merging.fields)
    if not noted == written == completed:
        raise ChunkConflictError(f"{model._meta.label}: of {noted} rows that stay {written} were updated.")
    return written
