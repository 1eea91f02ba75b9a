"""What views, forms, serializers and admin pages hand their code by convention: the model that their class names, its rows, and one of them."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from reconcile.audit.resolver.classes import ClassInfo
from reconcile.audit.resolver.scopes import Frame, Scope
from reconcile.audit.resolver.types import (
    NOTHING,
    ClassType,
    Instance,
    ModelType,
    Object,
    Rows,
    Types,
    native,
    union,
)

if TYPE_CHECKING:
    from reconcile.audit.resolver.evaluator import Evaluator

__all__ = ["attribute", "form_of", "given", "method", "models_of", "rows_of"]

RECORD = frozenset({"object", "instance"})
"""Attributes that hold the record that a view, form or serializer is about."""

FORMS = frozenset({"form_class", "form", "serializer_class"})
"""Attributes that name the class of a form, which names the model."""


def models_of(evaluator: Evaluator, info: ClassInfo) -> Types:
    """The model that the class names: by `model`, `Meta.model`, `queryset`, `get_queryset()`, its form's, or the admin's registry."""
    return evaluator.once(("models", info), lambda: _models_of(evaluator, info))


def _models_of(evaluator: Evaluator, info: ClassInfo) -> Types:
    named = _types(evaluator, info, "model")
    meta = _types(evaluator, info, "Meta")
    found = _only_models(named) or _only_models(evaluator.attribute(meta, "model"))
    if found:
        return found
    rows = _types(evaluator, info, "queryset") | _called(evaluator, info, "get_queryset")
    found = frozenset(ModelType(model=each.model) for each in rows if isinstance(each, Rows))
    if found:
        return found
    for name in FORMS:
        for each in _types(evaluator, info, name):
            if (
                isinstance(each, ClassType)
                and each.info is not info
                and (found := models_of(evaluator, each.info))
            ):
                return found
    record = _called(evaluator, info, "get_object")
    return frozenset(
        ModelType(model=each.model) for each in record if isinstance(each, Instance)
    ) or _registered(evaluator, info)


def _types(evaluator: Evaluator, info: ClassInfo, name: str) -> Types:
    """What the body of the class or of one that it inherits from gives the name."""
    scope = info.find(name)
    if scope is None:
        return NOTHING
    return evaluator.attribute(frozenset({ClassType(info=info)}), name)


def _called(evaluator: Evaluator, info: ClassInfo, name: str) -> Types:
    """What the method gives on an instance of the class."""
    scope = info.find(name)
    method_scope = (
        next((each for each in scope.children if getattr(each.node, "name", "") == name), None)
        if scope
        else None
    )
    if method_scope is None or not method_scope.is_function:
        return NOTHING
    return evaluator.returned(method_scope, ((method_scope.first_parameter, frozenset({Object(info=info)})),))


def _only_models(types: Types) -> Types:
    return frozenset(each for each in types if isinstance(each, ModelType))


def _registered(evaluator: Evaluator, info: ClassInfo) -> Types:
    pages = evaluator.registry.pages if info.live is not None else ()
    return frozenset(ModelType(model=model) for model, page in pages if type(page) is info.live)


def rows_of(evaluator: Evaluator, models: Types) -> Types:
    """All rows of the models."""
    return frozenset(
        evaluator.registry.default_rows(each.model).narrowed for each in models if isinstance(each, ModelType)
    )


def _records(models: Types) -> Types:
    return frozenset(Instance(model=each.model) for each in models if isinstance(each, ModelType))


def attribute(evaluator: Evaluator, info: ClassInfo, name: str) -> Types:
    """What a name of the class holds that its framework gives it."""
    if name == "request":
        return native("request")
    if name in {"model"} | RECORD | {"queryset", "object_list"}:
        models = models_of(evaluator, info)
        if name == "model":
            return models
        return _records(models) if name in RECORD else rows_of(evaluator, models)
    return NOTHING


def method(evaluator: Evaluator, name: str, of: Any, node: ast.Call, frame: Frame) -> Types:
    """What a method gives that the framework of the class has."""
    info = of.info
    if name in {"get_object", "save"}:
        return _records(models_of(evaluator, info))
    if name == "get_queryset":
        own = _types(evaluator, info, "queryset")
        return frozenset(each for each in own if isinstance(each, Rows)) or rows_of(
            evaluator, models_of(evaluator, info)
        )
    if name in {"filter_queryset", "paginate_queryset"}:
        return evaluator.of(node.args[0], frame) if node.args else NOTHING
    if name in {"get_form", "get_serializer"}:
        return form_of(evaluator, info)
    return NOTHING


def form_of(evaluator: Evaluator, info: ClassInfo) -> Types:
    """The form or serializer of a view."""
    found = union(_types(evaluator, info, name) for name in FORMS)
    return frozenset(Object(info=each.info) for each in found if isinstance(each, ClassType))


def given(evaluator: Evaluator, scope: Scope, owner: ClassInfo, name: str) -> Types:
    """What the framework hands to a parameter of a method of the class."""
    method_name = scope.function.name
    if name == "request":
        return native("request")
    if name == "form" and method_name in {"form_valid", "form_invalid", "save_form", "save_related"}:
        return form_of(evaluator, owner)
    if name == "serializer" and method_name.startswith("perform_"):
        return form_of(evaluator, owner)
    if name == "validated_data":
        return native("dict")
    models = (
        models_of(evaluator, owner) if name in {"queryset", "qs", "obj", "instance", "object"} else NOTHING
    )
    if name in {"queryset", "qs"}:
        return rows_of(evaluator, models)
    return _records(models)
