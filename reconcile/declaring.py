"""How rules and effects are declared: frozen values whose unknown options are kept until they are reported.

A misspelled option must not be ignored, and must not hide the faults of the other rules either, as a
TypeError while a rule file is imported would. So it is kept, and reported together with everything else.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from types import FrameType
from typing import Any, TypeVar

from django.core.exceptions import FieldDoesNotExist, FieldError, ValidationError
from django.db.models import Expression, F, Field, Model, Q, Value

from reconcile.errors import Fault, nearest
from reconcile.sql.conditions import Fails
from reconcile.sql.expressions import aggregates_in, joins_to_many
from reconcile.sql.lookups import AsStored, stored_field

__all__ = [
    "Declaration",
    "Place",
    "as_expression",
    "column_faults",
    "condition_faults",
    "expression_faults",
    "field_named",
    "field_names",
    "resolution_fault",
]

T = TypeVar("T")

_REPLACING = ("dataclasses", "copy")
"""Modules of `dataclasses.replace` and of `copy.replace`, which build for somebody else."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is declared: the file as Python has read it, and the line, counted from 1."""

    file: str
    line: int


class _Declared(type):
    def __call__(cls: type[T], *args: Any, **options: Any) -> T:
        known = {each.name for each in fields(cls) if each.init}  # type: ignore[arg-type]
        unknown = tuple(name for name in options if name not in known)
        given = {name: value for name, value in options.items() if name in known}
        try:
            declared = type.__call__(cls, *args, **given)
        except TypeError as error:
            if not unknown:
                raise
            # Without the option that was meant nothing can be built; Python would name that one, and not this.
            hint = nearest(unknown[0], known)
            raise TypeError(f"{cls.__name__} has no option {unknown[0]!r}.{hint}") from error
        object.__setattr__(declared, "unknown_options", unknown)
        caller = sys._getframe(1)
        object.__setattr__(declared, "declared_in", caller.f_globals.get("__name__", ""))
        object.__setattr__(declared, "declared_at", _place(caller))
        return declared  # type: ignore[no-any-return]


