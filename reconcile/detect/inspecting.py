"""Inspecting one record: what it owes, what is there, and what a repair would write."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import Any, Literal

from django.core.exceptions import ValidationError
from django.db import Error, connections
from django.db.models import F, Field, Model, Q, QuerySet, UUIDField, Value
from django.db.models.lookups import GreaterThan, LessThan

from reconcile.core.drift import EXTRA, Drift, Guarantee
from reconcile.core.finder import Finder, Source
from reconcile.core.fixes import Correction, Heights, Insertion, Rewriting
from reconcile.core.scopes import Keys, blocks
from reconcile.core.verbs import Written
from reconcile.core.wording.terms import queryset_in_words
from reconcile.db.columns import INTEGERS, concrete_model, is_in_range, stored_field
from reconcile.db.dialects import dialect_of, forms_of
from reconcile.db.django_compat import AND, filter_exactly, tables_read, where_of
from reconcile.db.expressions import Column, columns_read, prepare_queryset
from reconcile.db.statements import KEY, WANTED
from reconcile.detect.checking import evaluation_errors
from reconcile.detect.examining import examine
from reconcile.detect.unevaluable import concerns_values, describe_failure
from reconcile.errors import UnevaluableRecordError, UsageError
from reconcile.remedies import Remedy
from reconcile.rules.rule import Rule

__all__ = [
    "NOT_STATED",
    "Cell",
    "Inspection",
    "MadeInPython",
    "Row",
    "State",
    "Subject",
    "Verdict",
    "inspect_record",
    "linked_rows",
    "locate_key",
    "locate_keys",
    "new_rows",
    "rounded",
    "row",
    "wanted_values",
]

State = Literal["drifted", "young", "fine"]
"""`young`: the record would drift, but it is too young to be checked."""


class _NotStated(Enum):
    NOT_STATED = "not stated"


NOT_STATED = _NotStated.NOT_STATED
"""Stands for a value that is not there, or of which the rule says nothing."""


@dataclass(frozen=True)
class MadeInPython:
    """Stands for a value that Python makes, once for each new row."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One column: the value that is there, and the one that is owed."""

    column: str
    there: Any = NOT_STATED
    owed: Any = NOT_STATED

    @property
    def differs(self) -> bool:
        """Whether what is there is not what is owed."""
        return self.there is not NOT_STATED and self.owed is not NOT_STATED and bool(self.there != self.owed)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row, with the columns that the rule reads or writes.

    key: None for a row that is not there yet. extra: whether the row is there and no record owes it.
    """

    model: str
    key: Any
    cells: tuple[Cell, ...]
    extra: bool = False


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One kind of drift: whether it is there, and what a repair would write about it.

    owed: the missing rows. would: rows that the remedy would write, by verb. remedy: its name. refusal: why it can't write them.
    """

    drift: Drift
    state: State
    remedy: str
    would: Written
    owed: tuple[Row, ...] = ()
    refusal: str = ""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What the key names in one model.

    named_by_every: whether `every` names the record; None for a row that can only be EXTRA.
    unmet: the conditions of `every` that are not true of the record, in words.
    young_until: the moment at which the record is old enough; None if it is already.
    linked: rows of other models that belong to the record; `more` are left out.
    """

    row: Row
    named_by_every: bool | None
    unmet: tuple[str, ...]
    young_until: date | None
    linked: tuple[Row, ...]
    more: int
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What one rule says of one key. There are two subjects if both a record and a row have the key.

    settles: whether the rule leaves young records alone.
    """

    rule: str
    using: str
    key: str
    sentence: str
    guarantee: Guarantee
    settles: bool
    subjects: tuple[Subject, ...]


def locate_key(models: Iterable[type[Model]], text: str, *, using: str) -> Mapping[type[Model], Any]:
    """Find the models that have a row of this key, with the key as each of them reads it. One statement for each model.

    Raises UsageError if `text` can't be a key of any model, or if there is no such row.
    """
    possible, refusals = {}, []
    for model in models:
        try:
            possible[model] = _key(model, text, using)
        except ValueError:
            refusals.append(f"{model._meta.label}, which is {_kind(model)}")
    if not possible:
        raise UsageError(f"{text!r} can't be a key of {' or '.join(refusals)}.")
    found = {model: key for model, key in possible.items() if _is_there(model, key, using)}
    if not found:
        labels = " and no ".join(model._meta.label for model in possible)
        raise UsageError(f"There is no {labels} with the key {text!r}.{_near(possible, using)}")
    return found


