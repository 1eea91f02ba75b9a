"""What a condition asks of the values of a record's columns, and whether rows of which some values are known can meet it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from reconcile.audit.resolver.scopes import Frame, Scope
from reconcile.audit.resolver.types import FunctionType

if TYPE_CHECKING:
    from reconcile.audit.record import Record, Run

__all__ = ["NOT_NONE", "Only", "asked_by", "is_against", "returned_alone"]

Only = frozenset[tuple[str, ...]]
"""What has to hold: for each column how its value is asked for, and the values that this is about."""

NOT_NONE = "not None"
"""Stands for a value of which nothing else is known."""

IN, NOT_IN, FILLED, EMPTY = "in", "not in", "filled", "empty"

_POSITIVE = (ast.Eq, ast.Is, ast.In)
_NEGATIVE = (ast.NotEq, ast.IsNot, ast.NotIn)


def asked_by(record: Record, test: ast.expr, run: Run) -> tuple[Only, Only]:
    """What a condition asks of the record's columns: what holds where it does, and what where it doesn't."""
    column = record.column(test, run)
    if column:
        return _ways(column, FILLED, EMPTY)
    match test:
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return _compared(record, left, op, right, run)
        case ast.Call(func=ast.Attribute() as func, args=[], keywords=[]):
            scopes = [
                each.scope
                for each in record.evaluator.of(func, Frame(run.scope, None, run.given))
                if isinstance(each, FunctionType)
            ]
            if record.is_record(func.value, run) and len(scopes) == 1:
                return record.asked_within(scopes[0], run)
    return frozenset(), frozenset()


def _compared(record: Record, left: ast.expr, op: ast.cmpop, right: ast.expr, run: Run) -> tuple[Only, Only]:
    """`self.state == "done"`, `self.kind in KINDS`."""
    column = record.column(left, run)
    if not column or not isinstance(op, _POSITIVE + _NEGATIVE):
        return frozenset(), frozenset()
    frame = Frame(run.scope, None, run.given)
    is_many = isinstance(op, ast.In | ast.NotIn)
    values = record.constants.among(right, frame) if is_many else record.constants.of(right, frame)
    if not values or (len(values) > 1 and not is_many):
        return frozenset(), frozenset()
    yes, no = _ways(column, IN, NOT_IN, sorted(values))
    return (yes, no) if isinstance(op, _POSITIVE) else (no, yes)


def _ways(column: str, yes: str, no: str, values: Iterable[str] = ()) -> tuple[Only, Only]:
    return frozenset({(column, yes, *values)}), frozenset({(column, no, *values)})


def returned_alone(scope: Scope) -> ast.expr | None:
    """What a function gives back that does nothing else."""
    match scope.function.body:
        case [ast.Expr(value=ast.Constant()), ast.Return(value=value)] | [ast.Return(value=value)]:
            return value
    return None


def is_against(only: Only, holds: Mapping[str, str]) -> bool:
    """Whether rows with these values, by column, can't be such that it all holds."""
    return any(
        _is_one_against(how, values, holds[column]) for column, how, *values in only if column in holds
    )


def _is_one_against(how: str, values: list[str], held: str) -> bool:
    if held == NOT_NONE:
        return how == IN and values == ["None"]
    value = ast.literal_eval(held)
    if how in {FILLED, EMPTY}:
        return bool(value) is (how == EMPTY)
    return any(value == ast.literal_eval(each) for each in values) is (how == NOT_IN)
