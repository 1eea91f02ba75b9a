"""The `json` format, version 2: one object, whose keys stay the same in all releases of this version."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date, time
from math import isfinite
from typing import TYPE_CHECKING, Any

from reconcile.baseline import Comparison, Rows
from reconcile.core.drift import EXTRA, MISSING, STALE, Drift
from reconcile.core.scopes import Coverage
from reconcile.core.verbs import UNDOABLE, VERBS
from reconcile.detect.checking import RuleCheck
from reconcile.detect.culprit import Culprit, as_plain
from reconcile.detect.explaining import Explanation, Part
from reconcile.detect.inspecting import NOT_STATED, Cell, Inspection, MadeInPython, Row, Subject
from reconcile.detect.listing import Listing
from reconcile.kinds import ConstraintAdvice
from reconcile.repair.plan_file import VERSION
from reconcile.reports.findings import BaselineReport, CheckReport, RepairReport, UndoReport, word
from reconcile.rules.invalid import InvalidRule
from reconcile.rules.order import Order
from reconcile.rules.rule import Rule

if TYPE_CHECKING:
    from reconcile.audit.skipping import Suspects
    from reconcile.models import Run
    from reconcile.runs import RuleRepair, RuleUndo, RunResult

__all__ = [
    "baseline_report",
    "check_report",
    "explanation",
    "inspection",
    "repair_report",
    "resumed_rule_report",
    "rules_report",
    "run_report",
    "run_state_report",
    "runs_report",
    "undo_report",
    "why_report",
]


def check_report(report: CheckReport) -> str:
    """The object that the documentation gives for `check --format json`."""
    return _dump(
        {
            "run": report.run,
            "database": report.database,
            "status": report.status,
            "seconds": round(report.seconds, 3),
            "rules": [{**_check(check, report.origins), **_why(report, check)} for check in report.checks],
        }
    )


def _why(report: CheckReport, check: RuleCheck) -> dict[str, Any]:
    """What sets the drifted records apart, and the calls that may have caused it, only where that was asked for."""
    name = check.rule.name
    if name not in report.culprits:
        return {}
    return {"why": why_report(report.culprits[name], report.suspects.get(name))}


def why_report(culprits: Sequence[Culprit], suspects: Suspects | None) -> dict[str, Any]:
    """The same for one rule. suspects: None where its calls were not looked for."""
    return {
        "culprits": [*map(as_plain, culprits)],
        "calls": [asdict(each) for each in suspects.calls] if suspects is not None else [],
        "more_calls": suspects.more if suspects is not None else 0,
        "why_no_calls": suspects.why_none if suspects is not None else "",
    }


def _check(check: RuleCheck, origins: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    return {
        "rule": check.rule.name,
        "status": word(check),
        "checked": check.tally.checked,
        "settling": check.tally.settling,
        "missing": check.tally[MISSING],
        "stale": check.tally[STALE],
        "extra": check.tally[EXTRA],
        "guarantee": check.guarantee,
        "seconds": round(check.seconds, 3),
        "remarks": list(check.remarks),
        "samples": [
            {
                "drift": str(sample.drift),
                "key": sample.key,
                **_origin(origins.get((check.rule.name, sample.key))),
            }
            for sample in check.samples
        ],
        "error": check.error,
        **({} if check.coverage is Coverage.FULL else {"coverage": str(check.coverage)}),
    }


def _origin(origin: str | None) -> dict[str, str]:
    return {} if origin is None else {"origin": origin}


def repair_report(report: RepairReport) -> str:
    """The object that the documentation gives for `repair --format json`."""
    return _dump(
        {
            "run": report.run,
            "database": report.database,
            "status": report.status,
            "applied": report.applied,
            "seconds": round(report.seconds, 3),
            "rules": [
                {**_rule_repair(repair), **_planned_rows(report, repair.rule)} for repair in report.repairs
            ],
        }
    )


def _planned_rows(report: RepairReport, rule: str) -> dict[str, Any]:
    """The values of some rows, only where they were asked for."""
    if rule not in report.rows:
        return {}
    rows = report.rows[rule].items()
    return {"rows": [{"drift": str(drift), **_row(row)} for drift, of_drift in rows for row in of_drift]}


def _rule_repair(repair: RuleRepair) -> dict[str, Any]:
    return {
        "rule": repair.rule,
        "status": str(repair.status),
        "result": str(repair.result),
        "planned": repair.planned.as_dict(),
        "bound": str(repair.bound),
        "unconfirmed": repair.unconfirmed,
        "planned_records": repair.planned_records.as_dict(),
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
        **({} if repair.records is None else {"records": repair.records, "judged": repair.judged}),
    }


def undo_report(report: UndoReport) -> str:
    """The object that the documentation gives for `undo --format json`."""
    return _dump(
        {
            "run": report.run,
            "by": report.by,
            "database": report.database,
            "status": report.status,
            "applied": report.applied,
            "seconds": round(report.seconds, 3),
            "rules": [_rule_undo(undo) for undo in report.rules],
        }
    )


def _rule_undo(undo: RuleUndo) -> dict[str, Any]:
    return {
        "rule": undo.rule,
        "planned": {verb: undo.planned[verb] for verb in UNDOABLE},
        "written": {verb: undo.written[verb] for verb in UNDOABLE},
        "left": undo.left,
        "conflicts": [{"key": conflict.key, "why": conflict.why} for conflict in undo.conflicts],
        "not_undoable": {verb: undo.outside[verb] for verb in VERBS if verb not in UNDOABLE},
        "why_stopped": undo.why_stopped or None,
        "warning": undo.warning or None,
    }


def baseline_report(report: BaselineReport) -> str:
    """The object that the documentation gives for `baseline … --format json`."""
    written = {} if report.rows_in_file is None else {"written": not report.failed}
    return _dump(
        {
            "database": report.database,
            "file": report.file,
            "status": report.status,
            **written,
            "seconds": round(report.seconds, 3),
            "rules": [_comparison(report, comparison) for comparison in report.comparisons],
        }
    )


def _comparison(report: BaselineReport, comparison: Comparison) -> dict[str, Any]:
    values: dict[str, Any] = {"rule": comparison.check.rule.name}
    if report.rows_in_file is None:
        values["status"] = str(comparison.status)
    else:
        values["held"] = report.rows_in_file.get(comparison.check.rule.name, 0)
    return {
        **values,
        "known": comparison.known,
        "new": _rows(comparison.new),
        "mended": _rows(comparison.mended),
        "error": comparison.check.error,
    }


def _rows(by_drift: Mapping[Drift, Rows]) -> list[dict[str, Any]]:
    return [
        {"drift": str(drift), "rows": rows.number, "keys": list(rows.keys)}
        for drift, rows in by_drift.items()
    ]


def rules_report(rules: Sequence[Rule], *, using: str) -> str:
    """The object that the documentation gives for `rules --format json`."""
    return _dump(
        {
            "rules": [
                {
                    "rule": rule.name,
                    "sentence": rule.sentence,
                    "model": rule.model_label,
                    "owner": rule.owner,
                    "tags": list(rule.tags),
                    "reason": rule.reason,
                    "unattended": rule.unattended,
                    "guarantee": rule.guarantee(using),
                    "error": rule.error if isinstance(rule, InvalidRule) else None,
                }
                for rule in rules
            ],
        }
    )


def resumed_rule_report(rule: str, *, using: str) -> str:
    """A rule that the nightly job repairs again."""
    return _dump({"rule": rule, "database": using, "suspended": False})


def runs_report(runs: Sequence[Run], results: Sequence[RunResult]) -> str:
    """The stored runs, without their rules."""
    return _dump(
        {"runs": [{**_run(run), **_sums(result)} for run, result in zip(runs, results, strict=True)]}
    )


def run_report(
    run: Run,
    result: RunResult,
    repairs: Sequence[RuleRepair],
    why: Mapping[str, tuple[Sequence[Culprit], Suspects | None]],
) -> str:
    """One stored run, with the result of each of its rules, the worst first. why: for rules that drifted what set the records apart."""
    details = {repair.rule: _rule_repair(repair) for repair in repairs}
    rules = [
        {
            **each, "written": {}, **details.get(each["rule"], {}),
            **({"why": why_report(*why[each["rule"]])} if each["rule"] in why else {}),
        }
        for each in result.as_dict()["rules"]
    ]  # fmt: skip
    return _dump({**_run(run), **_sums(result), "rules": rules})


def _sums(result: RunResult) -> dict[str, Any]:
    return {
        "result": str(result.result),
        "results": {str(each): number for each, number in result.counts.items()},
        "found": result.found,
        "written": result.written,
        "left": result.left,
    }


def run_state_report(run: Run) -> str:
    """One run in its present state, after somebody has asked it to pause or to end."""
    return _dump(_run(run))


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
    return _dump(
        {
            "rule": explained.rule,
            "database": explained.using,
            "sentence": explained.sentence,
            "reason": explained.reason,
            "guarantee": explained.guarantee,
            "remarks": list(explained.remarks),
            "in_vain": explained.in_vain or None,
            "lift": _lift(explained.lift) if explained.lift else None,
            "settle": {"column": settle.column, "seconds": settle.age.total_seconds()} if settle else None,
            "drifts": [_part(part) for part in explained.parts],
        }
    )


def order_report(order: Order) -> str:
    """The object that the documentation gives for `rules graph --format json`."""
    rules = [
        {
            "rule": rule.name,
            "after": [
                {"rule": before, "columns": [f"{model._meta.label}.{column}" for model, column in columns]}
                for before, columns in order.before(rule.name)
            ],
        }
        for rule in order.rules
    ]
    return _dump({"rules": rules, "circles": [list(each) for each in order.circles]})


def listing(rule: Rule, listed: Sequence[Listing], *, using: str) -> str:
    """The object that the documentation gives for `explain --sql --format json`."""
    statements = [
        {"drift": str(each.drift), "model": each.model, "sql": each.sql, "remarks": list(each.remarks)}
        for each in listed
    ]
    return _dump({"rule": rule.name, "database": using, "sentence": rule.sentence, "statements": statements})


def _lift(lift: ConstraintAdvice) -> dict[str, Any]:
    return {
        "model": lift.model or None,
        "fields": list(lift.fields),
        "django": lift.django or None,
        "why_not": lift.refusal and lift.refusal.reason,
        "foreign": lift.foreign,
    }


def _part(part: Part) -> dict[str, Any]:
    return {
        "drift": str(part.drift),
        "remedy": part.remedy,
        "windows": part.windows,
        "python": part.needs_python,
        "sql": part.sql,
        "plan": part.plan or None,
        "unindexed": [asdict(missing) for missing in part.unindexed],
        "advice": part.advice or None,
    }


def inspection(inspected: Inspection) -> str:
    """The object that the documentation gives for `explain --key --format json`."""
    return _dump(
        {
            "rule": inspected.rule,
            "database": inspected.using,
            "key": inspected.key,
            "sentence": inspected.sentence,
            "guarantee": inspected.guarantee,
            "found": [_subject(subject) for subject in inspected.subjects],
        }
    )


def _subject(subject: Subject) -> dict[str, Any]:
    until = subject.young_until
    return {
        **_row(subject.row),
        "named_by_every": subject.named_by_every,
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
                "refusal": verdict.refusal or None,
                "owed": [_row(each) for each in verdict.owed],
            }
            for verdict in subject.verdicts
        ],
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "model": row.model,
        "key": None if row.key is None else str(row.key),
        "columns": [_cell(cell) for cell in row.cells],
    }


def _cell(cell: Cell) -> dict[str, Any]:
    """One column of a row. `there` and `owed` are left out if the cell doesn't state them."""
    values: dict[str, Any] = {"column": cell.column}
    if cell.there is not NOT_STATED:
        values["there"] = _json_value(cell.there)
    if isinstance(cell.owed, MadeInPython):
        values["made_in_python"] = True
    elif cell.owed is not NOT_STATED:
        values["owed"] = _json_value(cell.owed)
    return values


def _json_value(value: Any) -> Any:
    """The value as JSON writes it. A value that JSON has no type for becomes text; a decimal is one of these."""
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and isfinite(value)):
        return value
    if isinstance(value, date | time):
        return value.isoformat()
    return bytes(value).hex() if isinstance(value, bytes | memoryview) else str(value)


def _dump(report: dict[str, Any]) -> str:
    return json.dumps({"version": VERSION, **report}, indent=2, ensure_ascii=False)
