"""`Within`: a value that a column may be off by so much."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from math import isfinite
from typing import Any

from django.db.models import DateField, DecimalField, Field, FloatField, Model

from reconcile.core.declaration import RuleValue
from reconcile.core.wording.terms import expression_in_words
from reconcile.db.columns import INTEGERS, stored_field
from reconcile.errors import Fault

__all__ = ["Within", "tolerances", "without_tolerance"]


@dataclass(frozen=True)
class Within(RuleValue):
    """`expression`, give or take `tolerance`: a number, or a timedelta for dates and times.

    A column that is just `tolerance` off has not drifted; one that is further off, or NULL where a value is expected, is
    set to the expression's exact value.
    """

    expression: Any
    tolerance: Any

    def faults(self, column: Field[Any, Any], where: str) -> Iterator[Fault]:
        """A column that has no distances, or a tolerance that isn't one of them. Costs no statement."""
        where = f"{where}: Within"
        if isinstance(self.expression, Within):
            yield Fault("reconcile.E012", f"{where}: it stands inside another one.", "Give one tolerance.")
        stored = stored_field(column)
        if isinstance(stored, DateField):
            right, hint = isinstance(self.tolerance, timedelta), "Give a timedelta of 0 or more."
            right = right and self.tolerance >= timedelta(0)
        elif stored.get_internal_type() in INTEGERS or isinstance(stored, DecimalField | FloatField):
            right, hint = _is_distance(self.tolerance), 'Give a number of 0 or more, such as Decimal("0.01").'
        else:
            hint = "Give the value alone: only numbers, dates and times can be nearly right."
            yield Fault("reconcile.E012", f"{where}: {column.name!r} is no number, date or time.", hint)
            return
        if not right:
            yield Fault("reconcile.E012", f"{where}: the tolerance is {self.tolerance!r}.", hint)

    def in_words(self, model: type[Model] | None) -> str:
        """`Sum(items.price) within 0.01`."""
        return f"{expression_in_words(self.expression, model)} within {self.tolerance}"


def without_tolerance(value: Any) -> Any:
    """The value without its tolerance."""
    return value.expression if isinstance(value, Within) else value


def tolerances(named: Mapping[Field[Any, Any], Any]) -> dict[Field[Any, Any], Any]:
    """The tolerance of each column that has one."""
    return {column: value.tolerance for column, value in named.items() if isinstance(value, Within)}


def _is_distance(value: Any) -> bool:
    number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    return number and isfinite(value) and value >= 0
