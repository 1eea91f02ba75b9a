"""Checking: count the drift of a rule and collect samples, window by window. Reads only.

Counts are never capped; samples are. An error makes the rule an error, never a pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

import structlog
from django.db import DatabaseError, Error, connections
from django.db.models import Count, Q

from reconcile.conf import lock_wait
from reconcile.core.drift import EXTRA, MISSING, STALE, Bound, Drift, Guarantee, Sample, Status, Tally
from reconcile.core.finder import Finder, Look, Source, Unwritable
from reconcile.core.scopes import EVERYTHING, Coverage, Keys, Scope, Window, blocks, walk
from reconcile.core.verbs import Written
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import driver_connection, has_pending_migrations, settings_of
from reconcile.detect.examining import Examination, examine
from reconcile.detect.unevaluable import Unevaluable, concerns_values
from reconcile.errors import EvaluationError, ReconcileError, first_line, with_type
from reconcile.rules.rule import Rule

__all__ = ["KeptKeys", "RuleCheck", "check", "evaluation_errors", "finder_windows"]

log = structlog.get_logger()


@dataclass(frozen=True)
class KeptKeys:
    """Drifted keys of a check, in key order, which a repair need not find again.

    These are all drifted keys up to `upto`. There may be more beyond it, unless `complete`. unevaluable: records that the database
    can't evaluate, each with its message.
    """

    keys: tuple[Any, ...] = ()
    upto: Any = None
    complete: bool = False
    unevaluable: Mapping[Any, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RuleCheck:
    """What a check found for one rule. If the rule could not be evaluated, `error` is set and nothing is counted.

    planned: rows that the rule's remedies would write, by verb; `bound` says whether just these, or more. planned_records: the drifted
    records by the verb of their remedy. guarantee: None if the rule could not be evaluated. remarks: sentences
    about the database that a person should know, such as a constraint that it lacks. coverage: how much of the rule was looked at: what
    a partial look has not found may drift all the same. refused: what a repair may not do, by statement (`insert`, `update`,
    `delete`), with the reason. notes: those of the remarks that are about the drifted records. unrepairable: drifted records whose
    values can't be stored, among those that were counted.
    """

    rule: Rule
    status: Status
    tally: Tally = field(default_factory=Tally)
    samples: tuple[Sample, ...] = ()
    kept: Mapping[Drift, KeptKeys] = field(default_factory=dict)
    planned: Written = field(default_factory=Written)
    planned_records: Written = field(default_factory=Written)
    bound: Bound = Bound.EXACT
    seconds: float = 0
    guarantee: Guarantee | None = None
    remarks: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unrepairable: int = 0
    coverage: Coverage = Coverage.FULL
    error: str | None = None


def check(
    rule: Rule,
    *,
    using: str,
    now: datetime,
    samples: int = 5,
    keep: int = 0,
    known: Tally | None = None,
    only: Keys | None = None,
    beat: Callable[[], None] = lambda: None,
) -> RuleCheck:
    """Count the drift of a rule on the database `using`, and collect up to `samples` keys of each kind of drift.

    only: the records of these keys alone, and what belongs to them; None for all.

    keep: drifted keys of each kind to keep for a repair. known: an earlier tally, so that the records are not counted
    again. beat: called before each window.

    One statement for the records, two for the range of keys, then one in each window for each kind of drift (surplus rows:
    two), and one more for its samples. A rule with one kind of drift and no windows takes one statement for records and
    drift. Locks and writes nothing. Never raises for an error of the database or the rule: the status is ERROR then.
    """
    started = time.monotonic()
    try:
        with (
            evaluation_errors(using),
            dialect_of(using).protect_transaction(),
            dialect_of(using).limit_lock_waits(lock_wait(), partial(_say_that_it_waits, rule, using)),
            examine(rule, using=using, now=now) as examined,
        ):
            reasons: dict[Any, str] = {}
            counts = [
                _DriftCount(
                    Unevaluable(
                        finder=finder, model=rule.model, reasons={} if finder.own_key_range else reasons
                    ),
                    samples,
                    keep if rule.remedy(finder.drift).repairs else 0,
                )
                for finder in examined.compiled.finders
            ]
            source = examined.compiled.source
            if only is None:
                tally = _count_drift(source, counts, known, beat, whole=not keep)
            else:
                tally = _look_at(source, counts, only, beat)
            found = _found(examined, counts, tally, EVERYTHING if only is None else only, keep=bool(keep))
            if only is not None:
                found = replace(
                    found,
                    coverage=only.coverage,
                    remarks=(*found.remarks, *_partly(source, counts, only, tally)),
                )
    except EvaluationError as error:
        seconds = time.monotonic() - started
        log.error("rule_failed", rule=rule.name, database=using, error=str(error), exc_info=error.__cause__)
        coverage = Coverage.FULL if only is None else only.coverage
        return RuleCheck(rule=rule, status=Status.ERROR, seconds=seconds, coverage=coverage, error=str(error))
    result = replace(found, seconds=time.monotonic() - started)
    tally = result.tally
    log.info(
        "rule_checked", rule=rule.name, database=using, status=str(result.status), checked=tally.checked,
        missing=tally[MISSING], stale=tally[STALE], extra=tally[EXTRA],
        settling=tally.settling, seconds=round(result.seconds, 3),
    )  # fmt: skip
    return result


def _say_that_it_waits(rule: Rule, using: str) -> None:
    log.warning("check_waits_for_lock", rule=rule.name, database=using, at_most_seconds=lock_wait())


def _plan(rule: Rule, counted: _DriftCount, scope: Scope) -> tuple[Written, Written, Bound]:
    """What was counted in the scope, by the verb of its remedy, and the rows that the remedy would write for it.

    Of records that are computed from each other those alone are sure whose sources don't drift. A record that can't be evaluated
    may be among any of them.
    """
    finder, remedy = counted.finder, rule.remedy(counted.finder.drift)
    records = remedy.plan(finder, counted.number, scope)
    number, bounds = max(counted.number - counted.unrepairable, 0), {finder.bound, remedy.bound}
    if not number or not remedy.repairs or remedy.calls:
        bounds = {Bound.EXACT}
    elif finder.levels is not None:
        number, bounds = 0 if counted.failed else finder.levels.ready(scope).count(), {Bound.AT_LEAST}
    elif finder.count_to_write is not None and not counted.failed:
        number = finder.count_to_write(scope)
    rows = records if number == counted.number else remedy.plan(finder, number, scope)
    return records, rows, Bound.of_all(bounds)


def _note_on_levels(counted: _DriftCount, records: Written, rows: Written) -> str:
    """What is said of drifted records that have to wait for others; empty if none has."""
    waiting = records.total - rows.total
    if counted.finder.levels is None or waiting <= 0:
        return ""
    if not rows.total:
        return (
            f"None of the {waiting:,} can be repaired: they are computed from each other in a circle, or from records of one. "
            "Break the circle; a repair names it."
        )
    return f"{waiting:,} of these records are computed from others that drift: they come after them, or stay as they are in a circle."


def _found(
    examined: Examination, counts: Sequence[_DriftCount], tally: Tally, scope: Scope, *, keep: bool
) -> RuleCheck:
    """What the walk has counted in the scope. One statement more for each remedy that has to look what it would write."""
    rule = examined.compiled.rule
    tally = replace(tally, drifted={each.finder.drift: each.number for each in counts})
    plans = [_plan(rule, each, scope) for each in counts]
    on_levels = (
        _note_on_levels(each, records, rows) for each, (records, rows, _) in zip(counts, plans, strict=True)
    )
    notes = tuple(filter(None, (*(each.note for each in counts), *on_levels)))
    return RuleCheck(
        rule=rule,
        status=rule.status(tally),
        tally=tally,
        samples=tuple(Sample(each.finder.drift, str(key)) for each in counts for key in each.sample_keys),
        kept={
            each.finder.drift: KeptKeys(tuple(each.kept), each.upto, not each.full, unevaluable=each.failed)
            for each in counts
            if keep and each.keep
        },
        planned=sum((rows for _, rows, _ in plans), Written()),
        planned_records=sum((records for records, _, _ in plans), Written()),
        bound=Bound.of_all(bound for _, _, bound in plans),
        guarantee=examined.guarantee,
        remarks=(*examined.remarks, *notes),
        notes=notes,
        unrepairable=sum(each.unrepairable for each in counts),
        refused=examined.refused,
    )


class evaluation_errors:  # noqa: N801 - reads as a clause: with evaluation_errors(using)
    """Raise an error of the database or of a rule, inside the block, as an EvaluationError with the way out."""

    def __init__(self, using: str) -> None:
        self.using = using

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, ReconcileError):
            return
        raise EvaluationError(_describe_error(error, self.using)) from error


def _describe_error(error: Exception, using: str) -> str:
    message = first_line(error) or type(error).__name__
    if not isinstance(error, Error):
        return with_type(error)
    if described := _describe_by_dialect(error, using):
        return described
    if dialect_of(using).lacks_table(error):
        return f"Database {using!r} lacks a table or column ({message}). {_way_to_have_it(using)}"
    if not isinstance(error, DatabaseError) or driver_connection(connections[using]) is None:
        settings = settings_of(connections[using])
        place = settings["HOST"] or settings["NAME"]
        return f"Database {using!r} at {place} can't be reached ({message}). Is the server up, and are its settings right?"
    return with_type(error)


def _way_to_have_it(using: str) -> str:
    """What helps where a table or a column isn't there: migrations, unless all of them are applied already."""
    try:
        pending = has_pending_migrations(connections[using])
    except Error:
        pending = True
    if pending:
        return f"Run `manage.py migrate --database {using}`."
    return (
        f"`manage.py migrate --database {using}` would change nothing: it was dropped or renamed since, or no migration makes it. "
        "Put it back, or take it out of the model."
    )


