"""One run at a time repairs a rule: holding it, taking it over from a dead worker, letting it go."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterable
from datetime import timedelta

import structlog
from django.db import Error, IntegrityError, transaction
from django.db.models import Max
from django.utils import timezone

from reconcile.drift import Drift
from reconcile.errors import HeldError, TakenOverError
from reconcile.models import Outcome, Run, Shard
from reconcile.sql.dialects import dialect_of

__all__ = ["LEASE", "hold", "release", "still_mine"]

log = structlog.get_logger()

LEASE = timedelta(seconds=60)
"""How long after its last heartbeat a worker still counts as alive."""

TRIES, PAUSE = 5, 0.1
"""How often to try to take a rule when the database can't decide between two runs, and the seconds in between."""


def hold(
    outcome: Outcome, drifts: Iterable[Drift], run: Run, *, anew: bool = False, using: str
) -> dict[Drift, Shard]:
    """Take the rule for this run, and its shards under a new token, by which any earlier owner is fenced out.

    With `anew` the shards begin at their first record again.

    Raises HeldError where another run has it and its worker lives, and TakenOverError where the run itself is another
    worker's by now.
    """
    for _ in range(TRIES):
        _evict(outcome, using=using)
        try:
            with transaction.atomic(using=using):
                return _taken(outcome, drifts, run, anew=anew, using=using)
        except IntegrityError:
            break
        except Error as error:
            # Two runs that take the rule at once may deadlock on the unique index; one of them then tries again.
            if not dialect_of(using).is_transient(error):
                raise
            time.sleep(random.uniform(0, PAUSE))  # noqa: S311
    raise HeldError(f"Another run has begun to repair {outcome.rule} at this moment. Try again later.")


def _taken(
    outcome: Outcome, drifts: Iterable[Drift], run: Run, *, anew: bool, using: str
) -> dict[Drift, Shard]:
    own = Run._base_manager.using(using).filter(pk=run.pk, token=run.token)
    if not own.update(heartbeat=timezone.now()):
        raise TakenOverError(f"Another worker has taken over run {run}; this one has stopped.")
    token = uuid.uuid4()
    # First, as in a chunk: this waits for the chunk at hand, so it must not hold the counts that are yet to be written. And
    # before anything is read, since that chunk moves the cursor.
    Shard._base_manager.using(using).filter(outcome=outcome).update(token=token, heartbeat=timezone.now())
    shards = {drift: _shard(outcome, drift, token, anew=anew, using=using) for drift in drifts}
    mine = Outcome._base_manager.using(using).filter(pk=outcome.pk)
    mine.update(held=outcome.rule, state=Outcome.State.REPAIRING)
    return shards


def release(outcome: Outcome, *, using: str) -> None:
    """Let the rule go."""
    Outcome._base_manager.using(using).filter(pk=outcome.pk).update(held=None)


def still_mine(shards: Iterable[Shard], *, using: str) -> None:
    """Raises TakenOverError where another worker has any of the shards: what becomes of them is that one's to say."""
    for shard in shards:
        if not Shard._base_manager.using(using).filter(pk=shard.pk, token=shard.token).exists():
            raise TakenOverError("Another worker has taken over this repair; this one has stopped.")


def _shard(outcome: Outcome, drift: Drift, token: uuid.UUID, *, anew: bool, using: str) -> Shard:
    shards = Shard._base_manager.using(using)
    shard, _ = shards.get_or_create(outcome=outcome, drift=drift, defaults={"token": token})
    if anew or shard.set_aside:
        # Which keys were set aside was only in the killed worker's memory; walking again finds them.
        shard.cursor, shard.set_aside, shard.state = None, 0, Shard.State.RUNNING
        shard.save(using=using, update_fields=["cursor", "set_aside", "state"])
    return shard


def _evict(outcome: Outcome, *, using: str) -> None:
    """Make a dead worker's run let go of the rule; raises HeldError where the worker lives."""
    others = Outcome._base_manager.using(using).filter(held=outcome.rule).exclude(pk=outcome.pk)
    for holder in others.annotate(beat=Max("shards__heartbeat")):
        run = str(holder.run_id)[:8]
        beat = holder.beat or timezone.now()
        quiet = timezone.now() - beat
        if quiet < LEASE:
            raise HeldError(
                f"Run {run} repairs {outcome.rule}; its last sign of life was {int(quiet.total_seconds())} s ago. Wait for it, or if "
                f"it was killed: reconcile resume {run}"
            )
        Shard._base_manager.using(using).filter(outcome=holder).update(token=uuid.uuid4())
        release(holder, using=using)
        why = f"Its worker gave no sign of life for {int(quiet.total_seconds())} s; run {str(outcome.run_id)[:8]} took over."
        stopped = {"state": Run.State.STOPPED, "finished_at": timezone.now(), "why_stopped": why}
        active = (Run.State.RUNNING, Run.State.PAUSING, Run.State.CANCELLING)
        Run._base_manager.using(using).filter(pk=holder.run_id, state__in=active).update(**stopped)
        log.warning(
            "rule_taken_over", rule=outcome.rule, run=str(outcome.run_id), from_run=str(holder.run_id)
        )
