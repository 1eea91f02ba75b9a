"""The guards of a repair: what stops a rule before its first write, and what warns.

A preview asks every guard and records nothing. A plan counts records, since one record may cost several rows: a merge also
writes the rows that refer to it, and a record may lack more than one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from reconcile.core.finder import Finder
from reconcile.core.scopes import Coverage, blocks
from reconcile.core.verbs import DELETE, VERBS, Written
from reconcile.core.wording.names import plural
from reconcile.db.clock import database_now
from reconcile.errors import Refusal
from reconcile.models import Chunk, Outcome, Run
from reconcile.repair.caps import Caps, RulePlan
from reconcile.repair.confirmation import confirmed_keys, record_findings
from reconcile.repair.plan_file import PlannedRule
from reconcile.repair.regressions import find_regressions, name_some, suspend, suspension
from reconcile.repair.repairing import KEEP, drifted_keys
from reconcile.rules.fingerprints import fingerprint
from reconcile.rules.rule import Rule
from reconcile.rules.unattended import unattended_refusal
from reconcile.runs.results import add_warnings, written_rows
from reconcile.runs.steering import RunControl

__all__ = [
    "caps_of",
    "edited_warning",
    "left_of_plan",
    "plan_refusal",
    "record_deletions",
    "refusal",
    "regressions_in_words",
    "regressions_of",
    "unconfirmed_rows",
    "warn_of_regressions",
]


def plan_refusal(outcome: Outcome, rule_plan: RulePlan, run: Run, *, using: str) -> Refusal | None:
    """Why the plan does not cover what the run has repaired and would repair; None if it does, or there is no plan.

    One statement for each kind of drift that the run has repaired.
    """
    if not outcome.kept_plan:
        return None
    kept, file = PlannedRule.of(outcome.kept_plan), str(outcome.kept_plan.get("file", ""))
    done = _repaired_records(outcome, rule_plan.rule, _writing_finders(rule_plan.rule, run.now, using), using)
    return kept.refusal(
        rule_plan.rule.name, fingerprint(rule_plan.rule, using), done + rule_plan.records, file
    )


def edited_warning(outcome: Outcome, rule: Rule, *, using: str) -> str:
    """The warning if the rule was edited after the run began to repair it; empty if it was not.

    A run with a plan refuses an edited rule instead. No statement.
    """
    if outcome.kept_plan or not outcome.fingerprint or outcome.fingerprint == fingerprint(rule, using):
        return ""
    done = written_rows(outcome).total
    return f"It was edited since the run began with it, and is begun anew; {plural(done, 'row')} had been written as it was before."


def left_of_plan(outcome: Outcome, rule: Rule, finder: Finder, run: Run, *, using: str) -> int | None:
    """The number of records of this kind of drift that the plan still lets the run repair; None without a plan.

    One statement for each kind of drift that the run has repaired.
    """
    if not outcome.kept_plan:
        return None
    planned = PlannedRule.of(outcome.kept_plan).planned
    done = _repaired_records(outcome, rule, _writing_finders(rule, run.now, using), using)
    verb = _verb(rule, finder)
    if not verb:
        return planned.total - done.total
    return planned[verb] - done[verb]


def _writing_finders(rule: Rule, now: datetime, using: str) -> Sequence[Finder]:
    finders = rule.compile(using=using, now=now).finders
    return [each for each in finders if rule.remedy(each.drift).repairs]


def _verb(rule: Rule, finder: Finder) -> str:
    """The verb under which a plan counts the finder's records; empty for a Split, which has two."""
    remedy = rule.remedy(finder.drift)
    if remedy.parts:
        return ""
    planned = remedy.plan(finder, 1)
    return next((verb for verb in VERBS if planned[verb]), "")


def _repaired_records(outcome: Outcome, rule: Rule, finders: Sequence[Finder], using: str) -> Written:
    """Count the records that the run has repaired for the rule, by verb; for a Split, the rows that it has written."""
    verbs = [_verb(rule, finder) for finder in finders]
    if not all(verbs):
        return written_rows(outcome)
    done = Written()
    for finder, verb in zip(finders, verbs, strict=True):
        if rule.remedy(finder.drift).deferred:
            # Chunks keep no keys of records that a task repairs later; each counted row is one record.
            done.add(verb, written_rows(outcome)[verb])
        else:
            chunks = Chunk._base_manager.using(using).filter(
                work_item__outcome=outcome, work_item__drift=str(finder.drift)
            )
            done.add(verb, sum(map(len, chunks.values_list("keys", flat=True).iterator(chunk_size=10))))
    return done


def caps_of(outcome: Outcome) -> Caps:
    """The caps that a person gave with the run."""
    return Caps(max_repairs=_parse_limit(outcome.max_repairs), max_deletes=_parse_limit(outcome.max_deletes))


def _parse_limit(text: str) -> int | str | None:
    if not text:
        return None
    return text if text.endswith("%") else int(text)


