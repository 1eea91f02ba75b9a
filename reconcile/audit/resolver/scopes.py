"""Where names get their values in a function, a class body or a module, and which of these a use of the name can see."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

from reconcile.audit.sources import FunctionNode, Module, imported_by
from reconcile.audit.trail import Asked, Thing
from reconcile.audit.walking import captured_by, walk

__all__ = ["Binding", "Frame", "How", "Position", "Scope", "names_in", "parameters_of"]

Path = tuple[tuple[int, int], ...]
ScopeNode = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

_MOST_TEXT = 100

GROWING = frozenset({"append", "add", "insert", "extend", "appendleft", "setdefault"})
"""Methods by which a collection gets what it holds."""


class How(StrEnum):
    """How a binding makes the value of a name out of its expression."""

    VALUE = "value"
    ELEMENT = "element"
    ENTERED = "entered"
    ADDED = "added"
    EXTENDED = "extended"
    STORED = "stored"
    NARROWED = "narrowed"
    ANNOTATED = "annotated"
    FUNCTION = "function"
    CLASS = "class"
    IMPORT = "import"


class Position(NamedTuple):
    """A statement's place. order: its number in the scope. path: the blocks around it, each with the place in it."""

    order: int
    path: Path


class Binding(NamedTuple):
    """One place where a name gets a value. unpack: the places in tuples that lead to the name. header: it holds within its own statement's blocks.

    origin: of an import, the module and the name in it, or None for the module itself.
    """

    position: Position
    how: How
    node: ast.AST
    unpack: tuple[int, ...] = ()
    header: bool = False
    origin: tuple[str, str | None] = ("", None)


