"""The run that undoes another run, in reverse order, and the journal as it reads it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from django.db import transaction
from django.db.models import Count, Max

from reconcile.conf import throttles
from reconcile.core.drift import Status
from reconcile.core.finder import Rows
from reconcile.core.verbs import UNDOABLE, VERBS, Written
from reconcile.core.wording.names import plural
from reconcile.db.clock import database_now
from reconcile.db.dialects import dialect_of
from reconcile.detect.checking import evaluation_errors
from reconcile.errors import GivenUpError, UsageError
from reconcile.models import Change, Outcome, Run, WorkItem, transition
from reconcile.repair.attempt import LeasedItem
from reconcile.repair.chunk import BEAT, ChunkExecutor
from reconcile.repair.confirmation import forget_findings
from reconcile.repair.pacing import Pace
from reconcile.repair.quarantine import Quarantine
from reconcile.repair.walking import work_through
from reconcile.runs.leases import LEASE, acquire_lease, check_lease
from reconcile.runs.results import Progress, RuleRepair, moved_in_words, results_of, written_by_outcome
from reconcile.runs.steering import RunControl, end_run, has_live_worker
from reconcile.states import OutcomeState
from reconcile.undo.changes import read_changes
from reconcile.undo.taking_back import UndoWork

__all__ = [
    "LISTED",
    "Conflict",
    "RuleUndo",
    "RunJournal",
    "Stretch",
    "advance_undo",
    "count_changes",
    "outside_effects",
    "planned_writes",
    "stretches",
    "undo",
    "undo_results",
    "undoable",
]

log = structlog.get_logger()

LISTED = 100
"""Conflicts of one rule that are kept with their reasons."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A change that can't be taken back: its row, as `shop.Invoice 12`, and the reason."""

    key: str
    why: str


