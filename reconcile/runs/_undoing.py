"""Undo as a run: begun, advanced in the reverse of the order in which its run wrote, resumed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import structlog
from django.db import transaction
from django.utils import timezone

from reconcile.agreeing import forget
from reconcile.checking import Kept, evaluated
from reconcile.drift import STALE, Drift, Status, Written
from reconcile.errors import GivenUpError
from reconcile.finders import Source
from reconcile.models import Change, Outcome, Run, Shard
from reconcile.noted import UNDOABLE, read
from reconcile.pacing import Pace
from reconcile.repairing import BEAT, Chunks
from reconcile.runs._ending import ending
from reconcile.runs._holding import hold, release, still_mine
from reconcile.runs._results import Progress, RuleRepair, recorded, written
from reconcile.runs._steering import ACTIVE, Obeying
from reconcile.runs._undo_journal import (
    LISTED,
    Conflict,
    RuleUndo,
    RunJournal,
    Stretch,
    counted,
    outside,
    planned,
    stretches,
    undoable,
)
from reconcile.sharding import repair_shard
from reconcile.throttling import throttles
from reconcile.undoing import TakeBack

__all__ = ["advance_undo", "undo", "undone"]

log = structlog.get_logger()

_DRIFTS: tuple[Drift, ...] = (STALE,)
"""A shard is of a drift; to an undo a change that stands is stale."""

BUSY = "Another session holds the row."


def undo(run: Run, *, using: str, progress: Progress | None = None) -> tuple[Run, list[RuleUndo]]:
    """Take back what the run has written, as a new run, where nobody has changed it since.

    Raises UsageError where the run goes on, has written nothing, or was undone; HeldError where another run repairs one
    of its rules, before anything is written.
    """
    with evaluated(using):
        begun = _begin(run, using)
    advance_undo(begun, using=using, progress=progress)
    return begun, undone(begun, using=using)


def advance_undo(run: Run, *, using: str, progress: Progress | None = None) -> list[RuleRepair]:
    """Bring an undo to its end, from wherever it is; the outcomes as those of a repair.

    Stretch by stretch: as long as the journal is of one rule, that rule is held. An error ends it there, since what was
    written before may only be taken back after; resuming goes on.
    """
    done = progress or (lambda *_: None)
    with evaluated(using), ending(run, using=using):
        undoing = _Undo(run=run, using=using)
        undoing.hold_all()
        try:
            for stretch in stretches(undoing.journal):
                undoing.take(stretch, done)
            undoing.close()
        except GivenUpError as error:
            undoing.give_up(str(error))
        log.info("run_undone", run=str(run.undoes_id), by=str(run.pk))
    return [recorded(outcome) for outcome in _outcomes(run, using) if outcome.status]


def undone(run: Run, *, using: str) -> list[RuleUndo]:
    """What an undo has done so far, rule by rule, as its outcomes have it."""
    counts = counted(_undoes(run, using), using)
    done = [
        RuleUndo(
            rule=outcome.rule,
            planned=Written(**outcome.planned),
            written=written(outcome),
            outside=outside(counts.get(outcome.rule, {})),
            conflicts=tuple(Conflict(each["key"], each["why"]) for each in outcome.refused),
            left=outcome.left,
            why_stopped=outcome.why_stopped,
            incomplete=outcome.state != Outcome.State.DONE or bool(outcome.left),
        )
        for outcome in _outcomes(run, using)
    ]
    others = {rule: outside(verbs) for rule, verbs in counts.items() if not planned(verbs).total}
    return [*done, *(RuleUndo(rule=rule, planned=Written(), outside=each) for rule, each in others.items())]


class _Undo:
    """One worker's hold on an undo, from its first stretch to its last."""

    def __init__(self, *, run: Run, using: str) -> None:
        self.run, self.using = run, using
        self.journal = RunJournal(_undoes(run, using), using)
        self.remedy = TakeBack(journal=self.journal.changes, using=using)
        self.open = {each.rule: each for each in _outcomes(run, using) if each.state != Outcome.State.DONE}
        self.shards: dict[str, Shard] = {}
        self.obey, self.beaten = Obeying(run, using=using), time.monotonic()
        self.failures: dict[str, dict[int, str]] = {rule: {} for rule in self.open}
        self.total = sum(sum(each.planned.values()) for each in self.open.values())

    def hold_all(self) -> None:
        """Take all rules before anything is written. Raises HeldError."""
        for rule in self.open:
            self._hold(rule)
            # Who takes a delete back doesn't want the next run to do it again at once.
            forget(rule, using=self.using)

    def _hold(self, rule: str) -> Shard:
        self.shards[rule] = hold(self.open[rule], _DRIFTS, self.run, using=self.using)[STALE]
        return self.shards[rule]

    def _obey(self) -> None:
        """Look what people want, and give a sign of life for all rules: a stretch may take longer than one is believed."""
        self.obey()
        if time.monotonic() - self.beaten > BEAT:
            for shard in self.shards.values():
                own = Shard._base_manager.using(self.using).filter(pk=shard.pk, token=shard.token)
                own.update(heartbeat=timezone.now())
            self.beaten = time.monotonic()

    def take(self, stretch: Stretch, progress: Progress) -> None:
        """Take one stretch back, from the shard's cursor down."""
        if stretch.rule not in self.open:
            return
        chunks = Chunks(
            rule=stretch.rule,
            finder=self.remedy.finder(floor=stretch.floor, top=stretch.top),
            remedy=self.remedy,
            # Held again: another stretch may have taken longer than a sign of life is believed.
            shard=self._hold(stretch.rule),
            using=self.using,
            obey=self._obey,
            throttles=throttles(),
            pace=Pace.configured(),
            # A change that must be left is no reason to leave the others, however many there are.
            mended=self.total,
        )
        source = Source(every=Change._base_manager.all(), using=self.using, now=self.run.now)
        try:
            repair_shard(
                chunks,
                source,
                records=self.total,
                kept=Kept(),
                progress=lambda keys: progress(stretch.rule, keys),
            )
        finally:
            self.failures[stretch.rule] |= chunks.left.failures | {
                key: chunks.left.busy.get(key, BUSY) for key in chunks.left.aside
            }

    def close(self) -> None:
        """All stretches are through: note what was left, and let the rules go."""
        still_mine(self.shards.values(), using=self.using)
        for rule, shard in self.shards.items():
            Shard._base_manager.using(self.using).filter(pk=shard.pk, token=shard.token).update(
                state=Shard.State.DONE
            )
            self._note(rule, Outcome.State.DONE, "")
            # Who takes a delete back doesn't want the next run to do it again at once.
            forget(rule, using=self.using)

    def give_up(self, why: str) -> None:
        """Note why the undo ended before its end; what is taken back stays so."""
        for rule in self.open:
            self._note(rule, Outcome.State.REPAIRING, why)

    def _note(self, rule: str, state: Outcome.State, why: str) -> None:
        outcome = self.open[rule]
        outcome.refresh_from_db(using=self.using)
        conflicts = self._conflicts(self.failures[rule])
        outcome.state = state
        outcome.status = str(Status.FAIL if conflicts else Status.PASS)
        outcome.left = outcome.skipped = len(conflicts)
        outcome.refused = [{"key": each.key, "why": each.why} for each in conflicts[:LISTED]]
        outcome.why_stopped = why or _in_words(conflicts)
        outcome.save(using=self.using)
        release(outcome, using=self.using)

    def _conflicts(self, failures: Mapping[int, str]) -> list[Conflict]:
        names = {
            each.id: each.name for each in read(self.journal.changes.filter(pk__in=[*failures][:LISTED]))
        }
        return [Conflict(names.get(pk, str(pk)), why) for pk, why in failures.items()]


