"""Expressions and conditions in words, for sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from django.db.models import (
    Aggregate,
    Exists,
    Expression,
    F,
    Func,
    Model,
    OrderBy,
    OuterRef,
    Q,
    QuerySet,
    Value,
)  # fmt: skip
from django.db.models.lookups import Lookup

from reconcile.db.django_compat import (
    Col,
    CombinedExpression,
    ConcatPair,
    NegatedExpression,
    NothingNode,
    Query,
    WhereNode,
    model_of,
    where_of,
)
from reconcile.db.expressions import path_of

__all__ = ["condition_in_words", "expression_in_words", "in_words", "queryset_in_words"]

_SYMBOLS = {
    "exact": "=",
    "gt": ">",
    "gte": "≥",
    "lt": "<",
    "lte": "≤",
    "iexact": "=",
    "in": "in",
    "prefix_of": "is a prefix of",
}


def in_words(values: Mapping[str, Any]) -> str:
    """`amount = total and status = 'open'`."""
    return " and ".join(f"{name.replace('__', '.')} = {_term(value)}" for name, value in values.items())


def expression_in_words(expression: Any) -> str:
    """An expression as words: `Lower(email)`; what is to be sorted downwards has a minus before it."""
    if isinstance(expression, OrderBy):
        return f"{'-' if expression.descending else ''}{_term(expression.expression)}"
    return _term(expression)


def condition_in_words(condition: Q) -> str:
    """A `Q` as words: `kind = 'created' and not (amount < 0)`."""
    parts = [_part(child, within=condition) for child in condition.children]
    joined = f" {condition.connector.lower()} ".join(parts)
    return f"not ({joined})" if condition.negated else joined


def _part(child: Any, *, within: Q) -> str:
    if isinstance(child, Q):
        return _in_brackets(child, within=within)
    return _lookup(*child) if isinstance(child, tuple) else _term(child)


def _in_brackets(condition: Q, *, within: Q) -> str:
    """A part of a condition, in brackets where reading on would change what it means."""
    text = condition_in_words(condition)
    apart = condition.connector != within.connector and len(condition.children) > 1 and not condition.negated
    return f"({text})" if apart else text


def queryset_in_words(queryset: QuerySet[Any]) -> str:
    """The queryset's filter as words, empty if it has none."""
    return _node(where_of(queryset.query), queryset.model)


def _lookup(path: str, value: Any) -> str:
    name, _, lookup = path.rpartition("__")
    if lookup not in _SYMBOLS and lookup not in {"isnull", "contains", "startswith", "endswith", "range"}:
        name, lookup = path, "exact"
    return f"{(name or path).replace('__', '.')} {_comparison_in_words(lookup, value)}"


def _comparison_in_words(lookup: str, value: Any) -> str:
    if lookup == "isnull":
        return "is missing" if value else "is there"
    return f"{_SYMBOLS.get(lookup, lookup)} {_term(value)}"


def _node(node: Any, model: type[Model]) -> str:
    if isinstance(node, WhereNode):
        children = [text for child in node.children if (text := _node(child, model))]
        joined = f" {node.connector.lower()} ".join(children)
        return f"not ({joined})" if node.negated and joined else joined
    if isinstance(node, NothingNode):
        return "nothing, since its queryset is none()"
    if isinstance(node, Lookup):
        path = _term(node.lhs)
        if isinstance(node.lhs, Col) and node.lhs.target.model is not model:
            path = f"{node.lhs.target.model._meta.model_name}.{path}"
        return f"{path} {_comparison_in_words(node.lookup_name or '', node.rhs)}"
    return _term(node)


def _arguments(value: Any) -> Iterator[Any]:
    """What a function is given; Django nests a Concat of several in pairs that nobody has written."""
    for each in value.get_source_expressions():
        if isinstance(each, ConcatPair):
            yield from _arguments(each)
        elif each is not None:
            yield each


def _aggregate(value: Aggregate) -> str:
    arguments = [
        each for each in value.get_source_expressions() if each is not None and each is not value.filter
    ]
    where = value.filter
    if where is not None and not isinstance(where, Q):
        # Since Django 6 the condition stands inside an expression of its own.
        (where,) = where.get_source_expressions()
    text = ", ".join(_term(each) for each in arguments)
    return f"{type(value).__name__}({text}{f' where {_term(where)}' if where is not None else ''})"


def _existence(query: Query) -> str:
    model = model_of(query)
    where = _node(where_of(query), model) if model else ""
    name = model._meta.verbose_name if model else "row"
    return f"there is {name}{f' with {where}' if where else ''}"


def _term(value: Any) -> str:  # noqa: C901, PLR0911, PLR0912 - one for each kind of expression
    if hasattr(value, "in_words"):
        return str(value.in_words())
    if isinstance(value, OuterRef | F):
        return path_of(value).replace("__", ".")
    if isinstance(value, Value):
        return _term(value.value)
    if isinstance(value, Col):
        return str(value.target.name)
    if isinstance(value, Lookup):
        return f"{_term(value.lhs)} {_comparison_in_words(value.lookup_name or '', value.rhs)}"
    if isinstance(value, Exists):
        return _existence(value.query)
    if isinstance(value, NegatedExpression):
        return f"not ({_term(value.get_source_expressions()[0])})"
    if isinstance(value, CombinedExpression):
        return f"{_term(value.lhs)} {value.connector} {_term(value.rhs)}"
    if isinstance(value, Query):
        model = model_of(value)
        return f"a subquery of {model._meta.verbose_name_plural}" if model else "a subquery"
    if isinstance(value, Q):
        return condition_in_words(value)
    if isinstance(value, Aggregate):
        return _aggregate(value)
    if isinstance(value, Func | Expression):
        inner = ", ".join(_term(each) for each in _arguments(value))
        return f"{type(value).__name__}({inner})"
    if isinstance(value, set | frozenset):
        # A set has another order in each process; a sentence has one.
        return f"[{', '.join(sorted(map(_term, value)))}]"
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return repr(str(value))
    return re.sub(r"^<|>$", "", str(value) if not hasattr(value, "pk") else repr(value))
