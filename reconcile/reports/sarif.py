"""The `sarif` format: SARIF 2.1.0, for code scanning and for editors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from reconcile.checking import RuleCheck
from reconcile.drift import Drift, Status
from reconcile.reports._saying import headline, message, place, plain, prose, told
from reconcile.reports._summary import CheckReport
from reconcile.rules import Rule

__all__ = ["check_report"]

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {Status.WARN: "warning", Status.FAIL: "error", Status.ERROR: "error"}


def check_report(report: CheckReport) -> str:
    """The log: each rule that was checked is described, each that warns, fails or can't be evaluated has a result.

    A rule that can't be evaluated makes the invocation unsuccessful, too.
    """
    run = {
        "tool": {
            "driver": {
                "name": "reconcile",
                "version": version("django-reconcile"),
                "rules": [_descriptor(check.rule) for check in report.checks],
            }
        },
        # Two databases are two analyses: what is found in one must not close what was found in the other.
        "automationDetails": {"id": f"reconcile/{report.database}/{report.run}"},
        "invocations": [_invocation(report.checks)],
        "columnKind": "unicodeCodePoints",
        "results": [
            _result(report, check, index) for index, check in enumerate(report.checks) if told(report, check)
        ],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False)


def _descriptor(rule: Rule) -> dict[str, Any]:
    said = prose(rule.sentence)
    why = prose(rule.reason)
    described: dict[str, Any] = {
        "id": plain(rule.name),
        "shortDescription": {"text": said},
        "fullDescription": {"text": f"{said} {why}".rstrip()},
        "help": {"text": f"reconcile explain {plain(rule.name)} says what the rule means."},
        "defaultConfiguration": {"level": "error"},
    }
    tags = [plain(each) for each in dict.fromkeys(rule.tags)]
    described["properties"] = {
        "tags": tags, **({"owner": plain(rule.owner)} if rule.owner else {}),
    }  # fmt: skip
    return described


def _invocation(checks: Sequence[RuleCheck]) -> dict[str, Any]:
    failed = [(index, check) for index, check in enumerate(checks) if check.error]
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
    path, line = where
    artifact = (
        {"uri": PurePosixPath(path).as_uri()}
        if PurePosixPath(path).is_absolute()
        else {"uri": quote(path), "uriBaseId": "%SRCROOT%"}
    )
    return [{"physicalLocation": {"artifactLocation": artifact, "region": {"startLine": line}}}]


def _fingerprint(database: str, rule: str) -> str:
    """By which a result is the same one tomorrow, wherever the rule has moved in its file and however much has drifted."""
    return sha256(f"{database}\n{rule}".encode(errors="backslashreplace")).hexdigest()
