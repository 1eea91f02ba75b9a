"""A rule's fingerprint: the same for the same rule, another once anything changes that decides what a repair writes."""

from __future__ import annotations

import functools
import inspect
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from hashlib import sha256
from types import CodeType, ModuleType
from typing import Any

from django.db.models import F, Model, Q, QuerySet
from django.utils.functional import cached_property

from reconcile.rules import Rule
from reconcile.sql.expressions import path_of
from reconcile.sql.statements import select_sql

__all__ = ["fingerprint"]

_DECIDING = ("name", "every", "must", "settle", "remedies")
"""Options of a rule that decide what a repair writes. Caps, owners and tags don't."""

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def fingerprint(rule: Rule, using: str) -> str:
    """64 hexadecimal digits over the rule's declaration, the code of the functions that it names, and what is bound to them.

    Bound is what a closure has taken from around it, what a method's object or a callable object holds, and the arguments
    of a partial: a function that keeps something between two calls should use `functools.cache`, which doesn't count. What
    functions call by name is not looked into. It differs between databases, whose SQL differs. Costs no statement.
    """
    teller = _Teller(using=using)
    said = "\n".join(f"{option}={teller.told(getattr(rule, option))}" for option in _DECIDING)
    return sha256(said.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class _Teller:
    """Tells values as text that is the same in each process. `within` are the objects that are being told."""

    using: str
    within: list[int] = field(default_factory=list)

    def told(self, value: Any) -> str:
        if isinstance(value, Enum):
            # What is written is the value; its name may stay when that changes.
            return self.told(value.value)
        if value is None or isinstance(value, str | bytes | int | float):
            return repr(value)
        if isinstance(value, type):
            return f"{value.__module__}.{value.__qualname__}"
        if id(value) in self.within:
            return "…"
        self.within.append(id(value))
        try:
            return self._collected(value)
        finally:
            self.within.pop()

    def _collected(self, value: Any) -> str:
        if isinstance(value, QuerySet):
            return self._queryset(value)
        if isinstance(value, Mapping):
            return _listed((f"{self.told(key)}: {self.told(each)}" for key, each in value.items()), "{}")
        if isinstance(value, set | frozenset):
            return _listed(sorted(map(self.told, value)), "{}")
        if isinstance(value, list | tuple):
            return _listed(map(self.told, value), "[]")
        return self._declared(value)

    def _declared(self, value: Any) -> str:
        if isinstance(value, F):
            return f"{type(value).__name__}({path_of(value)!r})"
        if isinstance(value, Q):
            return self._call("Q", tuple(value.children), {"by": value.connector, "negated": value.negated})
        if isinstance(value, Model):
            return f"{value._meta.label}({value.pk!r})"
        if is_dataclass(value):
            declared = {each.name: getattr(value, each.name) for each in fields(value)}
            return self._call(self._called(value), (), declared)
        made: tuple[tuple[Any, ...], Mapping[str, Any]] | None = getattr(value, "_constructor_args", None)
        if made is not None:
            return self._call(self.told(type(value)), made[0], made[1])
        return self._function(value) if callable(value) else self._object(value)

    def _queryset(self, rows: QuerySet[Any, Any]) -> str:
        try:
            return str(select_sql(rows.using(self.using)))
        except ValueError:
            # A subquery's references to the outer query have no SQL of their own.
            return _ADDRESS.sub(
                "", f"{rows.model._meta.label} {rows.query.where!r} {rows.query.annotations!r}"
            )

    def _function(self, function: Callable[..., Any]) -> str:
        """Where a function stands, what it does, and what is bound to it: comments and white space don't count."""
        if isinstance(function, functools.partial):
            return self._call("partial", (function.func, *function.args), function.keywords)
        if inspect.ismethod(function):
            return self._call("method", (function.__self__, function.__func__), {})
        if inspect.isbuiltin(function):
            return self._call(function.__name__, (function.__self__,), {})
        if inspect.isfunction(function):
            return self._python(function)
        if hasattr(function, "__wrapped__"):
            # What a cache or a task keeps beside the function isn't its doing.
            return self._call(type(function).__qualname__, (function.__wrapped__,), {})
        return self._object(function)

    def _python(self, function: Any) -> str:
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        bound = {name: self.told(_content(cell)) for name, cell in cells}
        defaults = self.told((function.__defaults__, function.__kwdefaults__))
        said = f"{_code(function.__code__)} {defaults} {bound}"
        return f"{function.__module__}.{function.__qualname__}#{sha256(said.encode()).hexdigest()}"

    def _object(self, value: Any) -> str:
        if isinstance(value, ModuleType):
            return value.__name__
        if isinstance(value, logging.Logger):
            return f"Logger({value.name!r})"
        if isinstance(value, re.Pattern):
            return f"Pattern({value.pattern!r}, {value.flags})"
        held = dict(_held(value))
        if held or hasattr(value, "__dict__"):
            return self._call(self._called(value), (), held)
        return _ADDRESS.sub("", repr(value))

    def _called(self, value: Any) -> str:
        """An object's type, and what calling it does."""
        name = self.told(type(value))
        call = getattr(type(value), "__call__", None)  # noqa: B004 - its code is wanted
        return f"{name}={self._python(call)}" if inspect.isfunction(call) else name

    def _call(self, name: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> str:
        said = [self.told(each) for each in arguments]
        return _listed(
            [*said, *(f"{key}={self.told(each)}" for key, each in sorted(named.items()))], "()", name
        )


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        # Not bound yet.
        return None


def _held(value: Any) -> Iterator[tuple[str, Any]]:
    """An object's attributes, but for those that it has worked out and keeps."""
    for name, each in getattr(value, "__dict__", {}).items():
        if not isinstance(getattr(type(value), name, None), functools.cached_property | cached_property):
            yield name, each
    bare: Any = object.__repr__
    if type(value).__repr__ is bare:
        slots = [each.__dict__.get("__slots__", ()) for each in type(value).__mro__]
        for name in [name for some in slots for name in ((some,) if isinstance(some, str) else some)]:
            if hasattr(value, name) and name not in {"__dict__", "__weakref__"}:
                yield name, getattr(value, name)


def _code(code: CodeType) -> str:
    constants = [_constant(each) for each in code.co_consts]
    return repr((code.co_code, code.co_names, code.co_varnames, constants))


def _constant(value: Any) -> str:
    if isinstance(value, CodeType):
        return _code(value)
    if isinstance(value, tuple):
        return repr([_constant(each) for each in value])
    # A set has its own order in each process.
    return repr(sorted(map(_constant, value))) if isinstance(value, frozenset) else repr(value)


def _listed(parts: Iterable[str], brackets: str, name: str = "") -> str:
    return f"{name}{brackets[0]}{', '.join(parts)}{brackets[1]}"
