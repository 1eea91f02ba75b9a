"""Values that only Python can compute: a function over named columns, and the keys of a JSON column."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from django.core.exceptions import FieldError
from django.db.models import F, Field, JSONField, Model, Value

from reconcile.core.declaration import RuleValue, column_faults, field_named, fields_named, resolution_fault
from reconcile.core.function_source import version_faults
from reconcile.core.options import Option, is_one_of, option_faults
from reconcile.core.wording.constants import constant_in_words
from reconcile.core.wording.names import function_in_words
from reconcile.db.django_compat import LOOKUP_SEP, annotations_of
from reconcile.db.expressions import aggregates_in, joins_to_many
from reconcile.errors import EvaluationError, Fault

__all__ = [
    "FromPython",
    "HaveKeys",
    "call_function",
    "called_in_words",
    "function_name",
    "is_json",
    "needs_python",
    "path_parts",
    "python_value_faults",
    "reading_faults",
    "written_fields",
]


@dataclass(frozen=True)
class FromPython(RuleValue):
    """The value that `function` returns for the columns that `reads` names, in that order.

    reads: columns of the record, or paths over foreign keys. The function is called once a record, with plain
        values, and again for the locked record as it is repaired; it must give the same for the same values.
        An exception that it raises is an error of the rule.
    version: stands for what the function does, where its source text doesn't; change it with each edit.
    """

    function: Callable[..., Any]
    _: KW_ONLY
    reads: Sequence[str] = ()
    version: str | int | None = None

    def faults(self, model: type[Model], where: str) -> Iterator[Fault]:
        """What is wrong with the function, and with what it reads."""
        yield from reading_faults(model, self.function, self.reads, where, option="function")
        yield from version_faults(self.function, self.version, where)

    def in_words(self, model: type[Model] | None) -> str:  # noqa: ARG002
        """`shop.text.slug_of(title)`."""
        return called_in_words(self.function, self.reads)


_OPTIONS_OF_KEYS = (Option("exact", is_one_of(bool), "Give True or False."),)


@dataclass(frozen=True)
class HaveKeys(RuleValue):
    """A JSON column must be an object with each of these keys; one that is missing gets the value given here.

    Keys that are there keep their values. exact: no other keys may be there, and a repair takes them away.
    """

    keys: Mapping[str, Any]
    _: KW_ONLY
    exact: bool = False

    def faults(self, field: JSONField, where: str) -> Iterator[Fault]:
        """Keys that aren't text, values that JSON doesn't have, options of the wrong type."""
        if not isinstance(self.keys, Mapping) or not all(isinstance(key, str) for key in self.keys):
            hint = 'Give a dictionary of key and value: HaveKeys({"theme": "light"}).'
            yield Fault("reconcile.E012", f"{where}: HaveKeys has {self.keys!r}.", hint)
        elif not is_json(self.keys, field):
            hint = "Give values that json.dumps takes."
            yield Fault("reconcile.E012", f"{where}: {self.keys!r} can't be stored in {field.name!r}.", hint)
        yield from option_faults(self, _OPTIONS_OF_KEYS, where)

    def in_words(self, model: type[Model] | None) -> str:  # noqa: ARG002
        """`an object with the keys 'theme' (where missing: 'light'), 'beta' (where missing: False)`."""
        if not self.keys:
            return "an object with no keys" if self.exact else "an object"
        keys = ", ".join(
            f"{key!r} (where missing: {constant_in_words(value)})" for key, value in self.keys.items()
        )
        noun = "keys" if len(self.keys) > 1 else "key"
        return f"an object with {'exactly ' if self.exact else ''}the {noun} {keys}"


def is_json(value: Any, field: JSONField) -> bool:
    """Whether `field` can store the value."""
    try:
        json.dumps(value, cls=field.encoder, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def function_name(function: Any) -> str:
    """The name by which people know it."""
    return str(getattr(function, "__name__", None) or type(function).__name__)


def called_in_words(function: Any, reads: Sequence[str]) -> str:
    """`shop.text.slug_of(title, section.name)`: a function with the columns that it is given."""
    return f"{function_in_words(function)}({', '.join(path.replace(LOOKUP_SEP, '.') for path in reads)})"


def call_function(
    function: Callable[..., Any], values: Sequence[Any], model: type[Model], key: Any, *, name: str = ""
) -> Any:
    """What the function returns. Raises EvaluationError, which names it and the record."""
    try:
        return function(*values)
    except Exception as error:
        raise EvaluationError(
            f"{name or function_name(function)}() failed for {model._meta.label} {key}: {type(error).__name__}: {error}. "
            "Mend the function, or leave such records out in every=."
        ) from error


def reading_faults(
    model: type[Model], function: Any, reads: Any, where: str, *, option: str
) -> Iterator[Fault]:
    """A fault if the function can't be called, or not with the columns that `reads` names."""
    if not callable(function):
        yield Fault("reconcile.E012", f"{where}: {option}= is {function!r}.", "Give a function.")
        return
    if inspect.iscoroutinefunction(function):
        message = f"{where}: {function_name(function)}() is a coroutine function."
        yield Fault("reconcile.E015", message, "Give a plain function.")
    if isinstance(reads, str) or not isinstance(reads, Sequence) or not reads:
        hint = 'Name the columns that the function is given: reads=["title"].'
        yield Fault("reconcile.E012", f"{where}: reads= is {reads!r}.", hint)
        return
    for path in reads:
        yield from _path_faults(model, path, where)
    yield from _signature_faults(function, reads, where)


def _path_faults(model: type[Model], path: Any, where: str) -> Iterator[Fault]:
    if not isinstance(path, str):
        hint = 'Give names of columns: reads=["title"].'
        yield Fault("reconcile.E012", f"{where}: reads= has {path!r}.", hint)
        return
    try:
        query = model._base_manager.annotate(_read=F(path)).query
    except FieldError as error:
        yield resolution_fault(error, f"{where}: reads=")
        return
    if joins_to_many(query):
        hint = "Give a path to one row."
        yield Fault("reconcile.E013", f"{where}: reads= {path!r} leads to many rows.", hint)


def _signature_faults(function: Callable[..., Any], reads: Sequence[str], where: str) -> Iterator[Fault]:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # Of some functions that are written in C it can't be told.
    try:
        signature.bind(*reads)
    except TypeError as error:
        message = f"{where}: {function_name(function)}{signature} can't take {len(reads)} columns ({error})."
        yield Fault("reconcile.E012", message, "Name one column in reads= for each parameter.")


def path_parts(name: str) -> tuple[str, tuple[str, ...]]:
    """The column that a name like `details__a__b` begins with, and the keys below it."""
    head, *keys = name.split(LOOKUP_SEP)
    return head, tuple(keys)


def needs_python(model: type[Model], name: str, value: Any) -> bool:
    """Whether only Python can tell if the column has this value: a function's result, or JSON."""
    column = field_named(model, path_parts(name)[0])
    return isinstance(value, FromPython | HaveKeys) or isinstance(column, JSONField)


def written_fields(model: type[Model], names: Iterator[str]) -> tuple[Field[Any, Any], ...]:
    """The columns that the names begin with, each once."""
    return fields_named(model, (path_parts(name)[0] for name in names))


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
        kind = annotations_of(query)["_expected"].output_field.get_internal_type()
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
                message = f"HaveValues({other}=…): {name}= already says what stands there."
                yield Fault("reconcile.E012", message, "Keep one of them.")
