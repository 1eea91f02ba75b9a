"""What can be wrong with a `BeUnique`: its columns, its order, and what is to become of the duplicates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from django.core.exceptions import FieldError
from django.db.models import (
    DateField,
    DecimalField,
    DurationField,
    Field,
    FloatField,
    IntegerField,
    Model,
    OrderBy,
    QuerySet,
    TimeField,
)

from reconcile.declaring import column_faults, expression_faults, field_named, resolution_fault
from reconcile.effects._groups import MERGED
from reconcile.errors import Fault, nearest
from reconcile.remedies import references_to
from reconcile.sql.expressions import aggregates_in, joins, joins_to_many
from reconcile.sql.lookups import is_text, stored_field

__all__ = ["merge_faults", "order_faults", "others_faults", "unique_faults"]

_SUMMED = (IntegerField, DecimalField, FloatField, DurationField)
_ORDERED = (*_SUMMED, DateField, TimeField)


def unique_faults(model: type[Model], columns: tuple[Any, ...], expressions: list[Any]) -> Iterator[Fault]:
    """Columns that aren't there, that can't be told apart, or of which a record has several values."""
    if not columns:
        yield Fault("reconcile.E012", "BeUnique() names no column.", 'Name at least one: BeUnique("email").')
    for column, expression in zip(columns, expressions, strict=True):
        if not hasattr(expression, "resolve_expression"):
            hint = 'Give names of columns, or expressions such as Lower("email").'
            yield Fault("reconcile.E012", f"BeUnique: {column!r} is no column.", hint)
            continue
        found = list(_path_faults(model, expression, "BeUnique"))
        yield from found
        if not found and _kind_of(model, expression) == "JSONField":
            hint = "JSON is compared differently by each database. Keep what matters in a column of its own."
            yield Fault("reconcile.E015", f"BeUnique: {column!r} is a JSON column.", hint)


def order_faults(model: type[Model], keep: Any, order: Callable[[], list[OrderBy]]) -> Iterator[Fault]:
    """A keep= that is no order of the records."""
    if isinstance(keep, str) or not isinstance(keep, list | tuple):
        hint = 'Give a list, such as ["-updated_at"]: the first record in that order stays.'
        yield Fault("reconcile.E012", f"BeUnique: keep= is {keep!r}.", hint)
        return
    wrong = [each for each in keep if not isinstance(each, str) and not hasattr(each, "resolve_expression")]
    for each in [*wrong, *(each for each in keep if each in ("", "-", "?"))]:
        hint = (
            'Give names of columns, with a minus to sort downwards, or expressions such as F("rank").asc().'
        )
        yield Fault("reconcile.E012", f"BeUnique: keep= has {each!r}.", hint)
        return
    for each in order():
        yield from _path_faults(model, each.expression, "BeUnique(keep=…)")


def others_faults(model: type[Model], others: Any) -> Iterator[Fault]:
    """Values that the duplicates can't be given."""
    if not isinstance(others, Mapping) or not others:
        hint = 'Give the columns that make the others no duplicates: others={"is_default": False}.'
        yield Fault("reconcile.E012", f"BeUnique: others= is {others!r}.", hint)
        return
    yield from column_faults(model, "BeUnique(others=…)", iter(others))
    for name, value in others.items():
        field, where = field_named(model, name), f"BeUnique(others={{{name!r}: …}})"
        if field is None:
            continue
        if field.primary_key:
            yield Fault("reconcile.E012", f"{where}: it is the primary key.", "A key is never repaired.")
        elif callable(value) and not hasattr(value, "resolve_expression"):
            hint = "Give a constant, or an expression over the record."
            yield Fault("reconcile.E012", f"{where}: a function can't be called in SQL.", hint)
        else:
            yield from expression_faults(model, value, field, where)


def merge_faults(model: type[Model], merge: Any, columns: list[Any]) -> Iterator[Fault]:
    """Columns that can't be merged, or not in this way; `columns` say which records are alike, and which stays."""
    if not isinstance(merge, Mapping):
        hint = (
            'Give a dictionary such as {"visits": "sum"}; an empty one only moves what refers to the others.'
        )
        yield Fault("reconcile.E012", f"BeUnique: merge= is {merge!r}.", hint)
        return
    yield from column_faults(model, "BeUnique(merge=…)", iter(merge))
    for name, how in merge.items():
        field, where = field_named(model, name), f"BeUnique(merge={{{name!r}: {how!r}}})"
        if not isinstance(how, str) or how not in MERGED:
            hint = nearest(str(how), MERGED).strip() or f"Give one of {', '.join(map(repr, MERGED))}."
            yield Fault("reconcile.E012", f"{where}: there is no such way.", hint)
        elif field is not None:
            yield from _merged_column_faults(model, field, how, where)
    for column in columns:
        if joins(_with(model, column).query):
            hint = "A merge locks the records alone. Name columns of the records themselves."
            said = "BeUnique: merge= with a column or an order of another table is not served."
            yield Fault("reconcile.E015", said, hint)


def _merged_column_faults(
    model: type[Model], field: Field[Any, Any], how: str, where: str
) -> Iterator[Fault]:
    kind = stored_field(field)
    if field.primary_key or field in {each.target for each in references_to(model)}:
        hint = "What refers to the survivor has to find it afterwards, too. Leave it out."
        yield Fault("reconcile.E015", f"{where}: other rows refer to this column.", hint)
    elif _refers_to_itself(model, field):
        hint = "It might come to name the record itself, or one that goes. Leave it out."
        yield Fault("reconcile.E015", f"{where}: the column refers to the records themselves.", hint)
    elif kind.get_internal_type() == "JSONField":
        hint = "JSON is compared differently by each database. Leave it out, or use Report()."
        yield Fault("reconcile.E015", f"{where}: it is a JSON column.", hint)
    elif how == "sum" and (field.remote_field is not None or not isinstance(kind, _SUMMED)):
        yield Fault(
            "reconcile.E012", f"{where}: the column is no number.", "Give 'min', 'max' or 'coalesce'."
        )
    elif how in {"min", "max"} and not (isinstance(kind, _ORDERED) or is_text(kind)):
        yield Fault("reconcile.E012", f"{where}: its values have no order.", "Give 'coalesce'.")


def _path_faults(model: type[Model], expression: Any, where: str) -> Iterator[Fault]:
    if any(aggregates_in(expression)):
        hint = "Keep it in a column of the record with a HaveValues rule, and name that column."
        yield Fault("reconcile.E015", f"{where}: an aggregate is not served here.", hint)
        return
    try:
        query = _with(model, expression).query
        _ = query.annotations["_each"].output_field
    except FieldError as error:
        yield resolution_fault(error, where)
        return
    if joins_to_many(query):
        yield Fault("reconcile.E013", f"{where}: the path leads to many rows.", "Give a path to one row.")


def _refers_to_itself(model: type[Model], field: Field[Any, Any]) -> bool:
    other: Any = field.related_model
    return other is not None and other._meta.concrete_model is model._meta.concrete_model


def _kind_of(model: type[Model], expression: Any) -> str:
    output = _with(model, expression).query.annotations["_each"].output_field
    return str(stored_field(output).get_internal_type())


def _with(model: type[Model], expression: Any) -> QuerySet[Any, Any]:
    return model._base_manager.annotate(_each=expression)
