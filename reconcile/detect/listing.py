"""The drifted rows of a rule, as they are and as they must be: as SQL to be pasted, or the first few read. Reads only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import F, Field, Model

from reconcile.core.declaration import field_named, known_field
from reconcile.core.drift import Drift, Sample
from reconcile.core.finder import Finder, QueryFinder, Rows
from reconcile.core.fixes import Correction, Derivation, Heights, Insertion, Rewriting
from reconcile.core.scopes import EVERYTHING, Keys, Scope
from reconcile.db.columns import concrete_model
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import combined_queries, ordering_of, selected_annotations
from reconcile.db.expressions import columns_read
from reconcile.db.printing import executable_select
from reconcile.db.statements import KEY, WANTED
from reconcile.detect.checking import evaluation_errors
from reconcile.detect.examining import examine
from reconcile.detect.inspecting import NOT_STATED, Cell, Row, rounded
from reconcile.rules.rule import Rule

__all__ = ["Listing", "drifted_rows", "keys_read", "keys_to_write", "lacking_in_words", "listings"]


@dataclass(frozen=True, kw_only=True)
class Listing:
    """One kind of drift of a rule, and the SELECT of its rows.

    sql: the whole table, values written in as this database reads them: the key, each column that the rule reads as `there_…`, and what
    it must be as `owed_…`. None if no row can drift, or no SELECT tells. remarks: why, and what the SELECT leaves out.
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
    sql = executable_select(_rows(finder, EVERYTHING))
    return Listing(drift=finder.drift, model=label, sql=sql, remarks=tuple(_remarks(finder, sql)))


def lacking_in_words(functions: Sequence[str]) -> str:
    """What is said of a statement that calls functions which the shell of its database doesn't have."""
    return f"It calls {', '.join(functions)}, which Django adds to its connections, and SQLite's own shell lacks."


def _remarks(finder: Finder, sql: str | None) -> Iterator[str]:
    if sql is None:
        now = finder.needs_database
        yield "No row is in this drift now." if now else "No row can ever be in this drift."
    if isinstance(finder.fix, Insertion):
        yield f"Each with the columns of the {finder.fix.model._meta.label} that it owes, as far as the database computes them."
    if sql is not None and (functions := dialect_of(finder.using).functions_of_django(sql)):
        yield lacking_in_words(functions)
    if isinstance(finder, QueryFinder) and finder.overflow is not None and finder.fix is not None:
        yield "Without rows whose owed values don't fit their columns, which a check counts, too."


def drifted_rows(
    rule: Rule, samples: Sequence[Sample], *, using: str, now: datetime, scope: Scope = EVERYTHING
) -> Mapping[Drift, Sequence[Row]]:
    """The rows that a repair would write for these records, by kind of drift, each with its columns as they are and as they must be.

    A row that is missing has no key. One statement for each kind of drift, two where Python computes what is owed. Raises EvaluationError
    if the database can't answer.
    """
    with evaluation_errors(using), examine(rule, using=using, now=now) as examined:
        found = {}
        for finder in examined.compiled.finders:
            texts = [each.key for each in samples if each.drift is finder.drift]
            if texts and rule.remedy(finder.drift).repairs:
                found[finder.drift] = list(_read(finder, keys_to_write(finder, texts, scope)))
        return found


def keys_to_write(finder: Finder, texts: Sequence[str], scope: Scope) -> Keys:
    """The keys of drifted records in scope that a repair would write first, as many as the texts: these, unless they are computed from others.

    Of records that are computed from each other those whose sources don't drift, and that are in no circle.
    """
    keys = Keys([finder.model._meta.pk.to_python(text) for text in texts])
    if finder.levels is None:
        return keys
    ready = finder.levels.ready(scope).order_by("pk").values_list("pk", flat=True)
    first = list(ready[: len(texts)])
    circles = finder.levels.circles(first, Heights())
    return Keys([key for key in first if key not in circles])


def _read(finder: Finder, keys: Keys) -> Iterator[Row]:
    if isinstance(finder.fix, Derivation):
        yield from map(_derived_row, finder.fix.owed(keys))
    elif isinstance(finder.fix, Rewriting):
        yield from _rewritten_rows(finder.fix, keys, finder.using)
    else:
        is_new = isinstance(finder.fix, Insertion)
        model = finder.model_written
        # The name of the key comes first.
        for key, *values in (tuple(each.items()) for each in _rows(finder, keys)):
            cells = _cells(model, dict(values))
            yield Row(model=model._meta.label, key=None if is_new else key[1], cells=cells)


def _cells(model: type[Model], values: Mapping[str, Any]) -> tuple[Cell, ...]:
    names = dict.fromkeys(re.sub("^(there|owed)_", "", name) for name in values)

    def value_of(side: str, name: str) -> Any:
        if (alias := f"{side}_{name}") not in values:
            return NOT_STATED
        return rounded(known_field(model, name), values[alias])

    return tuple(
        Cell(column=name, there=value_of("there", name), owed=value_of("owed", name)) for name in names
    )


def _derived_row(row: Model) -> Row:
    given = ((each.attname, getattr(row, each.attname)) for each in row._meta.concrete_fields)
    cells = tuple(Cell(column=name, owed=value) for name, value in given if value is not None)
    return Row(model=row._meta.label, key=None, cells=cells)


def _rewritten_rows(fix: Rewriting, keys: Keys, using: str) -> Iterator[Row]:
    rewrites = {each.key: each for each in fix.rewrites(keys)}
    names = [each.attname for each in fix.fields]
    rows = fix.model._base_manager.using(using).filter(Keys(list(rewrites)).on("pk")).order_by("pk")
    for key, *there in rows.values_list("pk", *names):
        owed = rewrites[key].values
        pairs = zip(names, there, strict=True)
        cells = tuple(
            Cell(column=name, there=value, owed=owed[name]) for name, value in pairs if name in owed
        )
        yield Row(model=fix.model._meta.label, key=key, cells=cells)


def _rows(finder: Finder, scope: Scope) -> Rows:
    if isinstance(finder.fix, Correction):
        return _stale_rows(finder, finder.fix, scope)
    if isinstance(finder.fix, Insertion):
        return _owed_rows(finder.fix, scope)
    found = finder.find(scope)
    return _select(found, "pk", _columns_read(finder), {})


def _stale_rows(finder: Finder, fix: Correction, scope: Scope) -> Rows:
    rows = fix.wanted(scope)
    if finder.in_groups and scope is EVERYTHING:
        # A repair asks for the values of rows alone of which it knows that they drift.
        rows = rows.filter(pk__in=finder.find(EVERYTHING).order_by().values("pk"))
    return _select(rows, KEY, fix.fields, {each.attname: WANTED.format(each.attname) for each in fix.fields})


def _owed_rows(fix: Insertion, scope: Scope) -> Rows:
    rows = fix.owed(scope)
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
    if finder.needs_python:
        return tuple(finder.model._meta.concrete_fields)
    rows = finder.find(EVERYTHING)
    read = columns_read(rows.only("pk")) if not combined_queries(rows.query) else frozenset()
    return tuple(
        field
        for field in finder.model._meta.concrete_fields
        if (concrete_model(field.model), field.attname) in read
    )
