"""One rule of a run: check, plan, repair shard by shard, verify, and note the outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import structlog

from reconcile.agreeing import agreed, deletes
from reconcile.allowance import Allowance
from reconcile.checking import RuleCheck, check, evaluated
from reconcile.drift import EXTRA, MISSING, STALE, Drift, Status
from reconcile.errors import EvaluationError, GivenUpError, HeldError
from reconcile.finders import Finder
from reconcile.fingerprints import fingerprint
from reconcile.models import Outcome, Run, Shard
from reconcile.pacing import Pace
from reconcile.planning import RulePlan, plan
from reconcile.repairing import Chunks
from reconcile.rules import Rule
from reconcile.runs._covered import left_of_plan, off_plan
from reconcile.runs._guards import caps_of, noted, refusal, warned
from reconcile.runs._holding import hold, release, still_mine
from reconcile.runs._results import Progress, RuleRepair, recorded, reported, written
from reconcile.runs._steering import Obeying
from reconcile.sharding import KEEP, repair_shard
from reconcile.throttling import throttles
from reconcile.windows import Keys

__all__ = ["take"]

log = structlog.get_logger()

_HELD = "Another session holds it, or what it is repaired by."

_FOUND = (
    "planned", "reported", "checked", "missing", "stale", "extra", "samples", "guarantee", "status", "again", "warning",
    "fingerprint",
)  # fmt: skip
_LEFT = ("state", "status", "error", "left", "skipped", "refused", "why_stopped", "seconds")

REFUSED = 100
"""Records that were set aside which an outcome names, each with the reason."""


@dataclass(kw_only=True)
class _Repaired:
    """What the shards of one rule came to."""

    skipped: int = 0
    waiting: int = 0
    failures: dict[tuple[Drift, Any], str] = field(default_factory=dict)
    held_keys: dict[tuple[Drift, Any], str] = field(default_factory=dict)
    why_stopped: str = ""
    held: bool = False
    unfinished: bool = False
    deferred: bool = False
    mended: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether nothing was left for any reason."""
        left = self.skipped or self.waiting or self.failures or self.held_keys
        return not (left or self.why_stopped or self.held or self.unfinished or self.deferred)


def take(outcome: Outcome, rule: Rule, run: Run, *, using: str, progress: Progress) -> RuleRepair:
    """Bring one rule of a run to its outcome.

    Raises TakenOverError where another worker has the rule now, PausedError and CancelledError where somebody wants it
    so, and EvaluationError where the database is gone.
    """
    started = time.monotonic()
    obey = Obeying(run, using=using)
    obey()
    keep = KEEP if outcome.may_repair or _deleting(rule) else 0
    found = check(rule, using=using, now=run.now, keep=keep, beat=obey.beat)
    begun = outcome.state == Outcome.State.REPAIRING
    made = plan(found, caps_of(outcome), written(outcome))
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
        if begun:
            # Half repaired: it stays open, for the rule and the plan as they were.
            repaired.why_stopped = off_plan(outcome, made, run, using=using)
            repaired.unfinished = bool(repaired.why_stopped)
        else:
            again = warned(outcome, made, run, using=using)
            repaired.why_stopped = refusal(outcome, made, run, again=again, using=using)
    if not begun:
        _note_found(outcome, made, using)
    if found.status is not Status.ERROR and not repaired.why_stopped and (made.planned.total or begun):
        repaired = _repair(outcome, made, run, using=using, progress=progress)
        found = _verified(made, repaired, run, obey, begun=begun, using=using)
        log.info("rule_verified", rule=rule.name, run=str(run.pk), left=found.tally.total)
    if found.status is Status.ERROR and (begun or repaired.mended):
        # What is half repaired stays open; the error may be gone when the run is resumed.
        repaired.unfinished = True
    if begun and repaired.unfinished:
        release(outcome, using=using)
    obey.owned()
    outcome.refresh_from_db(using=using)
    outcome.seconds += time.monotonic() - started
    _note_left(outcome, rule, found, repaired)
    # Not the counts of rows: those are the chunks' own.
    outcome.save(using=using, update_fields=_LEFT)
    return recorded(outcome, held=repaired.held)


