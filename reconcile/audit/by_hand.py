"""Whether a function does by hand what a skipped effect would have done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from reconcile.audit.acts import Act
from reconcile.audit.resolver.evaluator import Evaluator
from reconcile.audit.resolver.project import CallUse, calls_in
from reconcile.audit.resolver.scopes import Scope
from reconcile.audit.resolver.types import Api, FunctionType, Instance, ModelType, Rows, Types
from reconcile.audit.syntax import tail_of

__all__ = ["Called", "called_in", "is_same"]

COMMON = frozenset(
    {
        "save",
        "set",
        "add",
        "get",
        "delete",
        "update",
        "clear",
        "create",
        "remove",
        "send",
        "run",
        "apply",
        "call",
    }
)
"""Names of methods that say nothing without what they are called on."""


def is_same(act: Act, call: Called) -> bool:
    """Whether a call does what the act does: it is the same function or the same method of the same rows, or has the same last two names."""
    if act.target and act.target in call.targets:
        return True
    last = act.name.rpartition(".")[2]
    if act.model:
        return f"{act.model}.{last}" in call.targets
    if act.target and call.targets:
        return False
    if act.name == call.name:
        return "." in act.name or last not in COMMON
    return act.on_record and last == call.name.rpartition(".")[2] and last not in COMMON


@dataclass(frozen=True, kw_only=True)
class Called:
    """A call in a function. name: its last two names. targets: what it is known to be: a function of the project, or `app.Model.method`.

    sender: of what is sent as a signal, the models that are named as its sender; none where that can't be told.
    """

    name: str
    targets: frozenset[str]
    line: int
    sender: frozenset[str] = frozenset()


def called_in(evaluator: Evaluator, scope: Scope, depth: int = 1) -> Iterator[Called]:
    """What a function calls; what its private helpers of the same module and the tasks that it sends call, too, with the line of the helper's call."""
    for use in calls_in(scope):
        known = evaluator.of(use.node.func, evaluator.frame(use))
        functions = [each.scope for each in known if isinstance(each, FunctionType)]
        targets = {f"{each.module.name}.{each.name}" for each in functions} | {*_methods(known)}
        sender = frozenset(_sender(evaluator, use))
        yield Called(
            name=tail_of(use.node.func), targets=frozenset(targets), line=use.node.lineno, sender=sender
        )
        tasks = [
            each.of.scope for each in known if isinstance(each, Api) and isinstance(each.of, FunctionType)
        ]
        for each in [*functions, *tasks] if depth else ():
            if each in tasks or (each.function.name.startswith("_") and each.module is scope.module):
                yield from (
                    replace(inner, line=use.node.lineno) for inner in called_in(evaluator, each, depth - 1)
                )


def _sender(evaluator: Evaluator, use: CallUse) -> Iterator[str]:
    """The models that a call names by `sender=`."""
    for each in use.node.keywords:
        if each.arg == "sender":
            types = evaluator.of(each.value, evaluator.frame(use))
            yield from (one.model._meta.label for one in types if isinstance(one, ModelType))


def _methods(known: Types) -> Iterator[str]:
    for each in known:
        match each:
            case Api(name=name, of=Rows(model=model) | Instance(model=model)):
                yield f"{model._meta.label}.{name}"
