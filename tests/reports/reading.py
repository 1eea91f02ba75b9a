"""Reports of checks whose outcome is known, and the shape that SARIF 2.1.0 prescribes for what is written of it."""

from dataclasses import replace
from datetime import UTC, datetime

from django.db.models import F

from reconcile import EXTRA, MISSING, STALE, Delete, HaveRow, HaveValues, Rule
from reconcile.core.declaration import Place
from reconcile.core.drift import Guarantee, Sample, Status, Tally
from reconcile.detect.checking import RuleCheck
from reconcile.reports.findings import CheckReport
from tests.zoo.models import Basket, Bill

NASTY = "a,b:c%0A\r\n<b>&\"'`|\x1b[31m\x00\udc80 ]]> ::error::"
"""What a key, a name or an error may hold, and each format has a meaning for some of."""

owed = Rule(
    every=Basket,
    must=HaveRow(Bill, link={"basket_number": F("pk")}),
    name="own.owed",
    owner="billing",
    tags=["money"],
    reason="Because\n  it is owed.",
    declared_at=Place(module=__name__, file=__file__, line=18),
)
labelled = Rule(
    every=Basket,
    must=HaveValues(label="x"),
    name="own.labelled",
    remedies={},
    declared_at=Place(module=__name__, file=__file__, line=27),
)


def checked(rule=owed, *, drifted=None, keys=(), checked=12, settling=0, status=None, error=None):
    """What a check of the rule would find; `keys` are of its first kind of drift."""
    if error:
        return RuleCheck(rule=rule, status=Status.ERROR, error=error)
    tally = Tally(checked=checked, settling=settling, drifted=drifted or {})
    kind = next(iter(tally.drifted), MISSING)
    return RuleCheck(
        rule=rule,
        status=status or rule.status(tally),
        tally=tally,
        samples=tuple(Sample(kind, key) for key in keys),
        guarantee=Guarantee.CONSTRAINT,
        seconds=0.25,
    )


def drifting(**options):
    return checked(**{"drifted": {MISSING: 7, EXTRA: 2}, "keys": ["35", "40"], **options})


def nasty():
    """A rule whose every text is one that formats must escape."""
    rule = replace(owed, name=NASTY, owner=NASTY, tags=[NASTY], reason=NASTY)
    return drifting(rule=rule, keys=[NASTY])


def report(*checks, **options):
    at = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    known = {
        "run": "8141128b-48e5-4e73-bee0-2a4bd844200b",
        "database": "default",
        "seconds": 0.5,
        "hint": "x",
        "at": at,
    }
    return CheckReport(**{**known, "checks": checks, **options})


__all__ = [
    "EXTRA", "MISSING", "NASTY", "STALE", "Delete", "checked", "drifting", "labelled", "nasty", "owed", "report",
]  # fmt: skip
