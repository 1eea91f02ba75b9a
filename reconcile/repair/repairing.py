"""Repairing a work item: the drifted records of one kind of one rule, from the cursor to the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from django.db.models import Model

from reconcile.core.finder import Finder, Source
from reconcile.core.fixes import Overwriting
from reconcile.core.scopes import Keys
from reconcile.core.verbs import INSERT
from reconcile.db.columns import parent_columns
from reconcile.db.dialects import dialect_of
from reconcile.db.schema import may_change_values
from reconcile.detect.checking import KeptKeys
from reconcile.errors import NotRepairedError
from reconcile.remedies import Journal, Remedy, WriteResult
from reconcile.repair.chunk import ChunkExecutor
from reconcile.repair.conflicts import name_holder, order_conflicts
from reconcile.repair.drifted_keys import DriftedKeys
from reconcile.repair.levels import repair_by_levels
from reconcile.repair.walking import AHEAD, Progress, work_through

__all__ = ["KEEP", "RepairWork", "drifted_keys", "repair_work_item"]

KEEP = AHEAD
"""Drifted keys that a check keeps for the repair that follows it; a few MiB."""


@dataclass(kw_only=True)
class RepairWork:
    """Repairs the records that one finder finds, by one remedy.

    stale: the finder of rows with wrong values, if something in the database may change what an INSERT writes; they are verified
    by it as well. confirm: returns the keys that this run may repair; the others are counted in `unconfirmed`.
    """

    finder: Finder
    remedy: Remedy
    stale: Finder | None = None
    confirm: Callable[[Sequence[Any]], Sequence[Any]] | None = None
    unconfirmed: int = field(default=0, init=False)

    @property
    def name(self) -> str:
        """The kind of drift."""
        return str(self.finder.drift)

    @property
    def limit(self) -> int | None:
        """Most keys that the remedy takes at once."""
        return self.remedy.chunk

    @property
    def tables(self) -> Sequence[type[Model]]:
        """The tables of the rows that the remedy inserts, if no row lock keeps others from inserting them, too."""
        return () if self.remedy.deferred else self.finder.lock.tables

    @property
    def deferred(self) -> bool:
        """Whether something else repairs the records later."""
        return self.remedy.deferred

    @property
    def frees_values(self) -> bool:
        """Whether rows are updated, so that one may free what another owes."""
        return isinstance(self.finder.fix, Overwriting)

    @property
    def changed_by_database(self) -> bool:
        """Whether triggers may change what is written."""
        return may_change_values(self.finder.model_written, self.finder.using)

    def choose(self, keys: Sequence[Any]) -> Sequence[Any]:
        """The keys that are confirmed."""
        taken = keys if self.confirm is None else self.confirm(keys)
        self.unconfirmed += len(keys) - len(taken)
        return taken

    def lock(self, keys: Sequence[Any]) -> Sequence[Any]:
        """Lock the records in key order; skip those that other sessions have locked. One statement."""
        finder = self.finder
        rows = finder.model._base_manager.using(finder.using).filter(Keys(keys).on("pk")).order_by("pk")
        locked = dialect_of(finder.using).lock_free_rows(rows, from_references=self._cascades)
        if not (others := parent_columns(finder.model)):
            return list(locked.values_list("pk", flat=True))
        # A row of an inherited model lies in several tables, and is locked in each.
        return [key for key, *_ in locked.values_list("pk", *others)]

    @cached_property
    def _cascades(self) -> bool:
        """Whether a DELETE would take rows along that another session commits just then. One statement, if the remedy deletes."""
        return self.remedy.deletes and dialect_of(self.finder.using).cascades(self.finder.model)

    def write(self, keys: Keys, journal: Journal) -> WriteResult:
        """What the remedy writes."""
        return self.remedy.write(self.finder, keys, journal)

    def still_open(self, keys: Sequence[Any]) -> set[Any]:
        """Those of the keys that still drift. One statement."""
        return {*self.finder.keys(Keys(keys))}

    def unwritable(self, keys: Sequence[Any]) -> Mapping[Any, str]:
        """Those of the keys whose values don't fit their columns."""
        return self.finder.unwritable(keys)

    def name_holder(self, key: Any) -> str:
        """The row that has a unique value which the record owes."""
        return name_holder(self.finder, key)

    def order_conflicts(self, keys: Sequence[Any]) -> tuple[Sequence[Any], set[Any]]:
        """The order in which each record finds its unique value free, and the swaps."""
        return order_conflicts(self.finder, keys)

    def verify(self, locked: Sequence[Any], wrote: WriteResult) -> set[Any]:
        """No locked record may drift after the write, except for rows that other sessions have locked. One statement, or none."""
        if self.stale is not None:
            self._verify_values(self.stale, locked, wrote)
        if not locked or wrote.verified or (self.remedy.deferred and not wrote.promised):
            return set()
        drifted = self.still_open(locked) - {*wrote.refused}
        left = drifted - {*wrote.waiting}
        if len(left) <= wrote.waiting_rows:
            return drifted
        raise NotRepairedError(
            f"{self.finder.model._meta.label} {min(left, key=str)} is still {self.finder.drift} after the repair; does "
            "something in the database change what is written, does where= exclude it, or has another row a unique value that it owes?"
        )

    def _verify_values(self, stale: Finder, keys: Sequence[Any], wrote: WriteResult) -> None:
        """Raise NotRepairedError if a row that was inserted has other values than its rule gives it."""
        if not wrote.written.by(INSERT):
            return
        if changed := {*stale.keys(Keys(keys))} - {*wrote.refused} - {*wrote.waiting}:
            raise NotRepairedError(
                f"{self.finder.model._meta.label} {min(changed, key=str)}: the row that was inserted has other values than the "
                "rule gives it. Something in the database, such as a trigger, changes what is written."
            )


def repair_work_item(
    executor: ChunkExecutor,
    finder: Finder,
    source: Source,
    *,
    records: int,
    kept: KeptKeys,
    progress: Progress,
    only: Keys | None = None,
) -> None:
    """Repair a work item from its cursor to its end, then the records that were locked, a few times with a pause.

    kept: keys that a check has just found; a work item with a cursor finds its keys itself. records: the number of checked
    records. only: the records of these keys alone; None for all. Records that are computed from each other are repaired level by level.
    """
    executor.quarantine.set_aside(kept.unevaluable)
    aside = executor.quarantine.set_aside
    found = DriftedKeys(executor.beat, source, records, finder, aside=aside, only=only)
    cursor = executor.item.cursor
    after = None if cursor is None else finder.model._meta.pk.to_python(cursor)
    if finder.levels is not None:
        repair_by_levels(executor, found, finder.levels, after=after, progress=progress)
    else:
        work_through(
            executor, found.kept_and_beyond(kept) if after is None else found.beyond(after), progress
        )


def drifted_keys(
    finder: Finder, source: Source, records: int, kept: KeptKeys, beat: Callable[[], None]
) -> Iterator[Any]:
    """Yield all drifted keys in order: those that a check has kept, then those beyond. Calls `beat` once a window."""
    return DriftedKeys(beat, source, records, finder).kept_and_beyond(kept)
