"""`Update`: set stale columns to what they should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from reconcile.drift import STALE, Drift
from reconcile.errors import ChunkConflictError, Fault, NotMendedError
from reconcile.finders import Finder
from reconcile.remedies._base import Journal, Mending, Wrote
from reconcile.remedies._locking import locked, secured
from reconcile.remedies._rewriting import rewrite
from reconcile.sql.statements import KEY, update_from
from reconcile.windows import Keys

__all__ = ["Update"]


@dataclass(frozen=True)
class Update(Mending):
    """Write only the rule's columns, only where they differ, never through `save()`. The default for STALE.

    Four statements: the stale keys, their images, the update, the images after it. On MariaDB and MySQL what is to be
    written is read first, in a statement of its own. One more where the stale rows are not the records
    themselves and have to be locked first, another where fewer of them are stale than records were found, and where other
    sessions hold some; three more where a row is stale because of another, which is locked, too.
    Values that only Python can tell are computed again from the locked records, and written 500 rows a statement.
    """

    verb: ClassVar[str] = "update"

    def faults(self, drift: Drift, finder: Finder | None) -> Sequence[Fault]:
        """Only what is there can be updated."""
        mendable = finder and (finder.correction is not None or finder.rewriting is not None)
        if mendable if finder else drift is STALE:
            return ()
        return (Fault("reconcile.E012", f"Update() does not mend {drift} drift.", "Use Report()."),)

    def write(self, finder: Finder, keys: Keys, journal: Journal) -> Wrote:
        """Journal, update and confirm the stale rows of `keys`."""
        if finder.rewriting is not None:
            return rewrite(finder.rewriting, keys, journal, using=finder.using)
        correction = finder.correction
        if correction is None:
            raise TypeError(f"{finder.drift} drift of {finder.model._meta.label} has nothing to update.")
        keys, busy = secured(finder, keys)
        wanted = correction.wanted(keys)
        stale = Keys(list(wanted.values_list(KEY, flat=True)))
        free = stale if correction.own else locked(correction.model, stale.values, using=wanted.db)
        held = {*stale.values} - {*free.values}
        records = _drifted(finder, keys, stale)
        noted = journal.before(correction.model, correction.fields, free)
        written = update_from(correction.model, correction.fields, wanted.filter(free.on("pk")))
        completed = journal.after(correction.model, correction.fields)
        if not noted == written == completed:
            raise ChunkConflictError(
                f"{correction.model._meta.label}: of {noted} stale rows {written} were updated; another session "
                "writes what they are computed from."
            )
        if held and not held.issuperset(wanted.values_list(KEY, flat=True)):
            raise NotMendedError(
                f"{correction.model._meta.label}: rows that nobody holds are still stale after the update."
            )
        return Wrote.of(self.verb, written, busy=busy, held=len(held), keys=records)


def _drifted(finder: Finder, keys: Keys, stale: Keys) -> Sequence[Any] | None:
    """The records that still drift; None where all may. One statement where fewer rows are stale than there are records."""
    if finder.correction is not None and finder.correction.own:
        return stale.values
    return finder.keys(keys) if len(stale.values) < len(keys.values) else None
