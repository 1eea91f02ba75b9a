"""The `text` format: what a person reads in a terminal, as rich renderables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, JustifyMethod, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reconcile.checking import RuleCheck
from reconcile.drift import EXTRA, MISSING, STALE, VERBS, Drift, Status
from reconcile.reports._facts import nightly
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
}
_ALWAYS = {"insert", "update"}
"""The verbs that have a column even where nothing is written."""

_FOLDED = {"Rule", "Started"}
"""Columns that go on in the next line where the terminal is narrow."""

_DRIFT_STYLES = {MISSING: "red", STALE: "yellow", EXTRA: "magenta"}


def plural(number: int, noun: str) -> str:
    """`1 rule`, `1,200 rules`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def table(*columns: str, numbers: Sequence[str] = ()) -> Table:
    """An empty table in the house style; the columns in `numbers` are aligned to the right.

    Where the terminal is too narrow, names of rules go on in the next line; nothing is cut off.
    """
    made = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", show_edge=False
    )
    for column in columns:
        justify: JustifyMethod = "right" if column in numbers else "left"
        made.add_column(column, justify=justify, no_wrap=column not in _FOLDED, overflow="fold")
    return made


def check_report(report: CheckReport) -> RenderableType:
    """A line a rule, then what drifted rules say and the keys to look at, then the sum."""
    numbers = ("Checked", "Missing", "Stale", "Extra", "Time")
    rows = table("", "Rule", *numbers[:-1], "Guarantee", "Time", numbers=numbers)
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
            f"{check.seconds:.2f} s",
        )
    return Group("", rows, "", *_details(report), _check_sum(report))


def _status(status: Status) -> Text:
    return Text(str(status), style=_STYLES[status])


def _count(number: int, drift: Drift) -> Text:
    return Text(f"{number:,}", style=_DRIFT_STYLES[drift]) if number else Text("·", style="dim")


def _details(report: CheckReport) -> Iterator[RenderableType]:
    for check in report.checks:
        if check.status is Status.PASS and not check.tally.settling:
            continue
        yield Text.assemble((check.rule.name, "bold"), "  ", (check.rule.sentence, "dim"))
        if check.error:
            yield _indented(Text(check.error, style="red"))
        for drift in Drift:
            if line := _sample_line(check, drift, report.origins):
                yield _indented(line)
        if check.tally.settling:
            young = f"{plural(check.tally.settling, 'record')} left alone: too young to be judged"
            yield _indented(Text(young, style="dim"))
        yield ""


def _indented(line: Text) -> Padding:
    return Padding(line, (0, 0, 0, 2), expand=False)


def _sample_line(check: RuleCheck, drift: Drift, origins: Mapping[tuple[str, str], str]) -> Text | None:
    """The keys in a line; where it is known whence the rows come, that in place of the keys, a line each."""
    number = check.tally[drift]
    if not number:
        return None
    keys = [sample.key for sample in check.samples if sample.drift is drift]
    shown = [origins.get((check.rule.name, key), key) for key in keys]
    between, before = (", ", " ") if shown == keys else (f"\n{'':<8}", f"\n{'':<8}")
    more = f"{before}and {number - len(keys):,} more" if number > len(keys) else ""
    of = f"{between.join(shown)}{more}" if keys else f"{number:,}"
    return Text.assemble((f"{drift:<8}", _DRIFT_STYLES[drift]), of)


def _check_sum(report: CheckReport) -> Text:
    failed = [check for check in report.checks if check.error]
    drifted = [check for check in report.checks if check.tally.total]
    rules = plural(len(report.checks), "rule")
    if not drifted and not failed:
        return Text(f"All clean: {rules} checked in {report.seconds:.1f} s.", style="green")
    tolerated = all(check.status is Status.PASS for check in drifted)
    rows = plural(sum(check.tally.total for check in drifted), "drifted row")
    within = ", within what the rules tolerate" if tolerated and drifted else ""
    said = Text(
        f"{rows} in {len(drifted)} of {rules}{within}, {report.seconds:.1f} s.",
        style="green" if tolerated else "red",
    )
    if failed:
        said.append(f" {plural(len(failed), 'rule')} could not be evaluated.", style="bold red")
    if report.hint and any(_mendable(check) for check in drifted):
        said.append(f"\nSee what a repair would do: {report.hint}", style="default")
    return said


