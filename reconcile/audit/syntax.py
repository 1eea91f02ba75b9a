"""What the statements of a function consist of, as far as an effect's reader asks for it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from reconcile.audit.resolver.scopes import Scope
from reconcile.audit.walking import captured_by, children, walk

__all__ = [
    "always_deletes",
    "bound_by",
    "captured",
    "defaults_of",
    "false_by_default",
    "is_logging",
    "is_opt_in",
    "own_expressions",
    "tail_of",
    "values",
]

LOGGING = frozenset({"log", "logger", "logging", "_logger", "LOGGER", "LOG", "warnings"})

GIVEN = frozenset(
    {
        "created",
        "raw",
        "update_fields",
        "using",
        "force_insert",
        "force_update",
        "instance",
        "sender",
        "action",
        "pk_set",
    }
)
"""Arguments that Django itself gives to a signal's receiver or to save()."""


def false_by_default(scope: Scope) -> set[str]:
    """The parameters of an effect's function that are false unless its caller asks for more, as nobody does who skips it."""
    defaults = defaults_of(scope).items()
    return {name for name, each in defaults if isinstance(each, ast.Constant) and not each.value} - GIVEN


def defaults_of(scope: Scope) -> dict[str, ast.expr]:
    """The defaults of a function's arguments, by name."""
    arguments = scope.function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    pairs = [
        *zip(reversed(positional), reversed(arguments.defaults), strict=False),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    return {each.arg: default for each, default in pairs if default is not None}


def is_opt_in(value: ast.expr) -> bool:
    """`kwargs.pop("name", False)`: what is false unless the caller asks for it."""
    match value:
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="kwargs" | "options"), attr="pop" | "get"),
            args=[ast.Constant(value=name), *rest],
        ):
            return name not in GIVEN and (
                not rest or (isinstance(rest[0], ast.Constant) and not rest[0].value)
            )
    return False


def own_expressions(node: ast.AST) -> Iterator[ast.expr]:
    """The expressions of a statement itself, without those of the statements in it."""
    for each in children(node):
        if isinstance(each, ast.expr):
            yield each
        elif isinstance(each, ast.withitem):
            yield each.context_expr
        elif isinstance(each, ast.match_case) and each.guard is not None:
            yield each.guard
    if isinstance(node, ast.Call):
        yield node


def bound_by(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """The names that a loop or `with` gives values to, each with what it gets its value from."""
    if isinstance(node, ast.For | ast.AsyncFor):
        yield node.target, node.iter
    elif isinstance(node, ast.With | ast.AsyncWith):
        for each in node.items:
            if each.optional_vars is not None:
                yield each.optional_vars, each.context_expr


def captured(node: ast.AST) -> Iterator[str]:
    """The names that the patterns of a `match` give values to."""
    for case in getattr(node, "cases", ()):
        yield from captured_by(case.pattern)


def always_deletes(body: Sequence[ast.stmt]) -> bool:
    """Whether each way through a `delete()` leads to a call that deletes, by its name, or to an error."""
    for node in body:
        match node:
            case ast.Raise():
                return True
            case ast.If(body=one, orelse=other):
                if always_deletes(one) and always_deletes(other):
                    return True
            case ast.With(body=inner) | ast.AsyncWith(body=inner) | ast.Try(body=inner):
                if always_deletes(inner):
                    return True
            case _ if any(
                isinstance(each, ast.Call) and "delete" in tail_of(each.func) for each in walk(node)
            ):
                return True
        if any(isinstance(each, ast.Return) for each in walk(node)):
            return False
    return False


def values(value: ast.expr, targets: Sequence[ast.expr]) -> list[ast.expr]:
    """What each of the targets gets: the one at its place in a tuple, or, where that can't be told, all."""
    each = value.elts if isinstance(value, ast.Tuple | ast.List) else []
    is_plain = not any(isinstance(one, ast.Starred) for one in (*each, *targets))
    return each if is_plain and len(each) == len(targets) else [value] * len(targets)


def tail_of(func: ast.expr) -> str:
    """The last two names of what is called: `cache.clear`."""
    if isinstance(func, ast.Attribute):
        base = func.value
        while isinstance(base, ast.Call):
            base = base.func
        before = base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
        return f"{before}.{func.attr}" if before else func.attr
    return getattr(func, "id", "")


def is_logging(func: ast.expr) -> bool:
    """Whether a call of this writes to a log."""
    return isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name) and func.value.id in LOGGING
