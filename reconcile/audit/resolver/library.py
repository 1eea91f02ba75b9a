"""What Django's own functions and methods, and those of Python, give back."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reconcile.audit.resolver import conventions
from reconcile.audit.resolver.scopes import Frame
from reconcile.audit.resolver.types import (
    NOTHING,
    ClassType,
    External,
    Instance,
    Many,
    ModelType,
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

__all__ = ["called", "method", "user"]

SAME_ROWS = frozenset({
    "all", "filter", "exclude", "complex_filter", "order_by", "reverse", "distinct", "select_related", "prefetch_related", "defer", "only",
    "using", "annotate", "alias", "extra", "select_for_update", "none", "union", "intersection", "difference", "get_queryset", "iterator",
    "aiterator", "db_manager", "_clone", "_chain", "live", "as_manager", "fetch_mode",
})  # fmt: skip
"""Methods of rows that give rows of the same model."""

ONE_RECORD = frozenset({
    "get", "first", "last", "earliest", "latest", "create", "aget", "afirst", "alast", "aearliest", "alatest", "acreate",
})  # fmt: skip
"""Methods of rows that give one record."""

RECORD_AND_FLAG = frozenset({"get_or_create", "update_or_create", "aget_or_create", "aupdate_or_create"})

MANY_RECORDS = frozenset({"bulk_create", "abulk_create", "raw"})

OF_ROWS = SAME_ROWS | ONE_RECORD | RECORD_AND_FLAG | MANY_RECORDS | {"values", "values_list", "in_bulk"}
"""Methods of rows of which it is known what they give."""

SAME_ITEMS = frozenset({
    "builtins.list", "builtins.set", "builtins.tuple", "builtins.sorted", "builtins.reversed", "builtins.iter", "builtins.frozenset",
    "itertools.islice", "itertools.chain", "itertools.chain.from_iterable", "itertools.takewhile", "itertools.dropwhile", "collections.deque",
})  # fmt: skip

SAME_VALUE = frozenset({"copy.copy", "copy.deepcopy"})

SCALARS = frozenset(
    {
        "int",
        "str",
        "bool",
        "float",
        "bytes",
        "len",
        "sum",
        "any",
        "all",
        "isinstance",
        "hasattr",
        "repr",
        "range",
        "round",
        "abs",
    }
)


def called(evaluator: Evaluator, path: str, node: ast.Call, frame: Frame) -> Types:
    """What a call of the function or class at the path gives."""
    rule = _FUNCTIONS.get(path)
    if rule is not None:
        return rule(evaluator, node, frame)
    if path in SAME_ITEMS:
        found = union(_items(evaluator, each, frame) for each in node.args[:1] if node.args)
        if "chain" in path:
            found = union(_items(evaluator, each, frame) for each in node.args)
            found = evaluator.elements(found) if path.endswith("from_iterable") else found
        return frozenset({Many(of=found)})
    if path.startswith("django.db.models.") and path.endswith("QuerySet"):
        return _new_rows(evaluator, node, frame)
    if path in SAME_VALUE:
        return evaluator.of(node.args[0], frame) if node.args else NOTHING
    last = path.rpartition(".")[2]
    if path.startswith("builtins.") and last in SCALARS:
        return native(last)
    if path.startswith("django.apps.apps.") and last == "get_model":
        return _get_model(evaluator, node, frame)
    return frozenset({Native(what=path)}) if last[:1].isupper() else NOTHING


def _new_rows(evaluator: Evaluator, node: ast.Call, frame: Frame) -> Types:
    """`QuerySet(Order)`: all rows of the model."""
    return frozenset(Rows(model=each) for each in evaluator.models_given(node, frame))


def _items(evaluator: Evaluator, node: ast.expr, frame: Frame) -> Types:
    return evaluator.elements(evaluator.of(node, frame))


def _first(evaluator: Evaluator, node: ast.Call, frame: Frame) -> Types:
    return evaluator.of(node.args[0], frame) if node.args else NOTHING


def _record_of(evaluator: Evaluator, node: ast.Call, frame: Frame) -> Types:
    """`get_object_or_404(X, …)`: a record of a model, a manager's or a queryset's."""
    found = set()
    for each in _first(evaluator, node, frame):
        match each:
            case ModelType(model=model) | Rows(model=model):
                found.add(Instance(model=model))
    return frozenset(found)


def _records_of(evaluator: Evaluator, node: ast.Call, frame: Frame) -> Types:
    return frozenset({Many(of=_record_of(evaluator, node, frame))})


def _get_model(evaluator: Evaluator, node: ast.Call, frame: Frame) -> Types:
    """`apps.get_model("shop", "Order")`, `get_model("shop.Order")`."""
    texts = [
        {each.text for each in evaluator.of(one, frame) if isinstance(each, Native)} for one in node.args[:2]
    ]
    if not texts or any(len(each) != 1 or None in each for each in texts):
        return NOTHING
    label = ".".join(str(next(iter(each))) for each in texts)
    model = evaluator.registry.model(label)
    return frozenset({ModelType(model=model)}) if model is not None else NOTHING


def _getattr(evaluator: Evaluator, node: ast.Call, frame: Frame) -> Types:
    if len(node.args) not in {2, 3}:
        return NOTHING
    names = {
        each.text for each in evaluator.of(node.args[1], frame) if isinstance(each, Native) and each.text
    }
    base = evaluator.of(node.args[0], frame)
    found = union(evaluator.attribute(base, str(each)) for each in names)
    return found | (union(evaluator.of(each, frame) for each in node.args[2:]) if found else NOTHING)


def _enumerate(evaluator: Evaluator, node: ast.Call, frame: Frame) -> Types:
    items = _items(evaluator, node.args[0], frame) if node.args else NOTHING
    return frozenset({Many(of=frozenset({Tuple(items=(native("int"), items))}))})


def _zip(evaluator: Evaluator, node: ast.Call, frame: Frame) -> Types:
    items = tuple(_items(evaluator, each, frame) for each in node.args)
    return frozenset({Many(of=frozenset({Tuple(items=items)}))})


def _next(evaluator: Evaluator, node: ast.Call, frame: Frame) -> Types:
    return _items(evaluator, node.args[0], frame) if node.args else NOTHING


def _filter(evaluator: Evaluator, node: ast.Call, frame: Frame) -> Types:
    return frozenset({Many(of=_items(evaluator, node.args[1], frame))}) if len(node.args) > 1 else NOTHING


def _map(evaluator: Evaluator, node: ast.Call, frame: Frame) -> Types:
    found = NOTHING
    if node.args and isinstance(node.args[0], ast.Lambda):
        function = node.args[0]
        given = zip(function.args.args, node.args[1:], strict=False)
        inner = tuple((name.arg, _items(evaluator, each, frame)) for name, each in given)
        found = evaluator.of(function.body, frame._replace(inner=(*frame.inner, *inner)))
    return frozenset({Many(of=found)})


def _type(evaluator: Evaluator, node: ast.Call, frame: Frame) -> Types:
    return (
        evaluator.attribute(_first(evaluator, node, frame), "__class__") if len(node.args) == 1 else NOTHING
    )


def _cast(evaluator: Evaluator, node: ast.Call, frame: Frame) -> Types:
    return evaluator.annotation(node.args[0], frame) if node.args else NOTHING


def _dict(evaluator: Evaluator, node: ast.Call, frame: Frame) -> Types:
    keys, values = NOTHING, union(evaluator.of(each.value, frame) for each in node.keywords)
    for each in evaluator.of(node.args[0], frame) if node.args else ():
        keys |= (
            each.keys if isinstance(each, Table) else evaluator.item(evaluator.elements(frozenset({each})), 0)
        )
        values |= (
            each.values
            if isinstance(each, Table)
            else evaluator.item(evaluator.elements(frozenset({each})), 1)
        )
    return frozenset({Table(keys=keys, values=values)})


def _defaultdict(evaluator: Evaluator, node: ast.Call, frame: Frame) -> Types:
    made = {"list": Many(of=NOTHING), "set": Many(of=NOTHING), "dict": Table(keys=NOTHING, values=NOTHING)}
    names = {
        each.path.removeprefix("builtins.")
        for each in _first(evaluator, node, frame)
        if isinstance(each, External)
    }
    return frozenset({Table(keys=NOTHING, values=frozenset(made[each] for each in names if each in made))})


def _user_model(evaluator: Evaluator) -> Types:
    model = evaluator.registry.user
    return frozenset({ModelType(model=model)}) if model is not None else NOTHING


def user(evaluator: Evaluator) -> Types:
    """A user of the project; nothing where it has none."""
    return evaluator.instances(_user_model(evaluator))


_FUNCTIONS: dict[str, Callable[[Any, ast.Call, Any], Types]] = {
    "django.shortcuts.get_object_or_404": _record_of,
    "django.shortcuts.aget_object_or_404": _record_of,
    "django.shortcuts.get_list_or_404": _records_of,
    "django.contrib.auth.get_user_model": lambda evaluator, *_: _user_model(evaluator),
    "django.contrib.auth.get_user": lambda evaluator, *_: user(evaluator),
    "django.contrib.auth.authenticate": lambda evaluator, *_: user(evaluator),
    "django.contrib.auth.aget_user": lambda evaluator, *_: user(evaluator),
    "builtins.getattr": _getattr,
    "builtins.enumerate": _enumerate,
    "builtins.zip": _zip,
    "itertools.zip_longest": _zip,
    "builtins.next": _next,
    "builtins.anext": _next,
    "builtins.min": _next,
    "builtins.max": _next,
    "builtins.filter": _filter,
    "builtins.map": _map,
    "builtins.type": _type,
    "builtins.dict": _dict,
    "collections.OrderedDict": _dict,
    "collections.defaultdict": _defaultdict,
    "collections.Counter": _dict,
    "typing.cast": _cast,
    "functools.partial": _first,
    "django.core.serializers.deserialize": lambda *_: frozenset({Many(of=native("DeserializedObject"))}),
}


def method(evaluator: Evaluator, name: str, of: Any, node: ast.Call, frame: Frame) -> Types:
    """What a call of a method gives that Django or Python has on it."""
    match of:
        case Rows():
            return _of_rows(name, of)
        case Many() | Tuple():
            return _of_many(evaluator, name, of, node, frame)
        case Table():
            return _of_table(name, of)
        case Native(what="field" | "request"):
            return NOTHING
        case Native(what="str", text=str()) if name == "format":
            return native("str")
        case Native():
            return frozenset({Native(what=f"{of.what}.{name}")})
        case ModelType(model=model) if name in {"from_db", "get_by_natural_key"}:
            return frozenset({Instance(model=model)})
        case Instance() if name in {"save", "delete", "asave", "adelete"}:
            return native("None")
        case Object() | ClassType():
            return conventions.method(evaluator, name, of, node, frame)
        case Super(of=inner):
            return method(evaluator, name, inner, node, frame)
    return NOTHING


def _of_rows(name: str, rows: Rows) -> Types:
    record: Types = frozenset({rows.element}) if not rows.as_values else native("values")
    if name in SAME_ROWS:
        return frozenset({rows.narrowed if name not in {"get_queryset", "db_manager"} else rows})
    if name in {"values", "values_list", "dates", "datetimes"}:
        return frozenset({replace(rows.narrowed, as_values=True)})
    if name in ONE_RECORD:
        return record
    if name in RECORD_AND_FLAG:
        return frozenset({Tuple(items=(record, native("bool")))})
    if name in MANY_RECORDS:
        return frozenset({Many(of=record)})
    if name in {"in_bulk", "ain_bulk"}:
        return frozenset({Table(keys=NOTHING, values=record)})
    if name in {
        "count",
        "acount",
        "exists",
        "aexists",
        "update",
        "aupdate",
        "delete",
        "adelete",
        "aggregate",
        "aaggregate",
        "bulk_update",
    }:
        return native(name)
    return NOTHING


def _of_many(evaluator: Evaluator, name: str, many: Any, node: ast.Call, frame: Frame) -> Types:
    if name in {"pop", "popleft"}:
        return evaluator.elements(frozenset({many}))
    if name in {"copy", "union", "intersection", "difference", "symmetric_difference"}:
        return frozenset({many}) | union(
            frozenset({Many(of=_items(evaluator, each, frame))}) for each in node.args
        )
    return native(name)


def _of_table(name: str, table: Table) -> Types:
    if name in {"get", "pop", "setdefault"}:
        return table.values
    if name == "values":
        return frozenset({Many(of=table.values)})
    if name == "keys":
        return frozenset({Many(of=table.keys)})
    if name == "items":
        return frozenset({Many(of=frozenset({Tuple(items=(table.keys, table.values))}))})
    return frozenset({table}) if name == "copy" else native(name)
