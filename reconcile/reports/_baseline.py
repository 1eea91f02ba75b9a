"""What `baseline update` and `baseline verify` say, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from reconcile.baseline import Comparison, Rows
from reconcile.drift import Drift, Status
from reconcile.reports._summary import Overall, overall
from reconcile.reports.text import plural, table

__all__ = ["BaselineReport", "as_json", "as_text"]

_SHOWN = 5
"""Keys of a kind of drift that the text shows."""

_STYLES = {Status.PASS: "green", Status.WARN: "yellow", Status.FAIL: "red", Status.ERROR: "bold red"}


@dataclass(frozen=True, kw_only=True)
class BaselineReport:
    """Several rules beside the baseline in `file`.

    held: of an update, the rows that the file now holds of each rule; None of a verification, which writes nothing.
    prune: the command that takes out of the file what is mended, and lets nothing new in.
    """

    database: str
    file: str
    comparisons: Sequence[Comparison]
    seconds: float
    prune: str
    held: Mapping[str, int] | None = None

    @property
    def failed(self) -> bool:
        """Whether a rule could not be evaluated."""
        return any(each.check.error for each in self.comparisons)

    @property
    def status(self) -> Overall:
        """The worst of the rules. Of an update that wrote the file `clean`, whatever it has accepted."""
        if self.held is not None and not self.failed:
            return "clean"
        return overall([each.status for each in self.comparisons])


def as_json(report: BaselineReport) -> str:
    """The object that the documentation gives for `baseline … --format json`."""
    written = {} if report.held is None else {"written": not report.failed}
    return json.dumps(
        {
            "version": 1,
            "database": report.database,
            "file": report.file,
            "status": report.status,
            **written,
            "seconds": round(report.seconds, 3),
            "rules": [_rule(report, each) for each in report.comparisons],
        },
        indent=2,
        ensure_ascii=False,
    )


def _rule(report: BaselineReport, comparison: Comparison) -> dict[str, Any]:
    name = comparison.check.rule.name
    return {
        "rule": name,
        **({"status": str(comparison.status)} if report.held is None else {"held": report.held.get(name, 0)}),
        "known": comparison.known,
        "new": _rows(comparison.new),
        "mended": _rows(comparison.mended),
        "error": comparison.check.error,
    }


def _rows(by_drift: Mapping[Drift, Rows]) -> list[dict[str, Any]]:
    return [
        {"drift": str(drift), "rows": rows.number, "keys": list(rows.keys)}
        for drift, rows in by_drift.items()
    ]


def as_text(report: BaselineReport) -> RenderableType:
    """A line for each rule that has drift, or had; which keys are new and which are mended; and what to do."""
    told = [each for each in report.comparisons if each.known or each.new or each.check.error]
    return Group(*(("", _table(report, told)) if told else ()), "", *_details(told), _sum(report))


def _table(report: BaselineReport, told: Sequence[Comparison]) -> RenderableType:
    numbers = ("Known", "New", "Mended", *(() if report.held is None else ("Held",)))
    rows = table("", "Rule", *numbers, numbers=numbers)
    for each in told:
        name = each.check.rule.name
        counts = [each.known, _number(each.new), _number(each.mended)]
        counts += [] if report.held is None else [report.held.get(name, 0)]
        rows.add_row(
            "" if report.held is not None and not each.check.error else _status(each.status),
            name,
            *(["–"] * len(counts) if each.check.error else [_count(number) for number in counts]),
        )
    return rows


def _status(status: Status) -> Text:
    return Text(str(status), style=_STYLES[status])


def _count(number: int) -> Text:
    return Text(f"{number:,}") if number else Text("·", style="dim")


def _number(by_drift: Mapping[Drift, Rows]) -> int:
    return sum(rows.number for rows in by_drift.values())


def _details(told: Sequence[Comparison]) -> Iterator[RenderableType]:
    for each in told:
        if not (each.new or each.mended or each.check.error):
            continue
        yield Text.assemble((each.check.rule.name, "bold"), "  ", (each.check.rule.sentence, "dim"))
        if each.check.error:
            yield _indented(Text(each.check.error, style="red"))
        for what, by_drift in (("new", each.new), ("mended", each.mended)):
            for drift, rows in by_drift.items():
                yield _indented(Text.assemble((f"{drift:<8}", "bold"), f"{what:<8}{_keys(rows)}"))
        yield ""


def _indented(line: Text) -> Padding:
    return Padding(line, (0, 0, 0, 2), expand=False)


def _keys(rows: Rows) -> str:
    if not rows.keys:
        return f"{rows.number:,}"
    shown = rows.keys[:_SHOWN]
    more = rows.number - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def _sum(report: BaselineReport) -> Text:
    failed = [each for each in report.comparisons if each.check.error]
    said = _verified(report) if report.held is None else _written(report)
    if failed:
        said.append(f" {plural(len(failed), 'rule')} could not be evaluated.", style="bold red")
    return said


def _written(report: BaselineReport) -> Text:
    if report.failed:
        return Text(f"{report.file} was not written.", style="red")
    held = [number for number in (report.held or {}).values() if number]
    if not held:
        return Text(f"{report.file} is written: it holds no drift of {_rules(report)}.", style="green")
    rows = plural(sum(held), "drifted row")
    return Text(f"{report.file} is written: it holds {rows} in {len(held)} of {_rules(report)}.")


def _verified(report: BaselineReport) -> Text:
    new = [each for each in report.comparisons if each.new]
    mended = [each for each in report.comparisons if each.mended]
    if not new and not mended:
        known = plural(sum(each.known for each in report.comparisons), "known drifted row")
        return Text(f"No new drift in {_rules(report)}; {known}.", style="red" if report.failed else "green")
    said = Text()
    if new:
        tolerated = all(each.new_status is Status.PASS for each in new)
        rows = plural(sum(_number(each.new) for each in new), "new drifted row")
        within = ", within what the rules tolerate" if tolerated else ""
        style = "green" if tolerated else "red"
        said.append(f"{rows} in {len(new)} of {_rules(report)}{within}.\n", style=style)
    if mended:
        rows = plural(sum(_number(each.mended) for each in mended), "row")
        are = "is" if rows == "1 row" else "are"
        said.append(f"{rows} {are} mended, and still in {report.file}.\n", style="red")
        said.append(f"Take out what is mended: {report.prune}\n")
    said.rstrip()
    return said


def _rules(report: BaselineReport) -> str:
    return plural(len(report.comparisons), "rule")
