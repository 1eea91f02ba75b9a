"""A condition that does not hold, NULL counted in, in the form that lets the database plan best."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import EmptyResultSet, FullResultSet
from django.db.models import Exists
from django.db.models.lookups import (
    Exact,
    GreaterThan,
    GreaterThanOrEqual,
    In,
    IsNull,
    LessThan,
    LessThanOrEqual,
    Lookup,
)

from reconcile.db.django_compat import (
    SQL,
    BaseDatabaseWrapper,
    Col,
    NegatedExpression,
    SQLCompiler,
    WhereNode,
    is_never_missing,
)

__all__ = ["Fails"]


class Fails(Lookup):
    """True if a condition does not hold: `filter(Fails(Q(…)))` finds just what `filter(Q(…))` doesn't.

    A condition that is unknown, because a column is NULL, does not hold either; `exclude` would pass it over.
    """

    prepare_rhs = False

    def __init__(self, condition: Any, rhs: Any = True) -> None:  # noqa: FBT002 - Django copies a lookup with both
        super().__init__(condition, rhs)

    def as_sql(
        self,
        compiler: SQLCompiler,
        connection: BaseDatabaseWrapper,  # noqa: ARG002
    ) -> SQL:
        try:
            sql, params = compiler.compile(self.lhs)
        except EmptyResultSet:
            raise FullResultSet from None
        except FullResultSet:
            raise EmptyResultSet from None
        # Below IS NOT TRUE no planner looks for a join or an index.
        template = "NOT (%s)" if _is_known(self.lhs, compiler) else "(%s) IS NOT TRUE"
        return template % sql, (*params,)


_COMPARISONS = (Exact, GreaterThan, GreaterThanOrEqual, In, LessThan, LessThanOrEqual)


def _is_known(node: Any, compiler: SQLCompiler) -> bool:
    """Whether the condition is true or false in any row, and never NULL."""
    if isinstance(node, WhereNode | NegatedExpression):
        return all(_is_known(each, compiler) for each in node.get_source_expressions())
    if isinstance(node, Exact) and node.rhs is True and getattr(node.lhs, "conditional", False):
        return _is_known(node.lhs, compiler)
    if isinstance(node, _COMPARISONS):
        right = _is_value(node.rhs) or _is_never_null(node.rhs, compiler)
        return right and _is_never_null(node.lhs, compiler)
    return isinstance(node, Exists | IsNull)


def _is_value(value: Any) -> bool:
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_value, value))
    return value is not None and not hasattr(value, "resolve_expression")


def _is_never_null(node: Any, compiler: SQLCompiler) -> bool:
    """Whether the expression is a column that can't be NULL, in a table that no outer join leaves out."""
    if not isinstance(node, Col) or node.target.null or node.target.get_internal_type() == "JSONField":
        return False
    return is_never_missing(compiler, node.alias)
