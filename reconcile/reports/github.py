"""The `github` format: workflow commands that GitHub Actions shows as annotations, one a rule, at the rule's line."""

from __future__ import annotations

from reconcile.checking import RuleCheck
from reconcile.drift import Status
from reconcile.reports._saying import message, place, told
from reconcile.reports._summary import CheckReport

__all__ = ["check_report"]


def check_report(report: CheckReport) -> str:
    """A line a rule that warns, fails or can't be evaluated; empty where all is clean.

    What makes the check fail is an error, so a warning is one under `--fail-on warn`.
    """
    return "\n".join(_annotation(report, check) for check in report.checks if told(report, check))


def _annotation(report: CheckReport, check: RuleCheck) -> str:
    level = "error" if report.fails(check) or check.status is Status.ERROR else "warning"
    properties = {}
    if where := place(check.rule):
        properties = {"file": where[0], "line": str(where[1])}
    properties["title"] = f"{check.rule.name} {check.status}"
    listed = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{level} {listed}::{_data(message(report, check))}"


def _data(text: str) -> str:
    """As the runner's own toolkit escapes a command's message; the percent sign first, since the others make some."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """As it escapes a command's properties, which a colon or a comma would end."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
