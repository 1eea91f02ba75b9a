"""One rule of a run: check, plan, guards, repair of its work items, verification, outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import structlog

from reconcile.conf import throttles
from reconcile.core.drift import EXTRA, MISSING, STALE, Drift, Status
from reconcile.core.finder import Finder, Source
from reconcile.core.fixes import Insertion, Merging, Promise
from reconcile.core.scopes import Keys
from reconcile.core.verbs import DELETE
from reconcile.core.wording.names import plural
from reconcile.db.dialects import dialect_of
from reconcile.db.schema import may_change_values
from reconcile.detect.checking import RuleCheck, check, evaluation_errors
from reconcile.detect.culprit import as_plain, find_culprits, written_columns
from reconcile.errors import EvaluationError, GivenUpError, LeaseHeldError, Refusal, Suspended
from reconcile.models import Outcome, Run, WorkItem, transition
from reconcile.repair.attempt import LeasedItem
from reconcile.repair.caps import Budget, RulePlan, plan
from reconcile.repair.chunk import ChunkExecutor
from reconcile.repair.confirmation import confirmed_keys
from reconcile.repair.pacing import Pace
from reconcile.repair.quarantine import Quarantine
from reconcile.repair.repairing import KEEP, RepairWork, repair_work_item
from reconcile.rules.fingerprints import fingerprint
from reconcile.rules.invalid import InvalidRule
from reconcile.rules.registry import rules_if_any
from reconcile.rules.rule import CompiledRule, Rule
from reconcile.runs.guards import (
    caps_of,
    edited_warning,
    left_of_plan,
    plan_refusal,
    record_deletions,
    refusal,
    warn_of_regressions,
)
from reconcile.runs.leases import acquire_lease, check_lease, check_not_held, release_lease
from reconcile.runs.results import (
    Progress,
    RuleRepair,
    add_warnings,
    mendable_rows,
    moved_in_words,
    only_keys,
    reported_rows,
    result_of,
    written_rows,
)
from reconcile.runs.steering import RunControl

__all__ = ["RepairedItems", "repair_work_items", "run_rule"]

log = structlog.get_logger()

_NOTED = "The rows that would be deleted are noted all the same: the next run that may delete so many, and finds them again, deletes them."
_HELD = "Another session holds it, or what it is repaired by."


@dataclass(kw_only=True)
class RepairedItems:
    """The result of repairing the work items of one rule.

    skipped: records that stayed drifted. unconfirmed: rows whose delete a second run must confirm. failures and locked_keys:
    the reason for each record in quarantine. moved: columns that the database changed beside those that were written.
    unknown: what the server's statistics don't know, where this role may not have them made anew. mended: records that were repaired.
    in_levels: records of a tree are among them. deferred: a task repairs them later.
    """

    skipped: int = 0
    unconfirmed: int = 0
    failures: dict[tuple[Drift, Any], str] = field(default_factory=dict)
    locked_keys: dict[tuple[Drift, Any], str] = field(default_factory=dict)
    why_stopped: str = ""
    stopped_by: str = ""
    unfinished: bool = False
    deferred: bool = False
    mended: int = 0
    moved: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    in_levels: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether every drifted record was repaired, and now."""
        # In a tree the records repaired are others than those that were counted: the next level drifts by the repair of the one before.
        left = self.skipped or self.unconfirmed or self.failures or self.locked_keys or self.in_levels
        return not (left or self.why_stopped or self.unfinished or self.deferred)


def repair_work_items(
    outcome: Outcome, rule_plan: RulePlan, run: Run, *, anew: bool, using: str, progress: Progress
) -> RepairedItems:
    """Take the lease on the rule and repair its work items, from their cursors or `anew`.

    An error of the rule goes into the result. Raises LeaseLostError if another worker has taken the lease.
    """
    rule = rule_plan.rule
    compiled = rule.compile(using=using, now=run.now)
    finders = {finder.drift: finder for finder in compiled.finders if rule.remedy(finder.drift).repairs}
    repaired = RepairedItems(
        in_levels=any(finder.levels is not None for finder in finders.values()),
        deferred=any(
            rule.remedy(drift).deferred and not isinstance(finder.fix, Promise)
            for drift, finder in finders.items()
        ),
    )
    try:
        work_items = acquire_lease(outcome, finders, run, anew=anew, using=using)
    except LeaseHeldError as error:
        return RepairedItems(why_stopped=str(error), stopped_by=Outcome.StoppedBy.LEASE)
    try:
        for drift, finder in finders.items():
            if work_items[drift].state == WorkItem.State.RUNNING:
                budget = _budget(outcome, rule_plan, finder, run, using=using)
                work = _work(rule_plan.rule, compiled, finder, run)
                executor = _executor(rule_plan.rule, work, work_items[drift], run, budget)
                only = only_keys(outcome, rule)
                _repair_and_close(executor, work, compiled.source, rule_plan, repaired, progress, only)
    except (GivenUpError, EvaluationError) as error:
        repaired.why_stopped, repaired.unfinished = str(error), True
    check_lease(work_items.values(), using=using)
    release_lease(outcome, using=using)
    return repaired


