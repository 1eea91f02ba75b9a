"""The calls that skip effects, in the formats of CI services: GitHub's annotations, SARIF, JUnit."""

from __future__ import annotations

import json
from hashlib import sha256
from importlib.metadata import version
from typing import Any

from reconcile.audit.bypasses import Bypass, Level
from reconcile.audit.known import identity_of
from reconcile.core.declaration import shown_path
from reconcile.reports.bypasses import BypassReport, sentence
from reconcile.reports.findings import plain
from reconcile.reports.github import annotation
from reconcile.reports.sarif import SCHEMA, location

__all__ = ["as_github", "as_junit", "as_sarif"]


def as_github(report: BypassReport) -> str:
    """One line for each call that skips an uncovered effect, each file that can't be read, and each fault; empty if there is none."""
    lines = [
        annotation("error", sentence(each), file=shown_path(each.site.path), line=str(each.site.line), title="effects skipped")
        for each in report.uncovered
    ]  # fmt: skip
    lines += [
        annotation("error", each.why, file=shown_path(each.path), title="can't be read")
        for each in report.audit.unreadable
    ]
    return "\n".join(
        [*lines, *(annotation("error", each, title="reconcile") for each in report.audit.faults)]
    )


def as_sarif(report: BypassReport) -> str:
    """The log: an effect is a rule, a call that skips it a result. The invocation failed if a file could not be read."""
    effects = {
        skip.effect.name: skip
        for each in report.uncovered
        for skip in each.skips
        if skip.state is Level.UNCOVERED
    }
    numbers = {name: number for number, name in enumerate(effects)}
    run = {
        "tool": {
            "driver": {
                "name": "reconcile",
                "version": version("django-reconcile"),
                "rules": [
                    {"id": plain(name), "shortDescription": {"text": plain(f"{name} ({skip.effect.on}) is skipped, and no rule covers it.")}}
                    for name, skip in effects.items()
                ],
            }
        },
        "automationDetails": {"id": "reconcile/bypasses/"},
        "invocations": [
            {
                "executionSuccessful": not report.audit.unreadable,
                "toolExecutionNotifications": [
                    {"level": "error", "message": {"text": plain(each)}}
                    for each in [*(f"{shown_path(one.path)}: {one.why}" for one in report.audit.unreadable), *report.audit.faults]
                ],
            }
        ],
        "columnKind": "unicodeCodePoints",
        "results": [result for each in report.uncovered for result in _results(each, numbers)],
    }  # fmt: skip
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False)


def _results(bypass: Bypass, numbers: dict[str, int]) -> list[dict[str, Any]]:
    return [
        {
            "ruleId": plain(skip.effect.name),
            "ruleIndex": numbers[skip.effect.name],
            "level": "error",
            "message": {"text": sentence(bypass)},
            "locations": [location(shown_path(bypass.site.path), bypass.site.line)],
            "partialFingerprints": {
                "reconcileBypass/v1": sha256(repr(identity_of(bypass, skip)).encode()).hexdigest()
            },
        }
        for skip in bypass.skips
        if skip.state is Level.UNCOVERED
    ]


def as_junit(report: BypassReport) -> str:
    """The document: a test case for each call that skips anything, which fails where no rule covers it."""
    from junitparser import Error, Failure
    from junitparser.xunit2 import JUnitXml, TestSuite

    from reconcile.reports.junit import Case, document_text, with_text

    suite = TestSuite("reconcile.bypasses")
    for each in report.bypasses:
        if each.state is Level.UNKNOWN:
            continue
        case = Case(
            name=plain(f"{each.site.call} on {each.model}"),
            classname=plain(f"{each.site.module}.{each.site.function}".rstrip(".")),
        )
        case.file, case.line = plain(shown_path(each.site.path)), each.site.line
        if each.state is Level.UNCOVERED:
            case.result = [with_text(Failure("effects skipped", "uncovered"), sentence(each))]
        suite.add_testcase(case)
    for one in report.audit.unreadable:
        case = Case(name=plain(shown_path(one.path)), classname="reconcile.bypasses")
        case.result = [with_text(Error("can't be read", "error"), plain(one.why))]
        suite.add_testcase(case)
    for number, fault in enumerate(report.audit.faults, 1):
        case = Case(name=f"exemption {number}", classname="reconcile.bypasses")
        case.result = [with_text(Failure("an exemption is wrong", "fault"), plain(fault))]
        suite.add_testcase(case)
    document = JUnitXml("reconcile.bypasses")
    document.add_testsuite(suite)
    document.update_statistics()
    return document_text(document)
