"""The act of looking back: how much drift the last runs found, rule by rule. Reads only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connections

from reconcile.models import Outcome

__all__ = ["Past", "past"]


@dataclass(frozen=True, slots=True)
class Past:
    """What one run found of one rule before it repaired anything: drifted rows, of so many checked."""

    at: datetime
    drifted: int
    checked: int


def past(rules: Collection[str], *, using: str, runs: int = 30) -> Mapping[str, Sequence[Past]]:
    """Up to `runs` runs of each rule that the database `using` remembers, oldest first; rules without any are left out.

    Runs that take writes back are no measure of drift, nor is a rule that could not be evaluated. One statement that
    asks for the tables, and one a rule; none for a rule more where the package's tables were never made.
    """
    connection = connections[using]
    if Outcome._meta.db_table not in connection.introspection.table_names():
        return {}
    found = {rule: _past(rule, using, runs) for rule in rules}
    return {rule: each for rule, each in found.items() if each}


def _past(rule: str, using: str, runs: int) -> Sequence[Past]:
    outcomes = (
        Outcome.objects.using(using)
        .filter(rule=rule, state=Outcome.State.DONE, run__kind__in=("repair", "nightly"))
        .exclude(status__in=("", "error"))
        .order_by("-run__started_at", "-pk")
        .values_list("run__started_at", "missing", "stale", "extra", "checked")[:runs]
    )
    return [Past(at, missing + stale + extra, checked) for at, missing, stale, extra, checked in outcomes][
        ::-1
    ]
