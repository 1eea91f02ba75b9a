"""The act of checking: a compiled rule becomes counts and samples. Reads only, in windows.

Counts are never capped; samples are. What goes wrong is an error of the rule, never a pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog
from django.db import DatabaseError, Error, connections
from django.db.models import Count, Q

from reconcile.drift import Drift, Sample, Status, Tally
from reconcile.errors import EvaluationError, ReconcileError
from reconcile.finders import Finder, Source
from reconcile.rules import CompiledRule, Rule
from reconcile.windows import EVERYTHING, Window, walk

__all__ = ["RuleCheck", "check", "evaluated"]

log = structlog.get_logger()

Progress = Callable[[int], None]
"""Told how many records a window has brought."""


@dataclass(frozen=True, kw_only=True)
class RuleCheck:
    """What a check found for one rule. `error` is set, and nothing counted, where it could not be evaluated."""

    rule: Rule
    status: Status
    tally: Tally = field(default_factory=Tally)
    samples: tuple[Sample, ...] = ()
    seconds: float = 0
    guarantee: str = ""
    error: str | None = None


def check(
    rule: Rule, *, using: str, now: datetime, samples: int = 5, progress: Progress | None = None
) -> RuleCheck:
    """Count a rule's drift on the database `using`, and collect up to `samples` keys of each kind of drift.

    One statement for the records, two for the range of keys, then one a window for each kind of drift
    (surplus rows: two), and one more for its samples. Nothing is locked or written. Never raises for what
    the database or the rule does: the result then has status ERROR.
    """
    started = time.monotonic()
    try:
        with evaluated(using):
            compiled = rule.compile(using=using, now=now)
            tally, found = _count(compiled, samples, progress or (lambda _: None))
    except EvaluationError as error:
        seconds = time.monotonic() - started
        log.error("rule_failed", rule=rule.name, database=using, error=str(error))
        return RuleCheck(rule=rule, status=Status.ERROR, seconds=seconds, error=str(error))
    result = RuleCheck(
        rule=rule,
        status=rule.status(tally),
        tally=tally,
        samples=found,
        seconds=time.monotonic() - started,
        guarantee=rule.guarantee(using),
    )
    log.info(
        "rule_checked", rule=rule.name, database=using, status=str(result.status), checked=tally.checked,
        missing=tally[Drift.MISSING], stale=tally[Drift.STALE], extra=tally[Drift.EXTRA],
        settling=tally.settling, seconds=round(result.seconds, 3),
    )  # fmt: skip
    return result


class evaluated:  # noqa: N801 - reads as a clause: with evaluated(using)
    """Turn what the database or a rule raises inside the block into an EvaluationError that says what to do."""

    def __init__(self, using: str) -> None:
        self.using = using

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, Exception) or isinstance(error, ReconcileError):
            return
        raise EvaluationError(_explained(error, self.using)) from error


def _explained(error: Exception, using: str) -> str:
    said = str(error).strip().split("\n")[0] or type(error).__name__
    if not isinstance(error, Error):
        return f"{type(error).__name__}: {said}"
    if _is_missing_table(error):
        return f"Database {using!r} lacks a table or column ({said}). Run `manage.py migrate --database {using}`."
    if not isinstance(error, DatabaseError) or connections[using].connection is None:
        settings = connections[using].settings_dict
        place = settings["HOST"] or settings["NAME"]
        return f"Database {using!r} at {place} can't be reached ({said}). Is the server up, and are its settings right?"
    return f"{type(error).__name__}: {said}"


def _is_missing_table(error: Error) -> bool:
    cause = error.__cause__
    if getattr(cause, "sqlstate", None) in {"42P01", "42703"}:
        return True
    if error.args and error.args[0] in {1146, 1054}:
        return True
    return "no such table" in str(error) or "no such column" in str(error)


def _count(compiled: CompiledRule, samples: int, progress: Progress) -> tuple[Tally, tuple[Sample, ...]]:
    source = compiled.source
    checked, settling = _records(source)
    drifted = dict.fromkeys((finder.drift for finder in compiled.finders), 0)
    found: dict[Drift, list[Sample]] = {drift: [] for drift in drifted}
    windows = [finder for finder in compiled.finders if finder.carried]
    for finder in compiled.finders:
        if not finder.carried:
            _look(finder, EVERYTHING, drifted, found, samples)
    if windows:
        for window, last in _windows(source, checked + settling):
            for finder in windows:
                scope = Window(window.after, None) if last and finder.drift is Drift.EXTRA else window
                _look(finder, scope, drifted, found, samples)
            progress(window.upto if isinstance(window.upto, int) else 0)
    listed = tuple(sample for each in found.values() for sample in each)
    return Tally(checked=checked, settling=settling, drifted=drifted), listed


def _records(source: Source) -> tuple[int, int]:
    """How many records are old enough to be judged, and how many aren't yet. One statement."""
    every = source.owing(EVERYTHING)
    if not source.settled:
        return every.count(), 0
    counted = every.aggregate(_all=Count("pk"), _due=Count("pk", filter=Q(source.settled)))
    return counted["_due"], counted["_all"] - counted["_due"]


def _windows(source: Source, records: int) -> list[tuple[Window, bool]]:
    """The walk, each window with whether it is the last.

    Rows that nothing owes may lie beyond the records' largest key, and are there even where no record is.
    """
    windows = list(walk(source.model, using=source.using, records=records)) or [EVERYTHING]
    return [(window, window is windows[-1]) for window in windows]


def _look(
    finder: Finder, scope: Window, drifted: dict[Drift, int], found: dict[Drift, list[Sample]], samples: int
) -> None:
    number = finder.count(scope)
    drifted[finder.drift] += number
    wanted = samples - len(found[finder.drift])
    if number and wanted > 0:
        found[finder.drift] += [Sample(finder.drift, str(key)) for key in finder.keys(scope)[:wanted]]
