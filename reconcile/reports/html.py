"""The `html` format: one file that needs no network, to be kept as a build's artefact and read on a phone.

Its layout is templates/check.html; here stands what goes into it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from django.template import Context, Engine, Template

from reconcile.checking import RuleCheck
from reconcile.drift import Drift, Status
from reconcile.reports._catalogue import finders_of, in_order, sql_of
from reconcile.reports._facts import GUARANTEES
from reconcile.reports._saying import headline, keys, local, next_step, place, plain, prose, told
from reconcile.reports._sparkline import sparkline
from reconcile.reports._summary import CheckReport, Overall
from reconcile.reports.text import plural
from reconcile.sql.dialects import dialect_of

__all__ = ["check_report"]

_OVERALL: Mapping[Overall, str] = {
    "clean": "All clean",
    "warn": "Warnings",
    "drift": "Drift found",
    "error": "Not evaluated",
}
_WORST_FIRST = (Status.ERROR, Status.FAIL, Status.WARN, Status.PASS)


def check_report(report: CheckReport) -> str:
    """The page: the outcome, then each rule that is to be looked at, worst first, then those that passed."""
    ordered = sorted(report.checks, key=lambda check: _WORST_FIRST.index(check.status))
    with dialect_of(report.database).unasked():
        looked_at = [_looked_at(report, check) for check in ordered if told(report, check)]
    passed = [_summary(report, check) for check in ordered if not told(report, check)]
    context = {
        "status": report.status,
        "outcome": _OVERALL[report.status],
        "at": local(report.at).strftime("%d %B %Y, %H:%M %Z").lstrip("0").rstrip() if report.at else "",
        "database": plain(report.database),
        "run": report.run,
        "seconds": f"{report.seconds:.1f}",
        "tiles": _tiles(report),
        "looked_at": looked_at,
        "passed": passed,
        "passed_said": plural(len(passed), "rule"),
    }
    return _template().render(Context(context)).strip()


@cache
def _template() -> Template:
    """Of an engine of its own, since a project's may be another, or have other folders."""
    engine = Engine(dirs=[str(Path(__file__).parent / "templates")])
    return engine.get_template("check.html")


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
        "status": str(check.status),
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


def _looked_at(report: CheckReport, check: RuleCheck) -> Mapping[str, Any]:
    found = {each.drift: each for each in keys(report, check)}
    step = next_step(report, check)
    return {
        **_summary(report, check),
        "error": prose(check.error or ""),
        "counts": [(str(drift), f"{each.number:,}") for drift, each in found.items()],
        "kinds": [
            {"drift": str(drift), "shown": each.shown, "more": f"{each.more:,}" if each.more else ""}
            for drift, each in found.items()
            if each.shown
        ],
        "guarantee": check.guarantee,
        "guaranteed": GUARANTEES.get(check.guarantee, ""),  # type: ignore[call-overload]
        "step": step[0] if step else "",
        "command": plain(step[1]) if step else "",
        "statements": [] if check.error else _statements(report, check, set(found)),
    }


def _statements(report: CheckReport, check: RuleCheck, drifts: set[Drift]) -> Sequence[tuple[str, str]]:
    """The SELECT of each kind of drift that was found, where the rule has one to show."""
    rule = in_order(check.rule)
    found = [each for each in finders_of(rule, report.database) if each.drift in drifts]
    shown = [(str(each.drift), sql_of(rule, each, report.database)) for each in found]
    return [(drift, sql) for drift, sql in shown if sql]
