"""The `text` format: what a person reads in a terminal, as rich renderables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reconcile.checking import RuleCheck
from reconcile.drift import EXTRA, MISSING, STALE, Drift, Sample, Status
from reconcile.reports._summary import CheckReport, RepairReport
from reconcile.rules import Rule

if TYPE_CHECKING:
    from reconcile.runs import RuleRepair

__all__ = ["check_report", "plural", "repair_report", "rules_report", "table"]

_STYLES = {
    Status.PASS: "green",
    Status.WARN: "yellow",
    Status.FAIL: "red",
    Status.ERROR: "bold red",
    Status.SKIPPED: "dim",
}
_DRIFT_STYLES = {MISSING: "red", STALE: "yellow", EXTRA: "magenta"}


def plural(number: int, noun: str) -> str:
    """`1 rule`, `1,200 rules`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def table(*columns: str, numbers: Sequence[str] = ()) -> Table:
    """An empty table in the house style; the columns in `numbers` are aligned to the right."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        # Names are what people copy, so they are never broken.
        whole = column in {"", "Rule", "Run"}
        made.add_column(
            column, justify="right" if column in numbers else "left", overflow="fold", no_wrap=whole
        )
    return made


def check_report(report: CheckReport) -> RenderableType:
    """A line a rule, then what drifted rules say and the keys to look at, then the sum."""
    numbers = ("Checked", "Missing", "Stale", "Extra", "Seconds")
    rows = table("", "Rule", *numbers[:-1], "Safety", "Seconds", numbers=numbers)
    for check in report.checks:
        tally = check.tally
        rows.add_row(
            _status(check.status),
            check.rule.name,
            *(
                ["–"] * 4
                if check.error
                else [f"{tally.checked:,}", *(_count(tally[each], each) for each in Drift)]
            ),
            check.guarantee or "–",
            f"{check.seconds:.2f}",
        )
    return Group("", rows, "", *_details(report.checks), _check_sum(report))


def _status(status: Status) -> Text:
    return Text(str(status), style=_STYLES[status])


def _count(number: int, drift: Drift) -> Text:
    return Text(f"{number:,}", style=_DRIFT_STYLES[drift]) if number else Text("·", style="dim")


def _details(checks: Sequence[RuleCheck]) -> Iterator[RenderableType]:
    for check in checks:
        if check.status is Status.PASS and not check.tally.settling:
            continue
        yield Text.assemble((check.rule.name, "bold"), "  ", (check.rule.sentence, "dim"))
        if check.error:
            yield _indented(Text(check.error, style="red"))
        for drift in Drift:
            if line := _sample_line(check.samples, drift, check.tally[drift]):
                yield _indented(line)
        if check.tally.settling:
            young = f"{plural(check.tally.settling, 'record')} left alone: too young to be judged"
            yield _indented(Text(young, style="dim"))
        yield ""


def _indented(line: Text) -> Padding:
    return Padding(line, (0, 0, 0, 2), expand=False)


def _sample_line(samples: Sequence[Sample], drift: Drift, number: int) -> Text | None:
    if not number:
        return None
    keys = [sample.key for sample in samples if sample.drift is drift]
    more = f" and {number - len(keys):,} more" if number > len(keys) else ""
    of = f"{', '.join(keys)}{more}" if keys else f"{number:,}"
    return Text.assemble((f"{drift:<8}", _DRIFT_STYLES[drift]), of)


def _check_sum(report: CheckReport) -> Text:
    drifted = [check for check in report.checks if check.tally.total]
    failed = [check for check in report.checks if check.error]
    rules = plural(len(report.checks), "rule")
    if not drifted and not failed:
        return Text(f"All clean: {rules} checked in {report.seconds:.1f} s.", style="green")
    rows = sum(check.tally.total for check in report.checks)
    said = Text(
        f"{plural(rows, 'drifted row')} in {len(drifted)} of {rules}, {report.seconds:.1f} s.", style="red"
    )
    if failed:
        said.append(f" {plural(len(failed), 'rule')} could not be evaluated.", style="bold red")
    if drifted:
        said.append("  See what a repair would do: reconcile repair", style="default")
    return said


def repair_report(report: RepairReport) -> RenderableType:
    """A line a rule with what is planned or was written, then why some of it wasn't, then the sum."""
    rows = table(
        "", "Rule", "Insert", "Update", "Left", "Skipped", numbers=("Insert", "Update", "Left", "Skipped")
    )
    for repair in report.repairs:
        counts = repair.written if report.applied else repair.planned
        rows.add_row(
            _status(repair.status) if report.applied or repair.error else _planned_status(repair),
            repair.rule,
            *(
                Text(f"{number:,}", style="cyan") if number else Text("·", style="dim")
                for number in (counts.insert, counts.update)
            ),
            f"{repair.left:,}" if report.applied and repair.left else Text("·", style="dim"),
            f"{repair.skipped:,}" if repair.skipped else Text("·", style="dim"),
        )
    return Group("", rows, "", *_remarks(report), _repair_sum(report))


def _planned_status(repair: RuleRepair) -> Text:
    if repair.why_stopped:
        return Text("stop", style="red")
    return Text("plan", style="cyan") if repair.planned.total else Text("–", style="dim")


def _remarks(report: RepairReport) -> Iterator[RenderableType]:
    said = False
    for repair in report.repairs:
        remarks = [remark for remark in (repair.error, repair.why_stopped) if remark]
        if extra := repair.found.get(EXTRA, 0):
            keys = ", ".join(sample.key for sample in repair.samples if sample.drift is EXTRA)
            remarks.append(f"{plural(extra, 'extra row')} reported, not touched{f': {keys}' if keys else ''}")
        for remark in remarks:
            said = True
            yield Text.assemble((repair.rule, "bold"), "  ", remark)
    if said:
        yield ""


def _repair_sum(report: RepairReport) -> Text:
    if not report.applied:
        planned = sum(repair.planned.total for repair in report.repairs)
        if not planned:
            return Text("Nothing to repair.", style="green")
        return Text.assemble(
            f"{plural(planned, 'row')} would be written. ",
            ("Nothing has been: add --apply to write.", "bold"),
        )
    written = sum(repair.written.total for repair in report.repairs)
    incomplete = [repair.rule for repair in report.repairs if repair.incomplete]
    said = Text(f"{plural(written, 'row')} written in {report.seconds:.1f} s, run {str(report.run)[:8]}.")
    if incomplete:
        said.append(f"  Incomplete: {', '.join(incomplete)}.", style="red")
    else:
        said.append("  Verified.", style="green")
    return said


def rules_report(rules: Sequence[Rule], *, using: str) -> RenderableType:
    """The catalogue: each rule as its sentence."""
    rows = table("Rule", "Sentence", "Owner", "Tags", "Safety", "Nightly")
    for rule in rules:
        sentence = Text(rule.sentence)
        if rule.reason:
            sentence.append(f"\n{rule.reason}", style="dim")
        nightly = "repairs" if rule.unattended else "reports"
        rows.add_row(
            Text(rule.name, style="bold"),
            sentence,
            rule.owner,
            ", ".join(rule.tags),
            rule.guarantee(using),
            nightly,
        )
    return Group("", rows, "", f"{plural(len(rules), 'rule')}.")
