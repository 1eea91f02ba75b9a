"""The `text` format: rich renderables that a person reads in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from reconcile.core.drift import EXTRA, MISSING, STALE, Bound, Drift, Status
from reconcile.core.verbs import VERBS
from reconcile.detect.checking import RuleCheck
from reconcile.detect.inspecting import NOT_STATED, Cell
from reconcile.reports.facts import nightly_in_words, plural
from reconcile.reports.findings import (
    CheckReport,
    RepairReport,
    empty_in_words,
    local_time,
    next_step,
    nothing_judged,
    plain,
    why,
    word,
)
from reconcile.reports.layout import indented, table
from reconcile.reports.text_explain import value_in_words
from reconcile.rules.invalid import InvalidRule
from reconcile.rules.rule import Rule

if TYPE_CHECKING:
    from reconcile.runs import RuleRepair

__all__ = [
    "check_report",
    "count_text",
    "moment",
    "number_or_unknown",
    "remark_lines",
    "repair_report",
    "result_text",
    "rules_report",
    "status_text",
]

_STYLES = {
    Status.PASS: "green",
    Status.WARN: "yellow",
    Status.FAIL: "red",
    Status.ERROR: "bold red",
}


_DRIFT_STYLES = {MISSING: "red", STALE: "yellow", EXTRA: "magenta"}


def check_report(report: CheckReport) -> RenderableType:
    """One line for each rule, then the sentences and keys of the rules that drift, then the sum.

    Of very many rules those alone that are not as they should be, the worst first, and of these the first few.
    """
    numbers = ("Checked", "Missing", "Stale", "Extra", "Time")
    rows = table("", "Rule", *numbers[:-1], "Guarantee", "Time", numbers=numbers)
    shown = _to_show(report)
    for check in shown:
        rows.add_row(
            _word_text(check),
            check.rule.name,
            *_check_counts(check),
            check.guarantee or "–",
            f"{check.seconds:.2f} s",
        )
    return Group("", rows, "", *_details(report, shown), *_rest(report, shown), _check_sum(report))


LISTED = 50
"""Rules that a page lists; of more it lists so many that are not as they should be."""
_WORST_FIRST = ("error", "fail", "warn", "skipped", "pass")


def _to_show(report: CheckReport) -> Sequence[RuleCheck]:
    if len(report.checks) <= LISTED:
        return report.checks
    worth = [check for check in report.checks if word(check) != "pass" or check.remarks]
    return sorted(worth, key=lambda check: _WORST_FIRST.index(word(check)))[:LISTED]


def _rest(report: CheckReport, shown: Sequence[RuleCheck]) -> Iterator[RenderableType]:
    """What is said of the rules that are not listed, and where they are."""
    listed = {check.rule.name for check in shown}
    left = [word(check) for check in report.checks if check.rule.name not in listed]
    if left:
        counts = ", ".join(f"{left.count(each):,} {each}" for each in _WORST_FIRST if each in left)
        yield Text(
            f"{plural(len(left), 'rule')} not listed here: {counts}. All of them: --format html=FILE or json=FILE",
            style="dim",
        )
        yield ""


def _check_counts(check: RuleCheck) -> Sequence[str | Text]:
    """The cells of the columns Checked, Missing, Stale and Extra."""
    if check.error:
        return ["–"] * 4
    drifted = [count_text(check.tally[drift], _DRIFT_STYLES[drift]) for drift in Drift]
    return [f"{check.tally.checked:,}", *drifted]


def _word_text(check: RuleCheck) -> Text:
    said = word(check)
    return Text(said, style="yellow") if said == "skipped" else status_text(check.status)


def status_text(status: Status) -> Text:
    """The status of a rule, as a cell of a table."""
    return Text(str(status), style=_STYLES[status])


def count_text(number: int, style: str = "") -> Text:
    """A number, as a cell of a table; a dot for 0."""
    return Text(f"{number:,}", style=style) if number else Text("·", style="dim")


def _details(report: CheckReport, shown: Sequence[RuleCheck]) -> Iterator[RenderableType]:
    for check in shown:
        if check.status is Status.PASS and not check.tally.settling and not check.remarks:
            continue
        said = "" if isinstance(check.rule, InvalidRule) else check.rule.sentence
        yield Text.assemble((check.rule.name, "bold"), "  ", (said, "dim"))
        if check.error:
            yield indented(Text(check.error, style="red"))
        for drift in Drift:
            if line := _sample_line(check, drift, report.origins):
                yield indented(line)
        for sentence in why(report, check):
            yield indented(Text(sentence, style="cyan"))
        if check.tally.settling:
            young = f"{plural(check.tally.settling, 'record')} left alone: too young to be judged"
            yield indented(Text(young, style="dim"))
        for remark in check.remarks:
            yield indented(Text(remark, style="yellow"))
        yield ""


def _sample_line(check: RuleCheck, drift: Drift, origins: Mapping[tuple[str, str], str]) -> Text | None:
    """The keys of one kind of drift in one line; if their origins are known, these instead, one a line. None without drift."""
    number = check.tally[drift]
    if not number:
        return None
    keys = [sample.key for sample in check.samples if sample.drift is drift]
    shown = [origins.get((check.rule.name, key), key) for key in keys]
    if not keys:
        text = plural(number, "row")
    else:
        separator, before_more = (", ", " ") if shown == keys else (f"\n{'':<8}", f"\n{'':<8}")
        more = f"{before_more}and {number - len(keys):,} more" if number > len(keys) else ""
        text = f"{separator.join(shown)}{more}"
    return Text.assemble((f"{drift:<8}", _DRIFT_STYLES[drift]), text)


def _check_sum(report: CheckReport) -> Text:
    failed = [check for check in report.checks if check.error]
    drifted = [check for check in report.checks if check.tally.total]
    rules, young = plural(len(report.checks), "rule"), f" {report.young}" if report.young else ""
    if report.is_empty:
        return Text(empty_in_words(report), style="yellow" if report.allow_empty else "red")
    if not drifted and not failed and report.extent:
        records = plural(sum(check.tally.checked for check in report.checks), "record")
        said = f"No drift in the {records} looked at, of {rules}, {report.seconds:.1f} s.{young}"
        return Text(said, style="green")
    if not drifted and not failed:
        remarked = sum(bool(check.remarks) for check in report.checks)
        skipped = sum(word(check) == "skipped" for check in report.checks)
        unseen = f" {plural(skipped, 'rule')} saw no record." if skipped else ""
        more = f"{unseen} Read the remarks about {plural(remarked, 'rule')} above." if remarked else unseen
        return Text(f"All clean: {rules} checked in {report.seconds:.1f} s.{young}{more}", style="green")
    tolerated = all(check.status is Status.PASS for check in drifted)
    rows = plural(sum(check.tally.total for check in drifted), "drifted row")
    within = ", within what the rules tolerate" if tolerated and drifted else ""
    text = Text(
        f"{rows} in {len(drifted)} of {rules}{within}{report.extent}, {report.seconds:.1f} s.{young}",
        style="green" if tolerated else "red",
    )
    if failed:
        text.append(f" {plural(len(failed), 'rule')} could not be evaluated.", style="bold red")
    if report.hint and any(_is_repairable(check) for check in drifted):
        text.append(f"\nSee what a repair would do: {report.hint}", style="default")
    elif drifted and (step := next_step(report, drifted[0])):
        text.append(f"\n{step[0]}: {step[1]}", style="default")
    return text


def _is_repairable(check: RuleCheck) -> bool:
    """Whether a repair would write something for one of the drifts that were found."""
    return any(check.tally[drift] and check.rule.remedy(drift).repairs for drift in Drift)


RESULT_STYLES = {
    "error": "bold red", "unverified": "bold red", "failed": "red", "held": "red", "open": "red", "suspended": "red",
    "refused": "yellow", "reported": "yellow", "repaired": "green", "undone": "green", "clean": "green", "skipped": "yellow", "waiting": "dim",
}  # fmt: skip


def result_text(result: str) -> Text:
    """What became of a rule in a run, as a cell of a table."""
    return Text(result, style=RESULT_STYLES[result])


def number_or_unknown(number: int | None) -> str:
    """A number, as a cell of a table; a question mark for one that nobody could count."""
    return "?" if number is None else f"{number:,}"


def repair_report(report: RepairReport) -> RenderableType:
    """One line for each rule, with what is planned or was written; then why something was not written; then the sum."""
    all_counts = [repair.written if report.applied else repair.planned for repair in report.repairs]
    verbs = [name for name, verb in VERBS.items() if verb.always or any(each[name] for each in all_counts)]
    numbers = (*(verb.capitalize() for verb in verbs), "Left", "Skipped")
    rows = table("", "Rule", *numbers, numbers=numbers)
    for repair, counts in zip(report.repairs, all_counts, strict=True):
        rows.add_row(
            result_text(str(repair.result)) if report.applied or repair.error else _plan_status(repair),
            repair.rule,
            *(_planned_text(report, repair, counts[verb]) for verb in verbs),
            _left_text(repair.left if report.applied else left_by_plan(repair)),
            count_text(repair.skipped),
        )
    remarks = ((repair.rule, remark) for repair in report.repairs for remark in _remarks_on(repair))
    return Group("", rows, "", *remark_lines(remarks), *_planned_rows(report), _repair_sum(report))


def left_by_plan(repair: RuleRepair) -> int:
    """Drifted rows that a repair would leave as they are: what is for people, what can't be written, and all if nothing can be."""
    refused = repair.skipped if repair.planned.total else repair.planned_records.total
    return sum(repair.reported.values()) + refused


