"""Caps: what a repair would write, whether that is allowed, and the budget that is left for a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from reconcile.core.drift import Bound
from reconcile.core.verbs import DELETE, Written
from reconcile.detect.checking import RuleCheck
from reconcile.errors import GivenUpError
from reconcile.rules.rule import Rule
from reconcile.rules.thresholds import FLOOR, cap_rows

__all__ = ["Budget", "Caps", "RulePlan", "plan"]


@dataclass
class Budget:
    """The rows that a run may still write for a rule, and the rows that it may still delete; None without a cap.

    planned: records that the plan in `file` still has; None without a plan.
    """

    rows: float | None = None
    deletes: float | None = None
    planned: int | None = None
    file: str = ""

    def check(self, written: Written, *, records: int = 0) -> None:
        """Raise GivenUpError, which rolls the chunk back, if a chunk exceeds the budget."""
        for left, rows, what in (
            (self.rows, written.total, "repairs"),
            (self.deletes, written.by(DELETE), "deletes"),
        ):
            if left is not None and rows > left:
                raise GivenUpError(
                    f"The cap on {what} is reached: {left:g} more rows may be written, and the next chunk "
                    f"would write {rows}. Look at the journal; then repair with a higher cap."
                )
        if self.planned is not None and records > self.planned:
            raise GivenUpError(
                f"The plan in {self.file} is used up: {self.planned:,} of its records are left, and the next chunk would "
                f"repair {records:,}. Look at the journal; then make a new plan, and apply that."
            )

    def spend(self, written: Written, *, records: int = 0) -> None:
        """Subtract what a committed chunk has written."""
        self.rows = None if self.rows is None else self.rows - written.total
        self.deletes = None if self.deletes is None else self.deletes - written.by(DELETE)
        self.planned = None if self.planned is None else self.planned - records


Limit = int | str | None


@dataclass(frozen=True, kw_only=True)
class Caps:
    """What a person has given in the place of the rules' own caps, as counts of rows or percents; None if nothing."""

    max_repairs: Limit = None
    max_deletes: Limit = None


@dataclass(frozen=True, kw_only=True)
class RulePlan:
    """What a repair of one rule would do. With `why_stopped`, it would stop before its first write.

    planned: rows that would be written, by verb: just these, or at least these, as the check says. records: drifted records by the verb of
    their remedy; those that are only reported are not among them.
    written: what the run has written for the rule already, which counts under the caps, too.
    rows, deletes: what the caps let it write in all, and delete; None without a cap.
    """

    rule: Rule
    check: RuleCheck
    planned: Written
    records: Written = field(default_factory=Written)
    written: Written = field(default_factory=Written)
    rows: float | None = None
    deletes: float | None = None
    why_stopped: str = ""
    again: Sequence[str] = ()


def plan(check: RuleCheck, caps: Caps | None = None, written: Written | None = None) -> RulePlan:
    """The plan for what `check` found, after what the run has `written`; caps that are given stand in for the rule's own."""
    caps, written = caps or Caps(), written or Written()
    rule, planned = check.rule, check.planned
    least = "at least " if check.bound is Bound.AT_LEAST else ""
    max_repairs = rule.max_repairs if caps.max_repairs is None else caps.max_repairs
    max_deletes = rule.max_deletes if caps.max_deletes is None else caps.max_deletes
    over = {
        **_exceeded_caps(check, planned.total, written.total, max_repairs, "repairs", least),
        **_exceeded_caps(check, planned.by(DELETE), written.by(DELETE), max_deletes, "deletes"),
    }
    return RulePlan(
        rule=rule,
        check=check,
        planned=planned,
        records=check.planned_records,
        written=written,
        rows=_cap_rows(max_repairs, check),
        deletes=_cap_rows(max_deletes, check),
        why_stopped=_refused_verb(check) or (_refusal(rule.name, over) if over else ""),
    )


def _refused_verb(check: RuleCheck) -> str:
    """Why the rule may not do what it would do; empty if it may."""
    return next((why for statement, why in check.refused.items() if check.planned_records.by(statement)), "")


def _cap_rows(limit: Limit, check: RuleCheck) -> float | None:
    return None if limit is None else cap_rows(limit, check.tally.checked)


def _exceeded_caps(
    check: RuleCheck, planned: int, written: int, limit: Limit, what: str, least: str = ""
) -> Mapping[str, str]:
    """Where a cap is passed, the option that raises it, with what is to be said."""
    if limit is None or planned + written <= cap_rows(limit, check.tally.checked):
        return {}
    more = f" after {written:,} that were done" if written else ""
    of = (
        f" of {check.tally.checked:,} records, and {FLOOR} rows in any case" if isinstance(limit, str) else ""
    )
    rows = f"1 {what[:-1]} is" if planned == 1 else f"{planned:,} {what} are"
    return {f"--max-{what} {planned + written}": f"{least}{rows} planned{more}, and the cap is {limit}{of}"}


def _refusal(rule: str, over: Mapping[str, str]) -> str:
    caps = "cap" if len(over) == 1 else "caps"
    return f"{'; '.join(over.values())}. Look at them: reconcile check {rule}; then raise the {caps}: {' '.join(over)}"
