"""`Insert`: write the rows that are missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from django.db import IntegrityError, transaction
from django.db.models import Model

from reconcile.core.drift import MISSING, Drift
from reconcile.core.finder import Finder, Rows
from reconcile.core.fixes import Derivation, Insertion
from reconcile.core.scopes import Keys, blocks
from reconcile.core.verbs import INSERT
from reconcile.core.wording.names import plural
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import rows_in_statement
from reconcile.db.statements import insert_select, select_sql
from reconcile.db.unexecuted import first_write
from reconcile.errors import ChunkConflictError, Fault, NotRepairedError
from reconcile.remedies.base import Journal, Remedy, WriteResult, WriteStep

__all__ = ["Insert", "derive"]

BATCH = 500
"""Rows in one INSERT."""


def derive(derivation: Derivation, keys: Keys, journal: Journal, *, using: str) -> WriteResult:
    """Insert and journal the missing rows of the records of `keys`."""
    label = derivation.model._meta.label
    before = Keys(list(derivation.present(keys).values_list("pk", flat=True)))
    made = _insert_derived(derivation, keys, using)
    names = [field.attname for field in derivation.identity]
    wanted = {tuple(getattr(row, name) for name in names) for row in made}
    found = derivation.present(keys).exclude(before.on("pk")).values_list("pk", *names)
    new = [key for key, *identity in found if tuple(identity) in wanted]
    if len(new) < len(made):
        raise NotRepairedError(
            f"A new {label} is not found by its link and key: is a link NULL, or does something in the database "
            "change what is written?"
        )
    if len(new) > len(made):
        raise ChunkConflictError(
            f"{label}: {len(made)} rows were inserted and {len(new)} found; another session inserts the same rows."
        )
    rows = derivation.model._base_manager.using(using).filter(Keys(new).on("pk"))
    return WriteResult.of(INSERT, journal.record_inserts(derivation.model, rows))


def _insert_derived(derivation: Derivation, keys: Keys, using: str) -> Sequence[Any]:
    """Insert the rows. If another session was first, the second try sees its rows."""
    for last in (False, True):
        rows: list[Model] = derivation.owed(keys)
        try:
            with transaction.atomic(using=using), dialect_of(using).detect_conflicts(derivation.model):
                derivation.model._base_manager.using(using).bulk_create(rows, batch_size=BATCH)
        except IntegrityError:
            if last:
                raise
        else:
            return rows
    raise AssertionError("The second try returns or raises.")  # pragma: no cover


@dataclass(frozen=True)
class Insert(Remedy):
    """`INSERT … SELECT`, so that the database computes the values. The default for MISSING.

    Where a column's value must be made once a row in Python (a token, a uuid), the rows are made in
    Python instead. Written rows are found by their link, never by what an insert returned. One statement on PostgreSQL, else
    two, and a savepoint, where none of the records has a row; more where some do, or rows are made in Python, but never one a
    record.
    """

    verbs: ClassVar[Sequence[str]] = (INSERT,)

    def faults(self, drift: Drift, finder: Finder | None) -> Sequence[Fault]:
        """It serves MISSING alone."""
        mends = drift is MISSING
        if finder is not None:
            mends = isinstance(finder.fix, Insertion | Derivation)
        if mends:
            return ()
        return (Fault("reconcile.E012", f"Insert() does not mend {drift} drift.", "Use Report()."),)

    def spell(self, finder: Finder, keys: Keys) -> Iterator[WriteStep]:
        """The INSERT; where Python makes values once a row, the SELECT of the others, since to make them may have effects."""
        fix, using = finder.fix, finder.using
        if isinstance(fix, Derivation):
            yield from _spell_derived(fix, keys, using)
        elif isinstance(fix, Insertion) and fix.makers:
            words = f"Read the rows that are owed; Python makes {', '.join(fix.makers)} for each, and inserts them with VALUES."
            yield WriteStep(words, select_sql(fix.owed(keys)))
        elif isinstance(fix, Insertion):
            yield _spell_insert(fix, keys, using)

    def write(self, finder: Finder, keys: Keys, journal: Journal) -> WriteResult:
        """Insert and journal the rows that the records of `keys` owe."""
        insertion = finder.fix
        if isinstance(insertion, Derivation):
            return derive(insertion, keys, journal, using=finder.using)
        if not isinstance(insertion, Insertion):
            raise TypeError(f"{finder.drift} drift of {finder.model._meta.label} has nothing to insert.")
        every, before = keys, Keys(())
        written, recorded = _all_at_once(insertion, keys, journal, using=finder.using)
        if not written:
            keys, before = _still_missing(finder, insertion, keys)
            written = sum(
                _insert(insertion, keys, skip_conflicts=True) for _ in range(insertion.rows_per_record)
            )
            recorded = journal.record_inserts(
                insertion.model, insertion.present(keys).exclude(before.on("pk"))
            )
        if recorded < written:
            raise NotRepairedError(
                f"A new {insertion.model._meta.label} is not found by its link: does where= exclude it, is a link "
                "NULL, or does something in the database change what is written?"
            )
        if recorded != written:
            raise ChunkConflictError(
                f"{insertion.model._meta.label}: {written} rows were inserted and {recorded} found by their link; "
                "another session inserts the same rows."
            )
        # Each record had no row, and by its link one was found after it was written.
        seen = insertion.rows_per_record == 1 and recorded == len(every.values) and not before.values
        return WriteResult.of(INSERT, written, verified=seen, keys=keys.values)


def _spell_derived(derivation: Derivation, keys: Keys, using: str) -> Iterator[WriteStep]:
    rows = derivation.owed(keys)
    fields = [each for each in derivation.model._meta.concrete_fields if not each.generated]
    most = min(BATCH, max(rows_in_statement(using, fields, rows), 1))
    manager = derivation.model._base_manager.using(using)
    words = f"Insert {plural(len(rows), 'row')} that Python derives from the records."
    for some in blocks(rows, most):
        sql = first_write(partial(manager.bulk_create, some, batch_size=BATCH), using=using)
        yield WriteStep(words, sql)
        words = ""


def _spell_insert(insertion: Insertion, keys: Keys, using: str) -> WriteStep:
    times = insertion.rows_per_record
    words = "Insert the rows that are owed."
    if times > 1:
        words = f"Insert the rows that are owed: {times} times, each time one row for each record that lacks one still."
    insert = partial(_insert, insertion, keys, skip_conflicts=False)
    if insertion.rows_per_record == 1 and dialect_of(using).returns_new_rows(insertion.model):
        words = (
            "Insert the rows that are owed, and their images into the journal, in one statement (WITH … RETURNING). Unless each record gets its row, it is "
            "rolled back to a savepoint; those that still lack one are read again, and it is sent once more, with NOT EXISTS."
        )
        rows = insertion.owed_unchecked(keys)
        insert = partial(insert_select, insertion.model, insertion.selected, rows, skip_conflicts=False)
    return WriteStep(words, first_write(insert, using=using))


def _all_at_once(insertion: Insertion, keys: Keys, journal: Journal, *, using: str) -> tuple[int, int]:
    """Insert and journal one row for each record, in one statement. Returns their number; 0, and does nothing, if one no longer owes a row.

    If each record gets its row, none had one, and all that are there are this chunk's. Asking beforehand would cost a
    statement that reads as much as the insert; the savepoint costs next to nothing. Nor does it pass over rows of
    others, which takes a third longer: whatever keeps one row from being inserted is seen the second time.
    """
    if insertion.rows_per_record != 1:
        return 0, 0
    whole, written, recorded = False, 0, 0
    with suppress(IntegrityError, ChunkConflictError), transaction.atomic(using=using):
        model, present = insertion.model, insertion.present
        done = None
        if not insertion.makers:
            done = journal.insert_and_record(
                model, insertion.selected, insertion.owed_unchecked, present, keys
            )
        written, recorded = done or (_insert(insertion, keys, skip_conflicts=False), 0)
        whole = written == len(keys.values)
        if whole and done is None:
            recorded = journal.record_inserts(model, present(keys))
        transaction.set_rollback(not whole, using=using)
    return (written, recorded) if whole else (0, 0)


def _still_missing(finder: Finder, insertion: Insertion, keys: Keys) -> tuple[Keys, Keys]:
    """Read the records that still lack a row, and the rows that they have already.

    The keys were found before they were locked, and somebody may have mended some of them meanwhile.
    """
    missing = Keys(finder.keys(keys))
    return missing, Keys(list(insertion.present(missing).values_list("pk", flat=True)))


def _insert(insertion: Insertion, keys: Keys, *, skip_conflicts: bool) -> int:
    owed = insertion.owed(keys)
    if not insertion.makers:
        return insert_select(insertion.model, insertion.selected, owed, skip_conflicts=skip_conflicts)
    rows = [_call_makers(insertion, values) for values in owed]
    manager = insertion.model._base_manager.using(owed.db)
    dialect = dialect_of(owed.db)
    before = _count_linked(insertion, keys)
    with dialect.detect_conflicts(insertion.model):
        # On MySQL it would be INSERT IGNORE, which hides other faults too.
        skips = skip_conflicts and dialect.skips_conflicts(insertion.model)
        manager.bulk_create(rows, batch_size=1000, ignore_conflicts=skips)
    return _count_linked(insertion, keys) - before


def _count_linked(insertion: Insertion, keys: Keys) -> int:
    present: Rows = insertion.present(keys)
    return present.count()


def _call_makers(insertion: Insertion, values: Sequence[Any]) -> Any:
    attributes = {field.attname: value for field, value in zip(insertion.selected, values, strict=True)}
    return insertion.model(**attributes, **{name: make() for name, make in insertion.makers.items()})
