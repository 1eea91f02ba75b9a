"""`Call`: hand the drifted records to the project's own function."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from reconcile.core.drift import Drift
from reconcile.core.finder import Finder
from reconcile.core.function_source import version_faults
from reconcile.core.options import Option, is_one_of, option_faults
from reconcile.core.scopes import Keys
from reconcile.core.verbs import CALLED
from reconcile.errors import Fault
from reconcile.remedies.base import Journal, Remedy, WriteResult, WriteStep
from reconcile.remedies.project_code import (
    BATCH,
    accepts,
    blame,
    call_function,
    drifted_records,
    function_name,
)

__all__ = ["Call"]

_OPTIONS = (
    Option("function", callable, "Give a function that takes a list of records."),
    BATCH,
    Option("idempotent", is_one_of(bool), "Give True if the function may be called twice for a record."),
)


@dataclass(frozen=True)
class Call(Remedy):
    """The function gets the locked records of a chunk as a list, in key order, inside the chunk's transaction.

    For MISSING and STALE these are the source's records, for EXTRA the rows that nothing owes. It may be `async`.
    What it returns is ignored; after it the chunk verifies that no record drifts any more. What it raises rolls
    the chunk back, which is halved until the failing record is set aside. Three statements, and the function's own.

    batch: most records in one call, and so in one transaction.
    idempotent: a second call for the same record does nothing that the first hasn't done, as with `get_or_create` over a unique
        constraint, or a key that a service knows. So no constraint is needed to keep a repair and live writers apart.
    version: stands for what the function does, where its source text doesn't; change it with each edit.
    """

    function: Any
    _: KW_ONLY
    batch: int = 500
    idempotent: bool = False
    version: str | int | None = None

    verbs: ClassVar[Sequence[str]] = (CALLED,)

    @property
    def repeatable(self) -> bool:
        """As the project says."""
        return self.idempotent

    @property
    def chunk(self) -> int:
        """As many as one call takes."""
        return self.batch

    def faults(self, drift: Drift, finder: Finder | None) -> Iterator[Fault]:  # noqa: ARG002
        """What isn't a function of one list, or no number of records."""
        yield from option_faults(self, _OPTIONS, "Call")
        if callable(self.function) and not accepts(self.function, []):
            message = f"Call: {function_name(self.function)}() can't be called with one list of records."
            hint = "Give a function that takes it and needs nothing else; functools.partial binds the rest."
            yield Fault("reconcile.E012", message, hint)
        yield from version_faults(self.function, self.version, "Call")

    def spell(self, finder: Finder, keys: Keys) -> Iterator[WriteStep]:  # noqa: ARG002
        """The function, of which nobody knows what it sends."""
        yield WriteStep(
            f"Call {function_name(self.function)}() with the locked records. What it writes is its own."
        )

    def write(self, finder: Finder, keys: Keys, journal: Journal) -> WriteResult:
        """Call the function with the records of `keys` that drift still."""
        records = drifted_records(finder, keys)
        if not records:
            return WriteResult()
        # Noted beforehand: the function may delete the rows.
        drifted = [record.pk for record in records]
        recorded = journal.record_handover(CALLED, finder.model, Keys(drifted))
        with blame(self.function, finder.using):
            call_function(self.function, records)
        return WriteResult.of(CALLED, recorded, keys=drifted)