def _is_more(repair: RuleRepair) -> bool:
    return repair.bound is Bound.AT_LEAST and bool(repair.planned_records.total)


def _planned_text(report: RepairReport, repair: RuleRepair, number: int) -> Text:
    """A number of rows; of a plan that may write more, with a sign before it."""
    text = count_text(number, "cyan")
    return Text.assemble(("≥ ", "cyan"), text) if number and not report.applied and _is_more(repair) else text


def _left_text(left: int | None) -> Text:
    return Text("?", style="red") if left is None else count_text(left)


def _plan_status(repair: RuleRepair) -> Text:
    if repair.why_stopped:
        return Text("stop", style="red")
    return Text("plan", style="cyan") if repair.planned_records.total else Text("–", style="dim")


def moment(at: datetime) -> str:
    """`2026-11-29 10:36+01:00`, in the project's time zone."""
    return local_time(at).isoformat(" ", "minutes")


def remark_lines(remarks: Iterable[tuple[str, str | Text]]) -> Iterator[RenderableType]:
    """A line for each remark, with the name of its rule before it; an empty line behind them.

    What is said of several rules is said once, with their number and names.
    """
    rules_of: dict[str, tuple[str | Text, list[str]]] = {}
    for rule, remark in remarks:
        rules_of.setdefault(str(remark), (remark, []))[1].append(rule)
    lines = [_remark_line(remark, rules) for remark, rules in rules_of.values()]
    yield from lines
    if lines:
        yield ""


