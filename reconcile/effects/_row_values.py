"""What can be wrong with a value or a condition over the rows of another table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.exceptions import FieldError
from django.db.models import F, Field, Model, Q

from reconcile.declaring import expression_faults, resolution_fault
from reconcile.errors import Fault
from reconcile.sql.expressions import joins_to_many

__all__ = ["condition_faults", "row_expression", "value_faults"]


def row_expression(value: Any) -> Any:
    """A path over the row as an expression; expressions as they are."""
    return F(value) if isinstance(value, str) else value


def value_faults(
    rows: type[Model], value: Any, column: Field[Any, Any], where: str, *, aggregates: bool = False
) -> Iterator[Fault]:
    """A fault where `value=` isn't a path or an expression over `rows` that gives `column` one value."""
    expression = row_expression(value)
    if not hasattr(expression, "resolve_expression"):
        hint = "Name a column of the row, or give an expression over it."
        yield Fault("reconcile.E012", f"{where}: value= is {value!r}.", hint)
        return
    yield from expression_faults(rows, expression, column, f"{where}: value=", aggregates=aggregates)


def condition_faults(rows: type[Model], condition: Any, option: str, where: str) -> Iterator[Fault]:
    """A fault where `condition` isn't a `Q` over columns of `rows`."""
    if not isinstance(condition, Q):
        hint = "Give a Q over the row's columns."
        yield Fault("reconcile.E012", f"{where}: {option}= is {condition!r}.", hint)
        return
    try:
        filtered = rows._base_manager.filter(condition)
    except FieldError as error:
        yield resolution_fault(error, f"{where}: {option}=")
        return
    if joins_to_many(filtered.query):
        hint = "Use Q(Exists(…)), or a path to one row."
        yield Fault("reconcile.E013", f"{where}: {option}= has a path to many rows.", hint)
