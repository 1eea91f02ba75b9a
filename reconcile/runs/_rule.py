"""One rule of a run: check, plan, repair, verify, and note the outcome."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog

from reconcile.agreeing import deletes
from reconcile.checking import RuleCheck, check
from reconcile.drift import EXTRA, MISSING, STALE, Drift, Status
from reconcile.fingerprints import fingerprint
from reconcile.models import Outcome, Run
from reconcile.planning import RulePlan, plan
from reconcile.rules import Rule
from reconcile.runs._covered import edited, off_plan
from reconcile.runs._guards import caps_of, noted, refusal, warned
from reconcile.runs._holding import release
from reconcile.runs._results import Progress, RuleRepair, recorded, reported, written
from reconcile.runs._shards import Repaired, repair_shards
from reconcile.runs._steering import Obeying
from reconcile.sharding import KEEP

__all__ = ["take"]

log = structlog.get_logger()

_FOUND = (
    "planned", "reported", "checked", "missing", "stale", "extra", "samples", "guarantee", "status", "again", "warning",
    "fingerprint",
)  # fmt: skip
_LEFT = ("state", "status", "error", "left", "skipped", "refused", "why_stopped", "seconds")

REFUSED = 100
"""Records that were set aside which an outcome names, each with the reason."""


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
    half = outcome.state == Outcome.State.REPAIRING
    anew = edited(outcome, rule, using=using) if half else ""
    begun = half and not anew
    made = plan(found, caps_of(outcome), written(outcome))
    log.info(
        "rule_planned",
        rule=rule.name,
        run=str(run.pk),
        planned=made.planned.total,
        why_stopped=made.why_stopped,
    )
    repaired = Repaired()
    if found.status is not Status.ERROR:
        repaired = _guarded(outcome, made, run, begun=begun, anew=anew, using=using)
    if not begun:
        _note_found(outcome, made, using)
    if found.status is not Status.ERROR and not repaired.why_stopped and (made.planned.total or begun):
        repaired = repair_shards(outcome, made, run, anew=bool(anew), using=using, progress=progress)
        found = _verified(made, repaired, run, obey, begun=begun, using=using)
        log.info("rule_verified", rule=rule.name, run=str(run.pk), left=found.tally.total)
    if found.status is Status.ERROR and (half or repaired.mended):
        # What is half repaired stays open; the error may be gone when the run is resumed.
        repaired.unfinished = True
    if half:
        release(outcome, using=using)
    obey.owned()
    outcome.refresh_from_db(using=using)
    outcome.seconds += time.monotonic() - started
    _note_left(outcome, rule, found, repaired)
    # Not the counts of rows: those are the chunks' own.
    outcome.save(using=using, update_fields=_LEFT)
    return recorded(outcome, held=repaired.held)


def _guarded(outcome: Outcome, made: RulePlan, run: Run, *, begun: bool, anew: str, using: str) -> Repaired:
    """What the guards say before the first write. `anew`: why a rule that was begun has to pass them again."""
    noted(made, run, using=using)
    if begun:
        # Half repaired: it stays open, for the rule and the plan as they were.
        why = off_plan(outcome, made, run, using=using)
        return Repaired(why_stopped=why, unfinished=bool(why))
    again = warned(outcome, made, run, using=using)
    outcome.warning = " ".join(filter(None, (anew, outcome.warning)))
    return Repaired(why_stopped=refusal(outcome, made, run, again=again, using=using))


def _verified(
    made: RulePlan, repaired: Repaired, run: Run, obey: Obeying, *, begun: bool, using: str
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


def _note_left(outcome: Outcome, rule: Rule, found: RuleCheck, repaired: Repaired) -> None:
    # A rule that an error ended stays open, so that resuming the run goes on with it.
    outcome.state = Outcome.State.REPAIRING if repaired.unfinished else Outcome.State.DONE
    outcome.status = str(found.status)
    outcome.error = found.error or ""
    outcome.left = sum(found.tally[drift] for drift in Drift if rule.remedy(drift).verb)
    outcome.skipped = repaired.skipped
    refused = {**repaired.failures, **repaired.held_keys}
    outcome.refused = [{"key": str(key), "why": why} for (_, key), why in list(refused.items())[:REFUSED]]
    outcome.why_stopped = repaired.why_stopped or _why_left(outcome, repaired)


def _why_left(outcome: Outcome, repaired: Repaired) -> str:
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
