"""One run at a time repairs a rule: holding it, taking it over from a dead worker, letting it go."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import timedelta

import structlog
from django.db import IntegrityError, transaction
from django.db.models import Max
from django.utils import timezone

from reconcile.drift import Drift
from reconcile.errors import HeldError
from reconcile.models import Outcome, Run, Shard

__all__ = ["LEASE", "hold", "release"]

log = structlog.get_logger()

LEASE = timedelta(seconds=60)
"""How long after its last heartbeat a worker still counts as alive."""


def hold(outcome: Outcome, drifts: Iterable[Drift], *, using: str) -> dict[Drift, Shard]:
    """Take the rule for this run, and its shards under a new token, by which any earlier owner is fenced out.

    Raises HeldError where another run has it and its worker lives.
    """
    _evict(outcome, using=using)
    token = uuid.uuid4()
    try:
        with transaction.atomic(using=using):
            mine = Outcome._base_manager.using(using).filter(pk=outcome.pk)
            mine.update(held=outcome.rule, state=Outcome.State.REPAIRING)
            return {drift: _shard(outcome, drift, token, using) for drift in drifts}
    except IntegrityError as error:
        raise HeldError(
            f"Another run has begun to repair {outcome.rule} at this moment. Try again later."
        ) from error


def release(outcome: Outcome, *, using: str) -> None:
    """Let the rule go."""
    Outcome._base_manager.using(using).filter(pk=outcome.pk).update(held=None)


def _shard(outcome: Outcome, drift: Drift, token: uuid.UUID, using: str) -> Shard:
    shards = Shard._base_manager.using(using)
    shard, _ = shards.get_or_create(outcome=outcome, drift=drift, defaults={"token": token})
    shard.token, shard.heartbeat = token, timezone.now()
    if shard.set_aside:
        # Which keys were set aside was only in the killed worker's memory; walking again finds them.
        shard.cursor, shard.set_aside, shard.state = None, 0, Shard.State.RUNNING
    shard.save(using=using)
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
                f"Run {run} repairs {outcome.rule}; its last sign of life was {quiet.seconds} s ago. Wait for it, or if "
                f"it was killed: reconcile resume {run}"
            )
        Shard._base_manager.using(using).filter(outcome=holder).update(token=uuid.uuid4())
        release(holder, using=using)
        why = (
            f"Its worker gave no sign of life for {quiet.seconds} s; run {str(outcome.run_id)[:8]} took over."
        )
        stopped = {"state": Run.State.STOPPED, "finished_at": timezone.now(), "why_stopped": why}
        Run._base_manager.using(using).filter(pk=holder.run_id, state=Run.State.RUNNING).update(**stopped)
        log.warning(
            "rule_taken_over", rule=outcome.rule, run=str(outcome.run_id), from_run=str(holder.run_id)
        )
