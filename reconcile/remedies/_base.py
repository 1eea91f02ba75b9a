"""What a remedy is, and what it is handed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from django.db.models import Field, Model, QuerySet

from reconcile.declaring import Declaration
from reconcile.drift import Drift, Written
from reconcile.errors import Fault
from reconcile.finders import Finder
from reconcile.sql.expressions import Column
from reconcile.windows import Keys

__all__ = ["Journal", "Mending", "Remedy", "Sending", "Wrote"]


class Journal(Protocol):
    """Where a remedy notes the images of the rows that it writes."""

    def inserted(self, model: type[Model], rows: QuerySet[Any, Any]) -> int:
        """Note `rows`, which this chunk has inserted, as they stand now; their number. One statement."""
        ...

    def insert(
        self,
        model: type[Model],
        fields: Sequence[Field[Any, Any]],
        claimed: Callable[[Keys], QuerySet[Any, Any]],
        present: Callable[[Keys], QuerySet[Any, Any]],
        keys: Keys,
    ) -> tuple[int, int] | None:
        """Insert what `claimed` selects, and note those of the new rows that `present` finds; the number of both.

        None, and nothing is done, where the database can't do both at once. One statement, and one for each shard.
        """
        ...

    def inserted_again(self, model: type[Model], changes: QuerySet[Any, Any]) -> int:
        """Note the rows that `changes` had deleted and this chunk has inserted again; their number. One statement."""
        ...

    def before(self, model: type[Model], fields: Sequence[Field[Any, Any]], keys: Keys) -> int:
        """Note the rows of `keys`, which are locked, as they are before they are updated. One statement."""
        ...

    def after(self, model: type[Model], fields: Sequence[Field[Any, Any]]) -> int:
        """Add to the rows of `model` that `before` has noted how they are now; their number. One statement."""
        ...

    def deleted(self, model: type[Model], rows: QuerySet[Any, Any]) -> int:
        """Note `rows`, which are locked and about to be deleted, with all their columns; their number. One statement."""
        ...

    def handed_over(self, verb: str, model: type[Model], keys: Keys) -> int:
        """Note that the records of `keys` were `called` or `enqueued`; what follows is out of sight. One statement."""
        ...


@dataclass(frozen=True, kw_only=True)
class Sending:
    """One message that goes out of the database for a chunk, once the chunk has been committed.

    what: in words. model, keys: the records that it is about, of which the journal says that they were enqueued.
    send: hands it over, or raises. done, failed: note in the database that it went out, or that it didn't; each costs
    one statement at most.
    """

    what: str
    model: type[Model]
    keys: Keys
    send: Callable[[], None]
    done: Callable[[], None]
    failed: Callable[[], None]


@dataclass(frozen=True)
class Wrote:
    """What a remedy did for one chunk.

    written: rows by verb. busy: keys left alone because other sessions hold what they are mended by. held: rows left alone
    for that of which it isn't known whose they are, once the remedy has seen that nothing else is left. refused: keys that it
    could not mend, each with the reason; they are set aside, and the others of the chunk stand. sending: what goes out
    after the commit, in this order. promised: the drift is gone already, although the remedy is a deferred one. seen: a
    statement after the write has found each record of the chunk mended, so that it need not be looked for again. keys: the
    records that had drifted still, under their lock; None where that is all of them, or isn't known without asking.
    """

    written: Written = field(default_factory=Written)
    busy: Collection[Any] = ()
    held: int = 0
    refused: Mapping[Any, str] = field(default_factory=dict)
    sending: Sequence[Sending] = ()
    promised: bool = False
    seen: bool = False
    keys: Sequence[Any] | None = None

    @classmethod
    def of(cls, verb: str, rows: int, **more: Any) -> Wrote:
        """`rows` rows under one verb."""
        written = Written()
        written.add(verb, rows)
        return cls(written, **more)


class Remedy(Protocol):
    """One way to mend one kind of drift."""

    @property
    def verb(self) -> str:
        """Under which count of the outcome its rows go; empty for a remedy that writes nothing."""
        ...

    @property
    def deferred(self) -> bool:
        """Whether the drift goes away only later, when somebody else has done their part."""
        ...

    @property
    def chunk(self) -> int | None:
        """Most keys that one transaction takes; None where the remedy doesn't mind."""
        ...

    def writes(self, finder: Finder) -> Iterable[Column]:
        """Columns that it writes beside those of the effect; all of a table where it takes rows away."""
        ...

    def faults(self, drift: Drift, finder: Finder | None) -> Iterable[Fault]:
        """What keeps the remedy from being used for this drift, as `finder` finds it. Costs no statement."""
        ...

    def planned(self, finder: Finder, drifted: int) -> Written:
        """What it would write for `drifted` rows that the finder has counted."""
        ...

    def write(self, finder: Finder, keys: Keys, journal: Journal) -> Wrote:
        """Mend the records of `keys`, which are locked; what was written.

        The whole drift condition is put on the statement again: what another session has mended since
        the keys were found is left alone. Raises ChunkConflictError where what was written isn't what was noted.
        """
        ...


class Mending(Declaration):
    """What most remedies have in common: one verb, any number of keys, done when the chunk is."""

    verb: ClassVar[str] = ""
    deferred: ClassVar[bool] = False

    @property
    def chunk(self) -> int | None:
        """As many keys as the repair likes."""
        return None

    def writes(self, finder: Finder) -> Iterable[Column]:  # noqa: ARG002
        """None but the effect's."""
        return ()

    def planned(self, finder: Finder, drifted: int) -> Written:  # noqa: ARG002
        """All drifted rows under the remedy's verb."""
        planned = Written()
        if self.verb:
            planned.add(self.verb, drifted)
        return planned
