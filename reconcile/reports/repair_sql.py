"""A plan as SQL: what a repair would execute, for somebody who answers for the database to read before anybody repairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from django.db import connections

from reconcile.conf import chunk_limit
from reconcile.core.drift import Bound
from reconcile.core.verbs import VERBS
from reconcile.repair.pacing import LEAST
from reconcile.reports.facts import plural
from reconcile.reports.findings import RepairReport, prose
from reconcile.rules.rule import Rule

if TYPE_CHECKING:
    from reconcile.repair.spelling import SpelledChunk, SpelledStep
    from reconcile.runs import RuleRepair

__all__ = ["repair_sql"]

Chunks = Mapping[str, "Sequence[SpelledChunk]"]


def repair_sql(report: RepairReport, rules: Mapping[str, Rule], chunks: Chunks, *, at: datetime) -> str:
    """The plan of `report` as SQL with comments: for each rule, by its name, its `chunks`. `at` is when it was made."""
    return "\n".join(_lines(report, rules, chunks, at))


def _lines(report: RepairReport, rules: Mapping[str, Rule], chunks: Chunks, at: datetime) -> Iterator[str]:
    vendor = connections[report.database].display_name
    yield f"-- What a repair would execute on the database {report.database!r} ({vendor}), by what stood in it at {at.isoformat(' ', 'seconds')}."
    yield "-- Nothing of it has been executed, but what reads."
    yield "--"
    yield f"-- A repair works in chunks of {LEAST:,} to {chunk_limit():,} records, as fast as the database allows, each in a transaction of its own. Here is"
    yield "-- the chunk of the first records of each kind of drift; the others differ in their keys. In the same transaction each chunk writes the"
    yield "-- images of the rows before and after into its journal, and its place in the run, in the tables reconcile_*; and where ROLLBACK stands"
    yield "-- here, it commits. What is pasted has no journal, and can't be undone."
    idle = []
    for repair in report.repairs:
        if repair.error or repair.planned_records.total:
            yield from _rule(repair, rules[repair.rule], chunks.get(repair.rule, ()))
        else:
            idle.append(prose(repair.rule))
    if idle:
        yield f"\n-- Nothing to repair: {', '.join(idle)}."


def _rule(repair: RuleRepair, rule: Rule, chunks: Sequence[SpelledChunk]) -> Iterator[str]:
    yield f"\n\n-- {prose(repair.rule)}: {prose(rule.sentence)}"
    if repair.error:
        yield f"-- It could not be evaluated, so nothing is repaired: {prose(repair.error)}"
        return
    yield f"-- {_planned(repair)}."
    if repair.why_stopped:
        yield f"-- But it would stop before its first write: {prose(repair.why_stopped)}"
        return
    if repair.warning:
        yield f"-- {prose(repair.warning)}"
    if repair.unconfirmed:
        yield f"-- Of the deletes {repair.unconfirmed:,} would only be noted: the next run that finds them as well deletes them."
    for chunk in chunks:
        yield from _chunk(repair, chunk)


def _planned(repair: RuleRepair) -> str:
    least = "At least: " if repair.bound is Bound.AT_LEAST else ""
    counts = [
        f"{verb.act} {plural(repair.planned[name], 'row')}"
        for name, verb in VERBS.items()
        if repair.planned[name]
    ]
    return f"{least}{', '.join(counts)}".capitalize() if counts else "Nothing of what drifts can be written"


def _chunk(repair: RuleRepair, chunk: SpelledChunk) -> Iterator[str]:
    number = repair.found[chunk.drift]
    yield f"\n-- {chunk.drift}: {chunk.remedy} for {chunk.records:,} of {plural(number, 'record')} of {chunk.model}"
    for remark in chunk.remarks:
        yield f"-- {remark}"
    if not chunk.steps:
        yield "-- No record can be the first: those that drift are in circles, or computed from records of one."
        return
    for step in chunk.steps:
        yield from _step(step)
    yield "ROLLBACK;"


def _step(step: SpelledStep) -> Iterator[str]:
    if step.words:
        yield f"-- {prose(step.words)}"
    if step.sql is not None:
        yield f"{step.sql};"
