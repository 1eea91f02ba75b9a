"""Existing rows of a model that together have whatever its rows may be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import BooleanField, Model

__all__ = ["LOOKED_AT", "MOST_ROWS", "Chosen", "choose_rows"]

MOST_ROWS = 20
"""Rows of a model that are chosen."""

LOOKED_AT = 1_000
"""Rows of a model among which those are chosen: as many of the oldest as of the newest."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The rows, and how many there were to choose from."""

    rows: Sequence[Model]
    looked_at: int


def choose_rows(model: type[Model], using: str, *, at_least: int = 0) -> Chosen:
    """Rows that together have every choice, truth and NULL of the columns which any of the newest and oldest has. Two statements.

    at_least: so many, if there are: the others are taken from all over these.

    Raises whatever a field makes of what stands in its column.
    """
    rows = model._base_manager.using(using)
    with transaction.atomic(using):
        newest = [*rows.order_by("-pk")[: LOOKED_AT // 2]]
        oldest = [*rows.order_by("pk")[: LOOKED_AT // 2]]
    candidates = list({each.pk: each for each in (*newest, *oldest)}.values())
    chosen, covered = list[Model](), set[tuple[str, Any]]()
    for each in candidates:
        kinds = {*_kinds_of(each)}
        if not kinds <= covered or not chosen:
            chosen.append(each)
            covered |= kinds
        if len(chosen) == MOST_ROWS:
            break
    keys = {each.pk for each in chosen}
    others = [each for each in candidates if each.pk not in keys]
    lacking = max(at_least - len(chosen), 0)
    chosen += others[:: max(len(others) // lacking, 1)][:lacking] if lacking else []
    return Chosen(rows=chosen, looked_at=len(candidates))


def _kinds_of(row: Model) -> Iterator[tuple[str, Any]]:
    for each in row._meta.concrete_fields:
        value = getattr(row, each.attname)
        if each.choices or isinstance(each, BooleanField):
            yield each.attname, value if value.__hash__ else str(value)
        elif each.null:
            yield each.attname, value is None
