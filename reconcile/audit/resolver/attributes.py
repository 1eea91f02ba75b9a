"""What an attribute of something is: of a record, a model, rows, a module, an object; and of what nothing is known of."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from django.db.models import FileField, Model, QuerySet

from reconcile.audit.resolver import conventions, library
from reconcile.audit.resolver.classes import ClassInfo, body_with, decorators_of
from reconcile.audit.resolver.scopes import Frame, How, Scope
from reconcile.audit.resolver.types import (
    NOTHING,
    Api,
    ClassType,
    External,
    FunctionType,
    Historical,
    Instance,
    Many,
    ModelType,
    ModuleType,
    Native,
    Object,
    Rows,
    Super,
    Table,
    Tuple,
    Types,
    native,
    union,
)

if TYPE_CHECKING:
    from reconcile.audit.resolver.evaluator import Evaluator

__all__ = ["TASK", "attribute", "class_behind", "of_node"]

TASK = frozenset({"delay", "apply_async", "delay_on_commit", "enqueue"})
"""Methods by which a task is sent that a function was made into."""


def of_node(evaluator: Evaluator, node: ast.Attribute, frame: Frame) -> Types:
    """What the expression is: by what stands before the dot, or, if nothing is known of that, by the name alone."""
    base = evaluator.of(node.value, frame)
    found = attribute(evaluator, base, node.attr)
    if not found and node.attr == "user" and _ends_with_request(node.value):
        return library.user(evaluator)
    if not found and not any(_is_settled(each) for each in base):
        if evaluator.registry.is_file(node.attr):
            return native("file")
        by_name = evaluator.registry.by_name(node.attr)
        return frozenset({by_name}) if by_name is not None else NOTHING
    return found


def attribute(evaluator: Evaluator, types: Types, name: str) -> Types:
    """What the attribute of any of them is."""
    return union(_attribute_of(evaluator, each, name) for each in types)


def _attribute_of(evaluator: Evaluator, each: Any, name: str) -> Types:
    match each:
        case ModelType():
            return _of_model(evaluator, each, name)
        case Instance():
            return _of_instance(evaluator, each, name)
        case Rows():
            return _of_rows(evaluator, each, name)
        case ClassType(info=info) | Object(info=info):
            return _of_object(evaluator, each, info, name)
        case ModuleType(name=module):
            return evaluator.global_of(module, name)
        case External(path=path):
            return frozenset({External(path=f"{path}.{name}")})
        case Super(of=of, after=after):
            return _of_super(evaluator, of, after, name)
        case Historical(label=label):
            return frozenset({Historical(label=_label_behind(evaluator, label, name))})
        case Api(name="_meta", of=of) if name == "model":
            return class_behind(of)
        case Api(name="relation", of=relation) if name == "through" and relation.through is not None:
            return frozenset({ModelType(model=relation.through)})
        case Api(name="_meta") | Many() | Table() | Tuple():
            return frozenset({Api(name=name, of=each)})
        case FunctionType() if name in TASK:
            return frozenset({Api(name=name, of=each)})
        case Native(what=what) if what not in {"field", "request"}:
            return frozenset({Api(name=name, of=each)})
    return NOTHING


def class_behind(each: Any) -> Types:
    """The class of what is known to be one of its instances."""
    match each:
        case Instance(model=model) | ModelType(model=model) | Rows(model=model):
            return frozenset({ModelType(model=model)})
        case Object(info=info):
            return frozenset({ClassType(info=info)})
    return NOTHING


def _of_model(evaluator: Evaluator, each: ModelType, name: str) -> Types:
    model = each.model
    if model._meta.abstract and evaluator.class_of_live(model).find(name) is None:
        return union(
            _of_model(evaluator, ModelType(model=one), name)
            for one in evaluator.few(evaluator.registry.concrete(model))
        )
    managers = evaluator.registry.managers_by_name(model)
    if name in managers:
        return frozenset({evaluator.registry.rows(managers[name])})
    relation = evaluator.registry.to_many(model, name)
    if relation is not None:
        return frozenset({Api(name="relation", of=relation)})
    if name in {"_meta", "save", "delete", "save_base", "from_db"} and not evaluator.class_of_live(
        model
    ).find(name):
        return frozenset({Api(name=name, of=each)})
    return _member(evaluator, evaluator.class_of_live(model), name, each)


def _of_instance(evaluator: Evaluator, each: Instance, name: str) -> Types:
    model = each.model
    if name == "__class__":
        return frozenset({ModelType(model=model)})
    if name == "_meta":
        return frozenset({Api(name=name, of=each)})
    target = evaluator.registry.to_one(model, name)
    if target is not None:
        return frozenset({Instance(model=target, by_name=each.by_name)})
    relation = evaluator.registry.to_many(model, name)
    if relation is not None:
        return frozenset(
            {replace(evaluator.registry.default_rows(relation.target, relation), by_name=each.by_name)}
        )
    if name in evaluator.registry.columns(model):
        column = model._meta.get_field(evaluator.registry.columns(model)[name])
        return native("file" if isinstance(column, FileField) else "field")
    info = evaluator.class_of_live(model)
    found = _member(evaluator, info, name, each) or _assigned(evaluator, info, name)
    return found or (frozenset({Api(name=name, of=each)}) if hasattr(Model, name) else NOTHING)


def _of_rows(evaluator: Evaluator, each: Rows, name: str) -> Types:
    if name == "model":
        return frozenset({ModelType(model=each.model)})
    if name == "through" and each.relation is not None and each.relation.through is not None:
        return frozenset({ModelType(model=each.relation.through)})
    if name == "instance" and each.relation is not None:
        return frozenset({Instance(model=each.relation.owner)})
    api = frozenset({Api(name=name, of=each)})
    for live in (each.manager, each.queryset):
        if live is not None and not _is_alias(evaluator.class_of_live(live), name):
            found = _member(evaluator, evaluator.class_of_live(live), name, each)
            if found:
                # A method of the project's in place of Django's gives what that gives, if nothing more is known of it.
                return found | api if name in library.OF_ROWS else found
    return api


def _is_alias(info: ClassInfo, name: str) -> bool:
    """Whether a class of rows only gives one of Django's methods another function, which most often refuses what isn't allowed there."""
    scope = info.find(name)
    return scope is not None and hasattr(QuerySet, name) and scope.bindings[name][-1].how is How.VALUE


def _of_object(evaluator: Evaluator, each: Any, info: ClassInfo, name: str) -> Types:
    if name == "__class__" and isinstance(each, Object):
        return frozenset({ClassType(info=info)})
    found = _member(evaluator, info, name, each)
    if isinstance(each, Object):
        found |= _assigned(evaluator, info, name)
    return (
        found
        or conventions.attribute(evaluator, info, name)
        or (frozenset({Api(name=name, of=each)}) if info.find(name) is None else NOTHING)
    )


def _assigned(evaluator: Evaluator, info: ClassInfo, name: str) -> Types:
    return evaluator.once(("assigned", info, name), lambda: union(
        evaluator.of(value, Frame(scope, at)) for scope, at, value in evaluator.assigned(info, name)
    ))  # fmt: skip


def _of_super(evaluator: Evaluator, of: Any, after: Scope, name: str) -> Types:
    info = _info_of(evaluator, of)
    body = body_with(info.after(after), name) if info else None
    if body is not None:
        return _member_in(evaluator, body, name, of)
    if isinstance(of, Object):
        return conventions.attribute(evaluator, of.info, name) or frozenset({Api(name=name, of=of)})
    return frozenset({Api(name=name, of=of)})


def _info_of(evaluator: Evaluator, of: Any) -> ClassInfo | None:
    match of:
        case Instance(model=model) | ModelType(model=model):
            return evaluator.class_of_live(model)
        case Rows(manager=manager, queryset=queryset):
            live = manager or queryset
            return evaluator.class_of_live(live) if live else None
        case Object(info=info) | ClassType(info=info):
            return info
    return None


def _member(evaluator: Evaluator, info: ClassInfo, name: str, bound: Any) -> Types:
    scope = info.find(name)
    return _member_in(evaluator, scope, name, bound) if scope is not None else NOTHING


def _member_in(evaluator: Evaluator, scope: Scope, name: str, bound: Any) -> Types:
    *_, last = scope.bindings[name]
    if last.how is How.FUNCTION:
        return _method(evaluator, scope.by_node[id(last.node)], bound)
    if last.how is How.CLASS:
        return evaluator.bound(last, Frame(scope))
    return union(evaluator.bound(each, Frame(scope)) for each in scope.bindings[name])


def _method(evaluator: Evaluator, scope: Scope, bound: Any) -> Types:
    decorators = decorators_of(scope.function)
    if decorators & {"property", "cached_property"} and not isinstance(bound, ModelType | ClassType):
        return evaluator.returned(scope, ((scope.first_parameter, frozenset({bound})),))
    if "staticmethod" in decorators:
        return evaluator.function(scope)
    if "classmethod" in decorators:
        classes = class_behind(bound) if not isinstance(bound, ClassType | ModelType) else frozenset({bound})
        return union(evaluator.function(scope, each) for each in classes)
    is_class = isinstance(bound, ModelType | ClassType)
    return evaluator.function(scope, None if is_class else bound)


def _ends_with_request(node: ast.expr) -> bool:
    return (isinstance(node, ast.Name) and node.id == "request") or (
        isinstance(node, ast.Attribute) and node.attr == "request"
    )


def _label_behind(evaluator: Evaluator, label: str, name: str) -> str:
    """The model to which an attribute of a migration's model leads; itself where it leads nowhere, as its manager does."""
    model = evaluator.registry.model(label)
    if model is None:
        return label
    one, many = evaluator.registry.to_one(model, name), evaluator.registry.to_many(model, name)
    target = one or (many.target if many else None)
    return target._meta.label if target is not None else label


def _is_settled(each: Any) -> bool:
    """Whether it is known what the object is, so that the name of an attribute says nothing more."""
    return not isinstance(each, Object | Api | Native) or (isinstance(each, Native) and each.what != "field")