def locate_keys(model: type[Model], texts: Sequence[str], *, using: str) -> Sequence[Any]:
    """The keys of the model's rows that the texts name, each once. One statement for each 5,000.

    Raises UsageError for a text that can't be a key, and for keys that no row has.
    """
    keys: dict[Any, str] = {}
    for text in texts:
        try:
            keys.setdefault(_key(model, text, using), text)
        except ValueError:
            raise UsageError(
                f"{text!r} can't be a key of {model._meta.label}, which is {_kind(model)}."
            ) from None
    rows = model._base_manager.using(using)
    there = {
        key
        for block in blocks(keys)
        for key in rows.filter(Keys(block).on("pk")).values_list("pk", flat=True)
    }
    if missing := [text for key, text in keys.items() if key not in there]:
        named = ", ".join(map(repr, missing[:SHOWN]))
        more = f" and {len(missing) - SHOWN:,} more" if len(missing) > SHOWN else ""
        raise UsageError(f"There is no {model._meta.label} with the key {named}{more}.")
    return list(keys)


def _key(model: type[Model], text: str, using: str) -> Any:
    """Convert `text` to the model's key. Raises ValueError if it can't be one."""
    field: Field[Any, Any] = stored_field(model._meta.pk)
    kind = field.get_internal_type()
    if kind in INTEGERS:
        # Python's int() also takes 1_000 and digits of other scripts.
        if not re.fullmatch(r"-?[0-9]{1,30}", text):
            raise ValueError(text)
        if not is_in_range(kind, int(text), using):
            raise ValueError(text)
    text.encode()
    if "\0" in text and not forms_of(connections[using]).keeps_nul:
        raise ValueError(text)
    try:
        key = field.to_python(text)
    except (ValidationError, ArithmeticError, TypeError) as error:
        raise ValueError(text) from error
    if key is None:
        raise ValueError(text)
    return key


def _kind(model: type[Model]) -> str:
    kind = stored_field(model._meta.pk).get_internal_type()
    if kind in INTEGERS:
        return "a whole number"
    return "a UUID" if kind == "UUIDField" else f"a {kind}"


def _is_there(model: type[Model], key: Any, using: str) -> bool:
    rows = model._base_manager.using(using).filter(Keys([key]).on("pk"))
    # A collation may take another text for this one; Python doesn't.
    return key in rows.values_list("pk", flat=True)


def _near(possible: Mapping[type[Model], Any], using: str) -> str:
    """Name the nearest keys; none for random keys such as UUIDs."""
    parts = []
    for model, key in possible.items():
        if isinstance(stored_field(model._meta.pk), UUIDField):
            continue
        keys = model._base_manager.using(using).values_list("pk", flat=True)
        below = keys.filter(LessThan(F("pk"), key)).order_by("-pk").first()
        above = keys.filter(GreaterThan(F("pk"), key)).order_by("pk").first()
        around = [str(each) for each in (below, above) if each is not None]
        parts.append(
            f" Nearest in {model._meta.label}: {' and '.join(around)}."
            if around
            else f" {model._meta.label} is empty."
        )
    return "".join(parts) or " `reconcile check` shows the keys that drift."


SHOWN = 10
"""Most rows of one record that are shown."""

Wanted = Mapping[type[Model], Mapping[Any, Mapping[str, Any]]]
"""By model and key, the values that columns should have."""


def wanted_values(finders: Iterable[Finder], scope: Keys) -> Wanted:
    """Read the values that corrections would write. One statement for each correction."""
    return {
        correction.model: {
            key: {
                field.attname: rounded(field, value)
                for field, value in zip(correction.fields, values, strict=True)
            }
            for key, *values in correction.wanted(scope).values_list(
                KEY, *(WANTED.format(field.attname) for field in correction.fields)
            )
        }
        for correction in _corrections(finders)
    }


def row(
    model: type[Model],
    key: Any,
    finders: Sequence[Finder],
    wanted: Wanted,
    *,
    using: str,
    inspected: bool,
) -> Row:
    """Read the row of this key, with the columns that the finders read. One statement.

    inspected: a column that a correction compares and would not write has the value that it owes.
    """
    compared = {
        field.attname for each in _corrections(finders) if each.model is model for field in each.fields
    }
    owed = wanted.get(model, {}).get(key, {})
    fields = _columns_to_show(model, finders)
    rows = model._base_manager.using(using).filter(Keys([key]).on("pk"))
    found = next(iter(rows.values_list(*(field.attname for field in fields))), None)
    there = dict(zip((field.attname for field in fields), found or (), strict=False))
    cells = tuple(
        Cell(
            column=name,
            there=value,
            owed=owed.get(name, value) if inspected and name in compared else NOT_STATED,
        )
        for name, value in there.items()
    )
    return Row(model=model._meta.label, key=key, cells=cells)


