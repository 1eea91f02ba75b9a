"""The values that all rows have which a call writes: by the filters before it, by the constructors of what it creates, by what it sets."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from django.db.models import Model

from reconcile.audit.conditions import NOT_NONE
from reconcile.audit.constants import UNKNOWN, Constants, written
from reconcile.audit.given import rows_given
from reconcile.audit.resolver.evaluator import Evaluator
from reconcile.audit.resolver.project import CallUse
from reconcile.audit.resolver.scopes import Frame, How, Scope
from reconcile.audit.resolver.types import FunctionType, ModelType, Rows
from reconcile.audit.walking import walk

__all__ = ["Held"]

Facts = dict[str, str]
"""The value of each column of which it is known, as Python writes it."""

Pairs = tuple[tuple[str, str], ...]

DEEPEST = 5

NARROWING = frozenset({
    "all", "annotate", "alias", "defer", "distinct", "iterator", "only", "order_by", "prefetch_related", "reverse", "select_for_update",
    "select_related", "using", "db_manager",
})  # fmt: skip
"""Methods of rows that leave it as it is which rows they are."""

COMPARING = frozenset({
    "gt", "gte", "lt", "lte", "in", "range", "contains", "icontains", "startswith", "istartswith", "endswith", "iendswith", "regex", "iregex",
    "year", "date",
})  # fmt: skip
"""Lookups that no row meets whose column is NULL."""


class Held:
    """Tells the values of rows."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self.constants = Constants(evaluator)

    def of_rows(self, use: CallUse, model: type[Model], columns: tuple[str, ...] | None = ()) -> Pairs:
        """The values of rows that are updated or deleted. columns: those that get another one, None if they can't be told."""
        if columns is None or not isinstance(use.node.func, ast.Attribute):
            return ()
        frame = self.constants.frame(use)
        filtered = self._facts(use.node.func.value, frame, model)
        kept = {name: value for name, value in filtered.items() if name not in columns}
        set_now = self._named(model, use.node.keywords, frame) if columns else {}
        return self._as_pairs(model, {**kept, **set_now})

    def of_new(self, use: CallUse, model: type[Model]) -> Pairs:
        """The values of rows that are created: those that their constructors pass, or that the columns have by default."""
        found = [self._of_constructor(use, each, model) for each in self._constructors(use, model)]
        return self._as_pairs(model, _common(found))

    def _as_pairs(self, model: type[Model], facts: Facts) -> Pairs:
        """The values in their order, without those of columns that the model's own constructor sets."""
        info = self.evaluator.class_of_live(model)
        setting = ((name, each[0].name) for name in facts for each in self.evaluator.assigned(info, name))
        made = {name for name, method in setting if method.endswith(".__init__")}
        return tuple(sorted((name, value) for name, value in facts.items() if name not in made))

    def _of_constructor(self, use: CallUse, call: ast.Call, model: type[Model]) -> Facts:
        if call.args or any(each.arg is None for each in call.keywords):
            return {}
        columns = self.evaluator.registry.columns(model)
        named = {columns.get(each.arg or "", "") for each in call.keywords}
        return {**_defaults(model, named), **self._named(model, call.keywords, self.constants.frame(use))}

    def _named(self, model: type[Model], keywords: Iterable[ast.keyword], frame: Frame) -> Facts:
        """The columns among the arguments by name whose value is known."""
        columns = self.evaluator.registry.columns(model)
        found: Facts = {}
        for each in keywords:
            values = self.constants.of(each.value, frame) if each.arg in columns else UNKNOWN
            value = _as_column_has(model, columns[each.arg or ""], *values) if len(values) == 1 else ""
            if value:
                found[columns[each.arg or ""]] = value
        return found

    def _constructors(self, use: CallUse, model: type[Model]) -> list[ast.Call]:
        """The calls of the model that make what `bulk_create()` is handed, if each stands here, and nothing else is done with what it makes."""
        match rows_given(use):
            case [ast.List(elts=elements) | ast.Tuple(elts=elements)]:
                calls = [self._constructor(use, each) for each in elements]
            case [ast.ListComp(elt=element) | ast.GeneratorExp(elt=element)]:
                calls = [element if isinstance(element, ast.Call) else None]
            case _:
                return []
        found = [each for each in calls if each is not None and self._makes(use, each, model)]
        return found if len(found) == len(calls) else []

    def _constructor(self, use: CallUse, node: ast.expr) -> ast.Call | None:
        """The call that makes one element, by itself or under a name that is used for nothing else before."""
        if isinstance(node, ast.Call):
            return node
        if not isinstance(node, ast.Name) or use.position is None:
            return None
        bindings = use.scope.visible(node.id, use.position)
        if len(bindings) != 1 or bindings[0].how is not How.VALUE:
            return None
        between = use.scope.statements[bindings[0].position.order : use.position.order - 1]
        names = (each.id for one in between for each in walk(one) if isinstance(each, ast.Name))
        made = bindings[0].node
        return made if isinstance(made, ast.Call) and node.id not in names else None

    def _makes(self, use: CallUse, call: ast.Call, model: type[Model]) -> bool:
        return self.evaluator.of(call.func, self.constants.frame(use)) == frozenset({ModelType(model=model)})

    # Filters.

    def _facts(self, node: ast.AST, frame: Frame, model: type[Model], depth: int = 0) -> Facts:
        """What the filters of an expression say of the rows that are left."""
        found: Facts = {}
        match node:
            case ast.Call(func=ast.Attribute(value=base, attr=name)) if (
                name in {"filter", "exclude"} | NARROWING
            ):
                found = {**self._facts(base, frame, model, depth), **self._added(node, name, frame, model)}
            case ast.Call() if depth < DEEPEST:
                found = self._facts_of_call(node, frame, model, depth)
            case ast.IfExp(body=one, orelse=other):
                found = _common([self._facts(each, frame, model, depth) for each in (one, other)])
            case ast.Subscript(value=base, slice=ast.Slice()):
                found = self._facts(base, frame, model, depth)
            case ast.Name(id=name) if depth < DEEPEST:
                found = self._facts_of_name(name, frame, model, depth)
            case ast.Attribute() if depth < DEEPEST:
                found = self._facts_of_manager(node, frame, model, depth)
        return found

    def _added(self, node: ast.Call, name: str, frame: Frame, model: type[Model]) -> Facts:
        """What one method says: `filter()` of its columns, `exclude()` that one isn't NULL, if it asks for that alone."""
        if name == "filter":
            return self._filtered(node.keywords, frame, model)
        if name != "exclude" or node.args or len(node.keywords) != 1:
            return {}
        found = self._filtered(node.keywords, frame, model)
        return {column: NOT_NONE for column, value in found.items() if value == "None"}

    def _filtered(self, keywords: Iterable[ast.keyword], frame: Frame, model: type[Model]) -> Facts:
        found: Facts = {}
        columns = self.evaluator.registry.columns(model)
        for each in keywords:
            name, _, lookup = (each.arg or "").partition("__")
            if name not in columns:
                continue
            if lookup in COMPARING:
                found.setdefault(columns[name], NOT_NONE)
            elif lookup in {"", "exact"}:
                found |= self._named(model, [ast.keyword(arg=name, value=each.value)], frame)
            elif lookup == "isnull" and isinstance(each.value, ast.Constant):
                found[columns[name]] = "None" if each.value.value else NOT_NONE
        return found

    def _facts_of_name(self, name: str, frame: Frame, model: type[Model], depth: int) -> Facts:
        scope = frame.scope
        self.evaluator.read(scope)
        bindings = scope.visible(name, frame.at)
        is_given = name in scope.parameters and not scope.surely(name, frame.at)
        if is_given or any(each.how is not How.VALUE or each.unpack for each in bindings):
            return {}
        inside = ((each.node, Frame(scope, each.position, frame.given)) for each in bindings)
        return _common([self._facts(each, within, model, depth + 1) for each, within in inside])

    def _facts_of_call(self, node: ast.Call, frame: Frame, model: type[Model], depth: int) -> Facts:
        """What a function of the project says of the rows that it gives back."""
        known = self.evaluator.of(node.func, frame)
        scopes = [each.scope for each in known if isinstance(each, FunctionType)]
        found = [self._returned(each, model, depth) for each in scopes]
        return _common(found) if len(scopes) == len(known) else {}

    def _facts_of_manager(self, node: ast.Attribute, frame: Frame, model: type[Model], depth: int) -> Facts:
        """What a manager of the project's own says of all rows that it has."""
        rows = [each for each in self.evaluator.of(node, frame) if isinstance(each, Rows)]
        scopes = [self._rows_of(each.manager) for each in rows if each.relation is None]
        found = [self._returned(each, model, depth) for each in scopes if each is not None]
        return _common(found) if len(found) == len(rows) else {}

    def _rows_of(self, manager: type | None) -> Scope | None:
        """The function by which a manager gives its rows."""
        owner = self.evaluator.class_of_live(manager).find("get_queryset") if manager is not None else None
        children = owner.children if owner is not None else ()
        return next((each for each in children if each.name.endswith(".get_queryset")), None)

    def _returned(self, scope: Scope, model: type[Model], depth: int) -> Facts:
        self.evaluator.read(scope)
        returns = [each for each in scope.statements if isinstance(each, ast.Return)]
        places = ((each.value, Frame(scope, scope.positions[id(each)])) for each in returns)
        return _common([self._facts(each, frame, model, depth + 1) if each else {} for each, frame in places])


def _common(found: Sequence[Facts]) -> Facts:
    """What holds in each case."""
    first, *others = found or [{}]
    return {name: value for name, value in first.items() if all(each.get(name) == value for each in others)}


def _as_column_has(model: type[Model], name: str, held: str) -> str:
    """The value as a record has it, such as 1 for a filter by "1"; empty if that can't be told."""
    field: Any = model._meta.get_field(name)
    if _is_made_elsewhere(field):
        return ""
    with suppress(Exception):
        return written(field.to_python(ast.literal_eval(held)))
    return ""


def _is_made_elsewhere(field: Any) -> bool:
    """Whether what a record has for the column is made from what the database has, or by the database."""
    return hasattr(field, "from_db_value") or getattr(field, "generated", False)


def _defaults(model: type[Model], named: Iterable[str]) -> Facts:
    """The values of the columns that a constructor doesn't name."""
    columns = [each for each in model._meta.concrete_fields if each.name not in named]
    plain = [
        each
        for each in columns
        if not (each.primary_key or callable(each.default) or _is_made_elsewhere(each))
    ]
    values = ((each.name, written(each.get_default())) for each in plain)
    return {name: value for name, value in values if value}
