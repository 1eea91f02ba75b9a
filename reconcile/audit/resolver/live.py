"""What an object of the running project stands for: a model, a manager, a function with source, a module."""

from __future__ import annotations

import sys
from functools import partial
from types import FunctionType as PythonFunction, MethodType, ModuleType as PythonModule
from typing import TYPE_CHECKING, Any

from django.apps.registry import Apps
from django.db.models import Manager, Model, QuerySet

from reconcile.audit.places import innermost
from reconcile.audit.resolver.types import (
    NOTHING,
    External,
    Instance,
    Many,
    ModuleType,
    Native,
    Object,
    Rows,
    Table,
    Types,
    union,
)

if TYPE_CHECKING:
    from reconcile.audit.resolver.evaluator import Evaluator

__all__ = ["FOREIGN", "held_in", "live_value"]

FOREIGN = frozenset({"django", *sys.stdlib_module_names})
"""Packages whose functions are known by their names and are not read."""


MOST_HELD = 20
"""Objects in a collection that are looked at; those in a collection within it aren't."""


def live_value(evaluator: Evaluator, value: Any, path: str, *, within: bool = False) -> Types:
    """What an object of the running project is. Asks no attribute of it that could be a lazy one's. within: it stands in a collection."""
    cls = type(value)
    if issubclass(cls, type):
        return evaluator.class_type(evaluator.class_of_live(value))
    if issubclass(cls, Manager):
        return frozenset({evaluator.registry.rows(value)}) if value.model is not None else NOTHING
    if issubclass(cls, QuerySet):
        return frozenset({Rows(model=value.model, queryset=cls)}) if value.model is not None else NOTHING
    if issubclass(cls, Model):
        return frozenset({Instance(model=cls)})
    if issubclass(cls, PythonFunction | MethodType | partial):
        return _live_function(evaluator, value, path)
    if issubclass(cls, PythonModule):
        return frozenset({ModuleType(name=value.__name__)})
    if issubclass(cls, Apps):
        return frozenset({External(path="django.apps.apps")})
    if issubclass(cls, str | int | float | bool | bytes):
        return frozenset({Native(what=cls.__name__, text=value if cls is str else None)})
    if issubclass(cls, list | tuple | set | frozenset | dict):
        return _collection(evaluator, value, path) if value and not within else NOTHING
    if cls.__module__.partition(".")[0] in FOREIGN:
        return NOTHING
    return frozenset({Object(info=evaluator.class_of_live(cls))}) if _is_plain(cls) else NOTHING


def _collection(evaluator: Evaluator, value: Any, path: str) -> Types:
    types = union(live_value(evaluator, each, path, within=True) for each in held_in(value))
    return frozenset({Table(keys=NOTHING, values=types) if isinstance(value, dict) else Many(of=types)})


def held_in(value: Any) -> list[Any]:
    """The objects of a collection that are looked at, the same ones in each run: none of a large one, but for those that are no texts or numbers."""
    held = [*(value.values() if isinstance(value, dict) else value)]
    if len(held) > MOST_HELD:
        held = [each for each in held if not isinstance(each, str | int | float | bytes)]
    return held[:MOST_HELD]


def _live_function(evaluator: Evaluator, value: Any, path: str) -> Types:
    function = innermost(value)
    if function is None or function.__module__.partition(".")[0] in FOREIGN:
        name = getattr(value, "__qualname__", "")
        return frozenset({External(path=f"{value.__module__}.{name}" if name else path)})
    module = evaluator.project.sources.parsed(function.__code__.co_filename)
    scope = evaluator.project.scope_named(module, function.__qualname__) if module else None
    return evaluator.function(scope) if scope is not None else NOTHING


def _is_plain(cls: type) -> bool:
    """Whether its instances are no stand-ins for something else."""
    return not hasattr(cls, "_wrapped") and "__getattr__" not in vars(cls) and "Proxy" not in cls.__name__
