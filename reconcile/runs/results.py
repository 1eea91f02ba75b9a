"""The results of runs: what became of each rule, now and in the last runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from django.db import connections
from django.db.models import Sum

from reconcile.core.drift import Bound, Drift, Sample, Status, Tally
from reconcile.core.scopes import Keys
from reconcile.core.verbs import Written
from reconcile.db.django_compat import table_names
from reconcile.models import Outcome, Run, WrittenRows
from reconcile.repair.caps import RulePlan
from reconcile.rules.fingerprints import fingerprint
from reconcile.rules.rule import Rule

__all__ = [
    "PastRun",
    "Progress",
    "Result",
    "RuleRepair",
    "add_warnings",
    "mendable_rows",
    "moved_in_words",
    "only_keys",
    "past_runs",
    "preview_result",
    "reported_rows",
    "result_of",
    "result_word",
    "results_of",
    "written_by_outcome",
    "written_rows",
]


class Result(StrEnum):
    """What became of a rule in a run, the worst first."""

    ERROR = "error"
    """It could not be evaluated; nothing was written."""
    UNVERIFIED = "unverified"
    """Rows were written, and the check after that could not run."""
    FAILED = "failed"
    """The repair did not do all of it."""
    HELD = "held"
    """Another run repairs the rule, and so this one has not."""
    OPEN = "open"
    """The run ended, or was interrupted, before the rule was done."""
    SUSPENDED = "suspended"
    """What was repaired has drifted again, so that it is left alone until a person resumes it."""
    REFUSED = "refused"
    """A guard has stopped the repair before its first write."""
    REPORTED = "reported"
    """Drift is there that this run was not to mend: a person decides."""
    UNDONE = "undone"
    """What the rule had written is taken back."""
    REPAIRED = "repaired"
    """All drift is mended, and a check has seen it."""
    CLEAN = "clean"
    """Nothing drifted."""
    SKIPPED = "skipped"
    """There was no record to look at, so that nothing is known."""
    WAITING = "waiting"
    """The run goes on, and has not come to it, or not to its end."""


_STOPPED_BY = {
    Outcome.StoppedBy.LEASE: Result.HELD,
    Outcome.StoppedBy.SUSPENSION: Result.SUSPENDED,
    Outcome.StoppedBy.GUARD: Result.REFUSED,
    Outcome.StoppedBy.PERSON: Result.REPORTED,
}


@dataclass(frozen=True, slots=True)
class PastRun:
    """What one run found for one rule before it repaired anything: drifted rows, and records checked."""

    at: datetime
    drifted: int
    checked: int


def past_runs(rules: Collection[str], *, using: str, runs: int = 30) -> Mapping[str, Sequence[PastRun]]:
    """The last `runs` runs of each rule, oldest first; rules without any are left out.

    Undos, looks at some records alone, and rules that could not be evaluated don't count. One statement that lists the tables, and one for each rule;
    only the first if the tables of the package were never made.
    """
    if Outcome._meta.db_table not in table_names(connections[using]):
        return {}
    found = {rule: _past_runs_of(rule, using, runs) for rule in rules}
    return {rule: each for rule, each in found.items() if each}


def _past_runs_of(rule: str, using: str, runs: int) -> Sequence[PastRun]:
    outcomes = (
        Outcome.objects.using(using)
        .filter(rule=rule, state=Outcome.State.DONE, run__kind__in=("repair", "nightly"), only__isnull=True)
        .exclude(status__in=("", "error"))
        .order_by("-run__started_at", "-pk")
        .values_list("run__started_at", "missing", "stale", "extra", "checked")[:runs]
    )
    return [PastRun(at, missing + stale + extra, checked) for at, missing, stale, extra, checked in outcomes][
        ::-1
    ]


Progress = Callable[[str, int], None]
"""Called with the name of a rule and the number of keys that were done."""


@dataclass(frozen=True, kw_only=True)
class RuleRepair:
    """One rule's part in a repair.

    found: drifted rows by kind, before the repair. planned, bound: rows that were to be written: just these, or at least these.
    planned_records: drifted records by the verb of their remedy. unconfirmed: of
    the planned deletes those that the next run only notes. left: rows that still drifted at the verification, of all kinds; None if they could not
    be counted. skipped: keys that stayed locked by other sessions, or that failed; in a preview, those whose values can't be stored. lease_held: another run has the lease
    on the rule. incomplete: the repair was asked for and did not do all of it.
    reported: drifted rows, by kind, that the rule leaves to people. again: drifted records that an earlier run had repaired.
    refused: the first records in quarantine, each with its key and the reason. warning: what a person should look at.
    fingerprint: that of the rule, in a preview. records: the number of records that it was about; None for all. judged: how many of these `every`
    names, and are old enough.
    """

    rule: str
    status: Status
    result: Result
    found: dict[Drift, int]
    planned: Written
    written: Written
    planned_records: Written = field(default_factory=Written)
    bound: Bound = Bound.EXACT
    unconfirmed: int = 0
    samples: tuple[Sample, ...] = ()
    left: int | None = 0
    skipped: int = 0
    why_stopped: str = ""
    error: str | None = None
    reported: dict[Drift, int] = field(default_factory=dict)
    lease_held: bool = False
    incomplete: bool = False
    seconds: float = 0
    again: int = 0
    refused: Sequence[Mapping[str, str]] = ()
    warning: str = ""
    fingerprint: str = ""
    records: int | None = None
    judged: int = 0


def preview_result(
    rule_plan: RulePlan,
    *,
    using: str,
    why_stopped: str = "",
    again: int = 0,
    warning: str = "",
    records: int | None = None,
    unconfirmed: int = 0,
) -> RuleRepair:
    """Return the result of a preview: nothing is written, and `why_stopped` says which guard would stop the repair."""
    why = why_stopped or rule_plan.why_stopped
    return RuleRepair(
        rule=rule_plan.rule.name,
        status=rule_plan.check.status,
        result=_preview_word(rule_plan, why),
        found=dict(rule_plan.check.tally.drifted),
        planned=rule_plan.planned,
        written=Written(),
        planned_records=rule_plan.records,
        bound=rule_plan.check.bound,
        unconfirmed=unconfirmed,
        samples=rule_plan.check.samples,
        left=None if rule_plan.check.error else rule_plan.check.tally.total,
        skipped=rule_plan.check.unrepairable,
        why_stopped=why,
        error=rule_plan.check.error,
        reported=reported_rows(rule_plan.rule, rule_plan.check.tally),
        incomplete=bool(why),
        seconds=rule_plan.check.seconds,
        again=again,
        warning=warning,
        fingerprint="" if rule_plan.check.error else fingerprint(rule_plan.rule, using),
        records=records,
        judged=rule_plan.check.tally.checked,
    )


def _preview_word(rule_plan: RulePlan, why: str) -> Result:
    """What would become of the rule."""
    if rule_plan.check.error:
        return Result.ERROR
    if why:
        return Result.REFUSED
    if rule_plan.records.total:
        return Result.OPEN
    tally = rule_plan.check.tally
    return Result.REPORTED if tally.total else Result.CLEAN if tally.checked else Result.SKIPPED


def moved_in_words(columns: Collection[str]) -> str:
    """What is said of columns that the database has changed beside those that were written."""
    return (
        f"Something in the database, such as a trigger, has changed other columns of these rows as well: {', '.join(sorted(columns))}. "
        "An undo restores what the rule wrote, and no other column."
    )


def add_warnings(outcome: Outcome, *said: str) -> None:
    """Add what a person should look at. A resumed run and a later round of a circle keep what was said, and say it once."""
    for sentence in filter(None, said):
        if sentence not in outcome.warning:
            outcome.warning = f"{outcome.warning} {sentence}".lstrip()


def reported_rows(rule: Rule, tally: Tally) -> dict[Drift, int]:
    """Count the drifted rows, by kind, for which the rule has no remedy that writes."""
    return {
        drift: number for drift, number in tally.drifted.items() if number and not rule.remedy(drift).repairs
    }


def mendable_rows(outcome: Outcome) -> int:
    """Drifted rows that are left and for which the rule has a remedy that writes."""
    reported: int = sum(outcome.reported.values())
    return max((outcome.left or 0) - reported, 0)


def only_keys(outcome: Outcome, rule: Rule) -> Keys | None:
    """The keys of the records that the outcome is about; None for all."""
    if outcome.only is None:
        return None
    return Keys([rule.model._meta.pk.to_python(key) for key in outcome.only])


def result_word(  # noqa: PLR0911 - one for each
    run: Run, outcome: Outcome, written: Written, *, done: bool | None = None, alive: bool = True
) -> Result:
    """The result of one rule, by what is stored of it; `done` as in `result_of`. alive: whether an active run has a worker, as far as is known."""
    at_work = done is None and run.state in Run.ACTIVE and alive
    done = outcome.state == Outcome.State.DONE if done is None else done
    if outcome.error:
        return Result.UNVERIFIED if written.total else Result.ERROR
    if not done and not outcome.why_stopped:
        return Result.WAITING if at_work else Result.OPEN
    if outcome.stopped_by:
        # Stopped in a later round of a circle, or when it was resumed, it stands half repaired.
        return Result.FAILED if written.total else _STOPPED_BY[Outcome.StoppedBy(outcome.stopped_by)]
    if run.kind == Run.Kind.UNDO:
        return Result.FAILED if outcome.left or outcome.why_stopped else Result.UNDONE
    if not done or (outcome.may_repair and (mendable_rows(outcome) or outcome.why_stopped)):
        return Result.FAILED
    if outcome.left:
        return Result.REPORTED
    if written.total or outcome.missing + outcome.stale + outcome.extra:
        return Result.REPAIRED
    return Result.CLEAN if outcome.checked or outcome.only is not None else Result.SKIPPED


def written_rows(outcome: Outcome) -> Written:
    """Return what the run has written for the rule so far. One statement."""
    return written_by_outcome([outcome])[outcome.pk]


def written_by_outcome(outcomes: Sequence[Outcome]) -> Mapping[int, Written]:
    """Return what runs have written for each of their rules so far, by the outcome's key. One statement."""
    found = {outcome.pk: Written() for outcome in outcomes}
    if not outcomes:
        return found
    counts = WrittenRows._base_manager.using(outcomes[0]._state.db).order_by()
    of_run = (
        counts.filter(work_item__outcome=outcomes[0])
        if len(outcomes) == 1
        else counts.filter(work_item__outcome__run__in={outcome.run_id for outcome in outcomes})
    )
    for outcome, verb, rows in of_run.values_list("work_item__outcome", "verb").annotate(Sum("rows")):
        if outcome in found:
            found[outcome].add(verb, rows)
    return found


