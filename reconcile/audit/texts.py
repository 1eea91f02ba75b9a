"""The texts that an expression may have, where that is proven: what names columns in the source says which columns a call leaves alone.

A model may be told by most of what is known of it; a column may not, since a finding would be lost without a word. So one way that isn't known makes all
of it unknown: a name that is bound twice or changed in place, and a function that anything but a plain call may run.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from math import prod
from typing import Any

from django.db.models import Model

from reconcile.audit.effects import is_third_party
from reconcile.audit.resolver.evaluator import Evaluator
from reconcile.audit.resolver.project import CallUse
from reconcile.audit.resolver.scopes import Scope
from reconcile.audit.resolver.types import Instance, Object, Super
from reconcile.audit.syntax import defaults_of
from reconcile.audit.walking import walk

__all__ = ["Texts", "only_value"]

MOST_WAYS = 10
"""Texts that are told apart; of more, nothing is known."""

DEEPEST = 4
"""Callers within each other that are followed."""

Known = frozenset[str]
UNKNOWN: Known = frozenset()

_PLAIN_DECORATORS = frozenset({"atomic", "staticmethod"})


class Texts:
    """Looks for the texts of expressions in one project."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self.project = evaluator.project

    def of(self, node: ast.AST, scope: Scope, depth: int = 0) -> Known:
        """The texts that the expression may have; none, if it may have any other."""
        match node:
            case ast.Constant(value=str() as text):
                return frozenset({text})
            case ast.IfExp(body=body, orelse=other):
                return _all(self.of(each, scope, depth) for each in (body, other))
            case ast.Name(id=name) if scope.is_function:
                return self._of_local(name, scope, depth)
        return UNKNOWN

    def keys_of(self, node: ast.AST, scope: Scope) -> list[frozenset[str]] | None:
        """The keys that a dictionary may have, a set for each way; None if that can't be told."""
        match node:
            case ast.Dict(keys=keys):
                ways = [self.of(each, scope) if each is not None else UNKNOWN for each in keys]
                return _each_way(ways)
            case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords) if all(
                each.arg for each in keywords
            ):
                return [frozenset(str(each.arg) for each in keywords)]
            case ast.Name(id=name):
                value = only_value(name, scope)
                is_whole = value is not None and _is_only_handed_on(name, scope)
                return self.keys_of(value, scope) if value is not None and is_whole else None
        return None

    def among(self, node: ast.AST, scope: Scope) -> Known:
        """The texts in a collection, each of which is there; none, if that can't be told."""
        match node:
            case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements):
                ways = _each_way([self.of(each, scope) for each in elements]) or []
                return ways[0] if len(ways) == 1 else UNKNOWN
            case ast.Name(id=name) if name in scope.bindings and scope.is_function:
                value = only_value(name, scope)
                is_whole = isinstance(value, ast.Tuple) or _is_only_handed_on(name, scope)
                return self.among(value, scope) if value is not None and is_whole else UNKNOWN
            case ast.Name(id=name) if not _is_local(name, scope):
                return self._of_constant(name, scope)
        return UNKNOWN

    def _of_constant(self, name: str, scope: Scope) -> Known:
        """The texts in a collection at the top of a module, as the running project has it."""
        # What it is depends on what the module says and holds.
        self.evaluator.global_of(scope.module.name, name)
        if any(isinstance(each, ast.Global) and name in each.names for each in walk(scope.module.tree)):
            return UNKNOWN
        live: Any = (
            vars(sys.modules[scope.module.name]).get(name) if scope.module.name in sys.modules else None
        )
        if type(live) not in {tuple, frozenset}:
            # Others can be changed from anywhere.
            return UNKNOWN
        return frozenset(live) if all(type(each) is str for each in live) else UNKNOWN

    def _of_local(self, name: str, scope: Scope, depth: int) -> Known:
        if name in scope.parameters:
            return self._of_parameter(name, scope, depth + 1) if _stores(scope)[name] == 1 else UNKNOWN
        value = only_value(name, scope)
        return self.of(value, scope, depth) if value is not None else UNKNOWN

    # Parameters.

    def _of_parameter(self, name: str, scope: Scope, depth: int) -> Known:
        """What the function is handed by all of its callers, if these are all known."""
        if depth > DEEPEST or not _is_plain(scope) or not self._is_alone(scope):
            return UNKNOWN
        uses = [*self.project.calls_named(scope.function.name)]
        if not uses or len(uses) != self._mentions(scope.function.name):
            return UNKNOWN
        return _all(self._handed(use, name, scope, depth) for use in uses)

    def _handed(self, use: CallUse, name: str, scope: Scope, depth: int) -> Known:
        if use.around or not self._is_method_call(use, scope):
            return UNKNOWN
        argument, where = _argument(use, name, scope)
        return self.of(argument, where, depth) if argument is not None else UNKNOWN

    def _is_method_call(self, use: CallUse, scope: Scope) -> bool:
        """Whether a method is called on an object, so that its arguments begin after the first parameter."""
        if scope.owner is None:
            return True
        func = use.node.func
        if not isinstance(func, ast.Attribute):
            return False
        base = self.evaluator.of(func.value, self.evaluator.frame(use))
        return bool(base) and all(isinstance(each, Instance | Object | Super) for each in base)

    def _is_alone(self, scope: Scope) -> bool:
        """Whether no other function has the name, and no framework may call it: as that of a base class, or by its name, as views and visitors do."""
        if not self.evaluator.is_unique(scope):
            return False
        if scope.owner is None:
            return True
        live = self.evaluator.class_of(scope.owner).live
        if live is None:
            node: Any = scope.owner.node
            return not (node.bases or node.keywords or node.decorator_list)
        return all(map(_is_of_project, live.__mro__)) and [
            each for each in live.__mro__ if scope.function.name in vars(each)
        ] == [live]

    def _mentions(self, name: str) -> int:
        """How often anything of the name is called; -1 if it is spoken of in any other way, as by who hands it on, or looks it up."""
        found = 0
        word = re.compile(rb"\b" + name.encode() + rb"\b")
        for path in self.project.files_naming(name):
            module = self.project.sources.of_file(path)
            if module is None:
                return -1
            calls = [each for each in walk(module.tree) if isinstance(each, ast.Call)]
            called = {id(each.func) for each in calls}
            for each in walk(module.tree):
                if _speaks_of(each, name, word):
                    if id(each) not in called:
                        return -1
                    found += 1
        return found


