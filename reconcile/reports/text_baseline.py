"""The `text` format of `baseline`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from reconcile.baseline import Comparison, Rows
from reconcile.core.drift import Drift, Status
from reconcile.reports.facts import plural
from reconcile.reports.findings import BaselineReport, nothing_judged
from reconcile.reports.layout import indented, table
from reconcile.reports.text import count_text, status_text

__all__ = ["baseline_text"]

_SHOWN = 5
"""The number of keys of one kind of drift that the text shows."""


def baseline_text(report: BaselineReport) -> RenderableType:
    """A table of the rules that have or had drift, then the new and the mended keys, then the sum and the next step."""
    shown = [
        comparison
        for comparison in report.comparisons
        if comparison.known or comparison.new or comparison.check.error
    ]
    parts: list[RenderableType] = []
    if shown:
        parts += ["", _table(report, shown)]
    return Group(*parts, "", *_details(shown), _sum(report))


def _table(report: BaselineReport, shown: Sequence[Comparison]) -> RenderableType:
    numbers = ["Known", "New", "Mended"]
    if report.rows_in_file is not None:
        numbers.append("Held")
    rows = table("", "Rule", *numbers, numbers=numbers)
    for comparison in shown:
        rows.add_row(
            _status_cell(report, comparison), comparison.check.rule.name, *_count_cells(report, comparison)
        )
    return rows


def _status_cell(report: BaselineReport, comparison: Comparison) -> Text | str:
    """The status of the rule; empty for an update, which accepts the drift."""
    if report.rows_in_file is not None and not comparison.check.error:
        return ""
    return status_text(comparison.status)


def _count_cells(report: BaselineReport, comparison: Comparison) -> Sequence[Text | str]:
    counts = [comparison.known, _number(comparison.new), _number(comparison.mended)]
    if report.rows_in_file is not None:
        counts.append(report.rows_in_file.get(comparison.check.rule.name, 0))
    if comparison.check.error:
        return ["–"] * len(counts)
    return [count_text(number) for number in counts]


def _number(by_drift: Mapping[Drift, Rows]) -> int:
    return sum(rows.number for rows in by_drift.values())


def _details(shown: Sequence[Comparison]) -> Iterator[RenderableType]:
    for comparison in shown:
        check = comparison.check
        if not (comparison.new or comparison.mended or check.error):
            continue
        yield Text.assemble((check.rule.name, "bold"), "  ", (check.rule.sentence, "dim"))
        if check.error:
            yield indented(Text(check.error, style="red"))
        for label, by_drift in (("new", comparison.new), ("mended", comparison.mended)):
            for drift, rows in by_drift.items():
                yield indented(Text.assemble((f"{drift:<8}", "bold"), f"{label:<8}{_keys(rows)}"))
        yield ""


def _keys(rows: Rows) -> str:
    if not rows.keys:
        return plural(rows.number, "row")
    shown = rows.keys[:_SHOWN]
    more = rows.number - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def _sum(report: BaselineReport) -> Text:
    failed = [comparison for comparison in report.comparisons if comparison.check.error]
    text = _verify_sum(report) if report.rows_in_file is None else _update_sum(report)
    if failed:
        text.append(f" {plural(len(failed), 'rule')} could not be evaluated.", style="bold red")
    return text


def _update_sum(report: BaselineReport) -> Text:
    if report.failed:
        return Text(f"{report.file} was not written.", style="red")
    numbers = [number for number in (report.rows_in_file or {}).values() if number]
    if not numbers:
        return Text(f"{report.file} is written: it holds no drift of {_rules(report)}.", style="green")
    rows = plural(sum(numbers), "drifted row")
    return Text(f"{report.file} is written: it holds {rows} in {len(numbers)} of {_rules(report)}.")


def _verify_sum(report: BaselineReport) -> Text:
    new = [comparison for comparison in report.comparisons if comparison.new]
    mended = sum(_number(comparison.mended) for comparison in report.comparisons)
    if report.is_empty:
        return Text(
            nothing_judged(allowed=report.allow_empty), style="yellow" if report.allow_empty else "red"
        )
    if not new and not mended:
        known = plural(sum(comparison.known for comparison in report.comparisons), "known drifted row")
        return Text(f"No new drift in {_rules(report)}; {known}.", style="red" if report.failed else "green")
    text = Text()
    if new:
        tolerated = all(comparison.new_status is Status.PASS for comparison in new)
        rows = plural(sum(_number(comparison.new) for comparison in new), "new drifted row")
        within = ", within what the rules tolerate" if tolerated else ""
        style = "green" if tolerated else "red"
        text.append(f"{rows} in {len(new)} of {_rules(report)}{within}.\n", style=style)
    if mended:
        verb = "is" if mended == 1 else "are"
        text.append(f"{plural(mended, 'row')} {verb} mended, and still in {report.file}.\n", style="red")
        text.append(f"Take out what is mended: {report.prune}\n")
    text.rstrip()
    return text


def _rules(report: BaselineReport) -> str:
    return plural(len(report.comparisons), "rule")
