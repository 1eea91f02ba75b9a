"""What an undo or its preview says, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Group, RenderableType
from rich.text import Text

from reconcile.drift import Written
from reconcile.reports.text import plural, table

if TYPE_CHECKING:
    from reconcile.runs import RuleUndo

__all__ = ["UndoReport", "undo_json", "undo_text"]

_VERBS = ("insert", "update", "delete")

_SHOWN = 10
"""Conflicts of a rule that a person is shown; the JSON has more."""


@dataclass(frozen=True, kw_only=True)
class UndoReport:
    """One undo, or its preview. `run` is the run whose writes are taken back; `by` the one that does; none in a preview."""

    run: str
    by: str | None
    database: str
    rules: Sequence[RuleUndo]
    seconds: float

    @property
    def applied(self) -> bool:
        """Whether anything may have been written."""
        return self.by is not None

    @property
    def status(self) -> Literal["whole", "conflicts", "stopped"]:
        """Whether all is, or would be, taken back."""
        if any(each.incomplete and not each.left for each in self.rules):
            return "stopped"
        return "conflicts" if any(each.left for each in self.rules) else "whole"


def undo_text(report: UndoReport) -> RenderableType:
    """A line a rule, then what was left and why, what can't be undone, and the sum."""
    numbers = (*(verb.capitalize() for verb in _VERBS), "Left")
    rows = table("", "Rule", *numbers, numbers=numbers)
    for each in report.rules:
        counts = each.written if report.applied else each.planned
        rows.add_row(
            _status(each, applied=report.applied),
            each.rule,
            *(_number(getattr(counts, verb), "cyan") for verb in _VERBS),
            _number(each.left, "red"),
        )
    return Group("", rows, "", *_remarks(report), *_outside(report), _sum(report))


def _status(each: RuleUndo, *, applied: bool) -> Text:
    if each.left:
        return Text("part", style="yellow")
    if each.incomplete:
        return Text("stop", style="red")
    return Text("done", style="green") if applied else Text("plan", style="cyan")


def _number(number: int, style: str) -> Text:
    return Text(f"{number:,}", style=style) if number else Text("·", style="dim")


def _remarks(report: UndoReport) -> Iterator[RenderableType]:
    said = False
    for each in report.rules:
        if each.why_stopped and not each.left:
            said = True
            yield Text.assemble((each.rule, "bold"), "  ", each.why_stopped)
        for conflict in each.conflicts[:_SHOWN]:
            said = True
            yield Text.assemble((each.rule, "bold"), "  left: ", conflict.key, ". ", (conflict.why, "yellow"))
        if each.left > min(len(each.conflicts), _SHOWN):
            more = each.left - min(len(each.conflicts), _SHOWN)
            yield Text.assemble((each.rule, "bold"), f"  left: {more:,} more")
    if said:
        yield ""


def _outside(report: UndoReport) -> Iterator[RenderableType]:
    for each in report.rules:
        handed = [
            f"{plural(number, 'record')} {verb}"
            for verb, number in (("called", each.outside.called), ("enqueued", each.outside.enqueued))
            if number
        ]
        if handed:
            said = "can't be undone: what your functions and tasks did with them is not in the journal."
            yield Text.assemble((each.rule, "bold"), f"  {' and '.join(handed)} {said}")
            yield ""


def _sum(report: UndoReport) -> Text:
    left = sum(each.left for each in report.rules)
    if not report.applied:
        rows = _total(each.planned for each in report.rules)
        said = Text(f"{plural(rows, 'row')} of run {report.run[:8]} would be taken back. ")
        said.append("Nothing has been: add --apply to write.", style="bold")
    else:
        rows = _total(each.written for each in report.rules)
        said = Text(f"{plural(rows, 'row')} of run {report.run[:8]} taken back in {report.seconds:.1f} s")
        said.append(f", run {str(report.by)[:8]}.")
    if left:
        said.append(f"  {plural(left, 'change')} left, since the rows are others' by now.", style="yellow")
    return said


def _total(counts: Iterator[Written]) -> int:
    return reduce(add, counts, Written()).total


def undo_json(report: UndoReport) -> str:
    """The object that the documentation gives for `undo --format json`."""
    made = {
        "version": 1,
        "run": report.run,
        "by": report.by,
        "database": report.database,
        "status": report.status,
        "applied": report.applied,
        "seconds": round(report.seconds, 3),
        "rules": [_rule(each) for each in report.rules],
    }
    return json.dumps(made, indent=2, ensure_ascii=False)


def _rule(each: RuleUndo) -> dict[str, Any]:
    return {
        "rule": each.rule,
        "planned": {verb: getattr(each.planned, verb) for verb in _VERBS},
        "written": {verb: getattr(each.written, verb) for verb in _VERBS},
        "left": each.left,
        "conflicts": [{"key": conflict.key, "why": conflict.why} for conflict in each.conflicts],
        "not_undoable": {"called": each.outside.called, "enqueued": each.outside.enqueued},
        "why_stopped": each.why_stopped or None,
    }