def _describe_by_dialect(error: Error, using: str) -> str:
    try:
        return dialect_of(using).describe(error)
    except Error:
        return ""


@dataclass
class _DriftCount:
    """What the walk has counted and kept so far of one kind of drift."""

    unevaluable: Unevaluable
    samples: int
    keep: int
    number: int = 0
    sample_keys: list[Any] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)
    upto: Any = None
    full: bool = False
    unwritable: Unwritable = field(default_factory=Unwritable)
    starts: int = 0
    failed: dict[Any, str] = field(default_factory=dict)

    @property
    def finder(self) -> Finder:
        return self.unevaluable.finder

    def look_around(self, window: Scope, read: Callable[[Callable[[], None]], None]) -> None:
        """Count the drift in the window, or of the keys, by `read`. A record that can't be evaluated counts as drifted: nobody knows that it is right."""
        known = {*self.unevaluable.reasons}
        self.unevaluable.read_around(window, lambda part: read(partial(self.look, part)))
        new = {key: why for key, why in self.unevaluable.reasons.items() if key not in known}
        self.failed |= new
        self._add(Look(len(new), [*new][: self._room_for_samples]))

    def look(self, window: Scope) -> None:
        """Count the drift in the window, or of the keys, and keep its keys while all of them fit. Nothing is counted if a statement fails."""
        room = self.keep - len(self.kept) if self.keep and not self.full else None
        look = self.finder.look(window, samples=self._room_for_samples, keep=room)
        self.full = self.full or (room is not None and look.keys is None)
        if look.keys is not None:
            self.kept += look.keys
            self.upto = window.upto if isinstance(window, Window) else None
        self._add(look)

    @property
    def _room_for_samples(self) -> int:
        return max(self.samples - len(self.sample_keys), 0)

    def _add(self, look: Look) -> None:
        """Add what one window holds, once all of its statements have answered."""
        self.number += look.number
        self.unwritable += look.unwritable
        self.starts += look.starts
        self.sample_keys += look.samples

    @property
    def unrepairable(self) -> int:
        """Of the drifted rows those whose values no repair can write."""
        return self.unwritable.number + len(self.failed)

    @property
    def note(self) -> str:
        """What is to be known of the rows: that no repair can write them, or where their discrepancy starts. Empty if nothing is."""
        return " ".join(filter(None, (self._note_of_unevaluable, self._note_of_values)))

    @property
    def _note_of_unevaluable(self) -> str:
        if not self.failed:
            return ""
        key, why = next(iter(self.failed.items()))
        first = f"The first, {key}" if len(self.failed) > 1 else f"{key}"
        return f"{len(self.failed):,} of the {self.finder.drift} records can't be evaluated, nor repaired. {first}: {why}."

    @property
    def _note_of_values(self) -> str:
        if self.unwritable.number:
            return self.unwritable.in_words(self.finder.drift)
        if self.starts and self.starts < self.number:
            return f"The discrepancy starts at {self.starts:,} of the {self.number:,} {self.finder.drift} records."
        return ""

    def tally(self) -> Tally | None:
        """Count all records and their drift in one statement; None if the finder can't."""
        if (counted := self.finder.tally(self.samples)) is None:
            return None
        tally, look = counted
        self._add(look)
        return tally


