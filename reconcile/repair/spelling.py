"""The chunks of a repair as SQL, for somebody who answers for the database to read. Nothing of it is executed but what reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from django.db import transaction

from reconcile.core.drift import Drift, Sample
from reconcile.core.finder import Finder
from reconcile.core.scopes import EVERYTHING, Keys, Scope
from reconcile.db.dialects import dialect_of
from reconcile.db.printing import executable_text
from reconcile.db.unexecuted import first_read, first_write
from reconcile.detect.checking import evaluation_errors
from reconcile.detect.examining import examine
from reconcile.detect.listing import keys_to_write, lacking_in_words
from reconcile.remedies import Remedy, WriteStep
from reconcile.repair.repairing import RepairWork
from reconcile.rules.rule import Rule

__all__ = ["SpelledChunk", "SpelledStep", "spell_chunks"]


@dataclass(frozen=True)
class SpelledStep:
    """A step of a chunk: in words, and as a statement to paste if it sends one that is known beforehand."""

    words: str
    sql: str | None = None


@dataclass(frozen=True, kw_only=True)
class SpelledChunk:
    """One chunk of a repair, from BEGIN to the statement that verifies it, for these `records` of the model."""

    drift: Drift
    remedy: str
    model: str
    records: int
    steps: Sequence[SpelledStep]
    remarks: Sequence[str] = ()


LEVELS = (
    "Level by level: first the records that are computed from none that drifts, as here; then, in further chunks, those that are computed from "
    "these, as far as they drift then. Nothing of a circle is written."
)
"""What is said of a chunk of records that are computed from each other."""


def spell_chunks(
    rule: Rule, samples: Sequence[Sample], *, using: str, now: datetime, scope: Scope = EVERYTHING
) -> Sequence[SpelledChunk]:
    """For each kind of drift of which there are samples, the chunk that would repair these. scope: the records that the repair is about.

    Reads, in transactions that are rolled back; writes nothing. Raises EvaluationError if the database can't answer.
    """
    found = []
    with evaluation_errors(using), examine(rule, using=using, now=now) as examined:
        for finder in examined.compiled.finders:
            texts = [each.key for each in samples if each.drift is finder.drift]
            remedy = rule.remedy(finder.drift)
            if texts and remedy.repairs:
                keys = keys_to_write(finder, texts, scope)
                with transaction.atomic(using=using):
                    found.append(_spell(finder, remedy, keys))
    return found


def _spell(finder: Finder, remedy: Remedy, keys: Keys) -> SpelledChunk:
    steps = list(_spelled(finder, remedy, keys)) if keys.values else []
    return SpelledChunk(
        drift=finder.drift,
        remedy=type(remedy).__name__,
        model=finder.model._meta.label,
        records=len(keys.values),
        steps=steps,
        remarks=tuple(_remarks(finder, steps)),
    )


def _spelled(finder: Finder, remedy: Remedy, keys: Keys) -> Iterator[SpelledStep]:
    using = finder.using
    yield from _beginning(using)
    for each in _steps(RepairWork(finder=finder, remedy=remedy), keys):
        yield SpelledStep(each.words, None if each.sql is None else executable_text(each.sql, using=using))


def _remarks(finder: Finder, steps: Sequence[SpelledStep]) -> Iterator[str]:
    if finder.levels is not None:
        yield LEVELS
    sql = "\n".join(each.sql or "" for each in steps)
    if functions := dialect_of(finder.using).functions_of_django(sql):
        yield lacking_in_words(functions)


def _beginning(using: str) -> Iterator[SpelledStep]:
    dialect = dialect_of(using)
    first, *others = dialect.begin
    yield SpelledStep("Begin, with time-outs that let live sessions go first.", first)
    yield from (SpelledStep("", each) for each in others)
    if prepared := first_read(dialect.prepare_chunk, using=using):
        yield SpelledStep("", executable_text(prepared, using=using))


def _steps(work: RepairWork, keys: Keys) -> Iterator[WriteStep]:
    using = work.finder.using
    dialect = dialect_of(using)
    for table in work.tables:
        lock = first_write(partial(dialect.lock_tables, [table]), using=using)
        if lock is not None:
            yield WriteStep("Keep other sessions from inserting the same rows, which no row lock does.", lock)
    lock = first_read(lambda: work.lock(keys.values), using=using)
    yield WriteStep("Lock the records, and skip those that another session has locked.", lock)
    yield from work.remedy.spell(work.finder, keys)
    if not work.deferred:
        verify = first_read(lambda: work.still_open(keys.values), using=using)
        yield WriteStep("Verify: if a record drifts still, the chunk is rolled back.", verify)
