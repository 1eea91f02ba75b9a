"""Django's system checks: the faults of the rules, and the constraints that they lack; without touching a database.

Every process of the project imports this module in `django.setup()`, so what a check needs is imported when it is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django.core import checks
from django.db import connections

from reconcile.errors import UsageError

if TYPE_CHECKING:
    from reconcile.kinds import ConstraintAdvice
    from reconcile.rules.rule import Rule

__all__ = ["check_deployed_rules", "check_guarantees", "check_rules"]

NAMED = 5
"""Rules that one message names."""


@checks.register("reconcile")
def check_rules(**_: Any) -> list[checks.CheckMessage]:
    """An error for each fault of the settings, and a warning for each fault of the project's rules; none if all can be used.

    A rule that can't be used is no reason not to migrate or to serve pages; see `check_deployed_rules`.
    """
    from reconcile.rules.registry import load

    registry = load()
    return [
        (checks.Error if fault in registry.settings else checks.Warning)(
            fault.message, hint=fault.hint or None, id=fault.id
        )
        for fault in registry.faults
    ]


@checks.register("reconcile", deploy=True)
def check_deployed_rules(**_: Any) -> list[checks.CheckMessage]:
    """With `--deploy`, an error if any rule can't be used."""
    from reconcile.rules.registry import load

    if not (invalid := [*load().invalid]):
        return []
    more = f" and {len(invalid) - NAMED} more" if len(invalid) > NAMED else ""
    message = f"Rules that can't be used, and so are never checked: {', '.join(invalid[:NAMED])}{more}."
    hint = "Mend what the warnings of each name, or see: reconcile rules --check"
    return [checks.Error(message, hint=hint, id="reconcile.E004")]


@checks.register("reconcile")
def check_guarantees(**_: Any) -> list[checks.CheckMessage]:
    """Warnings about rules that can be used, but for those that a rule silences."""
    from reconcile.rules.registry import load

    return [
        warning
        for rule in load().rules.values()
        for warning in (*_advise_lift(rule), *_warn_of_rows_that_every_reads(rule))
        if warning.id not in rule.silence
    ]


def _advise_lift(rule: Rule) -> Iterator[checks.CheckMessage]:
    """At most one warning, about the first database on which the constraint would help."""
    from reconcile.kinds.uniqueness import FOREIGN

    for using in connections:
        lift, guarantee = _lift(rule, using)
        if lift is not None and lift.helps:
            message = f"Rule {rule.name!r}: its guarantee is {guarantee}, for want of a unique constraint on {lift.model}."
            needs = f" (needs {lift.needs})" if lift.needs else ""
            hint = f"Mend the duplicates, then declare in Meta.constraints: {lift.django}{needs}"
            if lift.foreign:
                hint += f". {lift.model} is another package's: {FOREIGN}"
            yield checks.Warning(message, hint=hint, id="reconcile.W001")
            return


def _warn_of_rows_that_every_reads(rule: Rule) -> Iterator[checks.CheckMessage]:
    model = rule.rows_that_every_reads()
    if model is not None:
        label = model._meta.label
        message = f"Rule {rule.name!r}: every= reads {label}, whose rows the rule makes, so that each of them is extra afterwards."
        yield checks.Warning(
            message, hint=f"Leave that out: every={rule.model.__name__}.", id="reconcile.W002"
        )


def _lift(rule: Rule, using: str) -> tuple[ConstraintAdvice | None, str]:
    from reconcile.db.dialects import dialect_of

    try:
        dialect = dialect_of(using)
    except UsageError:
        # A database that no rule can be checked on anyway.
        return None, ""
    if not rule.is_on(using):
        return None, ""
    with dialect.without_server():
        return rule.lift(using), rule.guarantee(using)