def _mendable(check: RuleCheck) -> bool:
    return any(check.tally[drift] and check.rule.remedy(drift).verb for drift in Drift)


def repair_report(report: RepairReport) -> RenderableType:
    """A line a rule with what is planned or was written, then why some of it wasn't, then the sum."""
    all_counts = [repair.written if report.applied else repair.planned for repair in report.repairs]
    verbs = [verb for verb in VERBS if verb in _ALWAYS or any(getattr(each, verb) for each in all_counts)]
    numbers = (*(verb.capitalize() for verb in verbs), "Left", "Skipped")
    rows = table("", "Rule", *numbers, numbers=numbers)
    for repair, counts in zip(report.repairs, all_counts, strict=True):
        rows.add_row(
            _status(repair.status) if report.applied or repair.error else _planned_status(repair),
            repair.rule,
            *(
                Text(f"{number:,}", style="cyan") if number else Text("·", style="dim")
                for number in (getattr(counts, verb) for verb in verbs)
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
        remarks: list[str | Text] = [remark for remark in (repair.error, repair.why_stopped) if remark]
        remarks += [Text(repair.warning, style="yellow")] if repair.warning else []
        for drift, number in repair.reported.items():
            keys = ", ".join(sample.key for sample in repair.samples if sample.drift is drift)
            remarks.append(
                f"{plural(number, f'{drift} row')} reported, not touched{f': {keys}' if keys else ''}"
            )
        for remark in remarks:
            said = True
            yield Text.assemble((repair.rule, "bold"), "  ", remark)
    if said:
        yield ""


def _repair_sum(report: RepairReport) -> Text:
    said = _applied_sum(report) if report.applied else _planned_sum(report)
    if failed := [repair.rule for repair in report.repairs if repair.status is Status.ERROR]:
        said.append(f" {plural(len(failed), 'rule')} could not be evaluated.", style="bold red")
    return said


def _planned_sum(report: RepairReport) -> Text:
    planned = sum(repair.planned.total for repair in report.repairs if not repair.why_stopped)
    stopped = [repair for repair in report.repairs if repair.why_stopped and repair.planned.total]
    if report.asked:
        return Text("Nothing was written.", style="red")
    if not planned and not stopped:
        return Text("Nothing to repair.")
    would_stop = f"{plural(len(stopped), 'rule')} would stop before its first write. " if stopped else ""
    said = Text(
        would_stop.replace("rules would stop before its", "rules would stop before their"), style="red"
    )
    if planned:
        said.append(f"{plural(planned, 'row')} would be written. ", style="default")
        said.append("Nothing has been: add --apply to write.", style="bold")
    return said


def _applied_sum(report: RepairReport) -> Text:
    written = sum(repair.written.total for repair in report.repairs)
    said = Text(f"{plural(written, 'row')} written in {report.seconds:.1f} s, run {str(report.run)[:8]}.")
    if incomplete := [repair.rule for repair in report.repairs if repair.incomplete]:
        said.append(f"  Incomplete: {', '.join(incomplete)}.", style="red")
    elif left := {str(drift) for repair in report.repairs for drift in repair.reported}:
        said.append(f"  Verified; {' and '.join(sorted(left))} rows are left to people.", style="yellow")
    elif report.status != "error":
        said.append("  Verified.", style="green")
    return said


def rules_report(rules: Sequence[Rule], *, using: str) -> RenderableType:
    """The catalogue: each rule as its sentence, and below it what else there is to know."""
    return Group(
        "", *(part for rule in rules for part in _rule(rule, using)), f"{plural(len(rules), 'rule')}."
    )


def _rule(rule: Rule, using: str) -> Iterator[RenderableType]:
    yield Text(rule.name, style="bold")
    yield _indented(Text(rule.sentence))
    if rule.reason:
        yield _indented(Text(rule.reason, style="italic"))
    facts = [f"guarantee {rule.guarantee(using)}", f"nightly {nightly(rule, using)}"]
    facts += [f"owner {rule.owner}"] if rule.owner else []
    facts += [f"tags {', '.join(rule.tags)}"] if rule.tags else []
    yield _indented(Text(" · ".join(facts), style="dim"))
    yield ""