def _count_drift(
    source: Source, counts: list[_DriftCount], known: Tally | None, beat: Callable[[], None], *, whole: bool
) -> Tally:
    """Count the records and their drift; in one statement if the only finder can and no keys are kept."""
    if len(counts) == 1 and known is None and whole and (tally := _tally(counts[0])) is not None:
        return tally
    counted = known or _count_records(source)
    _walk(source, counts, counted, beat)
    return counted


def _look_at(source: Source, counts: list[_DriftCount], only: Keys, beat: Callable[[], None]) -> Tally:
    """Count the records of these keys and the drift of what belongs to them."""
    for each in counts:
        if _tells_records(each.finder, source):
            for scope in each.finder.scopes_of(only.values):
                beat()
                each.look_around(scope, lambda read: read())
    tallies = [_count_records(source, Keys(block)) for block in blocks(only.values)]
    return Tally(sum(each.checked for each in tallies), sum(each.settling for each in tallies))


def _tells_records(finder: Finder, source: Source) -> bool:
    """Whether the rows that the finder finds are records, or tell to which records they belong."""
    return finder.near is not None or finder.model is source.model


def _partly(source: Source, counts: Sequence[_DriftCount], only: Keys, tally: Tally) -> Iterator[str]:
    """What is to be said of a look at some records alone."""
    number, judged = len(only.values), tally.checked + tally.settling
    records = "1 record was" if number == 1 else f"{number:,} records were"
    yield f"Only {records} looked at, by keys; nothing is known of the others."
    if judged < number:
        yield f"{number - judged:,} of these records {'is' if number - judged == 1 else 'are'} none that every= names, or gone."
    for each in counts:
        label = each.finder.model._meta.label
        if not each.finder.near_is_all:
            yield f"Rows of {label} that one of them owed before and owes no more were not looked for: no column of theirs holds its key."
        if not _tells_records(each.finder, source):
            yield f"{each.finder.drift.capitalize()} rows of {label} were not looked at: they don't tell to which record they belong."