def linked_rows(
    finders: Sequence[Finder], scope: Keys, wanted: Wanted, *, using: str, inspected: bool
) -> tuple[tuple[Row, ...], int]:
    """Read the first rows that belong to the record, and count the others."""
    of_record = [each for each in finders if each.drift is not EXTRA]
    linked = dict.fromkeys(_linked_keys(of_record, scope, wanted))
    shown = list(linked)[:SHOWN]
    rows = []
    for model, key in shown:
        there = row(model, key, finders, wanted, using=using, inspected=inspected)
        surplus = [each for each in finders if each.drift is EXTRA and each.model is model]
        rows.append(replace(there, extra=any(key in each.keys(Keys([key])) for each in surplus)))
    return tuple(rows), len(linked) - len(shown)


def new_rows(insertion: Insertion, scope: Keys) -> tuple[Row, ...]:
    """The rows that an insert would write for a record that drifts. Two statements."""
    lacking = max(insertion.rows_per_record - insertion.present(scope).count(), 1)
    made = [Cell(column=name, owed=_value_of_maker(make)) for name, make in insertion.makers.items()]
    rows = []
    for values in insertion.owed(scope):
        pairs = zip(insertion.selected, values, strict=True)
        cells = [Cell(column=field.attname, owed=rounded(field, value)) for field, value in pairs]
        rows += [Row(model=insertion.model._meta.label, key=None, cells=(*cells, *made))] * lacking
    return tuple(rows)


def rounded(field: Field[Any, Any], value: Any) -> Any:
    """Round a decimal to the column's places: SQLite computes with more."""
    places = getattr(stored_field(field), "decimal_places", None)
    return value if places is None or not isinstance(value, Decimal) else round(value, places)


def _value_of_maker(make: Any) -> Any:
    """Return a constant as it is. A function is not called, so its value is not known."""
    if isinstance(make, partial) and make.func is getattr and isinstance(make.args[0], Value):
        return make()
    return MadeInPython()


def _linked_keys(finders: Sequence[Finder], scope: Keys, wanted: Wanted) -> Iterator[tuple[type[Model], Any]]:
    for finder in finders:
        if isinstance(finder.fix, Insertion):
            present = finder.fix.present(scope).order_by("pk")
            yield from ((finder.fix.model, key) for key in present.values_list("pk", flat=True))
    for correction in _corrections(finders):
        if not correction.own:
            yield from ((correction.model, key) for key in wanted.get(correction.model, ()))


def _corrections(finders: Iterable[Finder]) -> Iterator[Correction]:
    return (finder.fix for finder in finders if isinstance(finder.fix, Correction))


def _columns_to_show(model: type[Model], finders: Sequence[Finder]) -> list[Field[Any, Any]]:
    """The key and the columns that the rule reads; all columns if the kind doesn't say what it reads."""
    everything: list[Field[Any, Any]] = list(model._meta.concrete_fields)
    read: set[Column] = set()
    for finder in finders:
        rows = finder.reads(Keys(()))
        if rows is None:
            return everything
        read |= columns_read(rows)
    return [
        field
        for field in everything
        if field.primary_key or (concrete_model(field.model), field.attname) in read
    ]


def inspect_record(rule: Rule, key: str, *, using: str, now: datetime) -> Inspection:
    """Inspect the record, or the extra row, of this key under `rule` on the database `using`.

    A few statements for each kind of drift, all by key. Raises UsageError if `key` can't be a key or there is no such
    record, and EvaluationError if the database can't answer.
    """
    with evaluation_errors(using), examine(rule, using=using, now=now) as examined:
        source = examined.compiled.source
        # A young record is inspected as if it were old, to say what a later check will find.
        finders = rule.must.finders(replace(source, settled=Q()))
        models = dict.fromkeys([source.model, *(each.model for each in finders)])
        found = locate_key(models, key, using=using)
        return Inspection(
            rule=rule.name,
            using=using,
            key=key,
            sentence=rule.sentence,
            guarantee=examined.guarantee,
            settles=rule.settle is not None,
            subjects=tuple(_subject(rule, source, model, each, finders) for model, each in found.items()),
        )


def _subject(rule: Rule, source: Source, model: type[Model], key: Any, finders: Sequence[Finder]) -> Subject:
    try:
        with dialect_of(source.using).protect_transaction():
            return _evaluated_subject(rule, source, model, key, finders)
    except (Error, UnevaluableRecordError) as error:
        if not concerns_values(error, source.using):
            raise
        why = describe_failure(error, source.using)
        return _unevaluable_subject(rule, source, model, key, finders, why)


