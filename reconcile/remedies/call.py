"""`Call`: hand the drifted records to the project's own function."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from reconcile.drift import Drift
from reconcile.errors import Fault
from reconcile.finders import Finder
from reconcile.remedies._base import Journal, Mending, Wrote
from reconcile.remedies._calling import batch_faults, blamed, called, name_of, still_drifting, takes
from reconcile.windows import Keys

__all__ = ["Call"]


@dataclass(frozen=True)
class Call(Mending):
    """The function gets the locked records of a chunk as a list, in key order, inside the chunk's transaction.

    For MISSING and STALE these are the source's records, for EXTRA the rows that nothing owes. It may be `async`.
    What it returns is ignored; after it the chunk verifies that no record drifts any more. What it raises rolls
    the chunk back, which is halved until the failing record is set aside. Three statements, and the function's own.

    batch: most records in one call, and so in one transaction.
    """

    function: Any = None
    batch: int = 500

    verb: ClassVar[str] = "called"

    @property
    def chunk(self) -> int:
        """As many as one call takes."""
        return self.batch

    def faults(self, drift: Drift, finder: Finder | None) -> Iterator[Fault]:  # noqa: ARG002
        """What isn't a function of one list, or no number of records."""
        if not callable(self.function):
            hint = "Give a function that takes a list of records."
            yield Fault("reconcile.E012", f"Call: function= is {self.function!r}.", hint)
        elif not takes(self.function, []):
            said = f"Call: {name_of(self.function)}() can't be called with one list of records."
            hint = "Give a function that takes it and needs nothing else; functools.partial binds the rest."
            yield Fault("reconcile.E012", said, hint)
        yield from batch_faults("Call", self.batch)

    def write(self, finder: Finder, keys: Keys, journal: Journal) -> Wrote:
        """Call the function with the records of `keys` that drift still."""
        records = still_drifting(finder, keys)
        if not records:
            return Wrote()
        # Noted beforehand: the function may delete the rows.
        drifted = [record.pk for record in records]
        noted = journal.handed_over(self.verb, finder.model, Keys(drifted))
        with blamed(self.function, finder.using):
            called(self.function, records)
        return Wrote.of(self.verb, noted, keys=drifted)