def _tally(count: _DriftCount) -> Tally | None:
    """The records and their drift by one statement; None if there is none, or the values of single records make it fail."""
    using = count.finder.using
    try:
        with dialect_of(using).protect_transaction():
            return count.tally()
    except Error as error:
        if not concerns_values(error, using):
            raise
        return None


def _walk(source: Source, counts: list[_DriftCount], counted: Tally, beat: Callable[[], None]) -> None:
    for each in counts:
        if not each.finder.in_windows:
            beat()
            each.look_around(EVERYTHING, lambda read: read())
    in_windows = [each for each in counts if each.finder.in_windows]
    if not in_windows:
        return
    size = next((each.finder.window for each in in_windows if len(in_windows) == 1), None)
    with dialect_of(source.using).guard_plans() as guarded:
        for window, last in _windows(source, counted.checked + counted.settling, size):
            beat()
            for each in in_windows:
                each.look_around(_open_ended(each.finder, window, last=last), guarded)


def _count_records(source: Source, scope: Scope = EVERYTHING) -> Tally:
    """Count the records that are old enough to be checked, and those that are not. One statement."""
    every = source.records_of_any_age(scope)
    if not source.settled:
        return Tally(checked=every.count())
    counted = every.aggregate(_all=Count("pk"), _due=Count("pk", filter=Q(source.settled)))
    return Tally(checked=counted["_due"], settling=counted["_all"] - counted["_due"])


def finder_windows(finder: Finder, source: Source, records: int, *, after: Any = None) -> Iterator[Window]:
    """Yield the windows of a finder whose rows carry the scope, from the record `after` on."""
    for window, last in _windows(source, records, finder.window, after=after):
        yield _open_ended(finder, window, last=last)


def _open_ended(finder: Finder, window: Window, *, last: bool) -> Window:
    """The last window of EXTRA has no upper end: rows that no record owes may lie beyond the largest key of the records."""
    return Window(window.after, None) if last and finder.drift is EXTRA else window


def _windows(
    source: Source, records: int, size: int | None, *, after: Any = None
) -> Iterator[tuple[Window, bool]]:
    """Yield each window of the walk, and whether it is the last."""
    before = None
    for window in walk(source.model, using=source.using, records=records, size=size, after=after):
        if before is not None:
            yield before, False
        before = window
    yield before or Window(after), True
