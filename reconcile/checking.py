"""The act of checking: a compiled rule becomes counts and samples. Reads only, in windows.

Counts are never capped; samples are. What goes wrong is an error of the rule, never a pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import structlog
from django.db import DatabaseError, Error, connections
from django.db.models import Count, Q

from reconcile.drift import EXTRA, MISSING, STALE, Drift, Sample, Status, Tally, Written
from reconcile.errors import EvaluationError, ReconcileError
from reconcile.finders import Finder, Source
from reconcile.rules import Rule
from reconcile.windows import EVERYTHING, Window, walk

__all__ = ["Kept", "RuleCheck", "check", "evaluated", "in_windows"]

log = structlog.get_logger()


@dataclass(frozen=True)
class Kept:
    """Drifted keys that a check has kept, in key order, so that a repair need not look for them again.

    They are all up to `upto`; beyond it, unless `complete`, there may be more.
    """

    keys: tuple[Any, ...] = ()
    upto: Any = None
    complete: bool = False


@dataclass(frozen=True, kw_only=True)
class RuleCheck:
    """What a check found for one rule. `error` is set, and nothing counted, where it could not be evaluated.

    planned: what the rule's remedies would write for it.
    """

    rule: Rule
    status: Status
    tally: Tally = field(default_factory=Tally)
    samples: tuple[Sample, ...] = ()
    kept: Mapping[Drift, Kept] = field(default_factory=dict)
    planned: Written = field(default_factory=Written)
    seconds: float = 0
    guarantee: str = ""
    error: str | None = None


def check(
    rule: Rule,
    *,
    using: str,
    now: datetime,
    samples: int = 5,
    keep: int = 0,
    known: Tally | None = None,
    beat: Callable[[], None] = lambda: None,
) -> RuleCheck:
    """Count a rule's drift on the database `using`, and collect up to `samples` keys of each kind of drift.

    `keep` is how many drifted keys of each kind to keep for a repair; with `known`, an earlier tally, the records
    themselves are not counted again. `beat` is called before each window.

    One statement for the records, two for the range of keys, then one a window for each kind of drift
    (surplus rows: two), and one more for its samples. Without windows, one for records and drift together where
    the rule has one kind of drift. Nothing is locked or written. Never raises for what
    the database or the rule does: the result then has status ERROR.
    """
    started = time.monotonic()
    try:
        with evaluated(using):
            compiled = rule.compile(using=using, now=now)
            sightings = [
                _Sighting(finder, samples, keep if rule.remedy(finder.drift).verb else 0)
                for finder in compiled.finders
            ]
            counted = _looked(compiled.source, sightings, known, beat, whole=not keep)
            planned = sum(
                (rule.remedy(each.finder.drift).planned(each.finder, each.number) for each in sightings),
                Written(),
            )
    except EvaluationError as error:
        seconds = time.monotonic() - started
        log.error("rule_failed", rule=rule.name, database=using, error=str(error), exc_info=error.__cause__)
        return RuleCheck(rule=rule, status=Status.ERROR, seconds=seconds, error=str(error))
    tally = replace(counted, drifted={each.finder.drift: each.number for each in sightings})
    result = RuleCheck(
        rule=rule,
        status=rule.status(tally),
        tally=tally,
        samples=tuple(Sample(each.finder.drift, str(key)) for each in sightings for key in each.sampled),
        kept={
            each.finder.drift: Kept(tuple(each.kept), each.upto, not each.full) for each in sightings if keep
        },
        planned=planned,
        seconds=time.monotonic() - started,
        guarantee=rule.guarantee(using),
    )
    log.info(
        "rule_checked", rule=rule.name, database=using, status=str(result.status), checked=tally.checked,
        missing=tally[MISSING], stale=tally[STALE], extra=tally[EXTRA],
        settling=tally.settling, seconds=round(result.seconds, 3),
    )  # fmt: skip
    return result


class evaluated:  # noqa: N801 - reads as a clause: with evaluated(using)
    """Turn what the database or a rule raises inside the block into an EvaluationError that says what to do."""

    def __init__(self, using: str) -> None:
        self.using = using

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
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


@dataclass
class _Sighting:
    """What the walk has seen so far of one kind of drift."""

    finder: Finder
    samples: int
    keep: int
    number: int = 0
    sampled: list[Any] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)
    upto: Any = None
    full: bool = False

    def look(self, window: Window) -> None:
        """Count the drift in the window; keep its keys while there is room for all of them."""
        if self.keep and not self.full and self._keep(window):
            return
        number, keys = self.finder.look(window, max(self.samples - len(self.sampled), 0))
        self.number += number
        self.sampled += keys

    def sample(self, number: int) -> None:
        """Take the drift as counted already; only look for samples of it."""
        self.number = number
        self.sampled = (
            list(self.finder.keys(EVERYTHING, limit=self.samples)) if number and self.samples else []
        )

    def _keep(self, window: Window) -> bool:
        room = self.keep - len(self.kept)
        keys = self.finder.keys(window, limit=room + 1)
        self.full = len(keys) > room
        if self.full:
            return False
        self.number += len(keys)
        self.sampled += keys[: self.samples - len(self.sampled)]
        self.kept += keys
        self.upto = window.upto
        return True


def _looked(
    source: Source, sightings: list[_Sighting], known: Tally | None, beat: Callable[[], None], *, whole: bool
) -> Tally:
    """Count the records and their drift: in one statement, where the one finder can and no keys are to be kept."""
    tallied = sightings[0].finder.tallied if len(sightings) == 1 and known is None and whole else None
    if tallied is None:
        counted = known or _records(source)
        _walk(source, sightings, counted, beat)
        return counted
    counted = tallied()
    sightings[0].sample(counted[sightings[0].finder.drift])
    return counted


def _walk(source: Source, sightings: list[_Sighting], counted: Tally, beat: Callable[[], None]) -> None:
    for each in sightings:
        if not each.finder.carried:
            beat()
            each.look(EVERYTHING)
    carried = [each for each in sightings if each.finder.carried]
    if not carried:
        return
    size = next((each.finder.window for each in carried if len(carried) == 1), None)
    for window, last in _windows(source, counted.checked + counted.settling, size):
        beat()
        for each in carried:
            each.look(_reaching(each.finder, window, last=last))


def _records(source: Source) -> Tally:
    """How many records are old enough to be judged, and how many aren't yet. One statement."""
    every = source.owing(EVERYTHING)
    if not source.settled:
        return Tally(checked=every.count())
    counted = every.aggregate(_all=Count("pk"), _due=Count("pk", filter=Q(source.settled)))
    return Tally(checked=counted["_due"], settling=counted["_all"] - counted["_due"])


def in_windows(finder: Finder, source: Source, records: int, *, after: Any = None) -> Iterator[Window]:
    """The windows in which a finder to whose rows the scope is carried looks, from the record `after` on."""
    for window, last in _windows(source, records, finder.window, after=after):
        yield _reaching(finder, window, last=last)


def _reaching(finder: Finder, window: Window, *, last: bool) -> Window:
    """Rows that nothing owes may lie beyond the records' largest key, and are there even where no record is."""
    return Window(window.after, None) if last and finder.drift is EXTRA else window


def _windows(
    source: Source, records: int, size: int | None, *, after: Any = None
) -> Iterator[tuple[Window, bool]]:
    """The walk, each window with whether it is the last."""
    before = None
    for window in walk(source.model, using=source.using, records=records, size=size, after=after):
        if before is not None:
            yield before, False
        before = window
    yield before or Window(after), True
