"""The fingerprint of a rule: it changes if and only if something changes that decides what a repair writes.

docs/upgrades.md lists what changes a fingerprint, and what follows.
"""

from __future__ import annotations

import functools
import inspect
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from hashlib import sha256
from types import ModuleType
from typing import Any

from django.db.models import F, Model, Q, QuerySet
from django.utils.functional import cached_property

from reconcile.core.function_source import source_of
from reconcile.db.django_compat import annotations_of, constructor_arguments, where_of
from reconcile.db.expressions import path_of
from reconcile.db.statements import select_sql
from reconcile.rules.rule import Rule

__all__ = ["fingerprint"]

_DECIDING = ("name", "every", "must", "settle", "remedies")
"""Options of a rule that decide what a repair writes. Caps, owners and tags don't."""

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def fingerprint(rule: Rule, using: str) -> str:
    """64 hexadecimal digits over the declaration, the source text of the functions that it names, and what is bound to them.

    A `version=` stands in the place of the source text. Bound values are those of a closure, of the object of a method or
    of a callable object, and the arguments of a partial. A function that keeps something between two calls should use
    `functools.cache`, which doesn't count. Functions that are called by name don't count. It differs between databases,
    since their SQL differs. Costs no statement.
    """
    describer = _Describer(using=using)
    text = "\n".join(f"{option}={describer.describe(getattr(rule, option))}" for option in _DECIDING)
    return sha256(text.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class _Describer:
    """Describes values as text that is the same in each process and on each Python. `within` are the objects that are being described."""

    using: str
    within: list[int] = field(default_factory=list)

    def describe(self, value: Any) -> str:
        if isinstance(value, Enum):
            # What is written is the value; its name may stay when that changes.
            return self.describe(value.value)
        if value is None or isinstance(value, str | bytes | int | float):
            return repr(value)
        if isinstance(value, type):
            return f"{value.__module__}.{value.__qualname__}"
        if id(value) in self.within:
            return "…"
        self.within.append(id(value))
        try:
            return self._collection(value)
        finally:
            self.within.pop()

    def _collection(self, value: Any) -> str:
        if isinstance(value, QuerySet):
            return self._queryset(value)
        if isinstance(value, Mapping):
            return _in_brackets(
                (f"{self.describe(key)}: {self.describe(each)}" for key, each in value.items()), "{}"
            )
        if isinstance(value, set | frozenset):
            return _in_brackets(sorted(map(self.describe, value)), "{}")
        if isinstance(value, list | tuple):
            return _in_brackets(map(self.describe, value), "[]")
        return self._declaration(value)

    def _declaration(self, value: Any) -> str:
        if isinstance(value, F):
            return f"{type(value).__name__}({path_of(value)!r})"
        if isinstance(value, Q):
            return self._call("Q", tuple(value.children), {"by": value.connector, "negated": value.negated})
        if isinstance(value, Model):
            return f"{value._meta.label}({value.pk!r})"
        if is_dataclass(value):
            return self._call(self._type_and_call(value), (), self._options(value))
        made = constructor_arguments(value)
        if made is not None:
            return self._call(self.describe(type(value)), made[0], made[1])
        return self._function(value) if callable(value) else self._object(value)

    def _options(self, declaration: Any) -> Mapping[str, Any]:
        """The options of a declaration; a version in the place of what its functions do."""
        options = {each.name: getattr(declaration, each.name) for each in fields(declaration)}
        if options.get("version") is None:
            options.pop("version", None)
            return options
        return {name: _name_of(each) if _is_function(each) else each for name, each in options.items()}

    def _queryset(self, rows: QuerySet[Any, Any]) -> str:
        try:
            return str(select_sql(rows.using(self.using)))
        except ValueError:
            # A subquery's references to the outer query have no SQL of their own.
            return _ADDRESS.sub(
                "", f"{rows.model._meta.label} {where_of(rows.query)!r} {annotations_of(rows.query)!r}"
            )

    def _function(self, function: Callable[..., Any]) -> str:
        """Tell the place of a function, its source text, and what is bound to it."""
        if isinstance(function, functools.partial):
            return self._call("partial", (function.func, *function.args), function.keywords)
        if inspect.ismethod(function):
            return self._call("method", (function.__self__, function.__func__), {})
        if inspect.isbuiltin(function):
            return self._call(function.__name__, (function.__self__,), {})
        if inspect.isfunction(function):
            return self._python(function)
        if hasattr(function, "__wrapped__"):
            # What a cache or a task keeps beside its function doesn't count.
            return self._call(type(function).__qualname__, (function.__wrapped__,), {})
        return self._object(function)

    def _python(self, function: Any) -> str:
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        bound = {name: self.describe(_cell_value(cell)) for name, cell in cells}
        defaults = self.describe((function.__defaults__, function.__kwdefaults__))
        text = f"{source_of(function)} {defaults} {bound}"
        return f"{function.__module__}.{function.__qualname__}#{sha256(text.encode()).hexdigest()}"

    def _object(self, value: Any) -> str:
        if isinstance(value, ModuleType):
            return value.__name__
        if isinstance(value, logging.Logger):
            return f"Logger({value.name!r})"
        if isinstance(value, re.Pattern):
            return f"Pattern({value.pattern!r}, {value.flags})"
        held = dict(_attributes(value))
        if held or hasattr(value, "__dict__"):
            return self._call(self._type_and_call(value), (), held)
        return _ADDRESS.sub("", repr(value))

    def _type_and_call(self, value: Any) -> str:
        """An object's type, and what calling it does."""
        name = self.describe(type(value))
        call = getattr(type(value), "__call__", None)  # noqa: B004 - its code is wanted
        return f"{name}={self._python(call)}" if inspect.isfunction(call) else name

    def _call(self, name: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> str:
        text = [self.describe(each) for each in arguments]
        return _in_brackets(
            [*text, *(f"{key}={self.describe(each)}" for key, each in sorted(named.items()))], "()", name
        )


def _cell_value(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        # Not bound yet.
        return None


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """The attributes of an object, without its cached properties."""
    for name, each in getattr(value, "__dict__", {}).items():
        if not isinstance(getattr(type(value), name, None), functools.cached_property | cached_property):
            yield name, each
    bare: Any = object.__repr__
    if type(value).__repr__ is bare:
        slots = [each.__dict__.get("__slots__", ()) for each in type(value).__mro__]
        for name in [name for some in slots for name in ((some,) if isinstance(some, str) else some)]:
            if hasattr(value, name) and name not in {"__dict__", "__weakref__"}:
                yield name, getattr(value, name)


def _is_function(value: Any) -> bool:
    return callable(value) and not isinstance(value, type)


def _name_of(function: Any) -> str:
    """The dotted name of a function, without what it does or holds."""
    if isinstance(function, functools.partial):
        return f"partial {_name_of(function.func)}"
    home = function if hasattr(function, "__qualname__") else type(function)
    return f"{home.__module__}.{home.__qualname__}"


def _in_brackets(parts: Iterable[str], brackets: str, name: str = "") -> str:
    return f"{name}{brackets[0]}{', '.join(parts)}{brackets[1]}"
