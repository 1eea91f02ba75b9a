"""What the plan that was given with a run still covers of a rule. It is held in records, which is what a plan counts.

A record may come to several rows: a merge writes those that refer to it, too, and a record may lack more than one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from reconcile.drift import VERBS, Written
from reconcile.finders import Finder
from reconcile.fingerprints import fingerprint
from reconcile.models import Chunk, Outcome, Run
from reconcile.planning import RulePlan
from reconcile.plans import PlannedRule
from reconcile.rules import Rule
from reconcile.runs._results import written

__all__ = ["edited", "left_of_plan", "off_plan"]


def off_plan(outcome: Outcome, made: RulePlan, run: Run, *, using: str) -> str:
    """Why the plan doesn't cover what the run has done for the rule and would do; empty where it does, or there is none.

    One statement for each kind of drift that the run has repaired.
    """
    if not outcome.kept_plan:
        return ""
    kept, file = PlannedRule.of(outcome.kept_plan), str(outcome.kept_plan.get("file", ""))
    done = _done(outcome, made.rule, _finders(made.rule, run.now, using), using)
    return kept.refusal(made.rule.name, fingerprint(made.rule, using), done + made.planned, file)


def edited(outcome: Outcome, rule: Rule, *, using: str) -> str:
    """The warning for a rule that says something else than when the run began to repair it; empty where it doesn't.

    A plan that was given with the run refuses such a rule. No statement.
    """
    if outcome.kept_plan or not outcome.fingerprint or outcome.fingerprint == fingerprint(rule, using):
        return ""
    done = written(outcome).total
    return f"It was edited since the run began with it, and is begun anew; {done:,} rows were written as it was before."


def left_of_plan(outcome: Outcome, rule: Rule, finder: Finder, run: Run, *, using: str) -> int | None:
    """How many more records of the finder's drift the plan lets the run repair; None without a plan.

    One statement for each kind of drift that the run has repaired.
    """
    if not outcome.kept_plan:
        return None
    planned = PlannedRule.of(outcome.kept_plan).planned
    done = _done(outcome, rule, _finders(rule, run.now, using), using)
    verb = _verb(rule, finder)
    if not verb:
        return planned.total - done.total
    return int(getattr(planned, verb)) - int(getattr(done, verb))


def _finders(rule: Rule, now: datetime, using: str) -> Sequence[Finder]:
    finders = rule.compile(using=using, now=now).finders
    return [each for each in finders if rule.remedy(each.drift).verb]


def _verb(rule: Rule, finder: Finder) -> str:
    """Under which verb a plan counts the finder's records; empty where a Split tells them apart, for which there are two."""
    remedy = rule.remedy(finder.drift)
    if getattr(remedy, "parts", ()):
        return ""
    planned = remedy.planned(finder, 1)
    return next((verb for verb in VERBS if getattr(planned, verb)), "")


def _done(outcome: Outcome, rule: Rule, finders: Sequence[Finder], using: str) -> Written:
    """Records that the run has repaired for the rule, by verb; where a Split tells them apart, the rows that it has written."""
    verbs = [_verb(rule, finder) for finder in finders]
    if not all(verbs):
        return written(outcome)
    done = Written()
    for finder, verb in zip(finders, verbs, strict=True):
        if rule.remedy(finder.drift).deferred:
            # Of what a task repairs later, chunks keep no keys; each row stands for a record.
            done.add(verb, getattr(written(outcome), verb))
        else:
            chunks = Chunk._base_manager.using(using).filter(
                shard__outcome=outcome, shard__drift=str(finder.drift)
            )
            done.add(verb, sum(map(len, chunks.values_list("keys", flat=True).iterator(chunk_size=10))))
    return done
