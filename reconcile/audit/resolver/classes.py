"""Classes, by their source and as the running project has them, and where their members stand."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from reconcile.audit.resolver.scopes import Position, Scope
from reconcile.audit.sources import FunctionNode

__all__ = ["ClassInfo", "decorators_of"]


@dataclass(eq=False, kw_only=True)
class ClassInfo:
    """One class. path: module and name. scope: its body, None for a class whose source isn't read. live: as it is imported, if it is."""

    path: str
    scope: Scope | None
    live: type | None
    mro: Sequence[ClassInfo] = field(default=(), repr=False)

    @cached_property
    def attributes(self) -> dict[str, list[tuple[Scope, Position, ast.expr]]]:
        """What its own methods assign to `self.name`."""
        found: dict[str, list[tuple[Scope, Position, ast.expr]]] = {}
        for method in self.scope.children if self.scope else ():
            first = method.first_parameter
            for node in method.statements if first else ():
                for target, value in _targets(node):
                    match target:
                        case ast.Attribute(value=ast.Name(id=name), attr=attribute) if (
                            name == first and value is not None
                        ):
                            found.setdefault(attribute, []).append(
                                (method, method.positions[id(node)], value)
                            )
        return found

    def find(self, name: str) -> Scope | None:
        """The nearest class body of its line that gives the name a value."""
        return next(
            (each.scope for each in self.mro if each.scope is not None and name in each.scope.bindings), None
        )

    def after(self, owner: Scope) -> Sequence[ClassInfo]:
        """The classes that `super()` asks in a method of the class body."""
        for place, each in enumerate(self.mro):
            if each.scope is owner:
                return self.mro[place + 1 :]
        return ()


def _targets(node: ast.stmt) -> Iterator[tuple[ast.expr, ast.expr | None]]:
    """What a statement assigns, each with its value; of several at once pair by pair."""
    targets = (
        node.targets
        if isinstance(node, ast.Assign)
        else [node.target]
        if isinstance(node, ast.AnnAssign)
        else []
    )
    value = getattr(node, "value", None)
    for target in targets:
        if (
            isinstance(target, ast.Tuple)
            and isinstance(value, ast.Tuple)
            and len(target.elts) == len(value.elts)
        ):
            yield from zip(target.elts, value.elts, strict=True)
        else:
            yield target, value


def decorators_of(node: FunctionNode) -> set[str]:
    """The last names of a function's decorators."""
    found = set()
    for each in node.decorator_list:
        inner = each.func if isinstance(each, ast.Call) else each
        found.add(inner.attr if isinstance(inner, ast.Attribute) else getattr(inner, "id", ""))
    return found
