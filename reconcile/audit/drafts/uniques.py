"""Columns that most likely hold each value once, though nothing in the database keeps it so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from django.db.models import BooleanField, CharField, Count, ForeignKey, Model

from reconcile.audit.drafts.candidates import columns_of, plural_of, words_of

__all__ = ["Unique", "unique_columns"]

ONCE = frozenset({"email", "code", "sku", "slug", "token", "username", "barcode", "isbn", "uuid"})
"""Words of names of columns whose values most often are there once."""

MAIN = frozenset({"default", "primary", "main"})
FEWEST, SHARE, GROUPS = 10, 0.95, 0.5


@dataclass(frozen=True, kw_only=True)
class Unique:
    """Columns, and the flag of the records that count; empty if all do."""

    model: type[Model]
    columns: tuple[str, ...]
    flag: str
    told: str
    share: float


def unique_columns(model: type[Model], using: str) -> Iterator[Unique]:
    """What should be unique, by name and data. Two statements for each column of such a name."""
    rows = model._base_manager.using(using)
    for column in columns_of(model):
        if (
            isinstance(column, CharField)
            and not column.unique
            and words_of(column.name) & ONCE
            and not _is_constrained(model, column.name)
        ):
            filled = rows.exclude(**{column.name: ""}).exclude(**{column.name: None})
            facts = filled.aggregate(all=Count("pk"), values=Count(column.name, distinct=True))
            if facts["all"] >= FEWEST and facts["values"] / facts["all"] >= SHARE:
                told = (
                    f"{facts['all']:,} {plural_of(model)} have {facts['values']:,} values of {column.name}."
                )
                yield Unique(
                    model=model,
                    columns=(column.name,),
                    flag="",
                    told=told,
                    share=facts["values"] / facts["all"],
                )
        if isinstance(column, BooleanField) and words_of(column.name) & MAIN:
            yield from _one_of_each(model, column.name, using)


def _one_of_each(model: type[Model], flag: str, using: str) -> Iterator[Unique]:
    """`is_default` of the addresses of a customer: one at most."""
    for key in (each for each in model._meta.concrete_fields if isinstance(each, ForeignKey)):
        chosen = model._base_manager.using(using).filter(**{flag: True})
        groups = chosen.aggregate(rows=Count("pk"), owners=Count(key.name, distinct=True))
        if (
            groups["owners"] >= FEWEST
            and groups["owners"] / groups["rows"] >= GROUPS
            and not _is_constrained(model, key.name)
        ):
            told = f"{groups['rows']:,} {plural_of(model)} with {flag} belong to {groups['owners']:,} of {key.name}."
            yield Unique(
                model=model,
                columns=(key.name,),
                flag=flag,
                told=told,
                share=groups["owners"] / groups["rows"],
            )


def _is_constrained(model: type[Model], name: str) -> bool:
    constraints = [tuple(getattr(each, "fields", ())) for each in model._meta.constraints]
    return any(name in each for each in (*constraints, *model._meta.unique_together))
