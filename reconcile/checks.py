"""Django's system checks: the faults of the rules, and the constraints that they lack; without touching a database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core import checks
from django.db import connections

from reconcile.effects import Lift
from reconcile.errors import UsageError
from reconcile.registry import load
from reconcile.rules import Rule
from reconcile.sql.dialects import dialect_of

__all__ = ["check_guarantees", "check_rules"]


@checks.register("reconcile")
def check_rules(**_: Any) -> list[checks.CheckMessage]:
    """One error for each fault of the project's rules; none where all can be used."""
    return [checks.Error(fault.message, hint=fault.hint or None, id=fault.id) for fault in load().faults]


@checks.register("reconcile")
def check_guarantees(**_: Any) -> list[checks.CheckMessage]:
    """One warning for each rule at C or D that a unique constraint would lift to A; none before all can be used.

    At B the handlers keep out of the repair's way, by the project's own choice.
    """
    registry = load()
    if registry.faults:
        return []
    return [warning for rule in registry.rules.values() for warning in _lifting(rule)]


def _lifting(rule: Rule) -> Iterator[checks.CheckMessage]:
    """At most one warning, about the first database on which the constraint would help."""
    for using in connections:
        lift, level = _lift(rule, using)
        if lift is not None and lift.helps and level != "B":
            said = f"Rule {rule.name!r}: its guarantee is {level}, for want of a unique constraint on {lift.model}."
            needs = f" (needs {lift.needs})" if lift.needs else ""
            hint = f"Mend the duplicates, then declare in Meta.constraints: {lift.django}{needs}"
            yield checks.Warning(said, hint=hint, id="reconcile.W001")
            return


def _lift(rule: Rule, using: str) -> tuple[Lift | None, str]:
    try:
        dialect = dialect_of(using)
    except UsageError:
        # A database that no rule can be checked on anyway.
        return None, ""
    if not rule.is_on(using):
        return None, ""
    with dialect.unasked():
        return rule.lift(using), rule.guarantee(using)
