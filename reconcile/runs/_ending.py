"""How a run ends: finished, stopped by an error, paused, cancelled, or taken over by another worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from django.db.models import QuerySet
from django.utils import timezone

from reconcile.errors import CancelledError, PausedError, StoppedError, TakenOverError
from reconcile.models import Outcome, Run
from reconcile.runs._steering import ACTIVE

__all__ = ["ending"]

log = structlog.get_logger()


@contextmanager
def ending(run: Run, *, using: str) -> Iterator[None]:
    """Note how the run ended once the block is through, or why it ended before; what ended it is raised again."""
    try:
        yield
    except TakenOverError:
        # The run goes on in another worker's hands; what becomes of it is that one's to say.
        raise
    except (PausedError, CancelledError) as error:
        state = Run.State.PAUSED if isinstance(error, PausedError) else Run.State.CANCELLED
        _stop(run, using, f"Somebody has {state} it.", state=state)
        raise
    except KeyboardInterrupt:
        _stop(run, using, "Somebody interrupted it.")
        raise StoppedError(f"Interrupted. Go on with: reconcile resume {run}") from None
    except BaseException as error:
        _stop(run, using, str(error) or type(error).__name__)
        raise
    _finish(run, using)


def _finish(run: Run, using: str) -> None:
    outcomes = Outcome._base_manager.using(using).filter(run=run).exclude(state=Outcome.State.DONE)
    left_open = list(outcomes.order_by("position").values_list("rule", flat=True))
    state = Run.State.STOPPED if left_open else Run.State.FINISHED
    why = f"Not finished: {', '.join(left_open)}. Resuming the run goes on with that." if left_open else ""
    ended = {"state": state, "finished_at": timezone.now(), "why_stopped": why}
    _own(run, using).filter(state__in=ACTIVE).update(**ended)


def _own(run: Run, using: str) -> QuerySet[Run]:
    """The run, as long as it is this worker's."""
    return Run._base_manager.using(using).filter(pk=run.pk, token=run.token)


def _stop(run: Run, using: str, why: str, *, state: Run.State = Run.State.STOPPED) -> None:
    """Note it where the database still answers."""
    log.error("run_stopped", run=str(run.pk), why=why)
    try:
        if not _own(run, using).exists():
            return
        Outcome._base_manager.using(using).filter(run=run).update(held=None)
        stopped = {"state": state, "finished_at": timezone.now(), "why_stopped": why}
        _own(run, using).filter(state__in=ACTIVE).update(**stopped)
    except Exception as error:  # noqa: BLE001 - the first error is the one that is raised
        log.error("run_not_recorded", run=str(run.pk), error=str(error))