@dataclass(eq=False, kw_only=True, repr=False)
class Scope:
    """A function, class body or module. owner: the class in whose body a method stands."""

    module: Module
    node: ScopeNode
    parent: Scope | None = None
    name: str = ""
    bindings: dict[str, list[Binding]] = field(default_factory=dict)
    positions: dict[int, Position] = field(default_factory=dict)
    children: list[Scope] = field(default_factory=list)
    statements: list[ast.stmt] = field(default_factory=list)
    exclusive: set[int] = field(default_factory=set)
    _behind: dict[str, frozenset[str]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Scope {self.module.name}:{self.name}>"

    @cached_property
    def thing(self) -> Thing | None:
        """What whoever reads a function, or asks a class for a member, depends on. Of a module it depends on what is asked."""
        if self.parent is None:
            return None
        return (Asked.PART if self.is_function else Asked.BODY), f"{self.module.path}::{self.name}"

    @property
    def is_function(self) -> bool:
        """Whether it is a function."""
        return isinstance(self.node, FunctionNode)

    @property
    def owner(self) -> Scope | None:
        """The class body that it is a method of."""
        return self.parent if self.parent is not None and isinstance(self.parent.node, ast.ClassDef) else None

    @property
    def function(self) -> FunctionNode:
        """The node of a function."""
        assert isinstance(self.node, FunctionNode)
        return self.node

    @cached_property
    def parameters(self) -> dict[str, ast.arg]:
        """The arguments by name, without those that take the rest."""
        return {each.arg: each for each in parameters_of(self.function)} if self.is_function else {}

    @cached_property
    def first_parameter(self) -> str:
        """The name of what a method is called on; empty for a static method or no method."""
        if self.owner is None or not self.is_function:
            return ""
        if any(
            isinstance(each, ast.Name) and each.id == "staticmethod" for each in self.function.decorator_list
        ):
            return ""
        return next(iter(self.parameters), "")

    @cached_property
    def texts(self) -> frozenset[str]:
        """The parts between double underscores of the short texts that it hands to calls, as in `Sum("items__price")`."""
        calls = (each for each in walk(self.node) if isinstance(each, ast.Call))
        handed = (
            one
            for each in calls
            for one in (*each.args, *(key.value for key in each.keywords if key.arg != "update_fields"))
        )
        found = (
            one
            for each in handed
            for one in (each.elts if isinstance(each, ast.List | ast.Tuple) else [each])
        )
        texts = (
            each.value for each in found if isinstance(each, ast.Constant) and isinstance(each.value, str)
        )
        return frozenset(part for text in texts if len(text) <= _MOST_TEXT for part in text.split("__"))

    @cached_property
    def mentions(self) -> frozenset[str]:
        """The names of attributes and of arguments by name in it, in parts as `texts`."""
        found = (
            each.attr if isinstance(each, ast.Attribute) else each.arg or ""
            for each in walk(self.node)
            if isinstance(each, ast.Attribute | ast.keyword)
        )
        return frozenset(part for name in found for part in name.split("__"))

    def behind(self, name: str) -> frozenset[str]:
        """The parameters on which it may depend what the name holds: itself, and those in what it is bound to."""
        if name not in self._behind:
            found, waiting = {name}, [name]
            while waiting:
                new = self._directly_behind(waiting.pop()) - found
                found |= new
                waiting += new
            self._behind[name] = frozenset(found & {*self.parameters})
        return self._behind[name]

    def _directly_behind(self, name: str) -> frozenset[str]:
        if name == "super":
            return frozenset({self.first_parameter})
        bound = (each.node for each in self.bindings.get(name, ()) if each.how not in _DEFINED)
        return frozenset[str]().union(*map(names_in, bound))

    @cached_property
    def by_node(self) -> dict[int, Scope]:
        """The scopes that begin in this one, by the identity of their nodes."""
        return {id(each.node): each for each in self.children}

    def visible(self, name: str, at: Position | None) -> list[Binding]:
        """The bindings that a use at the position can see: the last that surely ran before, and those between that may have.

        Without a position: all.
        """
        found = self.bindings.get(name, [])
        if at is None or not found:
            return found
        before = [
            each
            for each in found
            if (each.position.order < at.order or (each.header and each.position.order == at.order))
            and not self._excludes(each.position.path, at.path)
        ]
        for number in range(len(before) - 1, -1, -1):
            if _dominates(before[number], at) and before[number].how not in _GROWN:
                return before[number:]
        return before

    def surely(self, name: str, at: Position | None) -> bool:
        """Whether the name surely got a value in this scope before the position."""
        found = self.visible(name, at)
        return bool(found) and (at is None or (_dominates(found[0], at) and found[0].how not in _GROWN))

    def _excludes(self, one: Path, other: Path) -> bool:
        """Whether the two stand in different arms of one `if`."""
        for (block, _), (second, _) in zip(one, other, strict=False):
            if block != second:
                return block in self.exclusive and second in self.exclusive
        return False

    def walk(self) -> Iterator[Scope]:
        """The scope and all in it."""
        yield self
        for each in self.children:
            yield from each.walk()


_DEFINED = frozenset({How.FUNCTION, How.CLASS, How.IMPORT})
_GROWN = frozenset({How.ADDED, How.EXTENDED, How.STORED})


def _dominates(binding: Binding, at: Position) -> bool:
    path, use = binding.position.path, at.path
    if len(path) > len(use) or path[:-1] != use[: len(path) - 1]:
        return False
    (block, index), (other, place) = path[-1], use[len(path) - 1]
    return block == other and (index < place or (index == place and binding.header))


class Frame(NamedTuple):
    """Where an expression is evaluated. given: the arguments of the call that is followed. inner: the names of comprehensions around it."""

    scope: Scope
    at: Position | None = None
    given: tuple[tuple[str, frozenset[Any]], ...] = ()
    inner: tuple[tuple[str, frozenset[Any]], ...] = ()


def parameters_of(node: FunctionNode | ast.Lambda) -> list[ast.arg]:
    """The arguments in their order, without those that take the rest."""
    return [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]


def names_in(node: ast.AST) -> frozenset[str]:
    """The names in an expression."""
    return frozenset(each.id for each in walk(node) if each.__class__ is ast.Name)


def read_scopes(module: Module) -> Scope:
    """The scope of the module, with those of its functions and classes in it."""
    return _Reader(Scope(module=module, node=module.tree)).read()


_BINDS_NOTHING = frozenset({ast.Return, ast.Raise, ast.Pass, ast.Break, ast.Continue, ast.Delete, ast.Global, ast.Nonlocal})  # fmt: skip


class _Reader:
    """Walks through the statements of one scope in their order."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.order = 0
        self.blocks = 0

    def read(self) -> Scope:
        body = self.scope.node.body
        self._block(body, ())
        return self.scope

    def _block(self, body: Sequence[ast.stmt], path: Path, *, exclusive: bool = False) -> None:
        self.blocks += 1
        block = self.blocks
        if exclusive:
            self.scope.exclusive.add(block)
        for index, node in enumerate(body):
            self.order += 1
            position = Position(order=self.order, path=(*path, (block, index)))
            self.scope.positions[id(node)] = position
            self.scope.statements.append(node)
            if node.__class__ not in _BINDS_NOTHING:
                self._statement(node, position)

    def _bind(self, name: str, how: How, node: ast.AST, position: Position, **options: object) -> None:
        binding = Binding(position=position, how=how, node=node, **options)  # type: ignore[arg-type]
        self.scope.bindings.setdefault(name, []).append(binding)

    def _target(
        self, target: ast.expr, how: How, node: ast.AST, position: Position, unpack: tuple[int, ...] = (), *, header: bool = False
    ) -> None:  # fmt: skip
        if isinstance(target, ast.Name):
            self._bind(target.id, how, node, position, unpack=unpack, header=header)
        elif isinstance(target, (ast.Tuple, ast.List)):
            for place, each in enumerate(target.elts):
                self._target(each, how, node, position, (*unpack, place), header=header)
        elif isinstance(target, ast.Starred):
            # What is left over is a list of what nobody looks into.
            self._target(target.value, How.VALUE, ast.Pass(), position, header=header)
        elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name) and how is How.VALUE:
            self._bind(target.value.id, How.STORED, node, position)

    def _statement(self, node: ast.stmt, position: Position) -> None:
        match node:
            case ast.Assign():
                for target in node.targets:
                    self._target(target, How.VALUE, node.value, position)
            case ast.Expr():
                self._growing(node.value, position)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                self._definition(node, position)
            case ast.AnnAssign():
                self._target(node.target, How.ANNOTATED, node, position)
            case ast.AugAssign(target=ast.Name(id=name)):
                self._bind(name, How.EXTENDED, node.value, position)
            case ast.Import() | ast.ImportFrom():
                for name, origin in imported_by(self.scope.module, node).items():
                    self._bind(name, How.IMPORT, node, position, origin=origin)
            case ast.Assert():
                self._narrow(node.test, position, header=False)
            case _:
                self._compound(node, position)

    def _growing(self, expression: ast.expr, position: Position) -> None:
        """`names.append(name)` says what a collection holds."""
        match expression:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method), args=[*_, last]):
                if method in GROWING:
                    self._bind(name, How.EXTENDED if method == "extend" else How.ADDED, last, position)

    def _definition(self, node: FunctionNode | ast.ClassDef, position: Position) -> None:
        how = How.CLASS if isinstance(node, ast.ClassDef) else How.FUNCTION
        self._bind(node.name, how, node, position)
        name = f"{self.scope.name}.{node.name}" if self.scope.name else node.name
        if self.scope.is_function:
            name = f"{self.scope.name}.<locals>.{node.name}"
        child = Scope(module=self.scope.module, node=node, parent=self.scope, name=name)
        self.scope.children.append(child)
        _Reader(child).read()

    def _compound(self, node: ast.stmt, position: Position) -> None:
        match node:
            case ast.For() | ast.AsyncFor():
                self._target(node.target, How.ELEMENT, node.iter, position, header=True)
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    if item.optional_vars is not None:
                        self._target(
                            item.optional_vars, How.ENTERED, item.context_expr, position, header=True
                        )
            case ast.If():
                self._if(node, position)
                return
            case ast.While():
                self._walrus(node.test, position)
            case ast.Match():
                for case in node.cases:
                    for name in captured_by(case.pattern):
                        self._bind(name, How.VALUE, ast.Pass(), position)
                    self._block(case.body, position.path, exclusive=True)
                return
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if block:
                self._block(block, position.path)
        for handler in getattr(node, "handlers", ()):
            self._block(handler.body, position.path)

    def _if(self, node: ast.If, position: Position) -> None:
        self._walrus(node.test, position)
        inside = Position(order=position.order, path=(*position.path, (self.blocks + 1, -1)))
        self._narrow(node.test, inside, header=False)
        self._block(node.body, position.path, exclusive=True)
        if node.orelse:
            self._block(node.orelse, position.path, exclusive=True)
        negated = (
            node.test.operand
            if isinstance(node.test, ast.UnaryOp) and isinstance(node.test.op, ast.Not)
            else None
        )
        if negated is not None and isinstance(node.body[-1], ast.Return | ast.Raise | ast.Continue):
            self._narrow(negated, position, header=False)

    def _narrow(self, test: ast.expr, position: Position, *, header: bool) -> None:
        """`isinstance(name, Class)` in a condition says what the name is below it."""
        tests = test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) else [test]
        for each in tests:
            match each:
                case ast.Call(func=ast.Name(id="isinstance"), args=[ast.Name(id=name), classes]):
                    self._bind(name, How.NARROWED, classes, position, header=header)

    def _walrus(self, test: ast.expr, position: Position) -> None:
        for each in walk(test):
            if isinstance(each, ast.NamedExpr):
                self._target(each.target, How.VALUE, each.value, position, header=True)
