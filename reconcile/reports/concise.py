"""The `concise` format: `path:line: rule message`, one line for each rule that warns, fails or can't be evaluated."""

from __future__ import annotations

from reconcile.checking import RuleCheck
from reconcile.reports._saying import paragraphs, place, plain, told
from reconcile.reports._summary import CheckReport

__all__ = ["check_report"]


def check_report(report: CheckReport) -> str:
    """The lines, in the order of the rules; empty where all is clean."""
    return "\n".join(_line(report, check) for check in report.checks if told(report, check))


def _line(report: CheckReport, check: RuleCheck) -> str:
    path, line = place(check.rule) or ("<unknown>", 1)
    said = " ".join(paragraphs(report, check))
    return f"{plain(path)}:{line}: {plain(check.rule.name)} {check.status}: {said}"
