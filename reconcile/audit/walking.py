"""The nodes of a parsed source, in the order of `ast.walk` and several times as fast: fields that hold no statement or expression aren't looked at."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

__all__ = ["blocks", "captured_by", "children", "walk"]

_SKIPPED = frozenset({
    "arg", "asname", "attr", "conversion", "ctx", "id", "is_async", "kind", "kwd_attrs", "level", "module", "op", "ops", "rest", "simple",
    "type_comment", "type_ignores",
})  # fmt: skip
"""Fields that hold texts, numbers, or signs such as `Load` and `Add`."""

_WITHOUT_NODES = frozenset({ast.Constant, ast.Global, ast.MatchSingleton, ast.Nonlocal})
_WITH_GAPS = frozenset({ast.Dict, ast.arguments})
"""Classes of nodes whose lists hold None where something is left out."""


class _Fields(dict[type, tuple[str, ...]]):
    """The fields of each class of nodes in which nodes may stand. A name is a node in `type X = …` alone."""

    def __missing__(self, cls: type[ast.AST]) -> tuple[str, ...]:
        skipped = _SKIPPED if cls.__name__ == "TypeAlias" else _SKIPPED | {"name"}
        found = () if cls in _WITHOUT_NODES else tuple(each for each in cls._fields if each not in skipped)
        self[cls] = found
        return found


_FIELDS = _Fields()


def children(node: ast.AST) -> list[Any]:
    """The nodes directly in the node, in their order."""
    found: list[Any] = []
    for name in _FIELDS[node.__class__]:
        value = getattr(node, name)
        if value.__class__ is list:
            found += value
        elif value is not None:
            found.append(value)
    return [each for each in found if each is not None] if node.__class__ in _WITH_GAPS else found


def walk(node: ast.AST) -> list[Any]:
    """The node and all in it, those nearer to it first."""
    found: list[Any] = [node]
    for each in found:
        if _FIELDS[each.__class__]:
            found += children(each)
    return found


def captured_by(pattern: ast.AST) -> Iterator[str]:
    """The names that a pattern of `match` gives values to."""
    for each in walk(pattern):
        name = getattr(each, "rest", None) or getattr(each, "name", None)
        if name is not None:
            yield name


def blocks(node: ast.AST) -> list[Any]:
    """The statements directly in a statement or module, with the handlers and cases that hold others."""
    found: list[Any] = []
    for name in ("body", "handlers", "cases", "orelse", "finalbody"):
        found += getattr(node, name, ())
    return found
