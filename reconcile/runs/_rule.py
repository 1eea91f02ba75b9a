"""One rule of a run: check, plan, repair shard by shard, verify, and note the outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog

from reconcile.agreeing import agreed, deletes
from reconcile.allowance import Allowance
from reconcile.checking import RuleCheck, check, evaluated
from reconcile.drift import EXTRA, MISSING, STALE, Drift, Status
from reconcile.errors import EvaluationError, GivenUpError, HeldError
from reconcile.finders import Finder
from reconcile.models import Outcome, Run, Shard
from reconcile.pacing import Pace
from reconcile.planning import RulePlan, plan
from reconcile.repairing import Chunks
from reconcile.rules import Rule
from reconcile.runs._guards import caps_of, noted, refusal, warned
from reconcile.runs._holding import hold, release, still_mine
from reconcile.runs._results import Progress, RuleRepair, recorded, reported, written
from reconcile.runs._steering import obeying
from reconcile.sharding import KEEP, repair_shard
from reconcile.throttling import throttles
from reconcile.windows import Keys

__all__ = ["take"]

log = structlog.get_logger()

_HELD = "Another session holds it, or what it is repaired by."

_FOUND = (
    "planned", "reported", "checked", "missing", "stale", "extra", "samples", "guarantee", "status", "again", "warning",
)  # fmt: skip
_LEFT = ("state", "status", "error", "left", "skipped", "refused", "why_stopped", "seconds")

REFUSED = 100
"""Records that were set aside which an outcome names, each with the reason."""


@dataclass(kw_only=True)
class _Repaired:
    """What the shards of one rule came to."""

    skipped: int = 0
    waiting: int = 0
    failures: dict[Any, str] = field(default_factory=dict)
    held_keys: dict[Any, str] = field(default_factory=dict)
    why_stopped: str = ""
    held: bool = False
    unfinished: bool = False
    deferred: bool = False


def take(outcome: Outcome, rule: Rule, run: Run, *, using: str, progress: Progress) -> RuleRepair:
    """Bring one rule of a run to its outcome.

    Raises TakenOverError where another worker has the rule now, PausedError and CancelledError where somebody wants it
    so, and EvaluationError where the database is gone.
    """
    started = time.monotonic()
    obeying(run, using=using)()
    keep = KEEP if outcome.may_repair or _deleting(rule) else 0
    found = check(rule, using=using, now=run.now, keep=keep)
    begun = outcome.state == Outcome.State.REPAIRING
    made = plan(found, caps_of(outcome))
    log.info(
        "rule_planned",
        rule=rule.name,
        run=str(run.pk),
        planned=made.planned.total,
        why_stopped=made.why_stopped,
    )
    repaired = _Repaired()
    if found.status is not Status.ERROR:
        noted(made, run, using=using)
        if not begun:
            again = warned(outcome, made, run, using=using)
            repaired.why_stopped = refusal(outcome, made, run, again=again, using=using)
    if not begun:
        _note_found(outcome, made, using)
    if found.status is not Status.ERROR and not repaired.why_stopped and (made.planned.total or begun):
        repaired = _repair(outcome, made, run, using=using, progress=progress)
        found = check(rule, using=using, now=run.now, known=found.tally)
        log.info("rule_verified", rule=rule.name, run=str(run.pk), left=found.tally.total)
    outcome.refresh_from_db(using=using)
    outcome.seconds += time.monotonic() - started
    _note_left(outcome, rule, found, repaired)
    # Not the counts of rows: those are the chunks' own.
    outcome.save(using=using, update_fields=_LEFT)
    return recorded(outcome, held=repaired.held)


def _deleting(rule: Rule) -> bool:
    return any(deletes(rule.remedy(drift)) for drift in Drift)


def _repair(outcome: Outcome, made: RulePlan, run: Run, *, using: str, progress: Progress) -> _Repaired:
    """Hold the rule and repair its shards. An error of the rule is noted, one of this worker's hold is raised."""
    rule = made.rule
    compiled = rule.compile(using=using, now=run.now)
    finders = {finder.drift: finder for finder in compiled.finders if rule.remedy(finder.drift).verb}
    repaired = _Repaired(
        deferred=any(
            rule.remedy(drift).deferred and finder.promise is None for drift, finder in finders.items()
        )
    )
    try:
        shards = hold(outcome, finders, using=using)
    except HeldError as error:
        return _Repaired(why_stopped=str(error), held=True)
    try:
        for drift, finder in finders.items():
            if shards[drift].state == Shard.State.RUNNING:
                chunks = _chunks(made, finder, shards[drift], run, _allowance(outcome, made, using))
                try:
                    with evaluated(using):
                        repair_shard(
                            chunks,
                            compiled.source,
                            records=made.check.tally.checked,
                            kept=made.check.kept[drift],
                            progress=lambda keys: progress(rule.name, keys),
                        )
                finally:
                    repaired.failures |= chunks.failures
                _close(chunks, repaired)
    except (GivenUpError, EvaluationError) as error:
        repaired.why_stopped, repaired.unfinished = str(error), True
        repaired.skipped += len(repaired.failures)
    still_mine(shards.values(), using=using)
    release(outcome, using=using)
    return repaired


