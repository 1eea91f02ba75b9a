"""`Report`: count and show the drift, write nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from reconcile.drift import Drift
from reconcile.errors import Fault
from reconcile.finders import Finder
from reconcile.remedies._base import Journal, Mending, Wrote
from reconcile.windows import Keys

__all__ = ["Report"]


@dataclass(frozen=True)
class Report(Mending):
    """Leave the drift to people. The default for EXTRA."""

    verb: ClassVar[str] = ""

    def faults(self, drift: Drift, finder: Finder | None) -> Sequence[Fault]:  # noqa: ARG002
        """None: any drift can be reported."""
        return ()

    def write(self, finder: Finder, keys: Keys, journal: Journal) -> Wrote:  # noqa: ARG002
        """Nothing is written."""
        return Wrote()
