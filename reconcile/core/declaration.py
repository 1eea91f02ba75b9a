"""What declarations are made of: columns, paths, expressions and conditions, and what can be wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.exceptions import FieldDoesNotExist, FieldError, ValidationError
from django.db import DEFAULT_DB_ALIAS
from django.db.models import (
    BinaryField,
    BooleanField,
    DateField,
    DecimalField,
    DurationField,
    Expression,
    F,
    Field,
    FloatField,
    IntegerField,
    Model,
    OuterRef,
    Q,
    QuerySet,
    TimeField,
    UUIDField,
    Value,
    Window,
)
from django.utils.functional import Promise

from reconcile.core.options import as_given
from reconcile.db.columns import INTEGERS, is_in_range, is_text, round_decimal, stored_field
from reconcile.db.comparisons import AsStored
from reconcile.db.conditions import Fails
from reconcile.db.django_compat import annotations_of, own_columns, referred_field, where_of
from reconcile.db.expressions import aggregates_in, joins_to_many, nodes_in, path_of
from reconcile.errors import Fault, nearest

__all__ = [
    "Place",
    "RuleValue",
    "as_expression",
    "column_faults",
    "condition_faults",
    "expression_faults",
    "field_named",
    "field_names",
    "field_or_key",
    "fields_named",
    "known_field",
    "resolution_fault",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a rule or a function stands: its module, the file as Python has read it, and the line, counted from 1."""

    module: str
    file: str
    line: int

    def __str__(self) -> str:
        """`rules/orders.py:12`, from the working directory on where the file is below it."""
        return f"{self.path}:{self.line}"

    @property
    def path(self) -> str:
        """The file, relative to the working directory where it is below it."""
        return shown_path(self.file)


def shown_path(file: str) -> str:
    """The file, relative to the working directory where it is below it."""
    path, here = Path(file).absolute(), Path.cwd()
    return (path.relative_to(here) if path.is_relative_to(here) else path).as_posix()


class RuleValue:
    """Base of the values of the rule language that are no expressions, such as `Latest` or `FromPython`."""


def field_names(model: type[Model]) -> list[str]:
    """Names of the model's columns, as a rule may spell them."""
    return [field.name for field in model._meta.concrete_fields]


def field_named(model: type[Model], name: str) -> Field[Any, Any] | None:
    """The model's column of this name or attname; None if there is none."""
    try:
        field = model._meta.get_field(name)
    except FieldDoesNotExist:
        return None
    return field if isinstance(field, Field) and field.concrete else None


def field_or_key(model: type[Model], name: str) -> Field[Any, Any] | None:
    """Same as `field_named`; `pk` names the primary key."""
    return model._meta.pk if name == "pk" else field_named(model, name)


def known_field(model: type[Model], name: str) -> Field[Any, Any]:
    """Same as `field_or_key`, for a name that was examined before. Raises LookupError if there is no such column."""
    field = field_or_key(model, name)
    if field is None:
        raise LookupError(f"{model._meta.label} has no column {name!r}.")
    return field


def fields_named(model: type[Model], names: Iterable[str]) -> tuple[Field[Any, Any], ...]:
    """The model's columns among the names, each once."""
    found = (field_named(model, name) for name in names)
    return tuple(dict.fromkeys(field for field in found if field is not None))


def column_faults(model: type[Model], option: str, names: Iterator[str]) -> Iterator[Fault]:
    """A fault for each name that is no column of `model`, or one that can't be written."""
    for name in names:
        field = field_named(model, name)
        label = model._meta.label
        if field is None:
            hint = (
                nearest(name, field_names(model)).strip() or f"Its columns: {', '.join(field_names(model))}."
            )
            yield Fault("reconcile.E013", f"{option}: {label} has no column {name!r}.", hint)
        elif field.many_to_many:
            hint = f"Write a rule over {label}.{name}.through instead."
            yield Fault("reconcile.E013", f"{option}: {label}.{name} is many-to-many.", hint)
        elif getattr(field, "generated", False):
            hint = "The database computes it; write the rule over the columns that it is computed from."
            yield Fault("reconcile.E013", f"{option}: {label}.{name} is a generated column.", hint)
        elif field not in own_columns(model) and not model._meta.proxy:
            hint = f"Write the rule over {field.model._meta.label}."
            yield Fault("reconcile.E015", f"{option}: {label}.{name} is stored in a parent's table.", hint)


def as_expression(value: Any, field: Field[Any, Any]) -> Any:
    """`value` as an expression: expressions as they are, anything else as a constant of `field`'s type."""
    if isinstance(value, Expression | F | Q) or hasattr(value, "resolve_expression"):
        return value
    if isinstance(value, Model):
        value = getattr(value, (referred_field(field) or value._meta.pk).attname)
    return Value(value, output_field=stored_field(field))


