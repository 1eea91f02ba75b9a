"""Classes, by their source and as the running project has them, and where their members stand."""

from __future__ import annotations

import ast
import sys
from abc import ABCMeta
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from reconcile.audit.effects import is_third_party
from reconcile.audit.resolver.live import FOREIGN
from reconcile.audit.resolver.scopes import Frame, Position, Scope
from reconcile.audit.resolver.types import ClassType, External, ModelType
from reconcile.audit.sources import FunctionNode
from reconcile.audit.trail import Asked, Thing

if TYPE_CHECKING:
    from reconcile.audit.resolver.evaluator import Evaluator

__all__ = ["Assigned", "ClassInfo", "body_with", "decorators_of", "line_of", "live_class", "read_live_class"]

Assigned = tuple[Scope, Position, ast.expr]


@dataclass(eq=False, kw_only=True)
class ClassInfo:
    """One class. path: module and name. body: reads its body; None for a class whose source isn't read. live: as it is imported, if it is.

    file, text: where a package's class stands, and what stands there: its body is read only where the text and the live class say that it tells
    something.
    """

    path: str
    body: Callable[[], Scope | None]
    live: type | None
    file: str = ""
    text: bytes | None = field(default=None, repr=False)
    mro: Sequence[ClassInfo] = field(default=(), repr=False)

    @cached_property
    def scope(self) -> Scope | None:
        """Its body, if its source is read."""
        return self.body()

    @cached_property
    def thing(self) -> Thing | None:
        """What whoever asks the class for a member depends on."""
        if self.text is not None:
            return Asked.FILE, self.file
        return self.scope.thing if self.scope is not None else None

    def attributes_named(self, name: str) -> Sequence[Assigned]:
        """What its own methods assign to `self.name`."""
        is_told = self.text is None or f".{name}".encode() in self.text
        return self.attributes.get(name, ()) if is_told else ()

    @cached_property
    def attributes(self) -> dict[str, list[Assigned]]:
        """What its own methods assign to `self.name`, by the name."""
        found: dict[str, list[Assigned]] = {}
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
        return body_with(self.mro, name)

    def may_bind(self, name: str) -> bool:
        """Whether its body may give the name a value, as far as that is known without reading it."""
        if self.text is None:
            return True
        own = vars(self.live)
        return name in own or name in own.get("__annotations__", ())

    def after(self, owner: Scope) -> Sequence[ClassInfo]:
        """The classes that `super()` asks in a method of the class body."""
        for place, each in enumerate(self.mro):
            if each.path == f"{owner.module.name}.{owner.name}" and each.scope is owner:
                return self.mro[place + 1 :]
        return ()


def body_with(classes: Sequence[ClassInfo], name: str) -> Scope | None:
    """The first body of the classes that gives the name a value."""
    bodies = (each.scope for each in classes if each.may_bind(name))
    return next((each for each in bodies if each is not None and name in each.bindings), None)


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


def line_of(evaluator: Evaluator, info: ClassInfo, scope: Scope) -> Sequence[ClassInfo]:
    """The class and what it inherits from, by its source: in the order in which members are looked up."""
    found = [info]
    assert scope.parent is not None
    node: Any = scope.node
    for base in node.bases:
        for each in evaluator.of(base, Frame(scope.parent, scope.parent.positions.get(id(node)))):
            found += [one for one in _class_behind(evaluator, each).mro if one not in found]
    return found


def _class_behind(evaluator: Evaluator, each: Any) -> ClassInfo:
    match each:
        case ClassType(info=info):
            return info
        case ModelType(model=model):
            return evaluator.class_of_live(model)
        case External(path=path):
            return _external_class(evaluator, path)
    return ClassInfo(path="", body=_unread, live=None)


def _external_class(evaluator: Evaluator, path: str) -> ClassInfo:
    module, _, name = path.rpartition(".")
    evaluator.project.trail.note(Asked.HELD, f"{module}:{name}")
    live = getattr(sys.modules.get(module), name, None)
    if isinstance(live, type):
        return evaluator.class_of_live(live)
    info = ClassInfo(path=path, body=_unread, live=None)
    info.mro = [info]
    return info


def _unread() -> None:
    """The body of a class whose source isn't read."""


def read_live_class(evaluator: Evaluator, live: type) -> ClassInfo:
    """The class of the running project, and what it inherits from."""
    info = _info_of(evaluator, live)
    trail = evaluator.project.trail
    trail.note(Asked.HELD, f"{live.__module__}:{live.__qualname__.partition('.')[0]}")
    if info.thing is not None:
        trail.note(*info.thing)
    info.mro = [info, *(evaluator.class_of_live(each) for each in live.__mro__[1:-1])]
    return info


def _info_of(evaluator: Evaluator, live: type) -> ClassInfo:
    path = f"{live.__module__}.{live.__qualname__}"
    if live.__module__.partition(".")[0] in FOREIGN:
        return ClassInfo(path=path, body=_unread, live=live)
    project = evaluator.project

    def read() -> Scope | None:
        module = project.sources.of_module(live.__module__)
        return project.scope_named(module, live.__qualname__) if module else None

    file = project.sources.file_of(live.__module__)
    # A metaclass may take names out of the class that its body has.
    if file and type(live) in {type, ABCMeta} and is_third_party(file):
        return ClassInfo(path=path, body=read, live=live, file=file, text=project.text(file))
    scope = read()
    return ClassInfo(path=path, body=lambda: scope, live=live)


def live_class(scope: Scope) -> type | None:
    """The class of the running project whose body it is."""
    found: Any = sys.modules.get(scope.module.name)
    for part in scope.name.split("."):
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
    return found if isinstance(found, type) and found.__module__ == scope.module.name else None
