"""The `json` format, version 1: a stable object for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date, time
from math import isfinite
from typing import TYPE_CHECKING, Any

from reconcile.checking import RuleCheck
from reconcile.drift import EXTRA, MISSING, STALE
from reconcile.effects import Lift
from reconcile.explaining import Explanation, Part
from reconcile.judging import UNSAID, Judgement, Made, Row, Subject
from reconcile.reports._summary import CheckReport, RepairReport
from reconcile.rules import Rule

if TYPE_CHECKING:
    from reconcile.models import Run
    from reconcile.runs import RuleRepair

__all__ = [
    "check_report",
    "explanation",
    "judgement",
    "repair_report",
    "rules_report",
    "run_report",
    "runs_report",
    "steered_report",
]


def check_report(report: CheckReport) -> str:
    """The object that the documentation gives for `check --format json`."""
    return _dumped(
        {
            "version": 1,
            "run": report.run,
            "database": report.database,
            "status": report.status,
            "seconds": round(report.seconds, 3),
            "rules": [_check(each, report.origins) for each in report.checks],
        }
    )


def _check(check: RuleCheck, origins: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    return {
        "rule": check.rule.name,
        "status": str(check.status),
        "checked": check.tally.checked,
        "missing": check.tally[MISSING],
        "stale": check.tally[STALE],
        "extra": check.tally[EXTRA],
        "guarantee": check.guarantee or None,
        "seconds": round(check.seconds, 3),
        "samples": [
            {
                "drift": str(sample.drift),
                "key": sample.key,
                **_origin(origins.get((check.rule.name, sample.key))),
            }
            for sample in check.samples
        ],
        "error": check.error,
    }


def _origin(origin: str | None) -> dict[str, str]:
    return {} if origin is None else {"origin": origin}


def repair_report(report: RepairReport) -> str:
    """The object that the documentation gives for `repair --format json`."""
    return _dumped(
        {
            "version": 1,
            "run": report.run,
            "database": report.database,
            "status": report.status,
            "applied": report.applied,
            "seconds": round(report.seconds, 3),
            "rules": [_repair(each) for each in report.repairs],
        }
    )


def _repair(repair: RuleRepair) -> dict[str, Any]:
    return {
        "rule": repair.rule,
        "status": str(repair.status),
        "planned": repair.planned.as_dict(),
        "written": repair.written.as_dict(),
        "left": repair.left,
        "skipped": repair.skipped,
        "why_stopped": repair.why_stopped or None,
        "again": repair.again,
        "warning": repair.warning or None,
        "refused": list(repair.refused),
        "fingerprint": repair.fingerprint or None,
        "seconds": round(repair.seconds, 3),
        "error": repair.error,
    }


def rules_report(rules: Sequence[Rule], *, using: str) -> str:
    """The catalogue of rules."""
    return _dumped(
        {
            "version": 1,
            "rules": [
                {
                    "rule": rule.name,
                    "sentence": rule.sentence,
                    "model": rule.model._meta.label,
                    "owner": rule.owner,
                    "tags": list(rule.tags),
                    "reason": rule.reason,
                    "unattended": rule.unattended,
                    "guarantee": rule.guarantee(using),
                }
                for rule in rules
            ],
        }
    )


def runs_report(runs: Sequence[Run]) -> str:
    """The persisted runs, without their rules."""
    return _dumped({"version": 1, "runs": [_run(run) for run in runs]})


def run_report(run: Run, repairs: Sequence[RuleRepair]) -> str:
    """One persisted run with what became of its rules."""
    return _dumped({"version": 1, **_run(run), "rules": [_repair(each) for each in repairs]})


def steered_report(run: Run) -> str:
    """A run that somebody has asked to pause or to end, in the state that it is in then."""
    return _dumped({"version": 1, **_run(run)})


def _run(run: Run) -> dict[str, Any]:
    return {
        "run": str(run.pk),
        "kind": run.kind,
        "undoes": str(run.undoes_id) if run.undoes_id else None,
        "state": run.state,
        "started_at": run.started_at.isoformat(),
        "finished_at": run.finished_at.isoformat() if run.finished_at else None,
        "why_stopped": run.why_stopped or None,
    }


def explanation(explained: Explanation) -> str:
    """The object that the documentation gives for `explain --format json`."""
    settle = explained.settle
    return _dumped(
        {
            "version": 1,
            "rule": explained.rule,
            "database": explained.using,
            "sentence": explained.sentence,
            "reason": explained.reason,
            "guarantee": explained.guarantee,
            "lift": _lift(explained.lift) if explained.lift else None,
            "settle": {"column": settle.column, "seconds": settle.age.total_seconds()} if settle else None,
            "drifts": [_part(part) for part in explained.parts],
        }
    )


def _lift(lift: Lift) -> dict[str, Any]:
    return {
        "model": lift.model or None,
        "fields": list(lift.fields),
        "django": lift.django or None,
        "why_not": lift.why_not or None,
    }


def _part(part: Part) -> dict[str, Any]:
    return {
        "drift": str(part.drift),
        "remedy": part.remedy,
        "windows": part.windows,
        "python": part.sifted,
        "sql": part.sql,
        "plan": part.plan or None,
        "unindexed": [asdict(missing) for missing in part.unindexed],
    }


def judgement(judged: Judgement) -> str:
    """The object that the documentation gives for `explain --key --format json`."""
    return _dumped(
        {
            "version": 1,
            "rule": judged.rule,
            "database": judged.using,
            "key": judged.key,
            "sentence": judged.sentence,
            "guarantee": judged.guarantee,
            "found": [_subject(subject) for subject in judged.subjects],
        }
    )


def _subject(subject: Subject) -> dict[str, Any]:
    until = subject.young_until
    return {
        **_row(subject.row),
        "named_by_every": subject.named,
        "unmet": list(subject.unmet),
        "young_until": until.isoformat() if until else None,
        "linked": [{**_row(each), "extra": each.extra} for each in subject.linked],
        "linked_left_out": subject.more,
        "drifts": [
            {
                "drift": str(verdict.drift),
                "state": verdict.state,
                "remedy": verdict.remedy,
                "would": verdict.would.as_dict(),
                "owed": [_row(each) for each in verdict.owed],
            }
            for verdict in subject.verdicts
        ],
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "model": row.model,
        "key": None if row.key is None else str(row.key),
        "columns": [
            {
                "column": cell.column,
                **({} if cell.there is UNSAID else {"there": _plain(cell.there)}),
                **({"made_in_python": True} if isinstance(cell.owed, Made) else {}),
                **({} if cell.owed is UNSAID or isinstance(cell.owed, Made) else {"owed": _plain(cell.owed)}),
            }
            for cell in row.cells
        ],
    }


def _plain(value: Any) -> Any:
    """A value as JSON has it; what JSON doesn't know, as text, decimals among them."""
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and isfinite(value)):
        return value
    if isinstance(value, date | time):
        return value.isoformat()
    return bytes(value).hex() if isinstance(value, bytes | memoryview) else str(value)


def _dumped(report: dict[str, Any]) -> str:
    return json.dumps(report, indent=2, ensure_ascii=False)
