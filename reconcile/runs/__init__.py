"""Persisted runs: repair, resume, nightly, and the preview that persists nothing.

A run takes its rules in order; for each it checks, plans, repairs in shards and verifies. All of its state is
in the database, so that a run that was killed anywhere goes on where it was.
"""

from reconcile.runs._advancing import find, nightly, preview, repair, resume
from reconcile.runs._holding import LEASE
from reconcile.runs._results import Progress, RuleRepair, recorded
from reconcile.runs._rule import too_risky

__all__ = [
    "LEASE", "Progress", "RuleRepair", "find", "nightly", "preview", "recorded", "repair", "resume", "too_risky",
]  # fmt: skip
