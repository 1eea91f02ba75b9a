"""What the parameters of a function are: by where it stands, by its annotations, by what the framework hands it, and by who calls it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from reconcile.audit.places import innermost
from reconcile.audit.resolver import conventions
from reconcile.audit.resolver.classes import decorators_of
from reconcile.audit.resolver.project import CallUse
from reconcile.audit.resolver.scopes import Frame, Scope
from reconcile.audit.resolver.types import (
    NOTHING,
    ClassType,
    FunctionType,
    Historical,
    Instance,
    ModelType,
    Native,
    Types,
    native,
    union,
)

if TYPE_CHECKING:
    from reconcile.audit.resolver.evaluator import Evaluator

__all__ = ["find_callees", "infer_parameter"]

MOST_CALLERS = 40
"""Calls of a function that are asked for what they hand it; of more, nothing is known."""


def infer_parameter(evaluator: Evaluator, scope: Scope, name: str) -> Types:
    """What the parameter of the function may be, whoever calls it."""
    if name == scope.first_parameter:
        return _self(evaluator, scope)
    node = scope.parameters[name]
    annotated = evaluator.annotation(node.annotation, Frame(scope.parent or scope))
    if annotated:
        return annotated
    found = _received(evaluator, scope, name) or _handed(evaluator, scope, name)
    if found:
        return found
    if name == "apps" and _is_in_migration(scope):
        return frozenset({Historical(label="")})
    return _from_callers(evaluator, scope, name)


def _is_in_migration(scope: Scope) -> bool:
    return ".migrations." in f".{scope.module.name}." or "schema_editor" in scope.parameters


def _self(evaluator: Evaluator, scope: Scope) -> Types:
    """What a method is called on."""
    assert scope.owner is not None
    info = evaluator.class_of(scope.owner)
    is_class = "classmethod" in decorators_of(scope.function) or scope.function.name in {
        "__init_subclass__",
        "__class_getitem__",
        "__new__",
    }
    if not is_class:
        return evaluator.object_of(info)
    found = evaluator.class_type(info)
    return frozenset(
        one
        for each in found
        for one in (
            [ModelType(model=model) for model in evaluator.few(evaluator.registry.concrete(each.model))] if isinstance(each, ModelType) else [each]
        )
    )  # fmt: skip


def _received(evaluator: Evaluator, scope: Scope, name: str) -> Types:
    """What a signal hands to a receiver: the senders that the running project has connected it to, or its decorator names."""
    if name not in {"instance", "sender"}:
        return NOTHING
    senders = evaluator.once(("senders", scope), lambda: _senders(evaluator, scope))
    models = [each.model for each in senders if isinstance(each, ModelType)]
    if name == "sender":
        return frozenset(ModelType(model=each) for each in models)
    return frozenset(
        Instance(model=one) for each in models for one in evaluator.few(evaluator.registry.concrete(each))
    )


def _senders(evaluator: Evaluator, scope: Scope) -> Types:
    live = evaluator.registry.heard_by.get((scope.module.path, scope.name))
    if live:
        return frozenset(ModelType(model=each) for each in live)
    found = NOTHING
    outside = Frame(scope.parent or scope)
    for decorator in scope.function.decorator_list:
        if isinstance(decorator, ast.Call):
            found |= union(
                evaluator.of(each.value, outside) for each in decorator.keywords if each.arg == "sender"
            )
    for use in evaluator.project.calls_named("connect"):
        if (
            use.node.args
            and isinstance(use.node.args[0], ast.Name)
            and use.node.args[0].id == scope.name
            and use.scope.module is scope.module
        ):
            named = [each.value for each in use.node.keywords if each.arg == "sender"] or use.node.args[1:2]
            found |= union(evaluator.of(each, Frame(use.scope, use.position)) for each in named)
    return found | union(evaluator.elements(frozenset({each})) for each in found)


def _handed(evaluator: Evaluator, scope: Scope, name: str) -> Types:
    """What a framework hands to a method or an admin action."""
    if scope.owner is not None:
        found = conventions.given(evaluator, scope, evaluator.class_of(scope.owner), name)
        if found:
            return found
    if name == "request":
        return native("request")
    if name == "queryset" and [*scope.parameters][:1] in (["modeladmin"], ["model_admin"], ["admin"]):
        return _of_action(evaluator, scope)
    return NOTHING


def _of_action(evaluator: Evaluator, scope: Scope) -> Types:
    """The rows that an admin action at the top of a module is given, by the pages that name it."""
    found: set[Any] = set()
    for model, page in evaluator.registry.pages:
        for each in page.actions or ():
            function = innermost(each) if callable(each) else None
            if (
                function is not None
                and function.__qualname__ == scope.name
                and function.__module__ == scope.module.name
            ):
                found.add(evaluator.registry.default_rows(model).narrowed)
    return frozenset(found)


def _from_callers(evaluator: Evaluator, scope: Scope, name: str) -> Types:
    """What the calls of the function hand to the parameter, if it is known of all of them."""
    called = scope.function.name
    if called == "__init__" and scope.owner is not None:
        called = str(getattr(scope.owner.node, "name", ""))
    if called.startswith("__"):
        return NOTHING
    uses = []
    for use in _callers(evaluator, scope, called):
        uses.append(use)
        if len(uses) > MOST_CALLERS:
            return NOTHING
    found: set[Any] = set()
    for use in uses:
        types = _argument(evaluator, use, scope, name)
        if types is None:
            continue
        if not types:
            return NOTHING
        found |= types
    return frozenset(each for each in found if each != Native(what="NoneType"))


def _callers(evaluator: Evaluator, scope: Scope, name: str) -> Iterator[CallUse]:
    """The calls of the name that call this function: what is called is known, or the name is the function's alone."""
    sought = {_path_of(scope), *([""] if evaluator.is_unique(scope) else [])}
    for path in evaluator.project.files_calling(name):
        numbers = {number for number, callee in evaluator.callees(path, name) if callee in sought}
        if numbers:
            uses = evaluator.project.calls_in_file(path, name)
            yield from (uses[each] for each in sorted(numbers))


