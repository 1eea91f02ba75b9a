"""The act of planning: what a repair would write, and whether its guards would let it. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from reconcile.checking import RuleCheck
from reconcile.drift import Written
from reconcile.limits import cap_of
from reconcile.rules import Rule

__all__ = ["Caps", "RulePlan", "plan"]

Limit = int | str | None


@dataclass(frozen=True, kw_only=True)
class Caps:
    """What a person has given in the place of the rules' own caps, as counts of rows or percents; None where nothing."""

    max_repairs: Limit = None
    max_deletes: Limit = None


@dataclass(frozen=True, kw_only=True)
class RulePlan:
    """What a repair of one rule would do. With `why_stopped`, it would stop before its first write.

    planned: drifted rows by the verb of their remedy; rows that are only reported are not among them.
    written: what the run has written for the rule already, which counts under the caps, too.
    rows, deletes: what the caps let it write in all, and delete; None without a cap.
    """

    rule: Rule
    check: RuleCheck
    planned: Written
    written: Written = field(default_factory=Written)
    rows: float | None = None
    deletes: float | None = None
    why_stopped: str = ""
    again: Sequence[str] = ()


def plan(check: RuleCheck, caps: Caps | None = None, written: Written | None = None) -> RulePlan:
    """The plan for what `check` found, after what the run has `written`; caps that are given stand in for the rule's own."""
    caps, written = caps or Caps(), written or Written()
    rule, planned = check.rule, check.planned
    max_repairs = rule.max_repairs if caps.max_repairs is None else caps.max_repairs
    max_deletes = rule.max_deletes if caps.max_deletes is None else caps.max_deletes
    over = {
        **_over(check, planned.total, written.total, max_repairs, "repairs"),
        **_over(check, planned.delete, written.delete, max_deletes, "deletes"),
    }
    return RulePlan(
        rule=rule,
        check=check,
        planned=planned,
        written=written,
        rows=_most(max_repairs, check),
        deletes=_most(max_deletes, check),
        why_stopped=_refusal(rule.name, over) if over else "",
    )


def _most(limit: Limit, check: RuleCheck) -> float | None:
    return None if limit is None else cap_of(limit, check.tally.checked)


def _over(check: RuleCheck, planned: int, written: int, limit: Limit, what: str) -> Mapping[str, str]:
    """Where a cap is passed, the option that raises it, with what is to be said."""
    if limit is None or planned + written <= cap_of(limit, check.tally.checked):
        return {}
    more = f" after {written:,} that were done" if written else ""
    of = f" of {check.tally.checked:,} records" if isinstance(limit, str) else ""
    said = f"1 {what[:-1]} is planned" if planned == 1 else f"{planned:,} {what} are planned"
    return {f"--max-{what} {planned + written}": f"{said}{more}, and the cap is {limit}{of}"}


def _refusal(rule: str, over: Mapping[str, str]) -> str:
    caps = "cap" if len(over) == 1 else "caps"
    return f"{'; '.join(over.values())}. Look at them: reconcile check {rule}; then raise the {caps}: {' '.join(over)}"
