"""What a work item is to do, chunk by chunk, as the executor of chunks sees it. To repair is one kind of work, to undo another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from django.db.models import Model

from reconcile.core.scopes import Keys
from reconcile.remedies import Journal, WriteResult

__all__ = ["Work"]


class Work(Protocol):
    """The work on the keys of one kind of rows. All that it knows lives as long as one worker has the work item."""

    @property
    def name(self) -> str:
        """What is done, for the log: the kind of drift."""
        ...

    @property
    def limit(self) -> int | None:
        """Most keys in one chunk; None for any number."""
        ...

    @property
    def tables(self) -> Sequence[type[Model]]:
        """The tables that a chunk locks before any row."""
        ...

    @property
    def deferred(self) -> bool:
        """Whether something else, such as a task, does the work on the records later."""
        ...

    @property
    def frees_values(self) -> bool:
        """Whether a write may free a unique value that another key owes."""
        ...

    @property
    def changed_by_database(self) -> bool:
        """Whether the database may change what is written, as a trigger does."""
        ...

    def choose(self, keys: Sequence[Any]) -> Sequence[Any]:
        """Those of the keys that this run may write."""
        ...

    def lock(self, keys: Sequence[Any]) -> Sequence[Any]:
        """Step 2: lock the rows of the keys, and skip those that other sessions have locked. Returns the locked keys."""
        ...

    def write(self, keys: Keys, journal: Journal) -> WriteResult:
        """Steps 3 and 4: write what the locked rows of `keys` need, and journal it."""
        ...

    def verify(self, locked: Sequence[Any], wrote: WriteResult) -> set[Any]:
        """Step 5: raise NotRepairedError if a locked row is still to be written. Returns those that wait for other sessions."""
        ...

    def still_open(self, keys: Sequence[Any]) -> set[Any]:
        """Those of the keys that are still to be written."""
        ...

    def unwritable(self, keys: Sequence[Any]) -> Mapping[Any, str]:
        """Those of the keys that no try can write, each with the reason."""
        ...

    def name_holder(self, key: Any) -> str:
        """Which row has a unique value that the key owes, as a sentence; empty if none has, or nobody can tell."""
        ...

    def order_conflicts(self, keys: Sequence[Any]) -> tuple[Sequence[Any], set[Any]]:
        """The keys in an order in which each finds its unique value free, and those of swaps, which have no such place."""
        ...
