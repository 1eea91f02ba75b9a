"""`Insert`: write the rows that are owed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from django.db import IntegrityError, transaction

from reconcile.drift import MISSING, Drift
from reconcile.errors import ChunkConflictError, Fault, NotMendedError
from reconcile.finders import Finder, Insertion, Rows
from reconcile.remedies._base import Journal, Mending, Wrote
from reconcile.remedies._deriving import derive
from reconcile.sql.dialects import dialect_of
from reconcile.sql.statements import insert_select
from reconcile.windows import Keys

__all__ = ["Insert"]


@dataclass(frozen=True)
class Insert(Mending):
    """`INSERT … SELECT`, so values are computed by the database; the default for MISSING.

    Where a column's value must be made once a row in Python (a token, a uuid), the rows are made in
    Python instead. Written rows are found by their link, never by what an insert returned. One statement on PostgreSQL, else
    two, and a savepoint, where none of the records has a row; more where some do, or rows are made in Python, but never one a
    record.
    """

    verb: ClassVar[str] = "insert"

    def faults(self, drift: Drift, finder: Finder | None) -> Sequence[Fault]:
        """Only what is missing can be inserted."""
        mendable = finder and (finder.insertion is not None or finder.derivation is not None)
        if mendable if finder else drift is MISSING:
            return ()
        return (Fault("reconcile.E012", f"Insert() does not mend {drift} drift.", "Use Report()."),)

    def write(self, finder: Finder, keys: Keys, journal: Journal) -> Wrote:
        """Insert and journal the rows that the records of `keys` owe."""
        if finder.derivation is not None:
            return derive(finder.derivation, keys, journal, using=finder.using)
        insertion = finder.insertion
        if insertion is None:
            raise TypeError(f"{finder.drift} drift of {finder.model._meta.label} has nothing to insert.")
        every, before = keys, Keys(())
        written, noted = _all_at_once(insertion, keys, journal, using=finder.using)
        if not written:
            keys, before = _still_missing(finder, insertion, keys)
            written = sum(_insert(insertion, keys, passing_over=True) for _ in range(insertion.passes))
            noted = journal.inserted(insertion.model, insertion.present(keys).exclude(before.on("pk")))
        if noted < written:
            raise NotMendedError(
                f"A new {insertion.model._meta.label} is not found by its link: does where= exclude it, is a link "
                "NULL, or does something in the database change what is written?"
            )
        if noted != written:
            raise ChunkConflictError(
                f"{insertion.model._meta.label}: {written} rows were inserted and {noted} found by their link; "
                "another session inserts the same rows."
            )
        # Each record had no row, and by its link one was found after it was written.
        seen = insertion.passes == 1 and noted == len(every.values) and not before.values
        return Wrote.of(self.verb, written, seen=seen, keys=keys.values)


def _all_at_once(insertion: Insertion, keys: Keys, journal: Journal, *, using: str) -> tuple[int, int]:
    """Insert and note a row for each of the records, and how many these are; 0, and nothing done, where one owes none any more.

    If each record gets its row, none had one, and all that are there are this chunk's. Asking beforehand would cost a
    statement that reads as much as the insert; the savepoint costs next to nothing. Nor does it pass over rows of
    others, which takes a third longer: whatever keeps one row from being inserted is seen the second time.
    """
    if insertion.passes != 1:
        return 0, 0
    whole, written, noted = False, 0, 0
    with suppress(IntegrityError, ChunkConflictError), transaction.atomic(using=using):
        model, present = insertion.model, insertion.present
        done = None
        if not insertion.made:
            done = journal.insert(model, insertion.selected, insertion.claimed, present, keys)
        written, noted = done or (_insert(insertion, keys, passing_over=False), 0)
        whole = written == len(keys.values)
        if whole and done is None:
            noted = journal.inserted(model, present(keys))
        transaction.set_rollback(not whole, using=using)
    return (written, noted) if whole else (0, 0)


def _still_missing(finder: Finder, insertion: Insertion, keys: Keys) -> tuple[Keys, Keys]:
    """The records that still lack a row, and the rows that these have already.

    The keys were found before they were locked, and somebody may have mended some of them meanwhile.
    """
    missing = Keys(finder.keys(keys))
    return missing, Keys(list(insertion.present(missing).values_list("pk", flat=True)))


def _insert(insertion: Insertion, keys: Keys, *, passing_over: bool) -> int:
    owed = insertion.owed(keys)
    if not insertion.made:
        return insert_select(insertion.model, insertion.selected, owed, passing_over=passing_over)
    rows = [_made(insertion, values) for values in owed]
    manager = insertion.model._base_manager.using(owed.db)
    dialect = dialect_of(owed.db)
    before = _linked(insertion, keys)
    with dialect.noticing_others(insertion.model):
        # On MySQL it would be INSERT IGNORE, which hides other faults too.
        passes_over = passing_over and dialect.passes_over(insertion.model)
        manager.bulk_create(rows, batch_size=1000, ignore_conflicts=passes_over)
    return _linked(insertion, keys) - before


def _linked(insertion: Insertion, keys: Keys) -> int:
    present: Rows = insertion.present(keys)
    return present.count()


def _made(insertion: Insertion, values: Sequence[Any]) -> Any:
    attributes = {field.attname: value for field, value in zip(insertion.selected, values, strict=True)}
    return insertion.model(**attributes, **{name: make() for name, make in insertion.made.items()})
