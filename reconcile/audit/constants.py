"""The values that an expression may have, where they are plain ones: texts, whole numbers, truth and None, each as Python writes it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from itertools import product
from math import prod
from typing import Any

from reconcile.audit.resolver.evaluator import Evaluator
from reconcile.audit.resolver.project import CallUse
from reconcile.audit.resolver.scopes import Binding, Frame, How, Scope
from reconcile.audit.resolver.types import (
    NOTHING,
    ClassType,
    FunctionType,
    Instance,
    ModelType,
    ModuleType,
    Native,
    Types,
)
from reconcile.audit.sources import Module
from reconcile.audit.syntax import tail_of
from reconcile.audit.trail import Asked

__all__ = ["UNKNOWN", "Constants", "Values", "written"]

Values = frozenset[str]
"""What may be there, as Python writes it. None of them: nothing is known."""

UNKNOWN: Values = frozenset()

MOST_VALUES = 60
"""Values that are told apart; of more, nothing is known."""

MOST_CALLERS = 10
DEEPEST = 4
"""Callers within each other, and imports of imports, that are followed."""

_ABSENT = object()
_PLAIN_DECORATORS = frozenset({"atomic", "classmethod", "staticmethod"})


def written(value: Any) -> str:
    """The value as Python writes it; empty if it is no plain one."""
    if isinstance(value, Enum):
        value = value.value
    return repr(value) if value is None or type(value) in {str, int, bool} else ""


class Constants:
    """Looks up the values of expressions: in the source, and of what stands outside of functions in the running project.

    asks_callers: it asks the calls of a function what they hand to its parameters. A result then depends on all files with such calls.
    """

    def __init__(self, evaluator: Evaluator, *, asks_callers: bool = False) -> None:
        self.evaluator = evaluator
        self.asks_callers = asks_callers
        self._depth = 0

    def of(self, node: ast.expr | None, frame: Frame) -> Values:
        """The values that the expression may have."""
        self.evaluator.read(frame.scope)
        match node:
            case ast.Constant(value=value):
                return _known([written(value)])
            case ast.JoinedStr(values=parts):
                return self._joined(parts, frame)
            case ast.IfExp(body=one, orelse=other):
                return _all([self.of(one, frame), self.of(other, frame)])
            case ast.Name(id=name):
                return self._of_name(name, frame)
            case ast.Attribute(value=base, attr=attr):
                return _all([_plain(each) for each in self._attributes(base, attr, frame)])
        return UNKNOWN

    def frame(self, use: CallUse) -> Frame:
        """The frame of a call, in which nothing is known of the names of comprehensions around it."""
        frame = self.evaluator.frame(use)
        return frame._replace(inner=tuple((name, NOTHING) for name, _ in frame.inner))

    def among(self, node: ast.expr, frame: Frame) -> Values:
        """The values in a collection."""
        self.evaluator.read(frame.scope)
        match node:
            case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
                return _all([self.of(each, frame) for each in elements])
            case ast.Name(id=name) if not self._is_local(name, frame.scope):
                return _held(self._global(frame.scope.module.name, name))
            case ast.Attribute(value=base, attr=attr):
                return _all([_held(each) for each in self._attributes(base, attr, frame)])
        return UNKNOWN

    def _joined(self, parts: Sequence[ast.expr], frame: Frame) -> Values:
        """The texts of an f-string whose parts are known, and put in as they are."""
        found = [self.of(_put_in(each), frame) for each in parts]
        if not all(found) or prod(map(len, found)) > MOST_VALUES:
            return UNKNOWN
        return _known(repr("".join(str(ast.literal_eval(one)) for one in each)) for each in product(*found))

    # Names.

    def _of_name(self, name: str, frame: Frame) -> Values:
        for key, types in reversed(frame.inner):
            if key == name:
                return _texts_in(types)
        scope = frame.scope
        if name in scope.bindings and scope.parent is not None:
            found = self._of_bindings(scope.visible(name, frame.at), frame)
            return found if name not in scope.parameters or scope.surely(name, frame.at) else UNKNOWN
        if name in scope.parameters:
            return self._of_parameter(name, frame)
        return UNKNOWN if self._is_local(name, scope) else self._of_global(name, frame)

    def _of_global(self, name: str, frame: Frame) -> Values:
        """What a module's name holds in the running project; in the source, if that hasn't imported the module."""
        module = frame.scope.module
        if module.name in sys.modules:
            return _plain(self._global(module.name, name))
        scope = self.evaluator.project.scope(module)
        self.evaluator.project.trail.note(Asked.NAMED, f"{module.path}::{name}")
        at = frame.at if frame.scope is scope else None
        return self._of_bindings(scope.visible(name, at), Frame(scope, at))

    def _of_bindings(self, bindings: Sequence[Binding], frame: Frame) -> Values:
        return _all([self._bound(each, frame) for each in bindings])

    def _bound(self, binding: Binding, frame: Frame) -> Values:
        """What a binding makes of its name: the value itself, or one of a literal collection that a loop walks through."""
        inside = Frame(frame.scope, binding.position, frame.given)
        if binding.how is How.IMPORT and binding.origin[1] is not None:
            return _plain(self._global(*binding.origin))  # type: ignore[arg-type]
        if binding.unpack or not isinstance(binding.node, ast.expr):
            return UNKNOWN
        if binding.how is How.VALUE:
            return self.of(binding.node, inside)
        return self.among(binding.node, inside) if binding.how is How.ELEMENT else UNKNOWN

    def _of_parameter(self, name: str, frame: Frame) -> Values:
        """What the callers of the function hand to it, if that is known of all."""
        is_given = name in dict(frame.given)
        if is_given or not self.asks_callers or self._depth >= DEEPEST:
            return UNKNOWN
        uses = [*self.callers(frame.scope)]
        if not 0 < len(uses) <= MOST_CALLERS:
            return UNKNOWN
        self._depth += 1
        try:
            return _all([self._handed(each, frame.scope, name) for each in uses])
        finally:
            self._depth -= 1

    def callers(self, scope: Scope) -> Iterator[CallUse]:
        """The calls of a function; none if others have its name, or a decorator may give it other ways to be called."""
        decorators = {tail_of(each).rpartition(".")[2] for each in scope.function.decorator_list}
        if not self.evaluator.is_unique(scope) or decorators - _PLAIN_DECORATORS:
            return
        for use in self.evaluator.project.calls_named(scope.function.name):
            types = self.evaluator.of(use.node.func, self.evaluator.frame(use))
            known = [each.scope for each in types if isinstance(each, FunctionType)]
            if not known or scope in known:
                yield use

    def _handed(self, use: CallUse, scope: Scope, name: str) -> Values:
        frame = self.frame(use)
        for each in use.node.keywords:
            if each.arg == name:
                return self.of(each.value, frame)
        names = [*scope.parameters][1 if scope.first_parameter else 0 :]
        place = names.index(name) if name in names else len(use.node.args)
        is_plain = not any(isinstance(each, ast.Starred) for each in use.node.args)
        return self.of(use.node.args[place], frame) if is_plain and place < len(use.node.args) else UNKNOWN

    def _is_local(self, name: str, scope: Scope) -> bool:
        """Whether a function around gives the name its value."""
        within: Scope | None = scope
        while within is not None and within.parent is not None:
            if name in within.bindings or name in within.parameters:
                return True
            within = within.parent
        return False

    # What stands outside of functions.

    def _global(self, module: str, name: str, depth: int = 0) -> Any:
        """What a module's name holds in the running project. Whoever asks depends on the file that gives it its value."""
        self.evaluator.project.trail.note(Asked.HELD, f"{module}:{name}")
        source = self._whole(module)
        origin = source.imports.get(name) if source is not None else None
        if origin is not None and origin[1] is not None and depth < DEEPEST:
            return self._global(origin[0], origin[1], depth + 1)
        return vars(sys.modules[module]).get(name, _ABSENT) if module in sys.modules else _ABSENT

    def _whole(self, module: str) -> Module | None:
        """The module, all of which tells what its names and classes hold."""
        source = self.evaluator.project.sources.of_module(module)
        return self.evaluator.project.sources.of_file(source.path) if source is not None else None

    def _attributes(self, base: ast.expr, attr: str, frame: Frame) -> list[Any]:
        """What the attribute of a module or class holds, of each that the expression may be."""
        return [self._attribute(each, attr) for each in self.evaluator.of(base, frame)]

    def _attribute(self, of: Any, attr: str) -> Any:
        match of:
            case ModuleType(name=name):
                return self._global(name, attr)
            case ModelType(model=live):
                return self._of_class(live, attr)
            case Instance(model=live) if attr.isupper():
                # A name of another form may be the record's own.
                return self._of_class(live, attr)
            case ClassType(info=info) if info.live is not None:
                return self._of_class(info.live, attr)
        return _ABSENT

    def _of_class(self, live: type, attr: str) -> Any:
        for each in live.__mro__:
            members = getattr(each, "__members__", {}) if issubclass(each, Enum) else vars(each)
            if attr in members:
                self._whole(each.__module__)
                return members[attr]
        return _ABSENT


def _put_in(node: ast.expr) -> ast.expr | None:
    """What a part of an f-string puts in, if it doesn't change its form."""
    match node:
        case ast.FormattedValue(value=value, conversion=-1, format_spec=None):
            return value
    return node if isinstance(node, ast.Constant) else None


def _known(values: Iterable[str]) -> Values:
    """The values, if there are any, all of them are known, and there are not too many."""
    found = frozenset(values)
    return found if "" not in found and len(found) <= MOST_VALUES else UNKNOWN


def _all(found: list[Values]) -> Values:
    """All values of each, if they are known of each."""
    return _known(value for each in found for value in each) if all(found) else UNKNOWN


def _plain(live: Any) -> Values:
    return _known([written(live)])


def _held(live: Any) -> Values:
    """The values in a collection of the running project."""
    return _known(map(written, live)) if type(live) in {list, tuple, set, frozenset} else UNKNOWN


def _texts_in(types: Types) -> Values:
    """The texts that the types say; unknown if one of them says none."""
    return _known(
        repr(each.text) if isinstance(each, Native) and each.text is not None else "" for each in types
    )