def find_callees(evaluator: Evaluator, path: str, name: str) -> Types:
    """Pairs of the number of a call of the name in the file and what it calls, `file::function`; of an empty text if nothing is known of it."""
    return frozenset(
        (number, callee)
        for number, use in enumerate(evaluator.project.calls_in_file(path, name))
        for callee in _paths_called(evaluator, use)
    )


def _paths_called(evaluator: Evaluator, use: CallUse) -> Iterator[str]:
    callees = evaluator.of(use.node.func, evaluator.frame(use))
    if not callees:
        yield ""
    for each in callees:
        match each:
            case FunctionType(scope=scope):
                yield _path_of(scope)
            case ClassType(info=info):
                body = info.find("__init__")
                if body is not None:
                    yield f"{_path_of(body)}.__init__"


def _path_of(scope: Scope) -> str:
    return f"{scope.module.path}::{scope.name}"


def _argument(evaluator: Evaluator, use: CallUse, scope: Scope, name: str) -> Types | None:
    """What the call hands to the parameter; None if it leaves it to its default."""
    frame = evaluator.frame(use)
    for each in use.node.keywords:
        if each.arg == name:
            return evaluator.of(each.value, frame)
    names = [*scope.parameters]
    if scope.first_parameter and not _is_unbound(evaluator, use):
        names = names[1:]
    place = names.index(name) if name in names else -1
    if any(isinstance(each, ast.Starred) for each in use.node.args[: place + 1]) or any(
        each.arg is None for each in use.node.keywords
    ):
        return NOTHING
    return evaluator.of(use.node.args[place], frame) if 0 <= place < len(use.node.args) else None


def _is_unbound(evaluator: Evaluator, use: CallUse) -> bool:
    """Whether a method is called on its class, so that its first argument is `self`."""
    func = use.node.func
    if not isinstance(func, ast.Attribute):
        return False
    base = evaluator.of(func.value, evaluator.frame(use))
    return bool(base) and all(isinstance(each, ModelType) for each in base)
