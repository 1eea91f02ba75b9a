"""Statements that are compiled once and filled in many times: for want of a value they have a hole.

Building and compiling one costs the ORM as much as the database takes for a hundred rows, and of the statements of two
chunks only the keys and the chunk's number differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Field, Value
from django.db.models.sql.compiler import SQLCompiler

__all__ = ["Hole", "Later", "LaterValue", "filled"]


class Later(Sequence[Any]):
    """Keys that aren't known yet, by name. There are some; whoever wants to see them is wrong here."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        raise TypeError(f"{self.name!r} is filled in later.")

    def __getitem__(self, index: Any) -> Any:
        raise TypeError(f"{self.name!r} is filled in later.")


@dataclass(frozen=True, eq=False)
class Hole:
    """A parameter that is not known yet. `adapt` makes the parameter of the value."""

    name: str
    adapt: Callable[[Any], Any] = lambda value: value


class LaterValue(Value):
    """A value by name, which is not known yet."""

    def __init__(self, name: str, output_field: Field[Any, Any]) -> None:
        super().__init__(name, output_field=output_field)

    def as_sql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> Any:  # noqa: ARG002
        """A placeholder, and the hole as its parameter."""
        return "%s", [Hole(self.value)]


def filled(params: Sequence[Any], values: Mapping[str, Any]) -> tuple[Any, ...]:
    """The parameters of a statement, with `values`, by name, in their holes."""
    return tuple(each.adapt(values[each.name]) if isinstance(each, Hole) else each for each in params)