def _repair_and_close(
    executor: ChunkExecutor,
    work: RepairWork,
    source: Source,
    rule_plan: RulePlan,
    repaired: RepairedItems,
    progress: Progress,
    only: Keys | None,
) -> None:
    """Repair one work item, and add what became of it to `repaired`, also if an error ends it."""
    drift, failures = work.finder.drift, executor.quarantine.failures
    try:
        with evaluation_errors(executor.using):
            repair_work_item(
                executor, work.finder, source, records=rule_plan.check.tally.checked, kept=rule_plan.check.kept[drift],
                progress=lambda keys: progress(rule_plan.rule.name, keys), only=only,
            )  # fmt: skip
    finally:
        repaired.failures |= {(drift, key): why for key, why in failures.items()}
        repaired.skipped += len(failures)
    _close_work_item(executor, work, repaired)


def _budget(outcome: Outcome, rule_plan: RulePlan, finder: Finder, run: Run, *, using: str) -> Budget:
    """The budget of one work item: what the caps and the plan still let the run write. One statement and those of the plan."""
    done = written_rows(outcome)
    return Budget(
        rows=None if rule_plan.rows is None else rule_plan.rows - done.total,
        deletes=None if rule_plan.deletes is None else rule_plan.deletes - done.by(DELETE),
        planned=left_of_plan(outcome, rule_plan.rule, finder, run, using=using),
        file=str(outcome.kept_plan.get("file", "")),
    )


def _work(rule: Rule, compiled: CompiledRule, finder: Finder, run: Run) -> RepairWork:
    remedy, using = rule.remedy(finder.drift), finder.using
    confirm: Callable[[Sequence[Any]], Sequence[Any]] | None = None
    if remedy.deletes:
        confirm = partial(confirmed_keys, rule=rule, finder=finder, run=run, using=using)
        if isinstance(finder.fix, Merging):
            # Asked again inside the chunk, since a group may have grown in between.
            finder = replace(finder, fix=replace(finder.fix, deletable=confirm))
    return RepairWork(finder=finder, remedy=remedy, stale=_stale_to_verify(compiled, finder), confirm=confirm)


def _executor(rule: Rule, work: RepairWork, work_item: WorkItem, run: Run, budget: Budget) -> ChunkExecutor:
    using = work.finder.using
    return ChunkExecutor(
        work=work,
        item=LeasedItem(rule=rule.name, work_item=work_item, using=using),
        quarantine=Quarantine(rule=rule.name),
        budget=budget,
        check_control=RunControl(run, using=using),
        throttles=throttles(),
        pace=Pace.from_settings(locks_table=bool(work.tables)),
    )


def _stale_to_verify(compiled: CompiledRule, finder: Finder) -> Finder | None:
    """The finder of stale rows, if the rows that `finder` has inserted may come to be other than they were written."""
    insertion = finder.fix
    if (
        not isinstance(insertion, Insertion)
        or insertion.rows_per_record != 1
        or not may_change_values(insertion.model, finder.using)
    ):
        return None
    return next((each for each in compiled.finders if each.drift is STALE), None)


def _close_work_item(executor: ChunkExecutor, work: RepairWork, repaired: RepairedItems) -> None:
    """Mark the work item as done. Records in quarantine that still drift count as skipped."""
    quarantine, finder = executor.quarantine, work.finder
    left = finder.keys(Keys(quarantine.to_retry)) if quarantine.to_retry else ()
    repaired.skipped += len(left)
    repaired.locked_keys |= {(finder.drift, key): quarantine.last_errors.get(key, _HELD) for key in left}
    repaired.unconfirmed += work.unconfirmed
    repaired.mended += quarantine.mended
    repaired.moved |= executor.moved
    executor.item.close(quarantined=len(left) + len(quarantine.failures))


_FOUND = (
    "planned", "reported", "checked", "missing", "stale", "extra", "samples", "guarantee", "status", "again", "warning",
    "fingerprint", "culprits",
)  # fmt: skip
_LEFT = (
    "status", "error", "left", "reported", "stopped_by", "skipped", "refused", "why_stopped", "seconds", "warning",
)  # fmt: skip

REFUSED = 100
"""Records in quarantine that an outcome names, each with the reason."""


