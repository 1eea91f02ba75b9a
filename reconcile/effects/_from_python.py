"""What a rule says that only Python can tell: a function over named columns, and the keys of a JSON column."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import FieldError
from django.db.models import F, Field, JSONField, Model
from django.db.models.constants import LOOKUP_SEP

from reconcile.declaring import Declaration, field_named, resolution_fault
from reconcile.errors import EvaluationError, Fault
from reconcile.sql.expressions import joins_to_many

__all__ = [
    "FromPython",
    "HaveKeys",
    "called",
    "function_name",
    "is_json",
    "needs_python",
    "path_parts",
    "reading_faults",
    "written_fields",
]


@dataclass(frozen=True)
class FromPython(Declaration):
    """The value that `function` returns for the columns that `reads` names, in that order.

    reads: columns of the record, or paths over foreign keys. The function is called once a record, with plain
        values, and again for the locked record as it is repaired; it must give the same for the same values.
        An exception that it raises is an error of the rule.
    """

    function: Callable[..., Any]
    reads: Sequence[str] = ()

    def faults(self, model: type[Model], where: str) -> Iterator[Fault]:
        """What is wrong with the function, and with what it reads."""
        yield from self.option_faults()
        yield from reading_faults(model, self.function, self.reads, where, option="function")

    def __str__(self) -> str:
        return f"{function_name(self.function)}({', '.join(self.reads)})"


@dataclass(frozen=True)
class HaveKeys(Declaration):
    """A JSON column must be an object with each of these keys; one that is missing gets the value given here.

    Keys that are there keep their values. exact: no other keys may be there, and a repair takes them away.
    """

    keys: Mapping[str, Any]
    exact: bool = False

    def faults(self, field: JSONField, where: str) -> Iterator[Fault]:
        """Keys that aren't text, values that JSON doesn't have, options of the wrong type."""
        yield from self.option_faults()
        if not isinstance(self.keys, Mapping) or not all(isinstance(key, str) for key in self.keys):
            hint = 'Give a dictionary of key and value: HaveKeys({"theme": "light"}).'
            yield Fault("reconcile.E012", f"{where}: HaveKeys has {self.keys!r}.", hint)
        elif not is_json(self.keys, field):
            hint = "Give values that json.dumps takes."
            yield Fault("reconcile.E012", f"{where}: {self.keys!r} can't be stored in {field.name!r}.", hint)
        if not isinstance(self.exact, bool):
            yield Fault("reconcile.E012", f"{where}: exact= is {self.exact!r}.", "Give True or False.")

    def __str__(self) -> str:
        keys = f"key{'s' if len(self.keys) > 1 else ''} {', '.join(map(repr, self.keys))}"
        return f"an object with {'exactly ' if self.exact else ''}the {keys}" if self.keys else "an object"


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


def called(
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
    """A fault where the function can't be called, or not with the columns that `reads` names."""
    if not callable(function):
        yield Fault("reconcile.E012", f"{where}: {option}= is {function!r}.", "Give a function.")
        return
    if inspect.iscoroutinefunction(function):
        said = f"{where}: {function_name(function)}() is a coroutine function."
        yield Fault("reconcile.E015", said, "Give a plain function.")
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
        said = f"{where}: {function_name(function)}{signature} can't take {len(reads)} columns ({error})."
        yield Fault("reconcile.E012", said, "Name one column in reads= for each parameter.")


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
    found = (field_named(model, path_parts(name)[0]) for name in names)
    return tuple(dict.fromkeys(column for column in found if column is not None))
