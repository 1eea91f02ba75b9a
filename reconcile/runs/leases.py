"""Leases: one run at a time repairs a rule. A lease that has run out is taken over under a new token."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TypeVar

import structlog
from django.db import Error, IntegrityError, transaction
from django.db.models import Max

from reconcile.db.clock import database_now
from reconcile.db.dialects import dialect_of
from reconcile.db.retry import retry
from reconcile.errors import LeaseHeldError
from reconcile.models import Outcome, Run, WorkItem, transition
from reconcile.repair.attempt import lease_lost

__all__ = ["LEASE", "acquire_lease", "check_lease", "check_not_held", "release_lease"]

log = structlog.get_logger()

Part = TypeVar("Part", bound=str)

LEASE = timedelta(seconds=60)
"""A worker counts as alive for this long after its last heartbeat."""


def acquire_lease(
    outcome: Outcome, parts: Iterable[Part], run: Run, *, anew: bool = False, using: str
) -> dict[Part, WorkItem]:
    """Lease the rule and its work items for this run, under a new token that fences out any earlier owner.

    anew: the work items begin at their first record again. Returns the work items by kind of drift; an undo has one, of none.
    Raises LeaseHeldError if another run has the lease and its worker lives, and LeaseLostError if the run itself belongs to
    another worker.
    """

    def attempt() -> dict[Part, WorkItem]:
        _evict(outcome, using=using)
        with transaction.atomic(using=using):
            return _take_lease(outcome, parts, run, anew=anew, using=using)

    def is_deadlock(error: BaseException) -> bool:
        # Two runs that lease the rule at once may deadlock on the unique index; one of them then tries again.
        return dialect_of(using).is_transient(error) and not isinstance(error, IntegrityError)

    try:
        return retry(using, when=is_deadlock)(attempt)
    except Error as error:
        if not (isinstance(error, IntegrityError) or is_deadlock(error)):
            raise
        message = f"Another run has begun to repair {outcome.rule} at this moment. Try again later."
        raise LeaseHeldError(message) from error


def _take_lease(
    outcome: Outcome, parts: Iterable[Part], run: Run, *, anew: bool, using: str
) -> dict[Part, WorkItem]:
    own = Run._base_manager.using(using).filter(pk=run.pk, token=run.token)
    if not own.update(heartbeat=database_now(using)):
        raise lease_lost(Run._base_manager.using(using).filter(pk=run.pk), f"run {run}")
    token = uuid.uuid4()
    # This comes first, as in a chunk: it waits for a chunk in flight, so it must not lock the counts that the chunk has yet
    # to write. It comes before any read, since that chunk moves the cursor.
    WorkItem._base_manager.using(using).filter(outcome=outcome).update(
        token=token, heartbeat=database_now(using)
    )
    work_items = {part: _work_item(outcome, part, token, anew=anew, using=using) for part in parts}
    mine = Outcome._base_manager.using(using).filter(pk=outcome.pk)
    transition(mine, Outcome.State.REPAIRING, leased=outcome.rule)
    return work_items


def release_lease(outcome: Outcome, *, using: str) -> None:
    """End the lease on the rule. One statement."""
    Outcome._base_manager.using(using).filter(pk=outcome.pk).update(leased=None)


def check_lease(work_items: Iterable[WorkItem], *, using: str) -> None:
    """Raise LeaseLostError if another worker has leased any of the work items. One statement each."""
    for work_item in work_items:
        rows = WorkItem._base_manager.using(using).filter(pk=work_item.pk)
        if not rows.filter(token=work_item.token).exists():
            raise lease_lost(rows, "this repair")


def _work_item(outcome: Outcome, part: str, token: uuid.UUID, *, anew: bool, using: str) -> WorkItem:
    work_items = WorkItem._base_manager.using(using)
    work_item, _ = work_items.get_or_create(
        outcome=outcome, drift=part, defaults={"token": token, "heartbeat": database_now(using)}
    )
    if anew or work_item.quarantined:
        # Only the killed worker's memory had the keys in quarantine; a new walk finds them.
        own = work_items.filter(pk=work_item.pk)
        transition(own, WorkItem.State.RUNNING, cursor=None, quarantined=0)
        return own.get()
    return work_item


def check_not_held(outcome: Outcome, *, using: str) -> None:
    """Raise LeaseHeldError if another run has the lease and its worker lives: it repairs what this one has found. One statement."""
    for holder, quiet in _other_holders(outcome, using):
        if quiet < LEASE:
            raise _lease_held(holder, quiet)


def _other_holders(outcome: Outcome, using: str) -> Iterator[tuple[Outcome, timedelta]]:
    """The outcomes of other runs that have the lease on the rule, each with the time since its last sign of life."""
    others = Outcome._base_manager.using(using).filter(leased=outcome.rule).exclude(pk=outcome.pk)
    for holder in others.annotate(beat=Max("work_items__heartbeat")):
        now = database_now(using)
        yield holder, now - (holder.beat or now)


def _lease_held(holder: Outcome, quiet: timedelta) -> LeaseHeldError:
    run = str(holder.run_id)[:8]
    return LeaseHeldError(
        f"Run {run} repairs {holder.rule}; its last sign of life was {int(quiet.total_seconds())} s ago. Wait for it, or if it was "
        f"killed: reconcile runs resume {run}"
    )


def _evict(outcome: Outcome, *, using: str) -> None:
    """End the lease of a run whose worker is dead. Raises LeaseHeldError if the worker lives."""
    for holder, quiet in _other_holders(outcome, using):
        if quiet < LEASE:
            raise _lease_held(holder, quiet)
        WorkItem._base_manager.using(using).filter(outcome=holder).update(token=uuid.uuid4())
        release_lease(holder, using=using)
        why = f"Its worker gave no sign of life for {int(quiet.total_seconds())} s; run {str(outcome.run_id)[:8]} took over."
        its = Run._base_manager.using(using).filter(pk=holder.run_id)
        transition(its, Run.State.STOPPED, finished_at=database_now(using), why_stopped=why)
        log.warning(
            "rule_taken_over", rule=outcome.rule, run=str(outcome.run_id), from_run=str(holder.run_id)
        )