def expression_faults(
    model: type[Model], value: Any, field: Field[Any, Any], where: str, *, aggregates: bool = False
) -> Iterator[Fault]:
    """A fault if the expression for `field` can't be resolved over records of `model`, or isn't one value."""
    if isinstance(value, RuleValue):
        message = f"{where}: {type(value).__name__}(…) is not served here."
        yield Fault("reconcile.E012", message, "Give a constant or an expression over the record.")
        return
    if isinstance(value, QuerySet):
        message = f"{where}: a queryset is many rows, and not one value."
        yield Fault("reconcile.E012", message, "Give Subquery(queryset.values(…)[:1]), or a path to one row.")
        return
    if field.get_internal_type() == "JSONField":
        hint = "JSON is compared differently by each database. Keep what matters in a column of its own."
        yield Fault("reconcile.E015", f"{where}: {field.name!r} is a JSON column.", hint)
        return
    wrong = [*inner_value_faults(value, where), *outer_faults(value, where)]
    wrong = wrong or [*_constant_faults(model, value, field, where)]
    yield from wrong or _resolved_faults(
        model, as_expression(value, field), field, where, aggregates=aggregates
    )


def inner_value_faults(value: Any, where: str) -> Iterator[Fault]:
    """A fault if a value of the rule language, such as Latest, stands inside an expression, where Django would take it for a constant."""
    for node in nodes_in(value, subqueries=True):
        inner = node.value if isinstance(node, Value) else node
        if isinstance(inner, RuleValue):
            name = type(inner).__name__
            hint = f"Give {name}(…) to a column of its own, and refer to that; or give a Subquery, which may stand anywhere."
            yield Fault("reconcile.E012", f"{where}: {name}(…) stands inside an expression.", hint)
            return


def outer_faults(value: Any, where: str) -> Iterator[Fault]:
    """A fault if the value names a column of an outer query outside of any subquery."""
    for node in nodes_in(value):
        if isinstance(node, OuterRef):
            name = path_of(node)
            message = f"{where}: OuterRef({name!r}) names a column of an outer query, and here is none."
            yield Fault(
                "reconcile.E012",
                message,
                f"Give F({name!r}) for the record's own, or put it into a Subquery.",
            )
            return


def _reads_text(field: Field[Any, Any]) -> bool:
    """Whether the column takes text for something else: SQLite keeps any, MariaDB reads what it can, PostgreSQL ends the statement."""
    stored = stored_field(field)
    others = (DecimalField, FloatField, BooleanField, DateField, TimeField, DurationField, UUIDField)
    return isinstance(stored, others) or stored.get_internal_type() in INTEGERS


def misplaced_faults(value: Any, where: str) -> Iterator[Fault]:
    """A fault if the value names a column of an outer query, holds a value of the rule language, or is a window function, where none can be."""
    if any(isinstance(node, Window) for node in nodes_in(value)):
        hint = "Give columns of the rows, or expressions over them."
        yield Fault("reconcile.E015", f"{where}: a window function is not served here.", hint)
    yield from inner_value_faults(value, where)
    yield from outer_faults(value, where)


def _resolved_faults(
    model: type[Model], expression: Any, field: Field[Any, Any], where: str, *, aggregates: bool
) -> Iterator[Fault]:
    try:
        resolved = model._base_manager.annotate(_expected=AsStored(expression, field=field)).query
        source = annotations_of(resolved)["_expected"].get_source_expressions()[0].output_field
    except FieldError as error:
        yield resolution_fault(error, where)
        return
    if is_text(source) and _reads_text(field):
        kind = stored_field(field).get_internal_type()
        hint = f"Say how it is read: Cast(…, {kind}()) where each text is one, or FromPython(function, reads=[…])."
        message = f"{where}: it is text, and {field.name!r} is not, which each database reads in its own way."
        yield Fault("reconcile.E015", message, hint)
        return
    given, kept = _family(source), _family(field)
    if given and kept and given != kept:
        hint = "Say how it is read, by an expression of the column's type."
        yield Fault("reconcile.E015", f"{where}: it is {given}, and {field.name!r} is {kept}.", hint)
        return
    if annotations_of(resolved)["_expected"].contains_over_clause:
        hint = 'Give RunningSum("amount", over="account", by=["at"]) or Previous(…), or keep it in a column of the record.'
        yield Fault(
            "reconcile.E015",
            f"{where}: a window function looks at other records, and is not served here.",
            hint,
        )
        return
    aggregated = any(aggregates_in(expression))
    if aggregated and not aggregates:
        hint = "Keep it in a column of the record with a HaveValues rule, and refer to that column."
        yield Fault("reconcile.E015", f"{where}: an aggregate is not served here.", hint)
    elif not aggregated and joins_to_many(resolved):
        hint = "Aggregate them: Count(…), Sum(…), Max(…)." if aggregates else "Give a path to one row."
        yield Fault("reconcile.E013", f"{where}: the path leads to many rows.", hint)


_FAMILIES = {
    "a number": (IntegerField, DecimalField, FloatField, BooleanField),
    "a date or time": (DateField, TimeField),
    "a duration": (DurationField,),
    "a UUID": (UUIDField,),
    "bytes": (BinaryField,),
}
"""Between these no value has one meaning: a duration is a number of microseconds in some databases, and in others it is none."""


