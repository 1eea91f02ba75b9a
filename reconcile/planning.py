"""The act of planning: what a repair would write, and whether its guards would let it. Writes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from reconcile.checking import RuleCheck
from reconcile.drift import Written
from reconcile.limits import share
from reconcile.rules import Rule

__all__ = ["RulePlan", "plan"]


@dataclass(frozen=True, kw_only=True)
class RulePlan:
    """What a repair of one rule would do. With `why_stopped`, it would stop before its first write.

    planned: drifted rows by the verb of their remedy; rows that are only reported are not among them.
    """

    rule: Rule
    check: RuleCheck
    planned: Written
    cap: int | str | None = None
    why_stopped: str = ""


def plan(check: RuleCheck, *, max_repairs: int | str | None = None) -> RulePlan:
    """The plan for what `check` found; `max_repairs` (count or percent) stands in for the rule's own cap."""
    rule = check.rule
    planned = check.planned
    cap = rule.max_repairs if max_repairs is None else max_repairs
    why = ""
    if cap is not None and planned.total > share(cap, check.tally.checked):
        of = f" of {check.tally.checked:,} records" if isinstance(cap, str) else ""
        why = (
            f"{planned.total:,} repairs are planned, and the cap is {cap}{of}. Look at them: reconcile check {rule.name}; "
            f"then raise the cap: --max-repairs {planned.total}"
        )
    return RulePlan(rule=rule, check=check, planned=planned, cap=cap, why_stopped=why)
