"""The `sarif` format: SARIF 2.1.0, for code scanning and for editors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from reconcile.core.drift import Drift, Status
from reconcile.detect.checking import RuleCheck
from reconcile.reports.findings import (
    CheckReport,
    empty_in_words,
    headline,
    is_reported,
    message,
    place,
    plain,
    prose,
)
from reconcile.rules.rule import Rule

__all__ = ["SCHEMA", "check_report", "location"]

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {Status.WARN: "warning", Status.FAIL: "error", Status.ERROR: "error"}


def check_report(report: CheckReport) -> str:
    """The log. It describes every rule that was checked; each rule that warns, fails or can't be evaluated has a result.

    If a rule can't be evaluated, the invocation counts as unsuccessful.
    """
    run = {
        "tool": {
            "driver": {
                "name": "reconcile",
                "version": version("django-reconcile"),
                "rules": [_descriptor(check.rule) for check in report.checks],
            }
        },
        # Each database is an analysis of its own: a result of one must not close a result of the other.
        "automationDetails": {"id": f"reconcile/{report.database}/{report.run}"},
        "invocations": [_invocation(report)],
        "columnKind": "unicodeCodePoints",
        "results": [
            _result(report, check, index)
            for index, check in enumerate(report.checks)
            if is_reported(report, check)
        ],
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False)


def _descriptor(rule: Rule) -> dict[str, Any]:
    sentence = prose(rule.sentence)
    reason = prose(rule.reason)
    described = {
        "id": plain(rule.name),
        "shortDescription": {"text": sentence},
        "fullDescription": {"text": f"{sentence} {reason}".rstrip()},
        "help": {"text": f"reconcile explain {plain(rule.name)} says what the rule means."},
        "defaultConfiguration": {"level": "error"},
    }
    properties: dict[str, Any] = {"tags": [plain(tag) for tag in dict.fromkeys(rule.tags)]}
    if rule.owner:
        properties["owner"] = plain(rule.owner)
    return {**described, "properties": properties}


def _invocation(report: CheckReport) -> dict[str, Any]:
    failed = [(index, check) for index, check in enumerate(report.checks) if check.error]
    if report.is_empty:
        level = "note" if report.allow_empty else "error"
        said = {"level": level, "message": {"text": empty_in_words(report)}}
        return {"executionSuccessful": report.allow_empty, "toolExecutionNotifications": [said]}
    return {
        "executionSuccessful": not failed,
        "toolExecutionNotifications": [
            {
                "level": "error",
                "message": {"text": f"{plain(check.rule.name)} {headline(check)}"},
                "associatedRule": {"id": plain(check.rule.name), "index": index},
            }
            for index, check in failed
        ],
    }


def _result(report: CheckReport, check: RuleCheck, index: int) -> dict[str, Any]:
    return {
        "ruleId": plain(check.rule.name),
        "ruleIndex": index,
        "level": "error" if report.fails(check) else _LEVELS[check.status],
        "message": {"text": message(report, check)},
        "locations": _locations(check.rule),
        "partialFingerprints": {"reconcileRule/v1": _fingerprint(report.database, check.rule.name)},
        "properties": {
            "status": str(check.status),
            "checked": check.tally.checked,
            **{str(drift): check.tally[drift] for drift in Drift},
        },
    }


def _locations(rule: Rule) -> Sequence[dict[str, Any]]:
    where = place(rule)
    if where is None:
        return []
    return [location(*where)]


def location(path: str, line: int) -> dict[str, Any]:
    """A line of a file, which stands below the root of the source unless its path is absolute."""
    artifact = {"uri": quote(path), "uriBaseId": "%SRCROOT%"}
    if PurePosixPath(path).is_absolute():
        artifact = {"uri": PurePosixPath(path).as_uri()}
    return {"physicalLocation": {"artifactLocation": artifact, "region": {"startLine": line}}}


def _fingerprint(database: str, rule: str) -> str:
    """A hash by which tomorrow's result is recognised as the same one, even if the rule moves or the drift grows."""
    return sha256(f"{database}\n{rule}".encode(errors="backslashreplace")).hexdigest()