def _family(field: Field[Any, Any]) -> str:
    return next((name for name, kinds in _FAMILIES.items() if isinstance(stored_field(field), kinds)), "")


def condition_faults(model: type[Model], condition: Any, where: str) -> Iterator[Fault]:
    """A fault if `condition` isn't one over single records of `model` and what their foreign keys lead to."""
    empty = isinstance(condition, Q) and not condition
    if isinstance(condition, type) or not getattr(condition, "conditional", False) or empty:
        hint = "Give a Q, an Exists or a lookup, such as Q(total__gte=0)."
        yield Fault("reconcile.E012", f"{where}: {as_given(condition)} is no condition.", hint)
        return
    misplaced = [*inner_value_faults(condition, where), *outer_faults(condition, where)]
    yield from misplaced
    if misplaced:
        return
    try:
        # As an expression: a filter puts what it negates over many rows into a subquery, where it isn't seen.
        query = model._base_manager.filter(Fails(Q(condition))).query
    except FieldError as error:
        yield resolution_fault(error, where)
        return
    except (TypeError, ValueError, ValidationError) as error:
        message = "; ".join(error.messages) if isinstance(error, ValidationError) else str(error)
        yield Fault(
            "reconcile.E012", f"{where}: {message.rstrip('.')}.", "Compare a column with a value of its type."
        )
        return
    if where_of(query).contains_aggregate or where_of(query).contains_over_clause:
        hint = "Keep it in a column of the record with a HaveValues rule, and refer to that column."
        yield Fault("reconcile.E015", f"{where}: an aggregate or a window is not served here.", hint)
    elif joins_to_many(query):
        hint = 'Say whether one exists: Exists(Item.objects.filter(order=OuterRef("pk"), …)).'
        yield Fault("reconcile.E013", f"{where}: a path leads to many rows.", hint)


def _constant_faults(model: type[Model], value: Any, field: Field[Any, Any], where: str) -> Iterator[Fault]:
    """A fault if the value is a constant that the column can't store, or a text that is meant for a column."""
    constant = as_expression(value, field)
    if isinstance(constant, Value) and not _fits(constant.value, field):
        message = f"{where}: {as_given(value)} can't be stored in {field.name!r}."
        yield Fault("reconcile.E012", message, _constant_hint(model, value, field))
    elif isinstance(value, str) and is_text(field) and not field.choices and _is_path(model, value):
        hint = f"Give F({value!r}) for what the column holds, or Value({value!r}) for the text itself."
        yield Fault("reconcile.E012", f"{where}: {value!r} is a column, and a text.", hint)


def _constant_hint(model: type[Model], value: Any, field: Field[Any, Any]) -> str:
    """What to give in place of a constant that the column can't store."""
    if isinstance(value, str) and (value == "pk" or field_named(model, value)):
        return f"Did you mean F({value!r})?"
    if callable(value):
        return "A function can't be called in SQL: HaveValues takes FromPython(function, reads=[…])."
    return f"Give a value for a column of type {type(stored_field(field)).__name__}."


def _is_path(model: type[Model], text: str) -> bool:
    """Whether the text names a column of the model, or leads over its foreign keys to one."""
    if not text.isidentifier():
        return False
    try:
        model._base_manager.annotate(_named=F(text))
    except FieldError:
        return False
    return True


_TEXTS = (str, Promise, int, float, Decimal, date, time, UUID)
"""What a text column stores as a text; of anything else Django would store what Python prints for it."""


def _fits(value: Any, field: Field[Any, Any]) -> bool:
    if value is not None and is_text(field) and (isinstance(value, type) or not isinstance(value, _TEXTS)):
        return False
    stored = stored_field(field)
    try:
        prepared = stored.get_prep_value(stored.to_python(value))
        if isinstance(stored, DecimalField) and prepared is not None:
            round_decimal(stored, prepared)
    except (ValidationError, ArithmeticError, TypeError, ValueError):
        return False
    is_integer = isinstance(stored, IntegerField) and prepared is not None
    return not is_integer or is_in_range(stored.get_internal_type(), prepared, DEFAULT_DB_ALIAS)


def resolution_fault(error: FieldError | FieldDoesNotExist, where: str) -> Fault:
    """What Django says of a path that leads nowhere, with the nearest path that leads somewhere."""
    message = str(error).split("\n")[0]
    name = message.split("'")[1] if message.count("'") > 1 else ""
    choices = message.partition("Choices are: ")[2].rstrip(".").split(", ")
    known = [choice for choice in choices if not choice.startswith("_")]
    text = message.partition(" Choices are: ")[0]
    hint = nearest(name, known).strip() or (f"Known: {', '.join(known)}." if any(known) else "")
    if "Unsupported lookup" in text and "perhaps you meant" not in text:
        hint = (
            "Name a lookup that the column has, such as __gte or __in, or a column behind it, if it is a key."
        )
    if "mixed types" in text or "Cannot infer type" in text:
        hint = "Say what type the value has: Coalesce(…, output_field=DateTimeField())."
    return Fault("reconcile.E013", f"{where}: {text.rstrip('?.')}.", hint)
