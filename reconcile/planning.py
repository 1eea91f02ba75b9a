"""The act of planning: what a repair would write, and whether its guards would let it. Writes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from reconcile.checking import RuleCheck
from reconcile.drift import Drift, Status, Written
from reconcile.rules import Rule, share

__all__ = ["Action", "RulePlan", "plan"]


@dataclass(frozen=True, kw_only=True)
class Action:
    """One remedy of one rule: how many drifted rows it is for, and what it does about them.

    `verb` is empty where the drift is only reported.
    """

    drift: Drift
    verb: str
    remedy: str
    rows: int


@dataclass(frozen=True, kw_only=True)
class RulePlan:
    """What a repair of one rule would do. With `why_stopped`, it would stop before its first write."""

    rule: Rule
    check: RuleCheck
    actions: tuple[Action, ...]
    why_stopped: str = ""

    @property
    def planned(self) -> Written:
        """Drifted rows by the verb of their remedy."""
        planned = Written()
        for action in self.actions:
            if action.verb:
                planned.add(action.verb, action.rows)
        return planned


def plan(check: RuleCheck, *, max_repairs: int | str | None = None) -> RulePlan:
    """The plan for what `check` found; `max_repairs` (count or percent) stands in for the rule's own cap."""
    rule = check.rule
    actions = tuple(
        Action(
            drift=drift,
            verb=rule.remedy(drift).verb,
            remedy=type(rule.remedy(drift)).__name__,
            rows=check.tally[drift],
        )
        for drift in Drift
        if check.tally[drift]
    )
    made = RulePlan(rule=rule, check=check, actions=actions)
    cap = rule.max_repairs if max_repairs is None else max_repairs
    if check.status is Status.ERROR or cap is None or made.planned.total <= share(cap, check.tally.checked):
        return made
    why = (
        f"{made.planned.total:,} repairs are planned, and the cap is {cap}"
        f"{f' of {check.tally.checked:,} records' if isinstance(cap, str) else ''}. "
        f"Look at the samples; then raise the cap: --max-repairs {made.planned.total}"
    )
    return RulePlan(rule=rule, check=check, actions=actions, why_stopped=why)