def _remark_line(remark: str | Text, rules: Sequence[str]) -> Text:
    if len(rules) == 1:
        return Text.assemble((rules[0], "bold"), "  ", remark)
    named = ", ".join(rules[:NAMED])
    more = f" and {len(rules) - NAMED:,} more" if len(rules) > NAMED else ""
    return Text.assemble((plural(len(rules), "rule"), "bold"), "  ", remark, (f"\n  {named}{more}", "dim"))


NAMED = 10
"""Rules that one remark names."""


def _remarks_on(repair: RuleRepair) -> Iterator[str | Text]:
    if repair.records is not None:
        yield f"for {plural(repair.records, 'record')} alone, by keys; nothing is known of the others"
        if repair.judged < repair.records:
            yield f"{repair.records - repair.judged:,} of them not judged: too young, or none that every= names"
    if repair.error:
        yield repair.error
    if repair.why_stopped:
        yield repair.why_stopped
    if repair.warning:
        yield Text(repair.warning, style="yellow")
    for drift, number in repair.reported.items():
        keys = ", ".join(sample.key for sample in repair.samples if sample.drift is drift)
        remark = f"{plural(number, f'{drift} row')} reported, not touched"
        yield f"{remark}: {keys}" if keys else remark


def _planned_rows(report: RepairReport) -> Iterator[RenderableType]:
    """The first rows that a plan would write: `stale  66  amount: 19.90 → 1.00`."""
    if len(report.rows) > 1:
        yield Text(
            "Rows as they would be written now; a rule may change what a later one reads.\n", style="dim"
        )
    for rule, by_drift in report.rows.items():
        yield Text(rule, style="bold")
        for drift, rows in by_drift.items():
            for row in rows:
                cells = ", ".join(map(_cell_in_words, row.cells))
                named = f"a new {row.model}" if row.key is None else f"{row.model} {row.key}"
                yield indented(
                    Text.assemble((f"{drift:<8}", _DRIFT_STYLES[drift]), f"{plain(named)}  {cells}")
                )
        yield ""


def _cell_in_words(cell: Cell) -> str:
    there, owed = (value_in_words(each) for each in (cell.there, cell.owed))
    if cell.owed is NOT_STATED or not cell.differs:
        return f"{cell.column}: {there or owed}"
    return f"{cell.column}: {there} → {owed}"


