"""The files of a project, the scopes in them, and who calls a function of a name."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from reconcile.audit.resolver.scopes import Position, Scope, read_scopes
from reconcile.audit.sources import Module, Sources, module_name
from reconcile.audit.trail import Asked
from reconcile.audit.walking import children, walk

__all__ = ["CallUse", "NamesInFile", "Project", "calls_in"]

_CALLED = re.compile(rb"\b([A-Za-z_]\w*)\s*\(")
_SPEAKING = (ast.Name, ast.Attribute, ast.Subscript, ast.Call, ast.NamedExpr)
_DEFINED = re.compile(rb"\bdef\s+([A-Za-z_]\w*)\s*\(")


class CallUse(NamedTuple):
    """One call in the source. within: the whole expression in which it stands, if there are comprehensions or lambdas in that."""

    node: ast.Call
    scope: Scope
    position: Position | None
    within: ast.expr | None

    @property
    def around(self) -> tuple[ast.AST, ...]:
        """The comprehensions and lambdas in which it stands, the outermost first."""
        return _around(self.within, self.node) or () if self.within is not None else ()


class NamesInFile(NamedTuple):
    """Names in the text of one file. called: those before a parenthesis, each once. defined: those of functions, once for each time."""

    called: Sequence[str]
    defined: Sequence[str]


class Project:
    """The files whose source is looked through. Reads each once, and parses only what it is asked for."""

    def __init__(self, sources: Sources, files: Iterable[str]) -> None:
        self.sources = sources
        self.trail = sources.trail
        self.files = list(files)
        self._scopes: dict[str, Scope] = {}
        self._calls: dict[str, Mapping[str, Sequence[CallUse]]] = {}
        self._parts: dict[ast.AST, Sequence[ast.AST]] = {}
        self._names: dict[str, NamesInFile] = {}
        # Who keeps results from run to run knows them of files that are as they were.
        self.names_of_before: Callable[[str], NamesInFile | None] = lambda _: None
        sources.named.update({module_name(each): each for each in self.files})

    def scope(self, module: Module) -> Scope:
        """The scope of a module. Whoever asks notes what he reads of it."""
        if module.path not in self._scopes:
            self._scopes[module.path] = read_scopes(module)
        return self._scopes[module.path]

    def scope_named(self, module: Module, qualified: str) -> Scope | None:
        """The class or function of the qualified name in the module."""
        self.trail.note(Asked.NAMED, f"{module.path}::{qualified.partition('.')[0]}")
        scope: Scope = self.scope(module)
        for part in qualified.split("."):
            if part == "<locals>":
                continue
            found = [each for each in scope.children if getattr(each.node, "name", "") == part]
            if not found:
                return None
            scope = found[-1]
        return scope

    def scope_at(self, module: Module, line: int) -> Scope | None:
        """The function that begins at the line, with its first decorator or its `def`."""
        node = module.function_at(line)
        return (
            next((each for each in self.scope(module).walk() if each.node is node), None)
            if node is not None
            else None
        )

    def calls(self, module: Module) -> Mapping[str, Sequence[CallUse]]:
        """The calls in the module by the last name of what is called."""
        if module.path not in self._calls:
            found: dict[str, list[CallUse]] = defaultdict(list)
            for scope in self.scope(module).walk():
                for use in calls_in(scope):
                    found[called_name(use.node)].append(use)
            self._calls[module.path] = found
        return self._calls[module.path]

    def parts(self, node: ast.AST) -> Sequence[ast.AST]:
        """The names, attributes, items and calls in an expression or statement, itself among them: what it can speak of anything by."""
        if node not in self._parts:
            self._parts[node] = [each for each in walk(node) if isinstance(each, _SPEAKING)]
        return self._parts[node]

    def calls_named(self, name: str) -> Iterator[CallUse]:
        """The calls of anything of the name, in all files."""
        for path in self.files_calling(name):
            yield from self.calls_in_file(path, name)

    def calls_in_file(self, path: str, name: str) -> Sequence[CallUse]:
        """The calls of anything of the name in the file."""
        module = self.sources.parsed(path)
        if module is None:
            return ()
        self.trail.note(Asked.CALLS, f"{module.path}::{name}")
        return self.calls(module).get(name, ())

    def files_calling(self, name: str) -> Sequence[str]:
        """The files in whose text the name stands before a parenthesis."""
        self.trail.note(Asked.CALLED, name)
        return self._by_called.get(name, ())

    @cached_property
    def _by_called(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for path in self.files:
            for name in self.names(path).called:
                found[name].append(path)
        return found

    def names(self, path: str) -> NamesInFile:
        """The names that the text of a file has before parentheses."""
        if path not in self._names:
            self._names[path] = self.names_of_before(path) or _names_in(self._read(path))
        return self._names[path]

    def files_naming(self, word: str) -> Sequence[str]:
        """The files in whose text the word stands anywhere."""
        self.trail.note(Asked.MENTIONED, word)
        return [each for each in self.files if word.encode() in self._read(each)]

    def definitions(self, name: str) -> Sequence[str]:
        """The files that define a function of the name, once for each time."""
        self.trail.note(Asked.DEFINED, name)
        return self._by_defined.get(name, ())

    @cached_property
    def _by_defined(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for path in self.files:
            for name in self.names(path).defined:
                found[name].append(path)
        return found

    def text(self, path: str) -> bytes:
        """The bytes of a file; none where it can't be read."""
        self.trail.note(Asked.FILE, path)
        return self._read(path)

    def _read(self, path: str) -> bytes:
        try:
            return self.sources.read(path)
        except OSError:
            return b""


def _names_in(text: bytes) -> NamesInFile:
    called = sorted(each.decode() for each in {*_CALLED.findall(text)})
    return NamesInFile(called, [each.decode() for each in _DEFINED.findall(text)])


def called_name(node: ast.Call) -> str:
    """The last name of what is called."""
    func = node.func
    return func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")


def calls_in(scope: Scope) -> Iterator[CallUse]:
    """The calls in the statements of the scope itself, those within each other too."""
    for node in scope.statements:
        position = scope.positions[id(node)]
        for expression in _expressions(node):
            found = walk(expression)
            within = expression if any(each.__class__ in _SCOPED for each in found) else None
            for each in found:
                if each.__class__ is ast.Call:
                    yield CallUse(node=each, scope=scope, position=position, within=within)


def _expressions(node: ast.stmt) -> Iterator[ast.expr]:
    """The expressions of a statement, without those of the statements and functions in it."""
    for each in children(node):
        if isinstance(each, ast.expr):
            yield each
        elif isinstance(each, (ast.withitem, ast.keyword, ast.arguments, ast.match_case)):
            yield from (one for one in children(each) if isinstance(one, ast.expr))


_SCOPED = (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp, ast.Lambda)


def _around(expression: ast.AST, call: ast.Call) -> tuple[ast.AST, ...] | None:
    """What of the kind stands around the call in the expression; None if it isn't in there."""
    if expression is call:
        return ()
    own = (expression,) if isinstance(expression, _SCOPED) else ()
    found = (_around(each, call) for each in children(expression))
    return next(((*own, *each) for each in found if each is not None), None)