@dataclass(frozen=True, kw_only=True)
class RuleUndo:
    """One rule's part in an undo.

    planned: rows to write, by verb: an inserted row is deleted, and the other way round. written: rows that were written.
    outside: records that the run handed to functions and tasks, by verb; what these did can't be undone. conflicts: the
    first changes that stay; left: the number of all changes that stay. warning: what a person should look at.
    """

    rule: str
    planned: Written
    written: Written = field(default_factory=Written)
    outside: Written = field(default_factory=Written)
    conflicts: tuple[Conflict, ...] = ()
    left: int = 0
    why_stopped: str = ""
    incomplete: bool = False
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive changes of one rule, by the ids of the first and the last."""

    rule: str
    floor: int
    top: int


class RunJournal:
    """The journal of one run, with the rule that made each change."""

    def __init__(self, run: Run, using: str) -> None:
        work_items = WorkItem._base_manager.using(using).filter(outcome__run=run)
        self.rules: dict[int, str] = dict(work_items.values_list("pk", "outcome__rule"))
        self.changes: Rows = Change._base_manager.using(using).filter(work_item_id__in=[*self.rules])

    def of(self, rule: str) -> Rows:
        """The changes of one rule."""
        return self.changes.filter(
            work_item_id__in=[work_item for work_item, its in self.rules.items() if its == rule]
        )


def stretches(journal: RunJournal) -> Iterator[Stretch]:
    """Yield the stretches of the journal, the last one first. Two statements each."""
    changes = journal.changes.filter(verb__in=UNDOABLE)
    top = changes.aggregate(last=Max("pk"))["last"]
    while top is not None:
        rule = journal.rules[changes.values_list("work_item_id", flat=True).get(pk=top)]
        mine = [work_item for work_item, its in journal.rules.items() if its == rule]
        below = changes.filter(pk__lt=top).exclude(work_item_id__in=mine).aggregate(last=Max("pk"))["last"]
        yield Stretch(rule, 0 if below is None else below + 1, top)
        top = below


def undoable(run: Run, using: str) -> Mapping[str, Mapping[str, int]]:
    """Count the changes of each rule by verb, with those that have no image. Raises UsageError if none can be taken back."""
    now = Run._base_manager.using(using).get(pk=run.pk)
    if has_live_worker(now, using=using):
        hint = f"Pause or cancel it first: reconcile runs pause {run}, or reconcile runs cancel {run}"
        if now.state == Run.State.RUNNING:
            raise UsageError(f"Run {run} goes on. {hint}")
        quiet = f"{LEASE.total_seconds():.0f} s"
        raise UsageError(
            f"Run {run} is {now.state}, and its worker may live: it stops before its next chunk, or counts as dead after {quiet} of "
            "silence. Undo it then."
        )
    found = count_changes(run, using)
    if not any(planned_writes(counts).total for counts in found.values()):
        handed = sum(outside_effects(counts).total for counts in found.values())
        own = (
            f" It has handed {plural(handed, 'record')} to the project's functions and tasks: what they did with them is not in the journal."
            if handed
            else ""
        )
        raise UsageError(f"Run {run} has written no rows, so there is nothing to undo.{own}")
    if by := _undos_in_force(run, using):
        wrote = [each for each in by if _written_changes(each, using).exists()]
        again = ", then ".join(f"reconcile undo {each}" for each in wrote)
        hint = (
            f"To have its writes back, undo that: {again}" if wrote else "That found them taken back already."
        )
        raise UsageError(f"Run {run} was undone by run {(wrote or by)[0]}. {hint}")
    return found


def count_changes(run: Run, using: str) -> dict[str, dict[str, int]]:
    """Count the changes of the run by rule and verb; the rule that wrote last comes first. One statement."""
    changes = Change._base_manager.using(using).filter(work_item__outcome__run=run)
    rows = changes.order_by().values_list("work_item__outcome__rule", "verb").annotate(Count("pk"), Max("pk"))
    found: dict[str, dict[str, int]] = {}
    for rule, verb, number, _ in sorted(rows, key=lambda row: -row[3]):
        found.setdefault(rule, {})[verb] = number
    return found


def planned_writes(counts: Mapping[str, int]) -> Written:
    """Count the rows to write, by verb, that take back changes of these verbs."""
    planned = Written()
    for verb in counts.keys() & {*UNDOABLE}:
        planned.add(VERBS[verb].inverse, counts[verb])
    return planned


def outside_effects(counts: Mapping[str, int]) -> Written:
    """Count the changes that have no image: records that were handed to functions and tasks."""
    return Written(**{verb: number for verb, number in counts.items() if verb not in UNDOABLE})


def _undos_in_force(run: Run, using: str) -> Sequence[Run]:
    """The undos that took back all writes of the run and were not undone themselves, the last one first; else none."""
    undos = Run._base_manager.using(using).filter(undoes=run).order_by("-started_at")
    stand = [
        each
        for each in undos
        if not Change._base_manager.using(using).filter(work_item__outcome__run__undoes=each).exists()
    ]
    left = Outcome._base_manager.using(using).filter(left__gt=0)
    whole = any(each.state == Run.State.FINISHED and not left.filter(run=each).exists() for each in stand)
    return stand if whole else []


def _written_changes(run: Run, using: str) -> Rows:
    changes: Rows = Change._base_manager.using(using).filter(work_item__outcome__run=run, verb__in=UNDOABLE)
    return changes


_ALL = ""
"""The part of an undo: it has one work item for each rule, of no kind of drift."""

BUSY = "Another session holds the row."


def undo(run: Run, *, using: str, progress: Progress | None = None) -> tuple[Run, list[RuleUndo]]:
    """Take back what the run has written, as a new run. A row that was changed since stays as it is.

    Raises UsageError if the run goes on, has written nothing, or was undone. Raises LeaseHeldError before anything is
    written if another run repairs one of its rules.
    """
    with evaluation_errors(using):
        begun = _begin(run, using)
    advance_undo(begun, using=using, progress=progress)
    return begun, undo_results(begun, using=using)


def advance_undo(run: Run, *, using: str, progress: Progress | None = None) -> list[RuleRepair]:
    """Advance an undo from its cursors to its end. Returns the outcomes as those of a repair.

    It goes stretch by stretch, since what was written earlier may only be taken back later. An error ends it; a resumed
    undo goes on there.
    """
    done = progress or (lambda *_: None)
    with evaluation_errors(using), end_run(run, using=using), dialect_of(using).examine():
        undoing = _Undo(run=run, using=using)
        undoing.lease_all()
        try:
            for stretch in stretches(undoing.journal):
                undoing.take_back(stretch, done)
            undoing.close()
        except GivenUpError as error:
            undoing.give_up(str(error))
        log.info("run_undone", run=str(run.undoes_id), by=str(run.pk))
    return results_of(_outcomes(run, using), run)


def undo_results(run: Run, *, using: str) -> list[RuleUndo]:
    """Return what an undo has done so far, rule by rule, from its outcomes."""
    counts = count_changes(_undone_run(run, using), using)
    outcomes = list(_outcomes(run, using))
    written = written_by_outcome(outcomes)
    done = [
        RuleUndo(
            rule=outcome.rule,
            planned=Written(**outcome.planned),
            written=written[outcome.pk],
            outside=outside_effects(counts.get(outcome.rule, {})),
            conflicts=tuple(Conflict(each["key"], each["why"]) for each in outcome.refused),
            left=outcome.left or 0,
            why_stopped=outcome.why_stopped,
            warning=outcome.warning,
            incomplete=outcome.state != Outcome.State.DONE or bool(outcome.left),
        )
        for outcome in outcomes
    ]
    others = {
        rule: outside_effects(verbs) for rule, verbs in counts.items() if not planned_writes(verbs).total
    }
    return [*done, *(RuleUndo(rule=rule, planned=Written(), outside=each) for rule, each in others.items())]


class _Undo:
    """An undo in the hands of one worker, from its first stretch to its last."""

    def __init__(self, *, run: Run, using: str) -> None:
        self.run, self.using = run, using
        self.journal = RunJournal(_undone_run(run, using), using)
        self.work = UndoWork(journal=self.journal.changes, using=using)
        self.open = {each.rule: each for each in _outcomes(run, using) if each.state != Outcome.State.DONE}
        self.work_items: dict[str, WorkItem] = {}
        self.control, self.beaten_at = RunControl(run, using=using), time.monotonic()
        self.failures: dict[str, dict[int, str]] = {rule: {} for rule in self.open}
        self.moved: dict[str, set[str]] = {rule: set() for rule in self.open}

    def lease_all(self) -> None:
        """Lease all rules before anything is written. Raises LeaseHeldError."""
        for rule in self.open:
            self._lease(rule)
            # A person who takes a delete back doesn't want the next run to repeat it at once.
            forget_findings(rule, using=self.using)

    def _lease(self, rule: str) -> WorkItem:
        self.work_items[rule] = acquire_lease(self.open[rule], [_ALL], self.run, using=self.using)[_ALL]
        return self.work_items[rule]

    def _check_control(self) -> None:
        """Raise unless the run goes on, and write heartbeats for all rules: a stretch may take longer than a lease."""
        self.control()
        if time.monotonic() - self.beaten_at > BEAT:
            for work_item in self.work_items.values():
                own = WorkItem._base_manager.using(self.using).filter(pk=work_item.pk, token=work_item.token)
                own.update(heartbeat=database_now(self.using))
            self.beaten_at = time.monotonic()

    def take_back(self, stretch: Stretch, progress: Progress) -> None:
        """Take one stretch back, from the cursor of the work item down."""
        if stretch.rule not in self.open:
            return
        rule = stretch.rule
        # Leased again: another stretch may have taken longer than a lease.
        item = LeasedItem(rule=rule, work_item=self._lease(rule), using=self.using)
        # However many changes can't be taken back, the others still are.
        quarantine = Quarantine(rule=rule, hopeless=None)
        executor = ChunkExecutor(
            work=self.work, item=item, quarantine=quarantine, check_control=self._check_control, throttles=throttles(),
            pace=Pace.from_settings(),
        )  # fmt: skip
        below = None if item.cursor is None else int(item.cursor)
        changes = self.work.changes(floor=stretch.floor, top=stretch.top, below=below, beat=executor.beat)
        try:
            work_through(executor, changes, lambda keys: progress(rule, keys))
        finally:
            held = {key: quarantine.last_errors.get(key, BUSY) for key in quarantine.to_retry}
            self.moved[rule] |= executor.moved
            self.failures[rule] |= quarantine.failures | held

    def close(self) -> None:
        """Record what was left after the last stretch, and end the leases."""
        check_lease(self.work_items.values(), using=self.using)
        for rule, work_item in self.work_items.items():
            LeasedItem(rule=rule, work_item=work_item, using=self.using).close()
            self._record(rule, Outcome.State.DONE, "")
            # See lease_all.
            forget_findings(rule, using=self.using)

    def give_up(self, why: str) -> None:
        """Record why the undo ended early; what was taken back stays so."""
        for rule in self.open:
            self._record(rule, Outcome.State.REPAIRING, why)

    def _record(self, rule: str, state: OutcomeState, why: str) -> None:
        outcome = self.open[rule]
        outcome.refresh_from_db(using=self.using)
        conflicts = self._conflicts(self.failures[rule])
        outcome.status = str(Status.FAIL if conflicts else Status.PASS)
        outcome.left = outcome.skipped = len(conflicts)
        outcome.refused = [{"key": each.key, "why": each.why} for each in conflicts[:LISTED]]
        outcome.why_stopped = why or _conflicts_in_words(conflicts)
        outcome.warning = moved_in_words(self.moved[rule]) if self.moved[rule] else ""
        outcome.leased = None
        written = ("status", "left", "skipped", "refused", "why_stopped", "warning", "leased")
        outcome.save(using=self.using, update_fields=written)
        transition(Outcome._base_manager.using(self.using).filter(pk=outcome.pk), state)

    def _conflicts(self, failures: Mapping[int, str]) -> list[Conflict]:
        names = {
            each.id: each.name
            for each in read_changes(self.journal.changes.filter(pk__in=[*failures][:LISTED]))
        }
        return [Conflict(names.get(pk, str(pk)), why) for pk, why in failures.items()]


def _conflicts_in_words(conflicts: Sequence[Conflict]) -> str:
    if not conflicts:
        return ""
    first = conflicts[0]
    if len(conflicts) == 1:
        return f"1 change was left, {first.key}: {first.why}"
    return f"{len(conflicts)} changes were left; the first, {first.key}: {first.why}"


def _begin(run: Run, using: str) -> Run:
    found = {rule: counts for rule, counts in undoable(run, using).items() if planned_writes(counts).total}
    now = database_now(using)
    begun = Run(kind=Run.Kind.UNDO, undoes=run, now=now, started_at=now, heartbeat=now)
    outcomes = [
        Outcome(
            run=begun,
            rule=rule,
            position=position,
            may_repair=True,
            checked=sum(counts.get(verb, 0) for verb in UNDOABLE),
            planned=planned_writes(counts).as_dict(),
        )
        for position, (rule, counts) in enumerate(found.items())
    ]
    with transaction.atomic(using=using):
        # The undone rows lie before its cursor, so the run must not be resumed. A worker without a heartbeat that lives all
        # the same finds out before its next chunk.
        undone = Run._base_manager.using(using).filter(pk=run.pk)
        transition(undone, Run.State.CANCELLED, finished_at=database_now(using), why_stopped="It was undone.")
        begun.save(using=using)
        Outcome._base_manager.using(using).bulk_create(outcomes)
    log.info("run_started", run=str(begun.pk), kind="undo", undoes=str(run.pk), database=using)
    return begun


def _undone_run(run: Run, using: str) -> Run:
    undoes: Run = Run._base_manager.using(using).get(undone_by=run)
    return undoes


def _outcomes(run: Run, using: str) -> Sequence[Outcome]:
    return list(Outcome._base_manager.using(using).filter(run=run).order_by("position"))
