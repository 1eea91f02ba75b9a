"""What can be wrong with values that only Python can tell. Costs no statement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.core.exceptions import FieldError
from django.db.models import Field, JSONField, Model, Value

from reconcile.declaring import column_faults, field_named, resolution_fault
from reconcile.effects._from_python import FromPython, HaveKeys, is_json, path_parts
from reconcile.errors import Fault
from reconcile.sql.expressions import aggregates_in, joins_to_many

__all__ = ["python_value_faults"]

_NOT_IN_JSON = frozenset(
    {
        "DecimalField", "DateField", "DateTimeField", "TimeField", "DurationField", "UUIDField", "BinaryField",
    }
)  # fmt: skip


def python_value_faults(model: type[Model], columns: Mapping[str, Any]) -> Iterator[Fault]:
    """A fault for everything that keeps `columns` from being computed, compared or written."""
    for name, value in columns.items():
        head, keys = path_parts(name)
        where = f"HaveValues({name}=…)"
        wrong = list(column_faults(model, "HaveValues", iter([head])))
        yield from wrong
        field = field_named(model, head)
        if field is None or wrong:
            continue
        if keys and not isinstance(field, JSONField):
            hint = "Name the column alone."
            yield Fault("reconcile.E013", f"{where}: {head!r} is no JSON column; it has no keys.", hint)
        if not all(keys):
            yield Fault("reconcile.E013", f"{where}: an empty key.", "Name it: details__theme=….")
        if field.primary_key:
            yield Fault(
                "reconcile.E012", f"{where}: {head!r} is the primary key.", "A key is never repaired."
            )
        yield from _value_faults(model, field, value, keys, where)
    yield from _clash_faults(model, columns)


def _value_faults(
    model: type[Model], field: Field[Any, Any], value: Any, keys: tuple[str, ...], where: str
) -> Iterator[Fault]:
    if isinstance(value, FromPython):
        yield from value.faults(model, where)
    elif isinstance(value, HaveKeys):
        if not isinstance(field, JSONField) or keys:
            hint = "Give it for a whole JSON column."
            yield Fault("reconcile.E012", f"{where}: HaveKeys says nothing about {field.name!r}.", hint)
        else:
            yield from value.faults(field, where)
    elif isinstance(field, JSONField):
        yield from _json_faults(model, field, value, keys, where)


def _json_faults(
    model: type[Model], field: JSONField, value: Any, keys: tuple[str, ...], where: str
) -> Iterator[Fault]:
    if hasattr(value, "resolve_expression") and not isinstance(value, Value):
        yield from _expression_faults(model, field, value, where)
        return
    constant = value.value if isinstance(value, Value) else value
    if callable(constant):
        hint = "Give FromPython(function, reads=[…])."
        yield Fault("reconcile.E012", f"{where}: {constant!r} is a function.", hint)
    elif not is_json(constant, field):
        hint = "Give a value that json.dumps takes, or give the field an encoder=."
        yield Fault("reconcile.E012", f"{where}: {constant!r} can't be stored in {field.name!r}.", hint)
    elif constant is None and not keys and not field.null:
        hint = "Give an empty object: {}."
        yield Fault("reconcile.E012", f"{where}: {field.name!r} can't be NULL.", hint)


def _expression_faults(model: type[Model], field: JSONField, value: Any, where: str) -> Iterator[Fault]:
    try:
        query = model._base_manager.annotate(_expected=value).query
        kind = query.annotations["_expected"].output_field.get_internal_type()
    except FieldError as error:
        yield resolution_fault(error, where)
        return
    if not any(aggregates_in(value)) and joins_to_many(query):
        hint = "Aggregate them: Count(…), Sum(…), Max(…)."
        yield Fault("reconcile.E013", f"{where}: the path leads to many rows.", hint)
    if kind in _NOT_IN_JSON and field.encoder is None:
        hint = "Cast it to a number or a text, or give the field encoder=DjangoJSONEncoder."
        yield Fault("reconcile.E012", f"{where}: JSON has no value for a {kind}.", hint)


def _clash_faults(model: type[Model], columns: Mapping[str, Any]) -> Iterator[Fault]:
    """Two items that can't both be true of one document."""
    ahead = [(name, path_parts(name), value) for name, value in columns.items()]
    for name, (head, keys), value in ahead:
        for other, (same, below), _ in ahead:
            if name == other or field_named(model, head) is not field_named(model, same):
                continue
            within = below[: len(keys)] == keys
            if (
                within
                and isinstance(value, HaveKeys)
                and below
                and (not value.exact or below[0] in value.keys)
            ):
                continue
            if within:
                said = f"HaveValues({other}=…): {name}= already says what stands there."
                yield Fault("reconcile.E012", said, "Keep one of them.")
