"""What several reports say of a rule, in the same words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from reconcile.drift import Guarantee
from reconcile.rules import Rule
from reconcile.settling import Settle

__all__ = ["GUARANTEES", "age_in_words", "nightly", "settled"]

GUARANTEES: Mapping[Guarantee, str] = {
    "A": "A unique constraint, or the record's own row lock, keeps a repair and live writers apart.",
    "B": "Handlers and the repair take the same lock on the record, and look before they insert.",
    "C": "The repair's lock keeps handlers in flight apart, not ones that insert later without asking.",
    "D": "Best effort: no constraint and no lock covers what a repair writes.",
}


def nightly(rule: Rule, using: str) -> str:
    """What the nightly job does about the rule: `repairs`, or only `reports`."""
    from reconcile.runs import too_risky

    return "repairs" if rule.unattended and not too_risky(rule, using) else "reports"


def settled(settle: Settle) -> str:
    """Which records are left alone."""
    return f"Records younger than {settle.age} by {settle.column} are left alone."


def age_in_words(age: timedelta) -> str:
    """`15 minutes`, `1 day 2 hours`."""
    hours, seconds = divmod(age.seconds + age.microseconds / 1_000_000, 3600)
    minutes, seconds = divmod(seconds, 60)
    parts = (("day", age.days), ("hour", hours), ("minute", minutes), ("second", seconds))
    said = [f"{number:g} {noun}{'' if number == 1 else 's'}" for noun, number in parts if number]
    return " ".join(said)
