"""The `concise` format: `path:line: rule message`, one line for each rule that warns, fails or can't be evaluated."""

from __future__ import annotations

from reconcile.detect.checking import RuleCheck
from reconcile.reports.findings import CheckReport, empty_in_words, is_reported, paragraphs, place, plain

__all__ = ["check_report"]


def check_report(report: CheckReport) -> str:
    """The lines, in the order of the rules; empty if every rule passes. If nothing was looked at, one line says so."""
    lines = [_line(report, check) for check in report.checks if is_reported(report, check)]
    return "\n".join(
        lines or ([f"<unknown>:1: reconcile empty: {empty_in_words(report)}"] if report.is_empty else [])
    )


def _line(report: CheckReport, check: RuleCheck) -> str:
    path, line = place(check.rule) or ("<unknown>", 1)
    text = " ".join(paragraphs(report, check))
    return f"{plain(path)}:{line}: {plain(check.rule.name)} {check.status}: {text}"
