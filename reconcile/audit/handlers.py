"""What the source of a receiver or override says of it: whether it minds `raw`, and whether it only calls what anybody may call."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reconcile.audit.effects import Effect, On
from reconcile.audit.sources import FunctionNode, Module, Sources, arguments_of, path_of
from reconcile.audit.walking import walk

__all__ = ["Handler", "read_handler"]

WITH_RAW = frozenset({On.PRE_SAVE, On.POST_SAVE})
"""The signals that say whether a fixture is being loaded."""


@dataclass(frozen=True, kw_only=True)
class Handler:
    """What is read of an effect's function. honours_raw: None where the signal has no `raw`, or there is no source. calls: the one function that it calls
    and that anybody may call; empty if it does more, or other things.
    """

    honours_raw: bool | None = None
    calls: str = ""

    @property
    def is_thin(self) -> bool:
        """Whether it is one call to a function that can be called from anywhere."""
        return bool(self.calls)


def read_handler(effect: Effect, sources: Sources) -> Handler:
    """Read the function of the effect; nothing is known where it has no source."""
    module = sources.of_file(effect.place.file) if effect.place else None
    node = module.function_at(effect.place.line) if module and effect.place else None
    if module is None or node is None:
        return Handler()
    return Handler(
        honours_raw=_honours_raw(node) if effect.on in WITH_RAW else None, calls=_only_call(module, node)
    )


def _honours_raw(node: FunctionNode) -> bool:
    """Whether a condition of the function asks for its own argument `raw`; an attribute of that name is another matter."""
    named = arguments_of(node)
    rest = node.args.kwarg.arg if node.args.kwarg else ""
    return any(_is_raw(each, rest, named="raw" in named) for test in _conditions(node) for each in walk(test))


def _conditions(node: FunctionNode) -> Iterator[ast.expr]:
    for each in walk(node):
        if isinstance(each, ast.If | ast.IfExp | ast.While):
            yield each.test
        elif isinstance(each, ast.BoolOp):
            yield each


def _is_raw(node: ast.AST, rest: str, *, named: bool) -> bool:
    """`raw`, `kwargs["raw"]` or `kwargs.get("raw")`."""
    if isinstance(node, ast.Name):
        return named and node.id == "raw"
    if isinstance(node, ast.Subscript):
        return _is_name(node.value, rest) and _is_text(node.slice, "raw")
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        return node.func.attr == "get" and _is_name(node.func.value, rest) and _is_text(node.args[0], "raw")
    return False


def _is_name(node: ast.AST, name: str) -> bool:
    return bool(name) and isinstance(node, ast.Name) and node.id == name


def _is_text(node: ast.AST, text: str) -> bool:
    return isinstance(node, ast.Constant) and node.value == text


def _only_call(module: Module, node: FunctionNode) -> str:
    """The only thing that the function does beside asking whether to: a call of a function at the top of a module."""
    does = list(_acts(node.body))
    if len(does) != 1 or not isinstance(does[0], ast.Expr | ast.Return):
        return ""
    call = does[0].value
    call = call.value if isinstance(call, ast.Await) else call
    if not isinstance(call, ast.Call):
        return ""
    first, *_ = parts = path_of(call.func)
    is_global = first in module.imports or first in module.defined
    return ".".join(parts) if is_global and first not in _locals(node) else ""


def _acts(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that do something: no docstring, no early return, and what stands below an `if` without an `else`."""
    for each in body:
        if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant):
            continue
        if isinstance(each, ast.Pass) or (isinstance(each, ast.Return) and each.value is None):
            continue
        if isinstance(each, ast.If):
            yield from _acts(each.body)
            yield from _acts(each.orelse)
        else:
            yield each


def _locals(node: FunctionNode) -> set[str]:
    stored = {
        each.id for each in walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
    }
    return arguments_of(node) | stored | {each.arg for each in (node.args.vararg, node.args.kwarg) if each}
