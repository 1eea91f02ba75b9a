"""The base of every remedy, the journal that it gets, and the result that it returns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from django.db.models import Field, Model, QuerySet

from reconcile.core.drift import Bound, Drift
from reconcile.core.finder import Finder
from reconcile.core.scopes import EVERYTHING, Keys, Scope
from reconcile.core.verbs import DELETE, INSERT, UPDATE, VERBS, Written
from reconcile.db.django_compat import SQL
from reconcile.db.expressions import Column
from reconcile.errors import Fault

__all__ = ["Journal", "Message", "Remedy", "WriteResult", "WriteStep"]


class Journal(Protocol):
    """The journal as a remedy sees it: it records the images of the rows that the remedy writes.

    verb: under which the change is recorded; a verb of the table that is this statement for the database.
    """

    def record_inserts(self, model: type[Model], rows: QuerySet[Any, Any], *, verb: str = INSERT) -> int:
        """Record `rows` that this chunk has inserted. Returns their number. One statement."""
        ...

    def insert_and_record(
        self,
        model: type[Model],
        fields: Sequence[Field[Any, Any]],
        claimed: Callable[[Keys], QuerySet[Any, Any]],
        present: Callable[[Keys], QuerySet[Any, Any]],
        keys: Keys,
    ) -> tuple[int, int] | None:
        """Insert what `claimed` selects, and record the new rows that `present` finds. Returns both numbers.

        Returns None and does nothing if the database can't do both at once. One statement, and one for each work item.
        """
        ...

    def record_reinserts(self, model: type[Model], changes: QuerySet[Any, Any], *, verb: str = INSERT) -> int:
        """Record the rows that `changes` had deleted and this chunk has inserted again. Returns their number. One statement."""
        ...

    def record_before(
        self, model: type[Model], fields: Sequence[Field[Any, Any]], keys: Keys, *, verb: str = UPDATE
    ) -> int:
        """Record the locked rows of `keys` before an update. One statement."""
        ...

    def record_after(
        self, model: type[Model], fields: Sequence[Field[Any, Any]], *, verb: str = UPDATE
    ) -> int:
        """Add the rows after the update to what `record_before` has recorded. Returns their number. One statement."""
        ...

    def record_deletes(self, model: type[Model], rows: QuerySet[Any, Any], *, verb: str = DELETE) -> int:
        """Record locked `rows` before their delete, with all columns. Returns their number. One statement."""
        ...

    def record_handover(self, verb: str, model: type[Model], keys: Keys) -> int:
        """Record that the records of `keys` were `called` or `enqueued`, without images. One statement."""
        ...


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message of a chunk to the world outside the database, sent after COMMIT.

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
class WriteResult:
    """What a remedy has done for one chunk.

    written: rows by verb. waiting: keys that wait, because other sessions have locked rows that their repair needs. waiting_rows: number
    of rows that wait for the same reason, if the remedy can't tell whose they are. refused: keys that the remedy could not
    repair, each with the reason; they go into the quarantine, and the others of the chunk are committed. messages: those
    to send after COMMIT, in this order. promised: the drift is gone already, although a task does the work later. verified: a
    statement after the write has found each record repaired, so that the verification is done. keys: the records that still
    drifted under their locks; None for all of them, or if that would cost a statement.
    """

    written: Written = field(default_factory=Written)
    waiting: Collection[Any] = ()
    waiting_rows: int = 0
    refused: Mapping[Any, str] = field(default_factory=dict)
    messages: Sequence[Message] = ()
    promised: bool = False
    verified: bool = False
    keys: Sequence[Any] | None = None

    @classmethod
    def of(cls, verb: str, rows: int, **more: Any) -> WriteResult:
        """The result of writing `rows` rows under one verb."""
        return cls(Written(**{verb: rows}), **more)


@dataclass(frozen=True)
class WriteStep:
    """What a remedy does for the records of a chunk, for people to read: in words, and as a statement where it sends one."""

    words: str
    sql: SQL | None = None


class Remedy:
    """Base of every remedy. Most have one verb, take any number of keys, and are done when the chunk is."""

    verbs: ClassVar[Sequence[str]] = ()
    """The verbs under which the outcome counts what it does, the usual one first; none for a remedy that does nothing."""
    deferred: ClassVar[bool] = False
    """Whether something else, such as a task, repairs the record later."""
    parts: ClassVar[Sequence[Remedy]] = ()
    """The remedies that it is made of, if it is made of others."""

    @property
    def repairs(self) -> bool:
        """Whether it does anything about the drift. If not, that is for people."""
        return bool(self.verbs)

    @property
    def inserts(self) -> bool:
        """Whether it inserts rows."""
        return self._sends(INSERT)

    @property
    def updates(self) -> bool:
        """Whether it updates rows."""
        return self._sends(UPDATE)

    @property
    def deletes(self) -> bool:
        """Whether it deletes rows, so that a second run has to confirm them."""
        return self._sends(DELETE)

    @property
    def calls(self) -> bool:
        """Whether it hands records to the project's code, which may do anything and take any time."""
        return self._sends("")

    @property
    def bound(self) -> Bound:
        """Whether it writes just what `plan` says, or may write more rows."""
        return Bound.EXACT

    @property
    def repeatable(self) -> bool:
        """Whether it may act on a record twice, so that nothing need keep it and live writers apart."""
        return False

    def _sends(self, statement: str) -> bool:
        return any(VERBS[verb].statement == statement for verb in self.verbs)

    @property
    def chunk(self) -> int | None:
        """Most keys for one transaction; None for any number."""
        return None

    def writes(self, finder: Finder) -> Iterable[Column]:  # noqa: ARG002
        """Columns that it writes beside those of the kind; all columns of a table from which it deletes rows."""
        return ()

    def faults(self, drift: Drift, finder: Finder | None) -> Iterable[Fault]:
        """Why the remedy can't be used for this kind of drift. Costs no statement."""
        raise NotImplementedError

    def plan(self, finder: Finder, drifted: int, scope: Scope = EVERYTHING) -> Written:  # noqa: ARG002
        """The rows that it would write for `drifted` rows of the finder in the scope; unless overridden, as many under its usual verb."""
        return Written(**dict.fromkeys(self.verbs[:1], drifted))

    def refused(self, finder: Finder, keys: Keys) -> Mapping[Any, str]:  # noqa: ARG002
        """Those of the drifted keys that `write` would refuse as things stand, each with the reason. Reads."""
        return {}

    def spell(self, finder: Finder, keys: Keys) -> Iterator[WriteStep]:
        """What `write` does for the records of `keys`, apart from its journal. Reads, and writes nothing."""
        raise NotImplementedError

    def write(self, finder: Finder, keys: Keys, journal: Journal) -> WriteResult:
        """Repair the locked records of `keys`.

        The statement has the whole drift condition again, so that a record that another session has repaired meanwhile stays as
        it is. Raises ChunkConflictError if the journal has another number of rows than were written.
        """
        raise NotImplementedError
