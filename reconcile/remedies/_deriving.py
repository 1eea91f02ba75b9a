"""Inserting rows that Python derives: what the locked records lack, found again by link and key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Model

from reconcile.errors import ChunkConflictError, NotMendedError
from reconcile.finders import Derivation
from reconcile.remedies._base import Journal, Wrote
from reconcile.sql.dialects import dialect_of
from reconcile.windows import Keys

__all__ = ["derive"]

BATCH = 500
"""Rows that one statement inserts."""


def derive(derivation: Derivation, keys: Keys, journal: Journal, *, using: str) -> Wrote:
    """Insert and journal the rows that the records of `keys` lack."""
    label = derivation.model._meta.label
    before = Keys(list(derivation.present(keys).values_list("pk", flat=True)))
    made = _insert(derivation, keys, using)
    names = [field.attname for field in derivation.identity]
    wanted = {tuple(getattr(row, name) for name in names) for row in made}
    found = derivation.present(keys).exclude(before.on("pk")).values_list("pk", *names)
    new = [key for key, *identity in found if tuple(identity) in wanted]
    if len(new) < len(made):
        raise NotMendedError(
            f"A new {label} is not found by its link and key: is a link NULL, or does something in the database "
            "change what is written?"
        )
    if len(new) > len(made):
        raise ChunkConflictError(
            f"{label}: {len(made)} rows were inserted and {len(new)} found; another session inserts the same rows."
        )
    rows = derivation.model._base_manager.using(using).filter(Keys(new).on("pk"))
    return Wrote.of("insert", journal.inserted(derivation.model, rows))


def _insert(derivation: Derivation, keys: Keys, using: str) -> Sequence[Any]:
    """The rows that were inserted. Where another session was first, its rows are seen at the second try."""
    for last in (False, True):
        rows: list[Model] = derivation.owed(keys)
        try:
            with transaction.atomic(using=using), dialect_of(using).noticing_others(derivation.model):
                derivation.model._base_manager.using(using).bulk_create(rows, batch_size=BATCH)
        except IntegrityError:
            if last:
                raise
        else:
            return rows
    raise AssertionError("The second try returns or raises.")  # pragma: no cover
