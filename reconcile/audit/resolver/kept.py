"""What an expression may stand for as plain values that a file can hold, and back: models, classes and functions by their names."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from django.db.models import Model

from reconcile.audit.resolver import types as kinds
from reconcile.audit.resolver.classes import ClassInfo
from reconcile.audit.resolver.scopes import Scope
from reconcile.audit.resolver.types import Kind, Types

if TYPE_CHECKING:
    from reconcile.audit.resolver.evaluator import Evaluator

__all__ = ["from_plain", "to_plain"]

_KINDS: Mapping[str, type] = {
    name: kind for name in kinds.__all__ if is_dataclass(kind := getattr(kinds, name)) and isinstance(kind, type)
}  # fmt: skip
_PLAIN = str | int | None


def to_plain(evaluator: Evaluator, types: Types) -> Any:
    """The types as texts, numbers and lists; None where something in them has no name by which it is found again."""
    try:
        return _plain(evaluator, types)
    except LookupError:
        return None


def from_plain(evaluator: Evaluator, plain: Any) -> Types | None:
    """The types; None where something in them is there no longer."""
    try:
        found: Types = _found(evaluator, plain)
    except (LookupError, TypeError, ValueError):
        return None
    return found


def _plain(evaluator: Evaluator, value: Any) -> Any:
    match value:
        case Kind():
            return ["kind", value.value]
        case str() | int() | None:
            return value
        case frozenset():
            return ["set", *sorted((_plain(evaluator, each) for each in value), key=repr)]
        case tuple():
            return ["tuple", *(_plain(evaluator, each) for each in value)]
        case type():
            return _plain_class(evaluator, value)
        case Scope():
            return _plain_scope(evaluator, value)
        case ClassInfo():
            return _plain_info(evaluator, value)
    return [type(value).__name__, *(_plain(evaluator, getattr(value, each.name)) for each in fields(value))]


def _plain_class(evaluator: Evaluator, cls: type) -> list[str]:
    """A model by its label, another class by its module and name; that of a manager which was made at run time has none."""
    if issubclass(cls, Model) and evaluator.registry.model(label := cls._meta.label_lower) is cls:
        return ["model", label]
    plain = ["class", cls.__module__, cls.__qualname__]
    if _class(*plain[1:]) is not cls:
        raise LookupError("there is nothing of this name")
    return plain


def _plain_scope(evaluator: Evaluator, scope: Scope) -> list[str]:
    plain = ["scope", scope.module.path, scope.name]
    # Of several that have the name one only is found by it.
    if _scope(evaluator, *plain[1:]) is not scope:
        raise LookupError("there is nothing of this name")
    return plain


def _plain_info(evaluator: Evaluator, info: ClassInfo) -> list[Any]:
    if info.live is not None:
        return ["info", _plain_class(evaluator, info.live)]
    if info.scope is None or evaluator.class_of(info.scope) is not info:
        raise LookupError("there is nothing of this name")
    return ["info", _plain_scope(evaluator, info.scope)]


def _found(evaluator: Evaluator, plain: Any) -> Any:
    if isinstance(plain, _PLAIN):
        return plain
    name, *parts = plain
    if name in _READ:
        return _READ[name](evaluator, *parts)
    kind = _KINDS[name]
    names = [each.name for each in fields(kind)]
    return kind(**{each: _found(evaluator, one) for each, one in zip(names, parts, strict=True)})


def _class(module: str, name: str) -> type:
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
    if isinstance(found, type):
        return found
    raise LookupError("there is no class of this name")


def _scope(evaluator: Evaluator, path: str, name: str) -> Scope:
    module = evaluator.project.sources.parsed(path)
    scope = evaluator.project.scope_named(module, name) if module is not None else None
    if scope is None:
        raise LookupError("there is nothing of this name")
    return scope


def _model(evaluator: Evaluator, label: str) -> type[Model]:
    found = evaluator.registry.model(label)
    if found is None:
        raise LookupError("there is nothing of this name")
    return found


def _info(evaluator: Evaluator, plain: Any) -> ClassInfo:
    found = _found(evaluator, plain)
    return evaluator.class_of(found) if isinstance(found, Scope) else evaluator.class_of_live(found)


_READ: Mapping[str, Callable[..., Any]] = {
    "kind": lambda _, text: Kind(text),
    "set": lambda evaluator, *parts: frozenset(_found(evaluator, each) for each in parts),
    "tuple": lambda evaluator, *parts: tuple(_found(evaluator, each) for each in parts),
    "model": _model,
    "class": lambda _, module, name: _class(module, name),
    "scope": _scope,
    "info": _info,
}
