"""What a delete() sets to NULL that the foreign keys set to NULL by themselves, when Django deletes the record."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from django.db.models import SET_NULL, Manager, Model, QuerySet

from reconcile.audit.record import Record, Run
from reconcile.audit.resolver.relations import Registry
from reconcile.audit.resolver.scopes import Frame
from reconcile.audit.resolver.types import ModelType, Native
from reconcile.audit.texts import only_value
from reconcile.audit.walking import walk
from reconcile.db.django_compat import referred_field

__all__ = ["is_done_by_keys"]


def is_done_by_keys(record: Record, call: ast.Call, run: Run) -> bool:
    """Whether it is `….objects.filter(key=record).update(key=None)`, and the key does so itself, of whichever model the rows are.

    Other conditions of the filter leave out rows that are set to NULL all the same.
    """
    match call:
        case ast.Call(
            func=ast.Attribute(value=ast.Call(func=ast.Attribute(value=base, attr="filter"), args=[], keywords=conditions), attr="update"),
            args=[],
            keywords=[ast.keyword(arg=str() as column, value=ast.Constant(value=None))],
        ):  # fmt: skip
            keys = [*_keys_named(record.evaluator.registry, column)]
            are_null = bool(keys and record.keys) and all(_sets_null(each, record) for each in keys)
            return are_null and _are_rows(base, keys, record, run) and _asks(conditions, keys, record, run)
    return False


def _keys_named(registry: Registry, column: str) -> Iterator[Any]:
    """What the name stands for in each model that knows it; another model would refuse the filter."""
    for model in registry.models:
        for each in model._meta.get_fields():
            if column in {each.name, getattr(each, "attname", None)}:
                yield each


def _sets_null(key: Any, record: Record) -> bool:
    """Whether it is a key to the record's model by which Django sets each row to NULL."""
    if not (key.concrete and (key.many_to_one or key.one_to_one)):
        return False
    model = record.model._meta.concrete_model
    return (
        key.remote_field.model is model
        and referred_field(key) is record.model._meta.pk
        and key.remote_field.on_delete is SET_NULL
        and _is_plain(record.evaluator.registry, key.model)
    )


def _is_plain(registry: Registry, model: type[Model]) -> bool:
    """Whether Django finds all rows of the model, and `update()` is its own by whatever manager."""
    rows = [registry.rows(each) for each in registry.managers_by_name(model).values()]
    classes = [cls for each in rows for cls in (each.manager, each.queryset)]
    updates = [inspect.unwrap(cls.update) if cls is not None else None for cls in classes]  # type: ignore[attr-defined]
    return type(model._base_manager) is Manager and all(
        each is inspect.unwrap(QuerySet.update) for each in updates
    )


def _are_rows(base: ast.expr, keys: Sequence[Any], record: Record, run: Run) -> bool:
    """Whether it is a manager of any of the models, in the record's database."""
    registry = record.evaluator.registry
    names = {name for each in keys for name in registry.managers_by_name(each.model)}
    return isinstance(base, ast.Attribute) and base.attr in names and _is_model(base.value, record, run)


def _is_model(node: ast.expr, record: Record, run: Run) -> bool:
    """Whether it is a model: one that is known, or what a content type or the registry gives under whatever name."""
    found = record.evaluator.of(node, Frame(run.scope, None, run.given))
    known = [each for each in found if not isinstance(each, Native)]
    if known:
        return all(isinstance(each, ModelType) for each in known)
    value = only_value(node.id, run.scope) if isinstance(node, ast.Name) else node
    match value:
        case (
            ast.Call(func=ast.Attribute(attr="model_class"), args=[])
            | ast.Call(func=ast.Attribute(attr="get_model"))
        ):
            return True
    return False


def _asks(conditions: Sequence[ast.keyword], keys: Sequence[Any], record: Record, run: Run) -> bool:
    """Whether one of the conditions asks for the record itself, or for its key."""
    names, columns = {each.name for each in keys}, {each.attname for each in keys}
    for each in conditions:
        value = each.value
        if any(isinstance(one, ast.Name) and one.id in run.loose for one in walk(value)):
            continue
        if isinstance(value, ast.Attribute) and value.attr in record.keys:
            if each.arg in names | columns and record.is_record(value.value, run):
                return True
        elif each.arg in names and record.is_record(value, run):
            return True
    return False
