"""The `html` format: one page that loads nothing from the network, with the trend of each rule.

templates/check.html has the layout; this module has the values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.template import Context, Engine, Template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from reconcile.core.drift import GUARANTEE_MEANINGS, Drift, Status
from reconcile.db.dialects import dialect_of
from reconcile.detect.checking import RuleCheck
from reconcile.reports.facts import plural
from reconcile.reports.findings import (
    EMPTY,
    CheckReport,
    Overall,
    empty_in_words,
    has_part,
    headline,
    keys,
    local_time,
    next_step,
    others,
    place,
    plain,
    prose,
    why,
    word,
)
from reconcile.reports.statements import finders_of, sort_constants, sql_of

if TYPE_CHECKING:
    from reconcile.runs.results import PastRun

__all__ = ["check_report", "sparkline", "template"]

_HEIGHT, _BAR, _GAP = 32, 7, 2


def sparkline(past: Sequence[PastRun], *, now: int) -> SafeString:
    """The trend as an SVG with a caption; its title gives the numbers in words. Empty if there are no earlier runs."""
    if not past:
        return SafeString()
    numbers = [*(each.drifted for each in past), now]
    most = max(numbers)
    period = f"a run of {_day(past[0])}"
    if len(past) > 1:
        period = f"{len(past)} earlier runs since {_day(past[0])}"
    title = f"Drifted rows after {period}: {', '.join(f'{each:,}' for each in numbers[:-1])}; now {now:,}."
    bars = format_html_join(
        "",
        '<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>',
        (
            (
                "now" if position == len(past) else "then",
                position * (_BAR + _GAP),
                _HEIGHT - _height(number, most),
                _BAR,
                _height(number, most),
            )
            for position, number in enumerate(numbers)
        ),
    )
    width = len(numbers) * (_BAR + _GAP) - _GAP
    return format_html(
        '<figure class="trend"><svg role="img" viewBox="0 0 {} {}" width="{}" height="{}"><title>{}</title>{}</svg>'
        "<figcaption>After {}, at most {}</figcaption></figure>",
        width, _HEIGHT, width, _HEIGHT, title, bars, period, f"{most:,}",
    )  # fmt: skip


def _height(number: int, most: int) -> int:
    """The height of a bar in pixels: a line for no drift, at least 4 for any drift, and all of it for the most."""
    return max(4, round(_HEIGHT * number / most)) if number else 1


def _day(past: PastRun) -> str:
    return f"{local_time(past.at):%d %B %Y}".lstrip("0")


_OVERALL: Mapping[Overall, str] = {
    "clean": "All clean",
    "empty": EMPTY,
    "warn": "Warnings",
    "drift": "Drift found",
    "error": "Not evaluated",
}
_WORST_FIRST = (Status.ERROR, Status.FAIL, Status.WARN, Status.PASS)


def check_report(report: CheckReport) -> str:
    """The page: the outcome, then each rule that does not pass, worst first, then the rules that pass, and those that saw no record."""
    ordered = sorted(report.checks, key=lambda check: _WORST_FIRST.index(check.status))
    with dialect_of(report.database).without_server():
        looked_at = [_rule_to_look_at(report, check) for check in ordered if has_part(report, check)]
    rest = [
        {"status": status, "title": title, "rules": [_summary(report, check) for check in those]}
        for status, title, those in others(report)
    ]
    context = {
        "status": report.status,
        "outcome": f"{_OVERALL[report.status]}{report.extent}",
        "at": local_time(report.at).strftime("%d %B %Y, %H:%M %Z").lstrip("0").rstrip() if report.at else "",
        "database": plain(report.database),
        "run": report.run,
        "seconds": f"{report.seconds:.1f}",
        "tiles": _tiles(report),
        "looked_at": looked_at,
        "nothing": empty_in_words(report) if report.is_empty else "",
        "others": rest,
    }
    return template("check.html").render(Context(context)).strip()


@cache
def template(name: str) -> Template:
    """A template of this folder, from an engine of its own: the project may have another engine, or other folders."""
    engine = Engine(dirs=[str(Path(__file__).parent / "templates")])
    return engine.get_template(name)


def _tiles(report: CheckReport) -> Sequence[tuple[str, str]]:
    checks = report.checks
    drifted = sum(bool(check.tally.total) for check in checks)
    rows = sum(check.tally.total for check in checks)
    return [
        (f"{len(checks):,}", "rule checked" if len(checks) == 1 else "rules checked"),
        (f"{drifted:,}", "rule with drift" if drifted == 1 else "rules with drift"),
        (f"{rows:,}", "drifted row" if rows == 1 else "drifted rows"),
        (f"{sum(check.tally.checked for check in checks):,}", "records checked"),
    ]


def _summary(report: CheckReport, check: RuleCheck) -> Mapping[str, Any]:
    where = place(check.rule)
    name = check.rule.name
    settling = check.tally.settling
    return {
        "name": plain(name),
        "status": word(check),
        "headline": "could not be evaluated" if check.error else headline(check),
        "sentence": prose(check.rule.sentence),
        "reason": prose(check.rule.reason),
        "owner": plain(check.rule.owner),
        "place": plain(f"{where[0]}:{where[1]}") if where else "",
        "seconds": f"{check.seconds:.2f}",
        "checked": f"{check.tally.checked:,}",
        "young": f"{plural(settling, 'record')} left alone: too young to be judged." if settling else "",
        "trend": sparkline(report.past.get(name, ()), now=check.tally.total) if not check.error else "",
    }


def _rule_to_look_at(report: CheckReport, check: RuleCheck) -> Mapping[str, Any]:
    found = {each.drift: each for each in keys(report, check)}
    step = next_step(report, check)
    return {
        **_summary(report, check),
        "error": prose(check.error or ""),
        "remarks": [prose(remark) for remark in check.remarks],
        "why": why(report, check),
        "counts": [(str(drift), f"{each.number:,}") for drift, each in found.items()],
        "kinds": [
            {"drift": str(drift), "shown": each.shown, "more": f"{each.more:,}" if each.more else ""}
            for drift, each in found.items()
            if each.shown
        ],
        "guarantee": check.guarantee,
        "guaranteed": GUARANTEE_MEANINGS[check.guarantee] if check.guarantee else "",
        "step": step[0] if step else "",
        "command": plain(step[1]) if step else "",
        "statements": [] if check.error else _statements(report, check, set(found)),
    }


def _statements(report: CheckReport, check: RuleCheck, drifts: set[Drift]) -> Sequence[tuple[str, str]]:
    """For each kind of drift that was found, its SELECT, unless the rule has none to show."""
    rule = sort_constants(check.rule)
    finders = [finder for finder in finders_of(rule, report.database) if finder.drift in drifts]
    shown = [(str(finder.drift), sql_of(rule, finder, report.database)) for finder in finders]
    return [(drift, sql) for drift, sql in shown if sql]
