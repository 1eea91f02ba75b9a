"""Persisted runs: repair, resume, nightly, and the preview that persists nothing.

A run takes its rules in order; for each it checks, plans, repairs in shards and verifies. All of its state is
in the database, so that a run that was killed anywhere goes on where it was.
"""

from reconcile.runs._advancing import find, nightly, preview, repair, resume
from reconcile.runs._guards import too_risky
from reconcile.runs._holding import LEASE
from reconcile.runs._results import Progress, RuleRepair, recorded
from reconcile.runs._steering import ACTIVE, cancel, last_sign, lives, pause
from reconcile.runs._undo_journal import Conflict, RuleUndo
from reconcile.runs._undo_preview import preview_undo
from reconcile.runs._undoing import advance_undo, undo, undone

__all__ = [
    "ACTIVE", "LEASE", "Conflict", "Progress", "RuleRepair", "RuleUndo", "advance_undo", "cancel", "find", "last_sign",
    "lives", "nightly", "pause", "preview", "preview_undo", "recorded", "repair", "resume", "too_risky", "undo", "undone",
]  # fmt: skip
