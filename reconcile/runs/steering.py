"""Steering a run: a person pauses or cancels it, its worker looks before each chunk, and a run records how it ended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from threading import Event, Thread
from uuid import UUID

import structlog
from django.db import Error, connections
from django.db.models import Max, QuerySet

from reconcile.db.clock import database_now
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import in_transaction
from reconcile.detect.checking import evaluation_errors
from reconcile.errors import CancelledError, LeaseLostError, PausedError, StoppedError, UsageError
from reconcile.models import Outcome, Run, transition
from reconcile.repair.attempt import lease_lost
from reconcile.repair.chunk import BEAT
from reconcile.runs.leases import LEASE
from reconcile.states import RunState

__all__ = [
    "RunControl",
    "beats",
    "cancel",
    "end_run",
    "end_silent",
    "has_live_worker",
    "last_heartbeat",
    "pause",
]

log = structlog.get_logger()


class RunControl:
    """What a worker asks before each chunk: whether its run goes on. It also writes the run's heartbeat.

    A call raises PausedError or CancelledError if a person has asked for it, and LeaseLostError if the run belongs to
    another worker, has ended, or is being undone. One statement a call.
    """

    def __init__(self, run: Run, *, using: str) -> None:
        self.run = run
        self._using = using
        self._runs = Run._base_manager.using(using).filter(pk=run.pk)
        self._beaten = time.monotonic()

    def __call__(self) -> None:
        """Raise unless the run goes on."""
        _signs[self.run.pk] = time.monotonic()
        state = self.read_state()
        if state in {Run.State.PAUSING, Run.State.PAUSED}:
            raise PausedError(f"Run {self.run} is paused. Go on with: reconcile runs resume {self.run}")
        if state in {Run.State.CANCELLING, Run.State.CANCELLED}:
            message = "What it had written stands; see: reconcile runs"
            raise CancelledError(f"Run {self.run} was cancelled. {message} {self.run}")
        if state != Run.State.RUNNING:
            raise LeaseLostError(f"Run {self.run} was ended by others; see: reconcile runs {self.run}")

    def read_state(self) -> str:
        """Return the state of the run. Raises LeaseLostError if another worker has the run, or its row is gone. One statement."""
        state, token = self._runs.values_list("state", "token").first() or (None, None)
        if token != self.run.token:
            raise lease_lost(self._runs, f"run {self.run}")
        return str(state)

    def beat(self) -> None:
        """Write a heartbeat if the last one is older than BEAT, and raise unless the run goes on. Two statements then."""
        _signs[self.run.pk] = time.monotonic()
        if time.monotonic() - self._beaten > BEAT:
            self._runs.filter(token=self.run.token).update(heartbeat=database_now(self._using))
            self._beaten = time.monotonic()
            self()


def pause(run: Run, *, using: str) -> Run:
    """Pause the run before its next chunk; it can be resumed. Returns the run in its new state.

    The run pauses at once if its worker has no heartbeat. Raises UsageError if the run does not go on.
    """
    with evaluation_errors(using):
        state = Run.State.PAUSING if has_live_worker(run, using=using) else Run.State.PAUSED
        _change_state(run, state, using)
        now = _reload(run, using)
    if now.state not in {Run.State.PAUSED, Run.State.PAUSING}:
        raise UsageError(f"Run {run} is {now.state}; only a run that goes on can be paused.")
    return now


def cancel(run: Run, *, using: str) -> Run:
    """End the run for good before its next chunk; what it has written stays. Returns the run in its new state.

    The run ends at once if no worker is at work. Raises UsageError if it has ended already.
    """
    with evaluation_errors(using):
        quiet = (Run.State.PAUSED, Run.State.STOPPED)
        turned = _change_state(run, Run.State.CANCELLED, using, only=quiet)
        if not turned:
            state = Run.State.CANCELLING if has_live_worker(run, using=using) else Run.State.CANCELLED
            turned = _change_state(run, state, using, only=Run.ACTIVE)
        now = _reload(run, using)
    if not turned:
        hint = f" To take back what it has written: reconcile undo {run}"
        raise UsageError(f"Run {run} is {now.state}; there is nothing to cancel.{hint}")
    return now


def _change_state(run: Run, after: RunState, using: str, *, only: Sequence[RunState] = ()) -> bool:
    """Change a run to `after`, if an arrow leads there from its state. Returns whether one does."""
    done = after in {Run.State.PAUSED, Run.State.CANCELLED}
    ended = {"finished_at": database_now(using), "why_stopped": f"Somebody has {after} it."} if done else {}
    runs = Run._base_manager.using(using).filter(pk=run.pk)
    turned = bool(transition(runs, after, only=only, **ended))
    if turned and done:
        Outcome._base_manager.using(using).filter(run=run).update(leased=None)
    if turned:
        log.info("run_steered", run=str(run.pk), state=str(after))
    return turned


def _reload(run: Run, using: str) -> Run:
    now: Run = Run._base_manager.using(using).get(pk=run.pk)
    return now


def last_heartbeat(run: Run, *, using: str) -> datetime:
    """The time of the last heartbeat, of a chunk or of a check. One statement."""
    beats = Run._base_manager.using(using).filter(pk=run.pk)
    signs = beats.aggregate(own=Max("heartbeat"), chunks=Max("outcomes__work_items__heartbeat"))
    times: list[datetime] = [sign for sign in (*signs.values(), run.started_at) if sign is not None]
    return max(times)


def has_live_worker(run: Run, *, using: str) -> bool:
    """Whether a worker is at work on the run, as far as the heartbeat shows. Two statements."""
    return (
        _reload(run, using).state in Run.ACTIVE
        and database_now(using) - last_heartbeat(run, using=using) < LEASE
    )


@contextmanager
def end_run(run: Run, *, using: str) -> Iterator[None]:
    """Record how the run ended: finished, or why it stopped. Raises what stopped it."""
    try:
        yield
    except LeaseLostError:
        # Another worker goes on with the run, and will record how it ended.
        raise
    except (PausedError, CancelledError) as error:
        state = Run.State.PAUSED if isinstance(error, PausedError) else Run.State.CANCELLED
        _stop(run, using, f"Somebody has {state} it.", state=state)
        raise
    except KeyboardInterrupt:
        _stop(run, using, "Somebody interrupted it.")
        raise StoppedError(f"Interrupted. Go on with: reconcile runs resume {run}") from None
    except BaseException as error:
        _stop(run, using, str(error) or type(error).__name__)
        raise
    _finish(run, using)


_AFTER_DEATH = {RunState.CANCELLING: RunState.CANCELLED, RunState.PAUSING: RunState.PAUSED}


def end_silent(run: Run, why: str = "", *, using: str) -> None:
    """End a run whose worker is dead, as a person has asked for it; stopped if nobody has. It must not stand in the way for good."""
    asked = _AFTER_DEATH.get(RunState(_reload(run, using).state))
    state = asked or RunState.STOPPED
    why = f"Somebody has {asked} it." if asked else why or "Its worker has given no sign of life."
    own = Run._base_manager.using(using).filter(pk=run.pk, token=run.token)
    if transition(own, state, finished_at=database_now(using), why_stopped=why):
        Outcome._base_manager.using(using).filter(run=run).update(leased=None)
        log.warning("silent_run_ended", run=str(run.pk), state=str(state), database=using)


@contextmanager
def beats(run: Run, *, using: str) -> Iterator[None]:
    """Write the run's heartbeat from a thread, with a connection of its own, so that a statement of minutes isn't taken for death.

    It does so only while the worker itself gives no sign of life: it is another session, before which a repair would rest. Not where one
    session writes at a time, nor inside of a transaction, where nobody sees the run: it would wait for the worker's own locks.
    """
    if dialect_of(using).blocks_inserts(constrained=False) or in_transaction(using):
        yield
        return
    _signs[run.pk] = time.monotonic()
    ended = Event()
    thread = Thread(target=_beat_until, args=(ended, run, using), name=f"heartbeat of {run}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        # A connection that hangs must not keep the run from its end.
        thread.join(timeout=2 * BEAT)
        _signs.pop(run.pk, None)


_signs: dict[UUID, float] = {}
"""When the worker of each run of this process has last given a sign of life."""


def _beat_until(ended: Event, run: Run, using: str) -> None:
    own = Run._base_manager.using(using).filter(pk=run.pk, token=run.token)
    try:
        while not ended.wait(BEAT):
            if time.monotonic() - _signs.get(run.pk, 0.0) < 2 * BEAT:
                continue
            try:
                own.update(heartbeat=database_now(using))
                _signs[run.pk] = time.monotonic()
            except Error as error:
                log.warning("heartbeat_failed", run=str(run.pk), error=str(error), database=using)
                connections[using].close()
    finally:
        connections[using].close()


def _finish(run: Run, using: str) -> None:
    outcomes = Outcome._base_manager.using(using).filter(run=run).exclude(state=Outcome.State.DONE)
    left_open = list(outcomes.order_by("position").values_list("rule", flat=True))
    state = Run.State.STOPPED if left_open else Run.State.FINISHED
    why = f"Not finished: {', '.join(left_open)}. Resuming the run goes on with that." if left_open else ""
    transition(_own_run(run, using), state, finished_at=database_now(using), why_stopped=why)


def _own_run(run: Run, using: str) -> QuerySet[Run]:
    """The run, if it still belongs to this worker."""
    return Run._base_manager.using(using).filter(pk=run.pk, token=run.token)


def _stop(run: Run, using: str, why: str, *, state: RunState = Run.State.STOPPED) -> None:
    """Record the end of the run, if the database still answers."""
    log.error("run_stopped", run=str(run.pk), why=why)
    try:
        _record_stop(run, using, why, state)
    except Exception as error:  # noqa: BLE001 - the first error is the one that is raised
        log.warning("run_recorded_anew", run=str(run.pk), error=str(error))
        try:
            # An interruption may have come in the middle of an answer, of which the session then has the rest.
            if not in_transaction(using):
                connections[using].close()
            _record_stop(run, using, why, state)
        except Exception as again:  # noqa: BLE001 - as above
            log.error("run_not_recorded", run=str(run.pk), error=str(again))


def _record_stop(run: Run, using: str, why: str, state: RunState) -> None:
    if not _own_run(run, using).exists():
        return
    Outcome._base_manager.using(using).filter(run=run).update(leased=None)
    ended = {"finished_at": database_now(using), "why_stopped": why}
    if not transition(_own_run(run, using), state, only=Run.ACTIVE, **ended):
        # Somebody has cancelled it while its worker was about to pause.
        ended["why_stopped"] = f"Somebody has {Run.State.CANCELLED} it."
        transition(_own_run(run, using), Run.State.CANCELLED, only=Run.ACTIVE, **ended)
