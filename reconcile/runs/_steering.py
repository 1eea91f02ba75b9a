"""What people want of a run while it goes on: to pause, to go on, to end. Its worker looks before each chunk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime

import structlog
from django.db.models import Max
from django.utils import timezone

from reconcile.checking import evaluated
from reconcile.errors import CancelledError, PausedError, TakenOverError, UsageError
from reconcile.models import Outcome, Run
from reconcile.repairing import BEAT
from reconcile.runs._holding import LEASE

__all__ = ["ACTIVE", "Obeying", "cancel", "last_sign", "lives", "pause"]

log = structlog.get_logger()

ACTIVE = (Run.State.RUNNING, Run.State.PAUSING, Run.State.CANCELLING)
"""States in which a worker may be at it."""


class Obeying:
    """A worker's look at what is wanted of its run, and its sign of life while it looks for drift.

    Called, it raises PausedError or CancelledError once somebody has asked for it, and TakenOverError where the run is
    another worker's now, was ended, or is being undone. One statement a call.
    """

    def __init__(self, run: Run, *, using: str) -> None:
        self.run = run
        self._runs = Run._base_manager.using(using).filter(pk=run.pk)
        self._beaten = time.monotonic()

    def __call__(self) -> None:
        """Look at once."""
        state = self.owned()
        if state in {Run.State.PAUSING, Run.State.PAUSED}:
            raise PausedError(f"Run {self.run} is paused. Go on with: reconcile resume {self.run}")
        if state in {Run.State.CANCELLING, Run.State.CANCELLED}:
            said = "What it had written stands; see: reconcile runs"
            raise CancelledError(f"Run {self.run} was cancelled. {said} {self.run}")
        if state != Run.State.RUNNING:
            raise TakenOverError(f"Run {self.run} was ended by others; see: reconcile runs {self.run}")

    def owned(self) -> str:
        """The run's state, while the run is this worker's; raises TakenOverError once it isn't. One statement."""
        state, token = self._runs.values_list("state", "token").get()
        if token != self.run.token:
            raise TakenOverError(f"Another worker has taken over run {self.run}; this one has stopped.")
        return state

    def beat(self) -> None:
        """Give a sign of life, and look, where the last one was a while ago. Two statements every few seconds."""
        if time.monotonic() - self._beaten > BEAT:
            self._runs.filter(token=self.run.token).update(heartbeat=timezone.now())
            self._beaten = time.monotonic()
            self()


def pause(run: Run, *, using: str) -> Run:
    """Have the run stop before its next chunk, to be resumed later; the run as it is then.

    At once where its worker gives no sign of life. Raises UsageError where there is nothing to pause.
    """
    with evaluated(using):
        asked = Run.State.PAUSING if lives(run, using=using) else Run.State.PAUSED
        _turned(run, (Run.State.RUNNING, Run.State.PAUSING), asked, using)
        now = _now(run, using)
    if now.state not in {Run.State.PAUSED, Run.State.PAUSING}:
        raise UsageError(f"Run {run} is {now.state}; only a run that goes on can be paused.")
    return now


def cancel(run: Run, *, using: str) -> Run:
    """Have the run end before its next chunk, for good; what it has written stands. The run as it is then.

    At once where no worker is at it. Raises UsageError where it has ended already.
    """
    with evaluated(using):
        turned = _turned(run, (Run.State.PAUSED, Run.State.STOPPED), Run.State.CANCELLED, using)
        if not turned:
            asked = Run.State.CANCELLING if lives(run, using=using) else Run.State.CANCELLED
            turned = _turned(run, ACTIVE, asked, using)
        now = _now(run, using)
    if not turned:
        hint = f" To take back what it has written: reconcile undo {run}"
        raise UsageError(f"Run {run} is {now.state}; there is nothing to cancel.{hint}")
    return now


def _turned(run: Run, before: Sequence[Run.State], after: Run.State, using: str) -> bool:
    """Turn a run that is in one of the states `before` into `after`, in one statement; whether it was."""
    done = after in {Run.State.PAUSED, Run.State.CANCELLED}
    ended = {"finished_at": timezone.now(), "why_stopped": f"Somebody has {after} it."} if done else {}
    runs = Run._base_manager.using(using).filter(pk=run.pk, state__in=before)
    turned = bool(runs.update(state=after, **ended))
    if turned and done:
        Outcome._base_manager.using(using).filter(run=run).update(held=None)
    if turned:
        log.info("run_steered", run=str(run.pk), state=str(after))
    return turned


def _now(run: Run, using: str) -> Run:
    now: Run = Run._base_manager.using(using).get(pk=run.pk)
    return now


def last_sign(run: Run, *, using: str) -> datetime:
    """When the run's worker last gave a sign of life: with a chunk, or while it looked for drift. One statement."""
    beats = Run._base_manager.using(using).filter(pk=run.pk)
    signs = beats.aggregate(own=Max("heartbeat"), chunks=Max("outcomes__shards__heartbeat"))
    times: list[datetime] = [sign for sign in (*signs.values(), run.started_at) if sign is not None]
    return max(times)


def lives(run: Run, *, using: str) -> bool:
    """Whether a worker is at the run, as far as its signs of life tell. Two statements."""
    return _now(run, using).state in ACTIVE and timezone.now() - last_sign(run, using=using) < LEASE
