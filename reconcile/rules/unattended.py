"""Whether the nightly job may repair a rule that is `unattended`, and what it needs where it may not."""

from __future__ import annotations

from collections.abc import Iterator

from reconcile.core.drift import GUARANTEE_MEANINGS, MISSING, Drift, Guarantee
from reconcile.errors import Refusal
from reconcile.remedies import Call
from reconcile.rules.rule import Rule

__all__ = ["unattended_refusal"]


_ENOUGH = frozenset({Guarantee.CONSTRAINT, Guarantee.REPEATABLE})


def unattended_refusal(rule: Rule, using: str) -> Refusal | None:
    """Why only a person may start the repair of the rule, and the way out; None if the nightly job may.

    The nightly job may at `constraint` and `repeatable`, and at `lock` where the rule has a settle time.
    """
    if any(rule.remedy(drift).deletes for drift in Drift):
        return Refusal(
            f"Its remedy deletes rows, which is for a person to start: reconcile repair {rule.name} --apply"
        )
    guarantee = rule.guarantee(using)
    if guarantee in _ENOUGH or (guarantee is Guarantee.LOCK and rule.settle):
        return None
    without = " and it has no settle time" if guarantee is Guarantee.LOCK else ""
    message = f"Its guarantee is {guarantee}{without}, so the nightly job only reports."
    return Refusal(" ".join([message, GUARANTEE_MEANINGS[guarantee], *_ways_out(rule, guarantee, using)]))


def _ways_out(rule: Rule, guarantee: Guarantee, using: str) -> Iterator[str]:
    """Each sentence says what the rule needs before the nightly job may repair it."""
    if guarantee is Guarantee.LOCK:
        column = f"the column of {rule.model._meta.label} that says when a record was made"
        yield f'Add settle=Settle("created_at", minutes=15), with {column}.'
    if isinstance(rule.remedy(MISSING), Call):
        yield "If the function may be called twice for a record, say so: Call(…, idempotent=True)."
    lift = rule.lift(using)
    if lift is not None and lift.helps:
        yield (
            f"A unique constraint on {lift.model} would lift it to {Guarantee.CONSTRAINT}: "
            f"reconcile explain {rule.name}"
        )
