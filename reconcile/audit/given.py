"""The columns that a call names which writes rows, and the arguments of the constructors of what it creates."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from itertools import combinations, product

from django.db.models import Model

from reconcile.audit.constants import Constants
from reconcile.audit.resolver.evaluator import Evaluator
from reconcile.audit.resolver.project import CallUse
from reconcile.audit.resolver.scopes import Binding, Frame, How, Scope
from reconcile.audit.resolver.types import Instance, Many, Native, Tuple

__all__ = ["Given", "rows_given"]

Names = frozenset[str]
MOST_WAYS = 8
"""Ways in which a call may name columns that are told apart; of more, nothing is known."""

MOST_LATER = 3
"""Keys that are set later in a dictionary and told apart."""


class Given:
    """Reads the arguments of calls, and the filters before them."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self.constants = Constants(evaluator, asks_callers=True)

    def text(self, use: CallUse, node: ast.expr) -> str | None:
        """The text that the expression is, if it is known to be one."""
        texts = {
            each.text if isinstance(each, Native) else None
            for each in self.evaluator.of(node, self.evaluator.frame(use))
        }
        return next(iter(texts)) if len(texts) == 1 else None

    def fields(self, model: type[Model], names: Iterable[str]) -> tuple[str, ...]:
        """The names of fields, `customer` for `customer_id`; what is no field stays as it is."""
        columns = self.evaluator.registry.columns(model)
        return tuple(sorted({columns.get(each, each) for each in names}))

    def passed(self, use: CallUse, model: type[Model]) -> tuple[str, ...] | None:
        """The arguments that each constructor has of what `bulk_create()` is given."""
        given = rows_given(use)
        types = self.evaluator.of(given[0], self.evaluator.frame(use)) if given else frozenset()
        elements = self.evaluator.elements(types)
        made = [each for each in elements if isinstance(each, Instance) and issubclass(each.model, model)]
        if not made or len(made) != len(elements) or any(each.passed is None for each in made):
            return None
        together = frozenset.intersection(*(each.passed for each in made if each.passed is not None))
        return self.fields(model, together)

    # The columns that an update names.

    def updated(self, use: CallUse, model: type[Model]) -> Sequence[tuple[str, ...] | None]:
        """The columns that `update()` names, those of dictionaries too; once for each way in which it may be called."""
        found = [Names(each.arg for each in use.node.keywords if each.arg is not None)]
        for each in use.node.keywords:
            if each.arg is None:
                keys = self._ways_of_keys(use, each.value)
                found = [one | other for one, other in product(found, keys)]
        ways: list[tuple[str, ...] | None] = []
        ways += dict.fromkeys(self.fields(model, each) for each in found)
        return ways if 0 < len(ways) <= MOST_WAYS else [None]

    def listed(self, use: CallUse, model: type[Model]) -> tuple[str, ...] | None:
        """The columns that `bulk_update()` lists."""
        given = [*use.node.args[1:2], *(each.value for each in use.node.keywords if each.arg == "fields")]
        named = self._texts(use, given[0]) if given else None
        return self.fields(model, named) if named is not None else None

    def _texts(self, use: CallUse, node: ast.expr) -> set[str] | None:
        """The texts of a literal list."""
        types = self.evaluator.of(node, self.evaluator.frame(use))
        if len(types) != 1 or not isinstance(next(iter(types)), Many | Tuple):
            return None
        elements = self.evaluator.elements(types)
        texts = {each.text if isinstance(each, Native) else None for each in elements}
        return {each for each in texts if each is not None} if texts and None not in texts else None

    def _ways_of_keys(self, use: CallUse, node: ast.AST) -> list[Names]:
        """The keys that a dictionary may have, once for each way; none if they can't be told."""
        match node:
            case ast.Dict():
                return self._ways_of_dict(use, node)
            case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords) if _are_named(keywords):
                return [Names(str(each.arg) for each in keywords)]
            case ast.DictComp(key=key, generators=generators) if not any(each.ifs for each in generators):
                keys = _keys(self.constants.of(key, self._within(generators, self.constants.frame(use))))
                return [keys] if keys else []
            case ast.IfExp(body=one, orelse=other):
                ways = [self._ways_of_keys(use, each) for each in (one, other)]
                return [*ways[0], *ways[1]] if all(ways) else []
            case ast.Name(id=name) if name not in use.scope.parameters:
                return self._ways_of_name(use, name)
        return []

    def _ways_of_dict(self, use: CallUse, node: ast.Dict) -> list[Names]:
        frame = self.constants.frame(use)
        found = [Names()]
        for key, value in zip(node.keys, node.values, strict=True):
            ways = self._ways_of_keys(use, value) if key is None else _each_key(self.constants.of(key, frame))
            found = [one | other for one, other in product(found, ways)]
            if not 0 < len(found) <= MOST_WAYS:
                return []
        return found

    def _within(self, generators: Sequence[ast.comprehension], frame: Frame) -> Frame:
        """The frame in a comprehension that walks through known values."""
        for each in generators:
            values = self.constants.among(each.iter, frame)
            types = frozenset(
                Native(what="str", text=ast.literal_eval(one)) for one in values if one[0] in "'\""
            )
            if isinstance(each.target, ast.Name):
                frame = frame._replace(inner=(*frame.inner, (each.target.id, types)))
        return frame

    def _ways_of_name(self, use: CallUse, name: str) -> list[Names]:
        """The keys of a dictionary that a name holds: those that it is made with, and those that are set in it later, perhaps."""
        bindings = use.scope.visible(name, use.position)
        rest = use.scope.function.args.kwarg if use.scope.is_function else None
        if rest is not None and rest.arg == name and not bindings:
            return self._ways_of_rest(use.scope)
        made = [each for each in bindings if each.how is How.VALUE and not each.unpack]
        later = [self._stored(use.scope, each) for each in bindings if each.how is How.STORED]
        is_whole = len(made) == 1 and len(made) + len(later) == len(bindings) and "" not in later
        if not is_whole or len(later) > MOST_LATER or self._may_change(use.scope, name):
            return []
        ways = self._ways_of_keys(use._replace(position=made[0].position), made[0].node)
        some = [Names(each) for size in range(len(later) + 1) for each in combinations(later, size)]
        return [one | other for one, other in product(ways, some)]

    def _stored(self, scope: Scope, binding: Binding) -> str:
        """The key of `name["key"] = …`; empty if it can't be told."""
        match scope.statements[binding.position.order - 1]:
            case ast.Assign(targets=[ast.Subscript(slice=key)]):
                keys = _each_key(self.constants.of(key, Frame(scope, binding.position)))
                return next(iter(keys[0])) if len(keys) == 1 else ""
        return ""

    def _may_change(self, scope: Scope, name: str) -> bool:
        """Whether a method of the dictionary is called that may give it other keys or take some, or somebody else is handed it."""
        parts = (each for node in scope.statements for each in self.evaluator.project.parts(node))
        return any(_is_change(each, name) for each in parts)

    def _ways_of_rest(self, scope: Scope) -> list[Names]:
        """The keys of `**rest`, by the calls of the function, if no other has its name."""
        calls = [each.node for each in self.constants.callers(scope)]
        if not 0 < len(calls) <= MOST_WAYS or not all(_are_named(each.keywords) for each in calls):
            return []
        return [
            Names(str(key.arg) for key in each.keywords if key.arg not in scope.parameters) for each in calls
        ]


def rows_given(use: CallUse) -> list[ast.expr]:
    """What `bulk_create()` is handed, if anything."""
    return [*use.node.args[:1], *(each.value for each in use.node.keywords if each.arg == "objs")]


def _are_named(keywords: Iterable[ast.keyword]) -> bool:
    return all(each.arg for each in keywords)


def _is_change(node: ast.AST, name: str) -> bool:
    match node:
        case ast.Subscript(value=ast.Name(id=base), ctx=ast.Del()):
            return base == name
        case ast.Call(func=ast.Attribute(value=ast.Name(id=base), attr=attr)) if base == name:
            return attr in _CHANGING
        case ast.Call(args=args, keywords=keywords):
            handed = [*args, *(each.value for each in keywords if each.arg)]
            return any(isinstance(each, ast.Name) and each.id == name for each in handed)
    return False


_CHANGING = frozenset({"update", "setdefault", "pop", "popitem", "clear"})


def _keys(values: Names) -> Names:
    """The texts among the values; none if there is anything else."""
    found = [ast.literal_eval(each) for each in values]
    return Names(found) if all(isinstance(each, str) for each in found) else Names()


def _each_key(values: Names) -> list[Names]:
    return [Names({each}) for each in sorted(_keys(values))]
