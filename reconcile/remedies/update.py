"""`Update`: set stale columns to what they should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from reconcile.declaring import Declaration
from reconcile.drift import STALE, Drift
from reconcile.errors import ChunkConflictError, Fault
from reconcile.finders import Correction, Finder, Rows
from reconcile.remedies._base import Journal
from reconcile.sql.dialects import dialect_of
from reconcile.sql.statements import KEY, update_from
from reconcile.windows import Keys

__all__ = ["Update"]


@dataclass(frozen=True)
class Update(Declaration):
    """Write only the rule's columns, only where they differ, never through `save()`. The default for STALE.

    Three statements: the images, the update, and a count of the rows that now equal their image. Two more
    where the stale rows are not the records themselves and have to be locked first.
    """

    verb: ClassVar[str] = "update"

    def faults(self, drift: Drift, finder: Finder | None) -> Sequence[Fault]:
        """Only what is there can be updated."""
        if drift is STALE and (finder is None or finder.correction is not None):
            return ()
        return (Fault("reconcile.E012", f"Update() does not mend {drift} drift.", "Use Report()."),)

    def write(self, finder: Finder, keys: Keys, journal: Journal) -> int:
        """Journal, update and confirm the stale rows of `keys`."""
        correction = finder.correction
        if correction is None:
            raise TypeError(f"{finder.drift} drift of {finder.model._meta.label} has nothing to update.")
        rows = keys if correction.own else _locked_rows(correction, keys)
        wanted = correction.wanted(keys)
        if not correction.own:
            wanted = wanted.filter(rows.on("pk"))
        noted = journal.updating(correction.model, correction.fields, wanted)
        written = update_from(correction.model, correction.fields, wanted)
        confirmed = journal.confirmed(correction.model, correction.fields, rows)
        if not noted == written == confirmed:
            raise ChunkConflictError(
                f"{correction.model._meta.label}: {noted} stale rows were noted, {written} updated, and "
                f"{confirmed} then had the expected values; another session writes what they are computed from."
            )
        return written


def _locked_rows(correction: Correction, keys: Keys) -> Keys:
    stale: Rows = correction.wanted(keys).values_list(KEY, flat=True)
    found = Keys(list(stale))
    rows = correction.model._base_manager.using(stale.db).filter(found.on("pk")).order_by("pk")
    return Keys(list(dialect_of(stale.db).locked(rows).values_list("pk", flat=True)))