def run_rule(outcome: Outcome, rule: Rule, run: Run, *, using: str, progress: Progress) -> RuleRepair:
    """Check, repair and verify one rule of a run, and write its outcome.

    Raises LeaseLostError if another worker has taken the lease, PausedError or CancelledError if a person asked for it,
    and EvaluationError if the database does not answer.
    """
    started = time.monotonic()
    control = RunControl(run, using=using)
    control()
    keep = KEEP if outcome.may_repair or _may_delete(rule) else 0
    only = None if isinstance(rule, InvalidRule) else only_keys(outcome, rule)
    found = check(rule, using=using, now=run.now, keep=keep, only=only, beat=control.beat)
    half_done = outcome.state == Outcome.State.REPAIRING
    failed = found.status is Status.ERROR
    anew = edited_warning(outcome, rule, using=using) if half_done and not failed else ""
    begun = half_done and not anew
    rule_plan = plan(found, caps_of(outcome), written_rows(outcome))
    log.info(
        "rule_planned",
        rule=rule.name,
        run=str(run.pk),
        planned=rule_plan.records.total,
        why_stopped=rule_plan.why_stopped,
    )
    repaired = RepairedItems()
    if not failed:
        repaired = _pass_guards(outcome, rule_plan, run, begun=begun, anew=anew, using=using)
    if not begun:
        _record_culprits(outcome, rule_plan, run, using)
        _record_found(outcome, rule_plan, using)
    if not failed and not repaired.why_stopped and (rule_plan.records.total or begun):
        repaired = repair_work_items(outcome, rule_plan, run, anew=bool(anew), using=using, progress=progress)
        _refresh_statistics(outcome, rule, repaired, using)
        found = _verify(rule_plan, repaired, run, control, begun=begun, only=only, using=using)
        log.info("rule_verified", rule=rule.name, run=str(run.pk), left=found.tally.total)
    if found.status is Status.ERROR and (half_done or repaired.mended):
        # A half repaired rule stays open: the error may be gone when the run is resumed.
        repaired.unfinished = True
    if half_done:
        release_lease(outcome, using=using)
    control.read_state()
    outcome.refresh_from_db(using=using)
    outcome.seconds += time.monotonic() - started
    _record_left(outcome, rule, found, repaired)
    outcome.save(using=using, update_fields=_LEFT)
    # A rule that an error ended stays open, so that a resumed run goes on with it.
    own = Outcome._base_manager.using(using).filter(pk=outcome.pk)
    transition(own, Outcome.State.REPAIRING if repaired.unfinished else Outcome.State.DONE)
    return result_of(outcome, run, done=not repaired.unfinished)


def _pass_guards(
    outcome: Outcome, rule_plan: RulePlan, run: Run, *, begun: bool, anew: str, using: str
) -> RepairedItems:
    """Ask the guards before the first write. `anew`: why a rule that was begun must pass them again."""
    record_deletions(rule_plan, run, using=using)
    if begun:
        # A half repaired rule stays open: the rule or the plan may come back as it was.
        why = plan_refusal(outcome, rule_plan, run, using=using)
        return RepairedItems(why_stopped=str(why or ""), unfinished=why is not None)
    try:
        # Before anything is said of drift: another run may be repairing just that.
        if rule_plan.records.total:
            check_not_held(outcome, using=using)
    except LeaseHeldError as error:
        return RepairedItems(why_stopped=str(error), stopped_by=Outcome.StoppedBy.LEASE)
    again = warn_of_regressions(outcome, rule_plan, run, using=using)
    add_warnings(outcome, anew)
    refused = refusal(outcome, rule_plan, run, again=again, using=using)
    if refused is not None and rule_plan.why_stopped and rule_plan.records.by(DELETE):
        add_warnings(outcome, _NOTED)
        outcome.save(using=using, update_fields=["warning"])
    return RepairedItems(
        why_stopped=str(refused or ""), stopped_by=_stopped_by(outcome, rule_plan.rule, refused)
    )


def _stopped_by(outcome: Outcome, rule: Rule, refused: Refusal | None) -> str:
    if refused is None:
        return ""
    if isinstance(refused, Suspended):
        return Outcome.StoppedBy.SUSPENSION
    by_declaration = not outcome.may_repair and not rule.unattended
    return Outcome.StoppedBy.PERSON if by_declaration else Outcome.StoppedBy.GUARD


def _refresh_statistics(outcome: Outcome, rule: Rule, repaired: RepairedItems, using: str) -> None:
    """Have the server analyse the tables of which the rule has written much: the next statements would go by old numbers."""
    written = written_rows(outcome).total
    for model in {model for model, _ in rule.must.writes(rule.model)} if written else ():
        if why := dialect_of(using).analyze(model, written):
            repaired.unknown.add(why)