def _verified(
    made: RulePlan, repaired: _Repaired, run: Run, obey: Obeying, *, begun: bool, using: str
) -> RuleCheck:
    """The rule as it stands after the repair: counted again, unless each chunk has told all that there is to know.

    That is so where the rule drifts in one way alone, and each record that was counted has been mended and verified in its
    chunk. What others have done to other records since then is for the next run, as for a check.
    """
    found, tally = made.check, made.check.tally
    whole = not begun and repaired.is_whole and repaired.mended == tally.total
    if whole and len(tally.drifted) == 1:
        mended = replace(tally, drifted=dict.fromkeys(tally.drifted, 0))
        return replace(found, tally=mended, status=made.rule.status(mended), samples=())
    return check(made.rule, using=using, now=run.now, known=tally, beat=obey.beat)


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
        shards = hold(outcome, finders, run, using=using)
    except HeldError as error:
        return _Repaired(why_stopped=str(error), held=True)
    try:
        for drift, finder in finders.items():
            if shards[drift].state == Shard.State.RUNNING:
                allowance = _allowance(outcome, made, finder, run, using=using)
                chunks = _chunks(made, finder, shards[drift], run, allowance)
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
                    repaired.failures |= {(drift, key): why for key, why in chunks.failures.items()}
                    repaired.skipped += len(chunks.failures)
                _close(chunks, repaired)
    except (GivenUpError, EvaluationError) as error:
        repaired.why_stopped, repaired.unfinished = str(error), True
    still_mine(shards.values(), using=using)
    release(outcome, using=using)
    return repaired


def _allowance(outcome: Outcome, made: RulePlan, finder: Finder, run: Run, *, using: str) -> Allowance:
    """What the caps and the plan still let the run write for this rule, in the way that the finder looks for."""
    outcome.refresh_from_db(using=using, fields=[*Outcome.COUNTED.values()])
    done = written(outcome)
    return Allowance(
        rows=None if made.rows is None else made.rows - done.total,
        deletes=None if made.deletes is None else made.deletes - done.delete,
        planned=left_of_plan(outcome, made.rule, finder, run, using=using),
        file=str(outcome.kept_plan.get("file", "")),
    )


def _chunks(made: RulePlan, finder: Finder, shard: Shard, run: Run, allowance: Allowance) -> Chunks:
    rule, using = made.rule, finder.using
    remedy = rule.remedy(finder.drift)
    may_take: Callable[[Sequence[Any]], Sequence[Any]] | None = None
    if deletes(remedy):
        may_take = partial(agreed, rule=rule, finder=finder, run=run, using=using)
        # Asked again inside the chunk, since a group may have grown while it was waiting.
        finder = replace(finder, deletable=may_take)
    return Chunks(
        rule=rule.name,
        finder=finder,
        remedy=remedy,
        shard=shard,
        using=using,
        allowance=allowance,
        obey=Obeying(run, using=using),
        throttles=throttles(),
        may_take=may_take,
        pace=Pace.configured(exclusive=bool(finder.exclusive) and not remedy.deferred),
    )


def _close(chunks: Chunks, repaired: _Repaired) -> None:
    """The shard has passed its last key; what stayed aside and still drifts was skipped."""
    left = chunks.finder.keys(Keys(chunks.aside)) if chunks.aside else ()
    repaired.skipped += len(left)
    repaired.held_keys |= {(chunks.finder.drift, key): chunks.busy.get(key, _HELD) for key in left}
    repaired.waiting += chunks.waiting
    repaired.mended += chunks.mended
    Shard._base_manager.using(chunks.using).filter(pk=chunks.shard.pk, token=chunks.shard.token).update(
        state=Shard.State.DONE, set_aside=len(left) + len(chunks.failures)
    )


def _note_found(outcome: Outcome, made: RulePlan, using: str) -> None:
    found = made.check
    # A rule that is taken again, since others of its circle have written, has had its first look.
    outcome.planned = (made.written + made.planned).as_dict()
    outcome.reported = {str(drift): number for drift, number in reported(made.rule, found.tally).items()}
    outcome.checked = found.tally.checked
    outcome.missing = max(outcome.missing, found.tally[MISSING])
    outcome.stale = max(outcome.stale, found.tally[STALE])
    outcome.extra = max(outcome.extra, found.tally[EXTRA])
    if found.status is not Status.ERROR:
        outcome.fingerprint = fingerprint(made.rule, using)
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
    outcome.refused = [{"key": str(key), "why": why} for (_, key), why in list(refused.items())[:REFUSED]]
    outcome.why_stopped = repaired.why_stopped or _why_left(outcome, repaired)


def _why_left(outcome: Outcome, repaired: _Repaired) -> str:
    failures: Mapping[tuple[Drift, Any], str] = repaired.failures
    if failures:
        (_, key), why = next(iter(failures.items()))
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