def _in_words(conflicts: Sequence[Conflict]) -> str:
    if not conflicts:
        return ""
    first = conflicts[0]
    if len(conflicts) == 1:
        return f"1 change was left, {first.key}: {first.why}"
    return f"{len(conflicts)} changes were left; the first, {first.key}: {first.why}"


def _begin(run: Run, using: str) -> Run:
    found = {rule: counts for rule, counts in undoable(run, using).items() if planned(counts).total}
    begun = Run(kind=Run.Kind.UNDO, undoes=run, now=timezone.now())
    outcomes = [
        Outcome(
            run=begun,
            rule=rule,
            position=position,
            may_repair=True,
            checked=sum(counts.get(verb, 0) for verb in UNDOABLE),
            planned=planned(counts).as_dict(),
        )
        for position, (rule, counts) in enumerate(found.items())
    ]
    with transaction.atomic(using=using):
        # What was taken back lies before its cursor, so nobody may go on with it. Should a worker that has been silent for long
        # live all the same, it finds out before its next chunk.
        unended = (*ACTIVE, Run.State.PAUSED, Run.State.STOPPED)
        Run._base_manager.using(using).filter(pk=run.pk, state__in=unended).update(
            state=Run.State.CANCELLED, finished_at=timezone.now(), why_stopped="It was undone."
        )
        begun.save(using=using)
        Outcome._base_manager.using(using).bulk_create(outcomes)
    log.info("run_started", run=str(begun.pk), kind="undo", undoes=str(run.pk), database=using)
    return begun


def _undoes(run: Run, using: str) -> Run:
    undoes: Run = Run._base_manager.using(using).get(undone_by=run)
    return undoes


def _outcomes(run: Run, using: str) -> Sequence[Outcome]:
    return list(Outcome._base_manager.using(using).filter(run=run).order_by("position"))