def _verify(
    rule_plan: RulePlan,
    repaired: RepairedItems,
    run: Run,
    control: RunControl,
    *,
    begun: bool,
    only: Keys | None,
    using: str,
) -> RuleCheck:
    """Check the rule again after the repair, unless the chunks have verified everything already.

    They have if the rule has one kind of drift alone, and each counted record was repaired and verified in its chunk. What
    other sessions have written to other records since then is for the next run, as after any check.
    """
    found, tally = rule_plan.check, rule_plan.check.tally
    whole = not begun and repaired.is_whole and repaired.mended == tally.total
    if whole and len(tally.drifted) == 1:
        mended = replace(tally, drifted=dict.fromkeys(tally.drifted, 0))
        return replace(found, tally=mended, status=rule_plan.rule.status(mended), samples=())
    return check(rule_plan.rule, using=using, now=run.now, known=tally, only=only, beat=control.beat)


def _may_delete(rule: Rule) -> bool:
    return any(rule.remedy(drift).deletes for drift in Drift)


def _record_culprits(outcome: Outcome, rule_plan: RulePlan, run: Run, using: str) -> None:
    """Note what sets the drifted records apart, which nobody can tell once a night has repaired them. The first check of a circle counts."""
    if run.kind != Run.Kind.NIGHTLY or outcome.culprits:
        return
    found = find_culprits(
        rule_plan.rule,
        rule_plan.check,
        using=using,
        now=run.now,
        left_out=written_columns([*rules_if_any().values()]),
    )
    outcome.culprits = [*map(as_plain, found)]


def _record_found(outcome: Outcome, rule_plan: RulePlan, using: str) -> None:
    found = rule_plan.check
    # A rule of a circle is checked in several rounds; the first check counts.
    outcome.planned = (rule_plan.written + rule_plan.planned).as_dict()
    outcome.reported = {
        str(drift): number for drift, number in reported_rows(rule_plan.rule, found.tally).items()
    }
    outcome.checked = outcome.checked or found.tally.checked
    outcome.missing = max(outcome.missing, found.tally[MISSING])
    outcome.stale = max(outcome.stale, found.tally[STALE])
    outcome.extra = max(outcome.extra, found.tally[EXTRA])
    if found.status is not Status.ERROR:
        outcome.fingerprint = fingerprint(rule_plan.rule, using)
    outcome.samples = [{"drift": str(each.drift), "key": each.key} for each in found.samples]
    outcome.guarantee = str(found.guarantee or "")
    outcome.status = str(found.status)
    outcome.save(using=using, update_fields=_FOUND)


def _record_left(outcome: Outcome, rule: Rule, found: RuleCheck, repaired: RepairedItems) -> None:
    outcome.status = str(found.status)
    outcome.error = found.error or ""
    outcome.left = None if found.error else found.tally.total
    outcome.stopped_by = repaired.stopped_by
    if not found.error:
        outcome.reported = {str(drift): number for drift, number in reported_rows(rule, found.tally).items()}
    outcome.skipped = repaired.skipped
    moved = moved_in_words(repaired.moved) if repaired.moved else ""
    add_warnings(outcome, moved, *sorted(repaired.unknown))
    refused = {**repaired.failures, **repaired.locked_keys}
    outcome.refused = [{"key": str(key), "why": why} for (_, key), why in list(refused.items())[:REFUSED]]
    outcome.why_stopped = repaired.why_stopped or _why_left(outcome, repaired)
    if found.error and not outcome.why_stopped and written_rows(outcome).total:
        outcome.why_stopped = (
            "Its rows are written, and not verified: the check after the repair could not run. Once it can: "
            f"reconcile runs resume {outcome.run_id}"
        )


def _why_left(outcome: Outcome, repaired: RepairedItems) -> str:
    failures: Mapping[tuple[Drift, Any], str] = repaired.failures
    if failures:
        (_, key), why = next(iter(failures.items()))
        if len(failures) == 1:
            return f"1 record could not be repaired, {key}: {why}"
        return f"{len(failures)} records could not be repaired; the first, {key}: {why}"
    if repaired.unconfirmed:
        return _why_unconfirmed(outcome, repaired.unconfirmed)
    if mendable_rows(outcome) and repaired.deferred and written_rows(outcome).enqueued:
        return "The records are mended when the tasks that were enqueued have run. Check again later."
    if mendable_rows(outcome) and outcome.may_repair and not outcome.error:
        others = (
            ", or they are computed from others that drift, which are not among them"
            if outcome.only is not None
            else ""
        )
        return f"Drift is left: other sessions hold these records, or write them meanwhile{others}. Repair again."
    return ""


def _why_unconfirmed(outcome: Outcome, rows: int) -> str:
    again = f"reconcile repair {outcome.rule} --apply"
    if outcome.only is not None:
        return f"{plural(rows, 'row')} would be deleted, and no run of the whole rule has found them. Deletes need one that has: {again}"
    return (
        f"{plural(rows, 'row')} would be deleted, and this run is the first to find them. Deletes need two runs that agree: look at them, "
        f"then run it again: {again}"
    )