def _allowance(outcome: Outcome, made: RulePlan, using: str) -> Allowance:
    """What the caps still let the run write for this rule."""
    if made.rows is None and made.deletes is None:
        return Allowance()
    outcome.refresh_from_db(using=using, fields=[*Outcome.COUNTED.values()])
    done = written(outcome)
    return Allowance(
        rows=None if made.rows is None else made.rows - done.total,
        deletes=None if made.deletes is None else made.deletes - done.delete,
    )


def _chunks(made: RulePlan, finder: Finder, shard: Shard, run: Run, allowance: Allowance) -> Chunks:
    rule, using = made.rule, finder.using
    remedy = rule.remedy(finder.drift)
    may_take: Callable[[Sequence[Any]], Sequence[Any]] | None = None
    if deletes(remedy):
        may_take = partial(agreed, rule.name, finder, run=run.pk, using=using)
    return Chunks(
        rule=rule.name,
        finder=finder,
        remedy=remedy,
        shard=shard,
        using=using,
        allowance=allowance,
        obey=obeying(run, using=using),
        throttles=throttles(),
        may_take=may_take,
        pace=Pace.configured(),
    )


def _close(chunks: Chunks, repaired: _Repaired) -> None:
    """The shard has passed its last key; what stayed aside and still drifts was skipped."""
    left = chunks.finder.keys(Keys(chunks.aside)) if chunks.aside else ()
    repaired.skipped += len(left) + len(chunks.failures)
    repaired.held_keys |= {key: chunks.busy.get(key, _HELD) for key in left}
    repaired.waiting += chunks.waiting
    Shard._base_manager.using(chunks.using).filter(pk=chunks.shard.pk, token=chunks.shard.token).update(
        state=Shard.State.DONE, set_aside=len(left) + len(chunks.failures)
    )


def _note_found(outcome: Outcome, made: RulePlan, using: str) -> None:
    found = made.check
    outcome.planned = made.planned.as_dict()
    outcome.reported = {str(drift): number for drift, number in reported(made.rule, found.tally).items()}
    outcome.checked = found.tally.checked
    outcome.missing, outcome.stale, outcome.extra = (found.tally[drift] for drift in (MISSING, STALE, EXTRA))
    outcome.samples = [{"drift": str(each.drift), "key": each.key} for each in found.samples]
    outcome.guarantee = found.guarantee
    outcome.status = str(found.status)
    outcome.save(using=using, update_fields=_FOUND)


def _note_left(outcome: Outcome, rule: Rule, found: RuleCheck, repaired: _Repaired) -> None:
    # A rule that an error ended stays open, so that resuming the run goes on with it.
    outcome.state = Outcome.State.REPAIRING if repaired.unfinished else Outcome.State.DONE
    outcome.status = str(found.status)
    outcome.error = found.error or ""
    outcome.left = sum(found.tally[drift] for drift in Drift if rule.remedy(drift).verb)
    outcome.skipped = repaired.skipped
    refused = {**repaired.failures, **repaired.held_keys}
    outcome.refused = [{"key": str(key), "why": why} for key, why in list(refused.items())[:REFUSED]]
    outcome.why_stopped = repaired.why_stopped or _why_left(outcome, repaired)


def _why_left(outcome: Outcome, repaired: _Repaired) -> str:
    failures: Mapping[Any, str] = repaired.failures
    if failures:
        key, why = next(iter(failures.items()))
        if len(failures) == 1:
            return f"1 record could not be repaired, {key}: {why}"
        return f"{len(failures)} records could not be repaired; the first, {key}: {why}"
    if repaired.waiting:
        return (
            f"{repaired.waiting:,} rows would be deleted, and this run is the first to find them. Deletes need two runs "
            f"that agree: look at them, then run it again: reconcile repair {outcome.rule} --apply"
        )
    if outcome.left and outcome.enqueued and repaired.deferred:
        return "The records are mended when the tasks that were enqueued have run. Check again later."
    if outcome.left and outcome.may_repair and not outcome.error:
        return "Drift is left: other sessions hold these records, or write them meanwhile. Repair again."
    return ""
