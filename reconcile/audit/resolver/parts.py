"""What stands at one place of a file: it is the same while nothing there has changed, wherever in the file it has moved."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from reconcile.audit.resolver.project import Project
from reconcile.audit.resolver.scopes import How, Scope
from reconcile.audit.sources import FunctionNode, Module
from reconcile.audit.trail import Asked

__all__ = ["Parts"]


class Parts:
    """Tells what stands at places of a project's files. Reads each file once."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._scopes: dict[str, dict[str, list[Scope]]] = {}

    def at(self, asked: Asked, name: str) -> list[str]:
        """The texts of what is asked, `file::name`; nothing of a file that can't be read."""
        path, _, inside = name.partition("::")
        module = self.project.sources.parsed(path)
        if module is None:
            return []
        lines = _lines(self.project.text(module.path))
        match asked:
            case Asked.PART:
                return [_text(each.node, lines) for each in self._named(module, inside)]
            case Asked.BODY:
                return [one for each in self._named(module, inside) for one in _body(each.node, lines)]
            case Asked.NAMED:
                return [*_bindings(self.project.scope(module), inside, lines)]
        uses = self.project.calls(module).get(inside, ())
        return [f"{each.scope.name}: {_text(each.node, lines)}" for each in uses]

    def _named(self, module: Module, name: str) -> Sequence[Scope]:
        """The functions and classes of the qualified name; there are several of a property with a setter."""
        if module.path not in self._scopes:
            found: dict[str, list[Scope]] = {}
            for each in self.project.scope(module).walk():
                found.setdefault(each.name, []).append(each)
            self._scopes[module.path] = found
        return self._scopes[module.path].get(name, ())


@cache
def _lines(text: bytes) -> list[bytes]:
    return text.splitlines(keepends=True)


def _first_line(node: Any) -> int:
    """The line of its first decorator or, without one, its own, from 0."""
    decorators = getattr(node, "decorator_list", ())
    first: int = min([node.lineno, *(each.lineno for each in decorators)])
    return first - 1


def _between(lines: Sequence[bytes], first: int, end: int) -> str:
    return b"".join(lines[first:end]).decode(errors="replace")


def _text(node: Any, lines: Sequence[bytes]) -> str:
    return _between(lines, _first_line(node), node.end_lineno)


def _body(node: Any, lines: Sequence[bytes]) -> Iterator[str]:
    """A class without what its functions do."""
    body: list[ast.stmt] = node.body
    yield _between(lines, _first_line(node), _first_line(body[0]))
    for each in body:
        if isinstance(each, FunctionNode):
            yield _between(lines, _first_line(each), max(each.lineno, _first_line(each.body[0])))
        elif isinstance(each, ast.ClassDef):
            yield from _body(each, lines)
        else:
            yield _text(each, lines)


def _bindings(scope: Scope, name: str, lines: Sequence[bytes]) -> Iterator[str]:
    """What gives a module's name its value; where nothing does, what else it may come from."""
    for each in scope.bindings.get(name, ()):
        is_definition = each.how in {How.FUNCTION, How.CLASS}
        yield f"{each.how} {each.unpack} {each.origin} {'' if is_definition else _text(each.node, lines)}"
    yield f"{scope.module.imports.get(name)} {scope.module.stars}"