def _place(caller: FrameType) -> Place:
    """The line of the module that is being imported, so of a rule file and not of a function that builds its rules.

    Where nothing is being imported, the line that builds it, or has `dataclasses.replace` do so.
    """
    frame: FrameType | None = caller
    while frame is not None:
        spec = frame.f_globals.get("__spec__")
        if frame.f_code.co_name == "<module>" and getattr(spec, "_initializing", False):
            return Place(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    while caller.f_globals.get("__name__") in _REPLACING and caller.f_back:
        caller = caller.f_back
    return Place(caller.f_code.co_filename, caller.f_lineno)


class Declaration(metaclass=_Declared):
    """Base of the frozen dataclasses that rule files are written with."""

    unknown_options: tuple[str, ...]
    declared_in: str
    """Name of the module whose code built it."""
    declared_at: Place
    """The line of the rule file on which it stands."""

    def option_faults(self) -> Iterator[Fault]:
        """A fault for each option that the class does not have."""
        kind = type(self).__name__
        known = [each.name for each in fields(self) if each.init]  # type: ignore[arg-type]
        for name in self.unknown_options:
            hint = nearest(name, known).strip() or f"{kind} takes {', '.join(known)}."
            yield Fault("reconcile.E010", f"{kind} has no option {name!r}.", hint)


def field_names(model: type[Model]) -> list[str]:
    """Names of the model's columns, as a rule may spell them."""
    return [field.name for field in model._meta.concrete_fields]


def field_named(model: type[Model], name: str) -> Field[Any, Any] | None:
    """The model's column of this name or attname; None where there is none."""
    try:
        field = model._meta.get_field(name)
    except FieldDoesNotExist:
        return next((each for each in model._meta.concrete_fields if each.attname == name), None)
    return field if isinstance(field, Field) and field.concrete else None


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
        elif field not in model._meta.local_concrete_fields and not model._meta.proxy:
            hint = f"Write the rule over {field.model._meta.label}."
            yield Fault("reconcile.E015", f"{option}: {label}.{name} is stored in a parent's table.", hint)


def as_expression(value: Any, field: Field[Any, Any]) -> Any:
    """`value` as an expression: expressions as they are, anything else as a constant of `field`'s type."""
    if isinstance(value, Expression | F | Q) or hasattr(value, "resolve_expression"):
        return value
    if isinstance(value, Model):
        value = getattr(value, getattr(field, "target_field", value._meta.pk).attname)
    return Value(value, output_field=stored_field(field))


def expression_faults(
    model: type[Model], value: Any, field: Field[Any, Any], where: str, *, aggregates: bool = False
) -> Iterator[Fault]:
    """A fault where the expression for `field` can't be resolved over records of `model`, or isn't one value."""
    if isinstance(value, Declaration):
        said = f"{where}: {type(value).__name__}(…) is not served here."
        yield Fault("reconcile.E012", said, "Give a constant or an expression over the record.")
        return
    expression = as_expression(value, field)
    if field.get_internal_type() == "JSONField":
        hint = "JSON is compared differently by each database. Keep what matters in a column of its own."
        yield Fault("reconcile.E015", f"{where}: {field.name!r} is a JSON column.", hint)
        return
    if isinstance(expression, Value) and not _fits(expression.value, field):
        known = value if isinstance(value, str) and (value == "pk" or field_named(model, value)) else None
        hint = (
            f"Did you mean F({known!r})?"
            if known
            else f"Give a {type(stored_field(field)).__name__}'s value."
        )
        yield Fault("reconcile.E012", f"{where}: {value!r} can't be stored in {field.name!r}.", hint)
        return
    try:
        resolved = model._base_manager.annotate(_expected=AsStored(expression, field=field)).query
        _ = resolved.annotations["_expected"].get_source_expressions()[0].output_field
    except FieldError as error:
        yield resolution_fault(error, where)
        return
    aggregated = any(aggregates_in(expression))
    if aggregated and not aggregates:
        hint = "Keep it in a column of the record with a HaveValues rule, and refer to that column."
        yield Fault("reconcile.E015", f"{where}: an aggregate is not served here.", hint)
    elif not aggregated and joins_to_many(resolved):
        hint = "Aggregate them: Count(…), Sum(…), Max(…)." if aggregates else "Give a path to one row."
        yield Fault("reconcile.E013", f"{where}: the path leads to many rows.", hint)


def condition_faults(model: type[Model], condition: Any, where: str) -> Iterator[Fault]:
    """A fault where `condition` isn't one over single records of `model` and what their foreign keys lead to."""
    if isinstance(condition, type) or not getattr(condition, "conditional", False) or condition == Q():
        hint = "Give a Q, an Exists or a lookup, such as Q(total__gte=0)."
        yield Fault("reconcile.E012", f"{where}: {condition!r} is no condition.", hint)
        return
    try:
        # As an expression: a filter puts what it negates over many rows into a subquery, where it isn't seen.
        query = model._base_manager.filter(Fails(Q(condition))).query
    except FieldError as error:
        yield resolution_fault(error, where)
        return
    except (TypeError, ValueError, ValidationError) as error:
        said = "; ".join(error.messages) if isinstance(error, ValidationError) else str(error)
        yield Fault(
            "reconcile.E012", f"{where}: {said.rstrip('.')}.", "Compare a column with a value of its type."
        )
        return
    if query.where.contains_aggregate or query.where.contains_over_clause:
        hint = "Keep it in a column of the record with a HaveValues rule, and refer to that column."
        yield Fault("reconcile.E015", f"{where}: an aggregate or a window is not served here.", hint)
    elif joins_to_many(query):
        hint = 'Say whether one exists: Exists(Item.objects.filter(order=OuterRef("pk"), …)).'
        yield Fault("reconcile.E013", f"{where}: a path leads to many rows.", hint)


def _fits(value: Any, field: Field[Any, Any]) -> bool:
    try:
        stored_field(field).get_prep_value(stored_field(field).to_python(value))
    except (ValidationError, TypeError, ValueError):
        return False
    return True


def resolution_fault(error: FieldError | FieldDoesNotExist, where: str) -> Fault:
    """What Django says of a path that leads nowhere, with the nearest path that leads somewhere."""
    message = str(error).split("\n")[0]
    name = message.split("'")[1] if message.count("'") > 1 else ""
    choices = message.partition("Choices are: ")[2].rstrip(".").split(", ")
    known = [choice for choice in choices if not choice.startswith("_")]
    said = message.partition(" Choices are: ")[0]
    hint = nearest(name, known).strip() or (f"Known: {', '.join(known)}." if any(known) else "")
    if "Unsupported lookup" in said and "perhaps you meant" not in said:
        hint = "Name a column behind the key, or a lookup that the column has, such as __gte or __in."
    return Fault("reconcile.E013", f"{where}: {said.rstrip('?.')}.", hint)
