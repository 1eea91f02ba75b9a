"""The `text` format of `undo`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from reconcile.core.verbs import UNDOABLE, Written
from reconcile.reports.facts import plural
from reconcile.reports.findings import UndoReport
from reconcile.reports.layout import table
from reconcile.reports.text import count_text, remark_lines

if TYPE_CHECKING:
    from reconcile.runs import RuleUndo

__all__ = ["undo_text"]

_SHOWN = 10
"""The number of conflicts of one rule that the text shows; the JSON has more."""


def undo_text(report: UndoReport) -> RenderableType:
    """One line for each rule, then what was left and why, then what can't be undone, then the sum."""
    numbers = (*(verb.capitalize() for verb in UNDOABLE), "Left")
    rows = table("", "Rule", *numbers, numbers=numbers)
    for undo in report.rules:
        counts = undo.written if report.applied else undo.planned
        rows.add_row(
            _status(undo, applied=report.applied),
            undo.rule,
            *(count_text(counts[verb], "cyan") for verb in UNDOABLE),
            count_text(undo.left, "red"),
        )
    remarks = ((undo.rule, remark) for undo in report.rules for remark in _remarks_on(undo))
    return Group("", rows, "", *remark_lines(remarks), *_not_undoable(report), _sum(report))


def _status(undo: RuleUndo, *, applied: bool) -> Text:
    if undo.left:
        return Text("part", style="yellow")
    if undo.incomplete:
        return Text("stop", style="red")
    return Text("done", style="green") if applied else Text("plan", style="cyan")


def _remarks_on(undo: RuleUndo) -> Iterator[str | Text]:
    if undo.why_stopped and not undo.left:
        yield undo.why_stopped
    shown = undo.conflicts[:_SHOWN]
    for conflict in shown:
        yield Text.assemble("left: ", conflict.key, ". ", (conflict.why, "yellow"))
    if undo.left > len(shown):
        yield f"left: {undo.left - len(shown):,} more"
    if undo.warning:
        yield Text(undo.warning, style="yellow")


def _not_undoable(report: UndoReport) -> Iterator[RenderableType]:
    for undo in report.rules:
        records = [
            f"{plural(number, 'record')} {verb}" for verb, number in undo.outside.as_dict().items() if number
        ]
        if records:
            reason = "can't be undone: what your functions and tasks did with them is not in the journal."
            yield Text.assemble((undo.rule, "bold"), f"  {' and '.join(records)} {reason}")
            yield ""


def _sum(report: UndoReport) -> Text:
    left = sum(undo.left for undo in report.rules)
    if not report.applied:
        rows = _total(undo.planned for undo in report.rules)
        text = Text(f"{plural(rows, 'row')} of run {report.run[:8]} would be taken back. ")
        text.append("Nothing has been: add --apply to write.", style="bold")
    else:
        rows = _total(undo.written for undo in report.rules)
        text = Text(f"{plural(rows, 'row')} of run {report.run[:8]} taken back in {report.seconds:.1f} s")
        text.append(f", run {str(report.by)[:8]}.")
    if left:
        text.append(f"  {plural(left, 'change')} left, since the rows are others' by now.", style="yellow")
    return text


def _total(counts: Iterator[Written]) -> int:
    return reduce(add, counts, Written()).total