def _unevaluable_subject(
    rule: Rule, source: Source, model: type[Model], key: Any, finders: Sequence[Finder], why: str
) -> Subject:
    """What there is of a record that can't be evaluated: it counts as drifted, and nothing is written for it."""
    is_record = model is source.model
    of_model = [each for each in finders if each.model is model]
    named = key in source.records_of_any_age(Keys([key])).values_list("pk", flat=True) if is_record else None
    verdicts = (
        Verdict(
            drift=each.drift, state="drifted" if named is not False else "fine", remedy=type(rule.remedy(each.drift)).__name__,
            would=Written(), owed=(), refusal=f"it can't be evaluated: {why}",
        )
        for each in of_model
    )  # fmt: skip
    return Subject(
        row=row(model, key, finders, {}, using=source.using, inspected=False),
        named_by_every=named,
        unmet=(),
        young_until=None,
        linked=(),
        more=0,
        verdicts=tuple(verdicts),
    )


def _evaluated_subject(
    rule: Rule, source: Source, model: type[Model], key: Any, finders: Sequence[Finder]
) -> Subject:
    scope = Keys([key])
    of_model = [each for each in finders if each.model is model]
    is_record = model is source.model
    named = key in source.records_of_any_age(scope).values_list("pk", flat=True) if is_record else None
    until = _young_until(rule, source, key) if named else None
    wanted = wanted_values(of_model, scope)
    # Where the values can't be stored, some databases can't even give them.
    inspected = bool(named) and not any(each.unwritable([key]) for each in of_model)
    rows, more = (
        linked_rows(finders, scope, wanted, using=source.using, inspected=inspected) if is_record else ((), 0)
    )
    return Subject(
        row=row(model, key, finders, wanted, using=source.using, inspected=inspected),
        named_by_every=named,
        unmet=tuple(_unmet(source, key)) if named is False else (),
        young_until=until,
        linked=rows,
        more=more,
        verdicts=tuple(_verdict(rule, each, key, wanted, young=until is not None) for each in of_model),
    )


def _verdict(rule: Rule, finder: Finder, key: Any, wanted: Wanted, *, young: bool) -> Verdict:
    remedy = rule.remedy(finder.drift)
    drifts = key in finder.keys(Keys([key]))
    state: State = "fine"
    would = Written()
    owed: tuple[Row, ...] = ()
    if drifts:
        state = "young" if young and finder.drift is not EXTRA else "drifted"
        would = remedy.plan(finder, 1, Keys([key]))
        owed = new_rows(finder.fix, Keys([key])) if isinstance(finder.fix, Insertion) else ()
        if remedy.inserts and isinstance(finder.fix, Insertion):
            would = remedy.plan(finder, len(owed), Keys([key]))
        if remedy.updates and isinstance(finder.fix, Correction):
            would = remedy.plan(finder, len(wanted[finder.fix.model]), Keys([key]))
    refusal = _refusal(finder, remedy, key) if drifts and remedy.repairs else ""
    return Verdict(
        drift=finder.drift, state=state, remedy=type(remedy).__name__, would=Written() if refusal else would,
        owed=owed, refusal=refusal,
    )  # fmt: skip


def _refusal(finder: Finder, remedy: Remedy, key: Any) -> str:
    """Why the drifted row can't be repaired; empty if it can. A few statements, if its values may not fit, or others may stand in the way."""
    for why in finder.unwritable([key]).values():
        return why
    if isinstance(finder.fix, Rewriting):
        return next((each.refusal.reason for each in finder.fix.rewrites(Keys([key])) if each.refusal), "")
    if finder.levels is not None:
        circle = finder.levels.circles([key], Heights()).get(key)
        return f"it is computed from itself: {' → '.join(map(str, circle))}" if circle else ""
    return next(iter(remedy.refused(finder, Keys([key])).values()), "")


def _young_until(rule: Rule, source: Source, key: Any) -> date | None:
    """The moment at which the record is old enough; None if it is already."""
    scope = Keys([key])
    if rule.settle is None or key in source.records(scope).values_list("pk", flat=True):
        return None
    made: date | None = (
        source.records_of_any_age(scope)
        .order_by(F(rule.settle.column).desc(nulls_last=True))
        .values_list(rule.settle.column, flat=True)
        .first()
    )
    return made + rule.settle.age if made is not None else None


def _unmet(source: Source, key: Any) -> Iterator[str]:
    """Yield the conditions of `every` that are not true of the record, in words.

    One by one if the filter reads one table; all of them together if it joins.
    """
    for part in _parts(prepare_queryset(source.every, source.now)):
        rows = part.using(source.using).filter(Keys([key]).on("pk"))
        if key not in rows.values_list("pk", flat=True):
            yield queryset_in_words(part)


def _parts(every: QuerySet[Any]) -> Iterator[QuerySet[Any]]:
    where = where_of(every.query)
    if len(tables_read(every.query)) > 1 or where.negated or where.connector != AND:
        yield every
        return
    for child in where.children:
        yield filter_exactly(every, child)