def _is_of_project(cls: type) -> bool:
    """Whether the class is the project's, or calls none of its methods by a name that it puts together."""
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None)
    return cls in {object, *Model.__mro__} or (file is not None and not is_third_party(file))


def _speaks_of(node: ast.AST, name: str, word: re.Pattern[bytes]) -> bool:
    match node:
        case ast.Attribute(attr=found) | ast.Name(id=found):
            return found == name
        case ast.Constant(value=str() as text):
            # A sentence may speak of it; a path, a name or a line of code is looked up or run.
            return (" " not in text.strip() or "(" in text) and bool(word.search(text.encode()))
        case ast.ImportFrom(names=names) | ast.Import(names=names):
            return any(each.name == name and each.asname not in {None, name} for each in names)
    return False


def _all(ways: Iterable[Known]) -> Known:
    """The texts of all ways; none if one of them is unknown, or there are too many."""
    known = [*ways]
    together = frozenset[str]().union(*known)
    return together if all(known) and len(together) <= MOST_WAYS else UNKNOWN


def _each_way(texts: Sequence[Known]) -> list[frozenset[str]] | None:
    """What there is together, for each way; None if one of them is unknown, or there are too many."""
    if not all(texts) or prod(map(len, texts)) > MOST_WAYS:
        return None
    return [*dict.fromkeys(frozenset(each) for each in product(*map(sorted, texts)))]


# Names.


def _stores(scope: Scope) -> Counter[str]:
    """How often each name is bound or taken away anywhere in the function, those of functions and comprehensions in it among them."""
    return Counter(_bound_in(scope.node))


def _bound_in(node: ast.AST) -> Iterator[str]:
    for each in walk(node):
        match each:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
                yield name
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                yield from names
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() if each is not node:
                yield each.name
            case ast.ExceptHandler(name=str() as name) | ast.MatchAs(name=str() as name):
                yield name
            case ast.MatchStar(name=str() as name) | ast.MatchMapping(rest=str() as name):
                yield name
            case ast.alias():
                yield (each.asname or each.name).partition(".")[0]


def only_value(name: str, scope: Scope) -> ast.expr | None:
    """The only expression that the name of a function ever holds, and that no other name is given with it; None if there may be others."""
    if not scope.is_function or name in scope.parameters or _stores(scope)[name] != 1:
        return None
    for each in scope.statements:
        match each:
            case (
                ast.Assign(targets=[ast.Name(id=found)], value=value)
                | ast.AnnAssign(target=ast.Name(id=found), value=ast.expr() as value)
            ) if found == name:
                return value
    return None


def _is_only_handed_on(name: str, scope: Scope) -> bool:
    """Whether the name is only read as `**name`, which hands on a copy, or by `bulk_update`, so that nothing changes what it holds."""
    nodes = walk(scope.node)
    loads = {id(each) for each in nodes if isinstance(each, ast.Name) and each.id == name and isinstance(each.ctx, ast.Load)}  # fmt: skip
    spread = {id(each.value) for each in nodes if isinstance(each, ast.keyword) and each.arg is None}
    fields = {id(each) for node in nodes if isinstance(node, ast.Call) and _is_of_rows(node) for each in _handed_to(node)}  # fmt: skip
    return loads <= spread | fields


def _is_of_rows(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Attribute) and node.func.attr in {"bulk_update", "abulk_update"}


def _handed_to(node: ast.Call) -> list[ast.expr]:
    return [*node.args, *(each.value for each in node.keywords)]


def _is_local(name: str, scope: Scope) -> bool:
    """Whether a function around the use binds the name."""
    around: Scope | None = scope
    while around is not None and around.parent is not None:
        if name in around.bindings or name in around.parameters or _stores(around)[name]:
            return True
        around = around.parent
    return False


# Functions and calls.


def _is_plain(scope: Scope) -> bool:
    """Whether a function runs where it is called alone, with what it is handed there."""
    name = scope.function.name
    return not name.startswith("__") and all(map(_is_plain_decorator, scope.function.decorator_list))


def _is_plain_decorator(node: ast.expr) -> bool:
    inner = node.func if isinstance(node, ast.Call) else node
    return (inner.attr if isinstance(inner, ast.Attribute) else getattr(inner, "id", "")) in _PLAIN_DECORATORS


def _argument(use: CallUse, name: str, scope: Scope) -> tuple[ast.expr | None, Scope]:
    """What the call hands to the parameter, an argument of its own or the default, and where that stands; None where it can't be told."""
    node = use.node
    if any(isinstance(each, ast.Starred) for each in node.args) or any(each.arg is None for each in node.keywords):  # fmt: skip
        return None, scope
    named = {each.arg: each.value for each in node.keywords}
    if name in named:
        return named[name], use.scope
    positional = [each.arg for each in (*scope.function.args.posonlyargs, *scope.function.args.args)]
    names = positional[1:] if scope.first_parameter else positional
    if name in names and names.index(name) < len(node.args):
        return node.args[names.index(name)], use.scope
    return defaults_of(scope).get(name), scope.parent or scope
