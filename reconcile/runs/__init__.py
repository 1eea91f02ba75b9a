"""Persisted runs: repair, resume, nightly, and the preview that persists nothing.

A run takes its rules in order; for each it checks, plans, repairs in work items and verifies. All of its state is
in the database, so that a run that was killed anywhere goes on where it was.
"""

from reconcile.conf import Alarm
from reconcile.runs.leases import LEASE
from reconcile.runs.results import (
    Progress,
    Result,
    RuleRepair,
    result_of,
    written_rows,
)
from reconcile.runs.run_result import RuleResult, RunResult, raise_alarm, run_result, run_results
from reconcile.runs.running import find_run, nightly, preview, repair, resume
from reconcile.runs.steering import cancel, has_live_worker, last_heartbeat, pause
from reconcile.runs.undo_preview import preview_undo
from reconcile.runs.undo_run import Conflict, RuleUndo, advance_undo, undo, undo_results

__all__ = [
    "LEASE",
    "Alarm",
    "Conflict",
    "Progress",
    "Result",
    "RuleRepair",
    "RuleResult",
    "RuleUndo",
    "RunResult",
    "advance_undo",
    "cancel",
    "find_run",
    "has_live_worker",
    "last_heartbeat",
    "nightly",
    "pause",
    "preview",
    "preview_undo",
    "raise_alarm",
    "repair",
    "result_of",
    "resume",
    "run_result",
    "run_results",
    "undo",
    "undo_results",
    "written_rows",
]  # fmt: skip