def _repair_sum(report: RepairReport) -> Text:
    text = _written_sum(report) if report.applied else _plan_sum(report)
    if unverified := [repair.rule for repair in report.repairs if repair.result == "unverified"]:
        text.append(f"  Written, not verified: {', '.join(unverified)}.", style="bold red")
    if failed := [repair.rule for repair in report.repairs if repair.result == "error"]:
        text.append(f" {plural(len(failed), 'rule')} could not be evaluated.", style="bold red")
    return text


def _plan_sum(report: RepairReport) -> Text:
    able = [repair for repair in report.repairs if not repair.why_stopped]
    waiting = sum(repair.unconfirmed for repair in able)
    planned = sum(repair.planned.total for repair in able) - waiting
    stopped = [repair for repair in report.repairs if repair.why_stopped and repair.planned_records.total]
    if report.asked:
        return Text("Nothing was written.", style="red")
    left = sum(left_by_plan(repair) for repair in able)
    if not planned and not stopped and not waiting:
        said = (
            f"; {plural(left, 'drifted row')} {'is' if left == 1 else 'are'} left as they are" if left else ""
        )
        return Text(f"Nothing to repair{_of_records(report)}{said}.", style="yellow" if left else "")
    text = Text(style="red")
    if stopped:
        their = "its" if len(stopped) == 1 else "their"
        text.append(f"{plural(len(stopped), 'rule')} would stop before {their} first write. ")
    if planned:
        least = "At least " if any(_is_more(repair) for repair in able) else ""
        text.append(f"{least}{plural(planned, 'row')} would be written. ", style="default")
    if waiting:
        text.append(
            f"{plural(waiting, 'delete')} would be noted, for a second run to confirm. ", style="default"
        )
    if left:
        text.append(f"{plural(left, 'drifted row')} would be left as they are. ", style="default")
    if planned or waiting:
        text.append("Nothing has been: add --apply to write.", style="bold")
    return text


def _written_sum(report: RepairReport) -> Text:
    written = sum(repair.written.total for repair in report.repairs)
    text = Text(f"{plural(written, 'row')} written in {report.seconds:.1f} s, run {str(report.run)[:8]}.")
    if incomplete := [repair.rule for repair in report.repairs if repair.incomplete]:
        text.append(f"  Incomplete: {', '.join(incomplete)}.", style="red")
    elif left := sum(sum(repair.reported.values()) for repair in report.repairs):
        fails = ", so that a check fails" if report.fails else ""
        text.append(
            f"  Verified{_of_records(report)}; {plural(left, 'drifted row')} {'is' if left == 1 else 'are'} left to people{fails}.",
            style="yellow",
        )
    elif report.is_empty:
        text.append(
            f"  {nothing_judged(allowed=report.allow_empty)}", style="yellow" if report.allow_empty else "red"
        )
    elif report.repairs and all(repair.records and not repair.judged for repair in report.repairs):
        text.append("  Nothing is verified: none of the records was judged.", style="yellow")
    elif report.status != "error":
        text.append(f"  Verified{_of_records(report)}.", style="green")
    return text


def _of_records(report: RepairReport) -> str:
    """` for the 2 records alone`, if the repair was about some records; else empty."""
    about = [repair for repair in report.repairs if repair.records is not None]
    records, judged = sum(each.records or 0 for each in about), sum(each.judged for each in about)
    if not about:
        return ""
    return (
        f" for {plural(records, 'record')} alone"
        if judged == records
        else f" for {judged:,} of {plural(records, 'record')}"
    )


def rules_report(rules: Sequence[Rule], *, using: str) -> RenderableType:
    """The list of rules: each with its sentence, its reason and its facts."""
    invalid = sum(isinstance(rule, InvalidRule) for rule in rules)
    unusable = f" {invalid:,} of them can't be used." if invalid else ""
    return Group(
        "",
        *(part for rule in rules for part in _rule(rule, using)),
        f"{plural(len(rules), 'rule')}.{unusable}",
    )


def _rule(rule: Rule, using: str) -> Iterator[RenderableType]:
    yield Text(rule.name, style="bold")
    yield indented(Text(rule.error, style="red") if isinstance(rule, InvalidRule) else Text(rule.sentence))
    if rule.reason:
        yield indented(Text(rule.reason, style="italic"))
    facts = [f"guarantee {rule.guarantee(using)}", f"nightly {nightly_in_words(rule, using)}"]
    if rule.owner:
        facts.append(f"owner {rule.owner}")
    if rule.tags:
        facts.append(f"tags {', '.join(rule.tags)}")
    yield indented(Text(" · ".join(facts), style="dim"))
    yield ""
