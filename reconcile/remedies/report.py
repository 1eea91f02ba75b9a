"""`Report`: count and show the drift, write nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reconcile.core.drift import Drift
from reconcile.core.finder import Finder
from reconcile.core.scopes import Keys
from reconcile.errors import Fault
from reconcile.remedies.base import Journal, Remedy, WriteResult

__all__ = ["Report"]


@dataclass(frozen=True)
class Report(Remedy):
    """Leave the drift to people. The default for EXTRA."""

    def faults(self, drift: Drift, finder: Finder | None) -> Sequence[Fault]:  # noqa: ARG002
        """None: any drift can be reported."""
        return ()

    def write(self, finder: Finder, keys: Keys, journal: Journal) -> WriteResult:  # noqa: ARG002
        """Nothing is written."""
        return WriteResult()
