"""The shards of one rule, one for each way in which it is repaired: held, repaired, and what they came to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from reconcile.agreeing import agreed, deletes
from reconcile.allowance import Allowance
from reconcile.checking import evaluated
from reconcile.drift import Drift
from reconcile.errors import EvaluationError, GivenUpError, HeldError
from reconcile.finders import Finder
from reconcile.models import Outcome, Run, Shard
from reconcile.pacing import Pace
from reconcile.planning import RulePlan
from reconcile.repairing import Chunks
from reconcile.runs._covered import left_of_plan
from reconcile.runs._holding import hold, release, still_mine
from reconcile.runs._results import Progress, written
from reconcile.runs._steering import Obeying
from reconcile.sharding import repair_shard
from reconcile.throttling import throttles
from reconcile.windows import Keys

__all__ = ["Repaired", "repair_shards"]

_HELD = "Another session holds it, or what it is repaired by."


@dataclass(kw_only=True)
class Repaired:
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


def repair_shards(
    outcome: Outcome, made: RulePlan, run: Run, *, anew: bool, using: str, progress: Progress
) -> Repaired:
    """Hold the rule and repair its shards, from where they are or `anew`.

    An error of the rule is noted, one of this worker's hold is raised.
    """
    rule = made.rule
    compiled = rule.compile(using=using, now=run.now)
    finders = {finder.drift: finder for finder in compiled.finders if rule.remedy(finder.drift).verb}
    repaired = Repaired(
        deferred=any(
            rule.remedy(drift).deferred and finder.promise is None for drift, finder in finders.items()
        )
    )
    try:
        shards = hold(outcome, finders, run, anew=anew, using=using)
    except HeldError as error:
        return Repaired(why_stopped=str(error), held=True)
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
                    repaired.failures |= {(drift, key): why for key, why in chunks.left.failures.items()}
                    repaired.skipped += len(chunks.left.failures)
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


def _close(chunks: Chunks, repaired: Repaired) -> None:
    """The shard has passed its last key; what stayed aside and still drifts was skipped."""
    left = chunks.finder.keys(Keys(chunks.left.aside)) if chunks.left.aside else ()
    repaired.skipped += len(left)
    repaired.held_keys |= {(chunks.finder.drift, key): chunks.left.busy.get(key, _HELD) for key in left}
    repaired.waiting += chunks.waiting
    repaired.mended += chunks.mended
    Shard._base_manager.using(chunks.using).filter(pk=chunks.shard.pk, token=chunks.shard.token).update(
        state=Shard.State.DONE, set_aside=len(left) + len(chunks.left.failures)
    )
