"""One rule of a run: check, plan, repair shard by shard, verify, and note the outcome."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import structlog

from reconcile.checking import RuleCheck, check, evaluated
from reconcile.drift import EXTRA, MISSING, STALE, Drift, Status
from reconcile.errors import EvaluationError, GivenUpError, HeldError
from reconcile.finders import Finder
from reconcile.limits import share
from reconcile.models import Outcome, Run, Shard
from reconcile.planning import RulePlan, plan
from reconcile.remedies import Remedy
from reconcile.repairing import Chunks
from reconcile.rules import Rule
from reconcile.runs._holding import hold, release, still_mine
from reconcile.runs._results import Progress, RuleRepair, recorded, reported, written
from reconcile.sharding import KEEP, repair_shard
from reconcile.windows import Keys

__all__ = ["take", "too_risky"]

log = structlog.get_logger()


@dataclass(kw_only=True)
class _Repaired:
    """What the shards of one rule came to."""

    skipped: int = 0
    failures: dict[Any, str] = field(default_factory=dict)
    why_stopped: str = ""
    held: bool = False
    unfinished: bool = False
    deferred: bool = False


def too_risky(rule: Rule, using: str) -> str:
    """Why nobody but a person should start this rule's repair; empty where the nightly job may."""
    if any(_deletes(rule.remedy(drift)) for drift in Drift):
        return (
            f"Its remedy deletes rows, which is for a person to start: reconcile repair {rule.name} --apply"
        )
    guarantee = rule.guarantee(using)
    if guarantee in {"A", "B"} or (guarantee == "C" and rule.settle):
        return ""
    settled = "; at C, settle= is enough" if guarantee == "C" else ""
    return f"Its guarantee is {guarantee}, so the nightly job only reports. A unique constraint would lift it to A{settled}."


def _deletes(remedy: Remedy) -> bool:
    """Whether the remedy, or one that it is made of, deletes rows."""
    return remedy.verb == "delete" or any(map(_deletes, getattr(remedy, "parts", ())))


def take(outcome: Outcome, rule: Rule, run: Run, *, using: str, progress: Progress) -> RuleRepair:
    """Bring one rule of a run to its outcome.

    Raises TakenOverError where another worker has the rule now, and EvaluationError where the database is gone.
    """
    started = time.monotonic()
    found = check(rule, using=using, now=run.now, keep=KEEP if outcome.may_repair else 0)
    begun = outcome.state == Outcome.State.REPAIRING
    made = plan(found, max_repairs=_limit(outcome.max_repairs))
    log.info(
        "rule_planned",
        rule=rule.name,
        run=str(run.pk),
        planned=made.planned.total,
        why_stopped=made.why_stopped,
    )
    if not begun:
        _note_found(outcome, made, using)
    repaired = _Repaired(why_stopped="" if begun else _refusal(outcome, made, using))
    if found.status is not Status.ERROR and not repaired.why_stopped and (made.planned.total or begun):
        repaired = _repair(outcome, made, run, using=using, progress=progress)
        found = check(rule, using=using, now=run.now, known=found.tally)
        log.info("rule_verified", rule=rule.name, run=str(run.pk), left=found.tally.total)
    outcome.refresh_from_db(using=using)
    outcome.seconds += time.monotonic() - started
    _note_left(outcome, rule, found, repaired)
    outcome.save(using=using)
    return recorded(outcome, held=repaired.held)


def _limit(text: str) -> int | str | None:
    return (text if text.endswith("%") else int(text)) if text else None


def _refusal(outcome: Outcome, made: RulePlan, using: str) -> str:
    """Why the rule is not repaired; empty where it is, or where there is nothing to repair."""
    if not made.planned.total:
        return ""
    if outcome.may_repair:
        return made.why_stopped
    reason = too_risky(made.rule, using) if made.rule.unattended else ""
    return reason or "It is not unattended, so the nightly job only reports."


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
                chunks = _chunks(rule, finder, shards[drift], using, _allowance(outcome, made, using))
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


def _allowance(outcome: Outcome, made: RulePlan, using: str) -> float | None:
    """Rows that the cap still lets the run write for this rule; None without a cap."""
    if made.cap is None:
        return None
    outcome.refresh_from_db(using=using, fields=["checked", *Outcome.COUNTED.values()])
    return share(made.cap, outcome.checked) - written(outcome).total


def _chunks(rule: Rule, finder: Finder, shard: Shard, using: str, may_write: float | None) -> Chunks:
    remedy = rule.remedy(finder.drift)
    return Chunks(rule=rule.name, finder=finder, remedy=remedy, shard=shard, using=using, may_write=may_write)


def _close(chunks: Chunks, repaired: _Repaired) -> None:
    """The shard has passed its last key; what stayed aside and still drifts was skipped."""
    left = len(chunks.finder.keys(Keys(chunks.aside))) if chunks.aside else 0
    repaired.skipped += left + len(chunks.failures)
    Shard._base_manager.using(chunks.using).filter(pk=chunks.shard.pk, token=chunks.shard.token).update(
        state=Shard.State.DONE, set_aside=left + len(chunks.failures)
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
    outcome.save(using=using)


def _note_left(outcome: Outcome, rule: Rule, found: RuleCheck, repaired: _Repaired) -> None:
    # A rule that an error ended stays open, so that resuming the run goes on with it.
    outcome.state = Outcome.State.REPAIRING if repaired.unfinished else Outcome.State.DONE
    outcome.status = str(found.status)
    outcome.error = found.error or ""
    outcome.left = sum(found.tally[drift] for drift in Drift if rule.remedy(drift).verb)
    outcome.skipped = repaired.skipped
    outcome.why_stopped = repaired.why_stopped or _why_left(outcome, repaired)


def _why_left(outcome: Outcome, repaired: _Repaired) -> str:
    failures = repaired.failures
    if failures:
        key, why = next(iter(failures.items()))
        if len(failures) == 1:
            return f"1 record could not be repaired, {key}: {why}"
        return f"{len(failures)} records could not be repaired; the first, {key}: {why}"
    if outcome.left and outcome.enqueued and repaired.deferred:
        return "The records are mended when the tasks that were enqueued have run. Check again later."
    if outcome.left and outcome.may_repair and not outcome.error:
        return "Drift is left: other sessions hold these records, or write them meanwhile. Repair again."
    return ""
