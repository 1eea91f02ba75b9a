"""The drifted rows of a rule as one SELECT for each kind of drift, to be pasted into the shell of the database. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import F, Field, Model

from reconcile.core.declaration import field_named
from reconcile.core.drift import Drift
from reconcile.core.finder import Finder, QueryFinder, Rows
from reconcile.core.fixes import Correction, Insertion
from reconcile.core.scopes import EVERYTHING
from reconcile.db.columns import concrete_model
from reconcile.db.django_compat import combined_queries, ordering_of, selected_annotations
from reconcile.db.expressions import columns_read
from reconcile.db.printing import executable_text
from reconcile.db.statements import KEY, WANTED
from reconcile.detect.checking import evaluation_errors
from reconcile.detect.examining import examine
from reconcile.rules.rule import Rule

__all__ = ["Listing", "keys_read", "listings"]


@dataclass(frozen=True, kw_only=True)
class Listing:
    """One kind of drift of a rule, and the SELECT of its rows.

    sql: the whole table, values written in as this database reads them: the key, each column that the rule reads as `there_…`, and what
    it must be as `owed_…`. None if no row can ever drift, or no SELECT tells. remarks: why, and what the SELECT leaves out.
    """

    drift: Drift
    model: str
    sql: str | None
    remarks: tuple[str, ...] = ()


def listings(rule: Rule, *, using: str, now: datetime) -> tuple[Listing, ...]:
    """A listing for each kind of drift of the rule. No statement, unless the SQL depends on what the database has.

    Raises EvaluationError if the database can't answer.
    """
    with evaluation_errors(using), examine(rule, using=using, now=now) as examined:
        return tuple(_listing(each) for each in examined.compiled.finders)


def keys_read(rows: Rows) -> Rows:
    """The keys alone, without an order that the model gives and the statements of a check take away."""
    unordered: Rows = rows if ordering_of(rows.query) else rows.order_by()
    return unordered.values("pk")


def _listing(finder: Finder) -> Listing:
    label = (
        finder.model_written._meta.label if isinstance(finder.fix, Correction) else finder.model._meta.label
    )
    if finder.needs_python:
        why = "Only Python can tell which rows these are, and what they must be: reconcile check."
        return Listing(drift=finder.drift, model=label, sql=None, remarks=(why,))
    sql = executable_text(_rows(finder))
    return Listing(drift=finder.drift, model=label, sql=sql, remarks=tuple(_remarks(finder, sql)))


def _remarks(finder: Finder, sql: str | None) -> Iterator[str]:
    if sql is None:
        yield "No row can ever be in this drift."
    if isinstance(finder.fix, Insertion):
        yield f"Each with the columns of the {finder.fix.model._meta.label} that it owes, as far as the database computes them."
    if isinstance(finder, QueryFinder) and finder.overflow is not None and finder.fix is not None:
        yield "Without rows whose owed values don't fit their columns, which a check counts, too."


def _rows(finder: Finder) -> Rows:
    if isinstance(finder.fix, Correction):
        return _stale_rows(finder, finder.fix)
    if isinstance(finder.fix, Insertion):
        return _owed_rows(finder.fix)
    found = finder.find(EVERYTHING)
    return _select(found, "pk", _columns_read(finder), {})


def _stale_rows(finder: Finder, fix: Correction) -> Rows:
    rows = fix.wanted(EVERYTHING)
    if finder.in_groups:
        # A repair asks for the values of rows alone of which it knows that they drift.
        rows = rows.filter(pk__in=finder.find(EVERYTHING).order_by().values("pk"))
    return _select(rows, KEY, fix.fields, {each.attname: WANTED.format(each.attname) for each in fix.fields})


def _owed_rows(fix: Insertion) -> Rows:
    rows = fix.owed(EVERYTHING)
    # The SELECT yields them in the order of the columns, as the INSERT takes them.
    names = (field.attname for field in fix.selected)
    return _select(rows, "pk", (), dict(zip(names, selected_annotations(rows.query), strict=True)))


def _select(rows: Rows, key: str, there: Sequence[Field[Any, Any]], owed: Mapping[str, str]) -> Rows:
    """The rows by key, with their columns as they are and as they must be."""
    if combined_queries(rows.query):
        # The parts of a union have the columns that they have.
        selected: Rows = rows.values("pk", *(each.attname for each in there))
        return selected
    named = {_free_name(rows.model, "key"): F(key)}
    named |= {f"there_{each.attname}": F(each.attname) for each in there if not each.primary_key}
    named |= {f"owed_{name}": F(alias) for name, alias in owed.items()}
    ordered: Rows = rows.order_by(key).values(**named)
    return ordered


def _free_name(model: type[Model], name: str) -> str:
    """The name, or one like it that no column of the model has."""
    return _free_name(model, f"{name}_") if field_named(model, name) else name


def _columns_read(finder: Finder) -> tuple[Field[Any, Any], ...]:
    """The columns of the rows that the finder reads, in the model's order."""
    rows = finder.find(EVERYTHING)
    read = columns_read(rows.only("pk")) if not combined_queries(rows.query) else frozenset()
    return tuple(
        field
        for field in finder.model._meta.concrete_fields
        if (concrete_model(field.model), field.attname) in read
    )
