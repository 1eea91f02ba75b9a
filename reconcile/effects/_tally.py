"""Counting records and their drift in one statement, where it is the record's own row that tells."""

from __future__ import annotations

from collections.abc import Callable

from django.db.models import Count, Q

from reconcile.drift import STALE, Tally
from reconcile.finders import Rows, Source

__all__ = ["in_one_statement"]


def in_one_statement(source: Source, rows: Rows, drifted: Q) -> Callable[[], Tally]:
    """Counts `rows`, the source's records whether they are settled or not, and those of the settled that drift."""

    def tally() -> Tally:
        counts = {"_all": Count("pk"), "_drifted": Count("pk", filter=source.settled & drifted)}
        if source.settled:
            counts["_due"] = Count("pk", filter=source.settled)
        found = rows.aggregate(**counts)
        due = found.get("_due", found["_all"])
        return Tally(checked=due, settling=found["_all"] - due, drifted={STALE: found["_drifted"]})

    return tally
