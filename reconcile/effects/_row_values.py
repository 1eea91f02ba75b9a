"""What can be wrong with a value or a condition over the rows of another table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.exceptions import FieldError
from django.db.models import F, Field, Model, Q
from django.db.models.constants import LOOKUP_SEP

from reconcile.declaring import expression_faults, resolution_fault
from reconcile.errors import Fault
from reconcile.sql.expressions import joins_to_many, names_in

__all__ = ["columns_named", "condition_faults", "row_expression", "value_faults"]


def row_expression(value: Any) -> Any:
    """A path over the row as an expression; expressions as they are."""
    return F(value) if isinstance(value, str) else value


def columns_named(*terms: Any) -> frozenset[str]:
    """The first part of each path that the values, orders and conditions over a row name."""
    paths = (path for term in terms for path in names_in(_plain(term)))
    return frozenset(path.split(LOOKUP_SEP)[0] for path in paths)


def _plain(term: Any) -> Any:
    return F(term.removeprefix("-")) if isinstance(term, str) else term


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
