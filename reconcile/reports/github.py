"""The `github` format: workflow commands. GitHub Actions shows each as an annotation at the line of the rule."""

from __future__ import annotations

from reconcile.core.drift import Status
from reconcile.detect.checking import RuleCheck
from reconcile.reports.findings import CheckReport, empty_in_words, is_reported, message, place

__all__ = ["annotation", "check_report"]


def check_report(report: CheckReport) -> str:
    """One line for each rule that warns, fails or can't be evaluated; empty if every rule passes.

    The level is `error` for everything that fails the check, so with `--fail-on warn` for warnings, too.
    """
    if report.is_empty:
        level = "warning" if report.allow_empty else "error"
        return f"::{level} title=reconcile empty::{_escape_message(empty_in_words(report))}"
    return "\n".join(_annotation(report, check) for check in report.checks if is_reported(report, check))


def _annotation(report: CheckReport, check: RuleCheck) -> str:
    level = "error" if report.fails(check) or check.status is Status.ERROR else "warning"
    properties = {}
    if where := place(check.rule):
        properties = {"file": where[0], "line": str(where[1])}
    return annotation(level, message(report, check), **properties, title=f"{check.rule.name} {check.status}")


def annotation(level: str, text: str, **properties: str) -> str:
    """One workflow command. properties: `file`, `line`, `title`."""
    named = ",".join(f"{name}={_escape_property(value)}" for name, value in properties.items())
    return f"::{level} {named}::{_escape_message(text)}"


def _escape_message(text: str) -> str:
    """Escape a message, as GitHub's toolkit does. The percent sign comes first, since the other escapes contain it."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    """Escape a property, as GitHub's toolkit does: a colon or a comma would end it."""
    return _escape_message(text).replace(":", "%3A").replace(",", "%2C")