def record_deletions(rule_plan: RulePlan, run: Run, *, using: str) -> None:
    """Record the rows that the rule's remedies would delete, so that the next run can confirm them.

    A look at some records alone records nothing: it can't say what is no longer found, and two looks at a moment are no two
    opinions. No statement if they delete nothing.
    """
    rule, found = rule_plan.rule, rule_plan.check
    if found.coverage is not Coverage.FULL:
        return
    compiled = rule.compile(using=using, now=run.now)
    for finder in compiled.finders:
        if rule.remedy(finder.drift).deletes:
            kept = found.kept[finder.drift]
            beat = RunControl(run, using=using).beat
            keys = drifted_keys(finder, compiled.source, found.tally.checked, kept, beat)
            record_findings(rule, finder, keys, run=run, using=using)


def regressions_of(rule_plan: RulePlan, *, run: UUID | None, now: datetime, using: str) -> Sequence[str]:
    """The keys of records that drift again after a recent repair. One statement, two for large rules."""
    rule = rule_plan.rule
    drifted = {drift: kept.keys for drift, kept in rule_plan.check.kept.items() if rule.remedy(drift).repairs}
    return find_regressions(rule, drifted, run=run, using=using, now=now)


def regressions_in_words(again: Sequence[str]) -> str:
    """The warning about records that drift again; empty if there are none."""
    if not again:
        return ""
    drifts = "drifts again although it was" if len(again) == 1 else "drift again although they were"
    return (
        f"{len(again):,} of these records {drifts} repaired before ({name_some(again)}). Something has "
        "written them wrong again: find it, and mend that."
    )


def unconfirmed_rows(rule_plan: RulePlan, *, using: str) -> tuple[int, str]:
    """How many deletes of a preview wait for a second run, and the warning about it; empty if none does.

    At most two statements for each 5,000 rows that would be deleted. Of more than KEEP rows each may wait.
    """
    if not rule_plan.records.by(DELETE):
        return 0, ""
    rule = rule_plan.rule
    run = Run(started_at=database_now(using))
    finders = [
        each
        for each in rule.compile(using=using, now=run.started_at).finders
        if rule.remedy(each.drift).deletes
    ]
    kept = {each.drift: rule_plan.check.kept[each.drift].keys for each in finders}
    known = sum(
        len(confirmed_keys(block, rule=rule, finder=each, run=run, using=using))
        for each in finders
        for block in blocks(kept[each.drift])
    )
    planned = rule_plan.records.by(DELETE)
    if not all(rule_plan.check.kept[each.drift].complete for each in finders):
        return planned, (
            f"Deletes need two runs that agree. Of so many rows (more than {KEEP:,}) a plan doesn't know which the last run has noted: "
            "--apply deletes those, and notes the others."
        )
    # Of a Split some of the drifted rows are not deleted.
    waiting = min(max(sum(map(len, kept.values())) - known, 0), planned)
    if not waiting:
        return 0, ""
    if rule_plan.check.coverage is not Coverage.FULL:
        return waiting, (
            "Deletes need a run of the whole rule that has found the same rows before, and the others stay."
        )
    knew, noted = (f"{known:,}", "the others") if known else ("none", "them")
    return waiting, (
        f"Deletes need two runs that agree, and the last run knew {knew} of these rows: the first --apply notes {noted}, "
        "the next deletes them."
    )


def warn_of_regressions(outcome: Outcome, rule_plan: RulePlan, run: Run, *, using: str) -> Sequence[str]:
    """Write the warning about records that drift again into the outcome. Returns their keys."""
    again = regressions_of(rule_plan, run=run.pk, now=run.now, using=using)
    # A rule of a circle is repaired in several rounds; a later round must not take the warning back.
    if len(again) > outcome.again:
        outcome.again = len(again)
        add_warnings(outcome, regressions_in_words(again))
    return again


def refusal(
    outcome: Outcome, rule_plan: RulePlan, run: Run, *, again: Sequence[str], using: str
) -> Refusal | None:
    """Why the rule is not repaired; None if it is repaired, or if there is nothing to repair."""
    if not rule_plan.records.total:
        return None
    if not outcome.may_repair:
        return _attended_refusal(rule_plan.rule, using)
    if off_plan := plan_refusal(outcome, rule_plan, run, using=using):
        return off_plan
    if rule_plan.why_stopped:
        return Refusal(rule_plan.why_stopped)
    return None if run.kind == Run.Kind.REPAIR else _unattended_run_refusal(rule_plan, run, again, using)


def _unattended_run_refusal(
    rule_plan: RulePlan, run: Run, again: Sequence[str], using: str
) -> Refusal | None:
    """Why a run that no person has started does not repair the rule."""
    if hidden := next(iter(rule_plan.check.refused.values()), ""):
        return Refusal(hidden)
    if run.kind == Run.Kind.LOOK:
        # Who writes past the handlers and then looks is no broken handler, so nothing is suspended for it.
        return suspension(rule_plan.rule.name, using=using)
    return _regression_refusal(rule_plan.rule, run, again, using)


def _attended_refusal(rule: Rule, using: str) -> Refusal:
    reason = unattended_refusal(rule, using) if rule.unattended else None
    return reason or Refusal("It is not unattended, so the nightly job only reports.")


def _regression_refusal(rule: Rule, run: Run, again: Sequence[str], using: str) -> Refusal | None:
    """Why the nightly job does not repair the rule: repaired records have drifted again, now or on an earlier night."""
    suspended = suspension(rule.name, using=using)
    if suspended or not again:
        return suspended
    return suspend(rule.name, again, run=run.pk, using=using)
