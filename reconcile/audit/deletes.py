"""What an effect does in vain: what Django does by itself to the rows around a record that is deleted, and what a new record has no rows for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from django.db.models import CASCADE, SET_NULL, Model

from reconcile.audit.orm import SYNC
from reconcile.audit.record import Record, Run
from reconcile.audit.resolver.evaluator import Evaluator
from reconcile.audit.resolver.scopes import Frame
from reconcile.audit.resolver.types import Api, Kind, Relation
from reconcile.audit.walking import walk
from reconcile.db.django_compat import reverse_relations

__all__ = ["deletes_softly", "is_about_earlier_rows", "repeats_delete"]

OF_EARLIER = frozenset({"clear", "remove", "delete", "update", "bulk_update"})
"""What does something to rows only that are there already."""


def is_about_earlier_rows(record: Record, call: ast.Call, run: Run) -> bool:
    """Whether it changes or takes away what belongs to the record: nothing belongs to one that has just been created."""
    name = getattr(call.func, "attr", "")
    return SYNC.get(name, name) in OF_EARLIER and _relation(record, call.func, run) is not None


def repeats_delete(record: Record, call: ast.Call, run: Run) -> bool:
    """Whether it does to others what Django does by their foreign key when the record is deleted: sets that to NULL, or deletes them."""
    match call:
        case ast.Call(
            func=ast.Attribute(attr="update"),
            args=[],
            keywords=[ast.keyword(arg=str() as column, value=value)],
        ):
            is_alike = (
                isinstance(value, ast.Constant) and value.value is None and not _is_own(record, call, run)
            )
            wanted = SET_NULL
        case ast.Call(func=ast.Attribute(attr="delete"), args=[], keywords=[]):
            column, wanted = "", CASCADE
            is_alike = _is_own(record, call, run) is False
        case _:
            return False
    keys = [*_keys_to(record, call.func, run)] if is_alike else []
    names_it = (column in {"", each.name, each.attname} for each in keys)
    return bool(keys) and all(names_it) and all(each.remote_field.on_delete is wanted for each in keys)


def _is_own(record: Record, call: ast.Call, run: Run) -> bool | None:
    """Whether it is a method of the project's own, and not Django's; None if it isn't known what is called."""
    known = record.evaluator.of(call.func, Frame(run.scope, None, run.given))
    return not all(isinstance(each, Api) for each in known) if known else None


def _keys_to(record: Record, node: ast.AST, run: Run) -> Iterator[Any]:
    """The foreign keys by which the rows of an expression belong to the record: that of its related manager, or those that a filter may mean."""
    relation = _relation(record, node, run)
    if relation is not None:
        if relation.kind is Kind.REVERSE_KEY and relation.column:
            yield relation.target._meta.get_field(relation.column)
        return
    names = {name for each in _chain(node) for name in _filtered_by(record, each, run)}
    for each in reverse_relations(record.model) if names else ():
        key: Any = each.field
        if not key.many_to_many and names & {key.name, key.attname}:
            yield key


def _filtered_by(record: Record, node: ast.AST, run: Run) -> Iterator[str]:
    """The columns by which `filter()` asks for the record itself, as in `filter(author=self)` and `filter(author_id=self.pk)`."""
    if not isinstance(node, ast.Call) or getattr(node.func, "attr", "") != "filter":
        return
    for each in node.keywords:
        value = each.value
        if isinstance(value, ast.Attribute) and value.attr in record.keys:
            value = value.value
        if each.arg and record.is_record(value, run):
            yield each.arg


def _relation(record: Record, node: ast.AST, run: Run) -> Relation | None:
    """The relation of the record with whose related manager the expression begins."""
    for each in _chain(node):
        if isinstance(each, ast.Attribute) and record.is_record(each.value, run):
            return record.evaluator.registry.to_many(record.model, each.attr)
    return None


def _chain(node: ast.AST) -> Iterator[ast.AST]:
    """The calls and attributes of a chain, the last first."""
    while isinstance(node, ast.Call | ast.Attribute):
        yield node
        node = node.func if isinstance(node, ast.Call) else node.value


def deletes_softly(evaluator: Evaluator, model: type[Model]) -> bool:
    """Whether the model's own delete() leaves the row where it is: one of those that call each other by `super()` doesn't call the next."""
    for each in model.__mro__:
        if each is Model or "delete" not in vars(each):
            continue
        body = evaluator.class_of_live(each).find("delete")
        scope = next((one for one in body.children if one.name.endswith(".delete")), None) if body else None
        if scope is None:
            return False
        evaluator.read(scope)
        if not any(_may_delete(one, scope.first_parameter) for one in walk(scope.node)):
            return True
    return False


def _may_delete(node: ast.AST, first: str) -> bool:
    """`super().delete()`, `models.Model.delete(self)`, `self.hard_delete()`, `Collector(…)`: what may lead to a real delete of the record."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Call(func=ast.Name(id="super")))):
            return True
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attr)) if name == first:
            return "hard" in attr or "raw" in attr
        case ast.Call(func=ast.Attribute(attr="delete"), args=[ast.Name(id=name), *_]):
            return name == first
        case ast.Call(func=ast.Name(id="Collector")) | ast.Attribute(attr="_raw_delete"):
            return True
    return False
