"""Where in the source a function stands that is known as an object: behind partials, decorators, bound methods and callables."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FunctionType
from typing import Any

from reconcile.core.declaration import Place

__all__ = ["innermost", "name_of", "place_of"]

MOST_LAYERS = 20
"""Wrappers around a function that are looked through."""


def place_of(function: Any) -> Place | None:
    """Where the function itself stands, with the line of its `def` or of its first decorator; None for what has no Python source, such as a builtin."""
    found = innermost(function)
    if found is None:
        return None
    code = found.__code__
    return Place(module=found.__module__, file=_resolved(code.co_filename), line=code.co_firstlineno)


@functools.cache
def _resolved(file: str) -> str:
    return str(Path(file).resolve())


def name_of(function: Any) -> str:
    """`sample_project.shop.signals.handle_order_created`: the module and the name of the function itself."""
    found = innermost(function) or function
    module = getattr(found, "__module__", None) or type(found).__module__
    name = getattr(found, "__qualname__", None) or type(found).__qualname__
    return f"{module}.{name}"


def innermost(function: Any) -> FunctionType | None:
    """The Python function that runs in the end; None if there is none."""
    for _ in range(MOST_LAYERS):
        inner = _unwrapped(function)
        if inner is None:
            return function if isinstance(function, FunctionType) else None
        function = inner
    return None


def _unwrapped(function: Any) -> Any | None:
    """What a wrapper calls; None if it wraps nothing."""
    if isinstance(function, functools.partial | functools.partialmethod):
        return function.func
    if inspect.ismethod(function):
        return function.__func__
    if hasattr(function, "__wrapped__"):
        return function.__wrapped__
    if isinstance(function, FunctionType):
        return _behind_decorator(function)
    if isinstance(function, staticmethod | classmethod):
        return function.__func__
    call = vars(type(function)).get("__call__")
    return call if isinstance(call, FunctionType) else None


def _behind_decorator(function: FunctionType) -> Any | None:
    """The one function that a decorator without `functools.wraps` has kept in its closure, and hands its arguments on to."""
    takes_anything = bool(function.__code__.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS))
    if "<locals>" not in function.__qualname__ or not takes_anything:
        return None
    kept = [each for each in _kept_by(function) if isinstance(each, FunctionType | functools.partial)]
    return kept[0] if len(kept) == 1 else None


def _kept_by(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        # A name of the enclosing function that has no value yet is an empty cell.
        with suppress(ValueError):
            yield cell.cell_contents
