"""A rule's fingerprint: the same for the same rule, another once anything changes that decides what a repair writes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from hashlib import sha256
from types import CodeType
from typing import Any

from django.db.models import F, Model, Q, QuerySet

from reconcile.rules import Rule
from reconcile.sql.expressions import path_of
from reconcile.sql.statements import select_sql

__all__ = ["fingerprint"]

_DECIDING = ("name", "every", "must", "settle", "remedies")
"""Options of a rule that decide what a repair writes. Caps, owners and tags don't."""

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def fingerprint(rule: Rule, using: str) -> str:
    """64 hexadecimal digits over the rule's declaration and the code of the functions that it names.

    What those functions call is not looked into. It differs between databases, whose SQL differs. Costs no statement.
    """
    said = "\n".join(f"{option}={_told(getattr(rule, option), using)}" for option in _DECIDING)
    return sha256(said.encode()).hexdigest()


def _told(value: Any, using: str) -> str:  # noqa: PLR0911 - one for each shape of value
    if value is None or isinstance(value, str | bytes | int | float):
        return repr(value)
    if isinstance(value, QuerySet):
        return _queryset(value, using)
    if isinstance(value, Mapping):
        return _listed((f"{_told(key, using)}: {_told(each, using)}" for key, each in value.items()), "{}")
    if isinstance(value, set | frozenset):
        return _listed(sorted(_told(each, using) for each in value), "{}")
    if isinstance(value, list | tuple):
        return _listed((_told(each, using) for each in value), "[]")
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, partial):
        return _call("partial", (value.func, *value.args), value.keywords, using)
    if is_dataclass(value):
        declared = {each.name: getattr(value, each.name) for each in fields(value)}
        return _call(_told(type(value), using), (), declared, using)
    if isinstance(value, Model):
        return f"{value._meta.label}({value.pk!r})"
    return _expression(value, using)


def _expression(value: Any, using: str) -> str:
    if isinstance(value, F):
        return f"{type(value).__name__}({path_of(value)!r})"
    if isinstance(value, Q):
        return _call("Q", tuple(value.children), {"by": value.connector, "negated": value.negated}, using)
    made: tuple[tuple[Any, ...], Mapping[str, Any]] | None = getattr(value, "_constructor_args", None)
    if made is not None:
        return _call(_told(type(value), using), made[0], made[1], using)
    if callable(value):
        return _function(value)
    if hasattr(value, "__dict__"):
        return _call(_told(type(value), using), (), vars(value), using)
    return _ADDRESS.sub("", repr(value))


def _queryset(rows: QuerySet[Any, Any], using: str) -> str:
    try:
        return str(select_sql(rows.using(using)))
    except ValueError:
        # A subquery's references to the outer query have no SQL of their own.
        return _ADDRESS.sub("", f"{rows.model._meta.label} {rows.query.where!r} {rows.query.annotations!r}")


def _function(function: Callable[..., Any]) -> str:
    """Where a function stands, and what it does: comments and white space don't count."""
    function = inspect.unwrap(function)
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__qualname__)}"
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    defaults = (getattr(function, "__defaults__", None), getattr(function, "__kwdefaults__", None))
    said = f"{_code(code) if code else ''} {_ADDRESS.sub('', repr(defaults))}"
    return f"{name}#{sha256(said.encode()).hexdigest()}"


def _code(code: CodeType) -> str:
    constants = [_code(each) if isinstance(each, CodeType) else _constant(each) for each in code.co_consts]
    return repr((code.co_code, code.co_names, code.co_varnames, constants))


def _constant(value: Any) -> str:
    # A set has its own order in each process.
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def _call(name: str, arguments: tuple[Any, ...], named: Mapping[str, Any], using: str) -> str:
    said = [_told(each, using) for each in arguments]
    return _listed(
        [*said, *(f"{key}={_told(each, using)}" for key, each in sorted(named.items()))], "()", name
    )


def _listed(parts: Iterator[str] | list[str] | Any, brackets: str, name: str = "") -> str:
    return f"{name}{brackets[0]}{', '.join(parts)}{brackets[1]}"
