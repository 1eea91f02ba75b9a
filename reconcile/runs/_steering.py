"""What people want of a run while it goes on: to pause, to go on, to end. Its worker looks before each chunk."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import structlog
from django.db.models import Max
from django.utils import timezone

from reconcile.checking import evaluated
from reconcile.errors import CancelledError, PausedError, UsageError
from reconcile.models import Outcome, Run, Shard
from reconcile.runs._holding import LEASE

__all__ = ["ACTIVE", "cancel", "last_sign", "lives", "obeying", "pause"]

log = structlog.get_logger()

ACTIVE = (Run.State.RUNNING, Run.State.PAUSING, Run.State.CANCELLING)
"""States in which a worker may be at it."""


def obeying(run: Run, *, using: str) -> Callable[[], None]:
    """A function that raises PausedError or CancelledError once somebody has asked for it. One statement a call."""
    state = Run._base_manager.using(using).filter(pk=run.pk).values_list("state", flat=True)

    def obey() -> None:
        asked = state.first()
        if asked in {Run.State.PAUSING, Run.State.PAUSED}:
            raise PausedError(f"Run {run} is paused. Go on with: reconcile resume {run}")
        if asked in {Run.State.CANCELLING, Run.State.CANCELLED}:
            raise CancelledError(
                f"Run {run} was cancelled. What it had written stands; see: reconcile runs {run}"
            )

    return obey


def pause(run: Run, *, using: str) -> Run:
    """Have the run stop before its next chunk, to be resumed later; the run as it is then.

    At once where its worker gives no sign of life. Raises UsageError where there is nothing to pause.
    """
    if run.state in {Run.State.PAUSED, Run.State.PAUSING}:
        return run
    if run.state != Run.State.RUNNING:
        raise UsageError(f"Run {run} is {run.state}; only a run that goes on can be paused.")
    return _ask(run, Run.State.PAUSING, Run.State.PAUSED, using)


def cancel(run: Run, *, using: str) -> Run:
    """Have the run end before its next chunk, for good; what it has written stands. The run as it is then.

    At once where no worker is at it. Raises UsageError where it has ended already.
    """
    if run.state in {Run.State.FINISHED, Run.State.CANCELLED}:
        hint = f" To take back what it has written: reconcile undo {run}"
        raise UsageError(f"Run {run} is {run.state}; there is nothing to cancel.{hint}")
    return _ask(run, Run.State.CANCELLING, Run.State.CANCELLED, using)


def last_sign(run: Run, *, using: str) -> datetime:
    """When the run's worker last gave a sign of life. One statement."""
    beats = Shard._base_manager.using(using).filter(outcome__run=run)
    beat: datetime | None = beats.aggregate(beat=Max("heartbeat"))["beat"]
    return max(beat or run.started_at, run.started_at)


def lives(run: Run, *, using: str) -> bool:
    """Whether a worker is at the run, as far as its signs of life tell."""
    return run.state in ACTIVE and timezone.now() - last_sign(run, using=using) < LEASE


def _ask(run: Run, asked: Run.State, done: Run.State, using: str) -> Run:
    with evaluated(using):
        state = asked if lives(run, using=using) else done
        ended = (
            {}
            if state == asked
            else {"finished_at": timezone.now(), "why_stopped": f"Somebody has {done} it."}
        )
        runs = Run._base_manager.using(using).filter(pk=run.pk)
        runs.exclude(state__in=[Run.State.FINISHED, Run.State.CANCELLED]).update(state=state, **ended)
        if state == done:
            Outcome._base_manager.using(using).filter(run=run).update(held=None)
        log.info("run_steered", run=str(run.pk), state=str(state))
        return runs.get()