def results_of(outcomes: Iterable[Outcome], run: Run) -> list[RuleRepair]:
    """Return the results of those of the run's rules that it has come to. One statement."""
    begun = [outcome for outcome in outcomes if outcome.status]
    written = written_by_outcome(begun)
    return [result_of(outcome, run, written=written[outcome.pk]) for outcome in begun]


def result_of(
    outcome: Outcome, run: Run, *, written: Written | None = None, done: bool | None = None
) -> RuleRepair:
    """Return the result of a rule from its outcome. One statement, unless it is given what was `written`.

    done: whether the rule is done; given by whoever has just written that, and has the row as it was before.
    """
    written = written_rows(outcome) if written is None else written
    return RuleRepair(
        rule=outcome.rule,
        status=Status(outcome.status),
        result=result_word(run, outcome, written, done=done),
        found={Drift.MISSING: outcome.missing, Drift.STALE: outcome.stale, Drift.EXTRA: outcome.extra},
        planned=Written(**outcome.planned),
        written=written,
        samples=tuple(Sample(Drift(each["drift"]), each["key"]) for each in outcome.samples),
        left=outcome.left,
        skipped=outcome.skipped,
        why_stopped=outcome.why_stopped,
        error=outcome.error or None,
        reported={Drift(drift): number for drift, number in outcome.reported.items()},
        lease_held=outcome.stopped_by == Outcome.StoppedBy.LEASE,
        incomplete=outcome.may_repair and bool(mendable_rows(outcome) or outcome.why_stopped),
        seconds=outcome.seconds,
        again=outcome.again,
        refused=outcome.refused,
        warning=outcome.warning,
        records=None if outcome.only is None else len(outcome.only),
        judged=outcome.checked,
    )
