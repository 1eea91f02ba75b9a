"""The guards of a repair: what stops a rule before its first write, and what is said loudly although it doesn't.

A preview asks them all, and notes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.utils import timezone

from reconcile.agreeing import agreed, blocks, deletes, remember
from reconcile.drift import Drift
from reconcile.models import Outcome, Run
from reconcile.planning import Caps, RulePlan
from reconcile.recurring import drifting_again, some_of, suspend, suspension
from reconcile.rules import Rule
from reconcile.runs._covered import off_plan
from reconcile.runs._steering import Obeying
from reconcile.sharding import drifted_keys

__all__ = [
    "again_in_words",
    "caps_of",
    "noted",
    "recurrent",
    "refusal",
    "too_risky",
    "waiting_in_words",
    "warned",
]


def too_risky(rule: Rule, using: str) -> str:
    """Why nobody but a person should start this rule's repair; empty where the nightly job may."""
    if any(deletes(rule.remedy(drift)) for drift in Drift):
        return (
            f"Its remedy deletes rows, which is for a person to start: reconcile repair {rule.name} --apply"
        )
    guarantee = rule.guarantee(using)
    if guarantee in {"A", "B"} or (guarantee == "C" and rule.settle):
        return ""
    lift = rule.lift(using)
    said = [f"Its guarantee is {guarantee}, so the nightly job only reports."]
    if lift is not None and lift.helps:
        said.append(f"A unique constraint on {lift.model} would lift it to A: reconcile explain {rule.name}")
    elif guarantee == "C":
        said.append("At C, settle= is enough.")
    return " ".join(said)


def caps_of(outcome: Outcome) -> Caps:
    """The caps that a person gave with the run."""
    return Caps(max_repairs=_limit(outcome.max_repairs), max_deletes=_limit(outcome.max_deletes))


def _limit(text: str) -> int | str | None:
    return (text if text.endswith("%") else int(text)) if text else None


def noted(made: RulePlan, run: Run, *, using: str) -> None:
    """Note what the rule's remedies would delete, so that the next run can agree. No statement where they delete nothing."""
    rule, found = made.rule, made.check
    compiled = rule.compile(using=using, now=run.now)
    for finder in compiled.finders:
        if deletes(rule.remedy(finder.drift)):
            kept = found.kept[finder.drift]
            beat = Obeying(run, using=using).beat
            keys = drifted_keys(finder, compiled.source, found.tally.checked, kept, beat)
            remember(rule, finder, keys, run=run, using=using)


def recurrent(made: RulePlan, *, run: UUID | None, now: datetime, using: str) -> Sequence[str]:
    """Keys of records that drift again although they were repaired lately. One statement, two for large rules."""
    rule = made.rule
    drifted = {drift: kept.keys for drift, kept in made.check.kept.items() if rule.remedy(drift).verb}
    return drifting_again(rule, drifted, run=run, using=using, now=now)


def again_in_words(again: Sequence[str]) -> str:
    """The warning for records that drift again; empty where none does."""
    if not again:
        return ""
    drifts = "drifts again although it was" if len(again) == 1 else "drift again although they were"
    return (
        f"{len(again):,} of these records {drifts} repaired before ({some_of(again)}). Something writes them "
        "wrong each time: find it, and mend that."
    )


def waiting_in_words(made: RulePlan, *, using: str) -> str:
    """For a preview: that rows wait for a second run before they are deleted; empty where none does.

    Two statements at most for each 5,000 rows that would be deleted; looks at the first 100,000.
    """
    if not made.planned.delete:
        return ""
    rule = made.rule
    run = Run(started_at=timezone.now())
    finders = [
        each
        for each in rule.compile(using=using, now=run.started_at).finders
        if deletes(rule.remedy(each.drift))
    ]
    kept = {each.drift: made.check.kept[each.drift].keys for each in finders}
    known = sum(
        len(agreed(block, rule=rule, finder=each, run=run, using=using))
        for each in finders
        for block in blocks(kept[each.drift])
    )
    if known >= sum(map(len, kept.values())):
        return ""
    knew, noted = (f"{known:,}", "the others") if known else ("none", "them")
    return (
        f"Deletes need two runs that agree, and the last run knew {knew} of these rows: the first --apply notes {noted}, "
        "the next deletes them."
    )


def warned(outcome: Outcome, made: RulePlan, run: Run, *, using: str) -> Sequence[str]:
    """Note loudly which records drift again; their keys."""
    again = recurrent(made, run=run.pk, now=run.now, using=using)
    # A rule that is taken again, since others of its circle have written, says what it said before.
    if len(again) >= outcome.again:
        outcome.again, outcome.warning = len(again), again_in_words(again)
    return again


def refusal(outcome: Outcome, made: RulePlan, run: Run, *, again: Sequence[str], using: str) -> str:
    """Why the rule is not repaired; empty where it is, or where there is nothing to repair."""
    if not made.planned.total:
        return ""
    if not outcome.may_repair:
        reason = too_risky(made.rule, using) if made.rule.unattended else ""
        return reason or "It is not unattended, so the nightly job only reports."
    return (
        off_plan(outcome, made, run, using=using)
        or made.why_stopped
        or (_broken(made.rule, run, again, using) if run.kind == Run.Kind.NIGHTLY else "")
    )


def _broken(rule: Rule, run: Run, again: Sequence[str], using: str) -> str:
    """Why the nightly job leaves the rule alone: what it had repaired has drifted again, now or on an earlier night."""
    suspended = suspension(rule.name, using=using)
    if suspended or not again:
        return suspended
    return suspend(rule.name, again, run=run.pk, using=using)
