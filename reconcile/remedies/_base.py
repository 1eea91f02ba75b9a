"""What a remedy is, and what it is handed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from django.db.models import Field, Model, QuerySet

from reconcile.drift import Drift
from reconcile.errors import Fault
from reconcile.finders import Finder
from reconcile.windows import Keys

__all__ = ["Journal", "Remedy", "Wrote"]


class Journal(Protocol):
    """Where a remedy notes the images of the rows that it writes."""

    def inserted(self, model: type[Model], rows: QuerySet[Any, Any]) -> int:
        """Note `rows`, which this chunk has inserted, as they stand now; their number. One statement."""
        ...

    def before(self, model: type[Model], fields: Sequence[Field[Any, Any]], keys: Keys) -> int:
        """Note the rows of `keys`, which are locked, as they are before they are updated. One statement."""
        ...

    def after(self, model: type[Model], fields: Sequence[Field[Any, Any]]) -> int:
        """Add to the rows that this chunk has noted how they are now; their number. One statement."""
        ...


@dataclass(frozen=True)
class Wrote:
    """What a remedy did for one chunk: rows written, and linked rows left alone because others hold them."""

    rows: int = 0
    held: int = 0


class Remedy(Protocol):
    """One way to mend one kind of drift."""

    verb: ClassVar[str]
    """Under which count of the outcome its rows go; empty for a remedy that writes nothing."""

    def faults(self, drift: Drift, finder: Finder | None) -> Sequence[Fault]:
        """What keeps the remedy from being used for this drift."""
        ...

    def write(self, finder: Finder, keys: Keys, journal: Journal) -> Wrote:
        """Mend the records of `keys`, which are locked; what was written.

        The whole drift condition is put on the statement again: what another session has mended since
        the keys were found is left alone. Raises ChunkConflictError where what was written isn't what was noted.
        """
        ...
