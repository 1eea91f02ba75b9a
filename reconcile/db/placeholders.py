"""Statements that are compiled once and run many times: a placeholder stands for a value that comes later.

The ORM needs as long to build and compile a statement as the database needs for a hundred rows. The statements of two chunks
differ in the keys and the number of the chunk alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Field, Value

from reconcile.db.django_compat import BaseDatabaseWrapper, SQLCompiler

__all__ = ["PendingKeys", "Placeholder", "PlaceholderValue", "fill_placeholders", "one_parameter"]


class PendingKeys(Sequence[Any]):
    """A name for keys that come later. It counts as not empty; reading it raises TypeError."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        raise TypeError(f"{self.name!r} is filled in later.")

    def __getitem__(self, index: Any) -> Any:
        raise TypeError(f"{self.name!r} is filled in later.")


@dataclass(frozen=True, eq=False)
class Placeholder:
    """A parameter that comes later. `adapt` converts the value to the parameter."""

    name: str
    adapt: Callable[[Any], Any] = lambda value: value


def one_parameter(keys: Any, adapt: Callable[[Any], Any]) -> Any:
    """The one parameter that has all keys, or its placeholder, if they come later."""
    return Placeholder(keys.name, adapt) if isinstance(keys, PendingKeys) else adapt(keys)


class PlaceholderValue(Value):
    """A name for a value that comes later."""

    def __init__(self, name: str, output_field: Field[Any, Any]) -> None:
        super().__init__(name, output_field=output_field)

    def as_sql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> Any:  # noqa: ARG002
        """`%s`, with a Placeholder as its parameter."""
        return "%s", (Placeholder(self.value),)


def fill_placeholders(params: Sequence[Any], values: Mapping[str, Any]) -> tuple[Any, ...]:
    """The parameters of a statement, with `values` in the place of their placeholders."""
    return tuple(each.adapt(values[each.name]) if isinstance(each, Placeholder) else each for each in params)
