"""What an annotation says that a name holds."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from reconcile.audit.resolver.scopes import Frame
from reconcile.audit.resolver.types import (
    NOTHING,
    ClassType,
    External,
    Instance,
    Many,
    ModelType,
    Table,
    Types,
    native,
    union,
)

if TYPE_CHECKING:
    from reconcile.audit.resolver.evaluator import Evaluator

__all__ = ["annotation"]


def annotation(evaluator: Evaluator, node: ast.expr | None, frame: Frame) -> Types:
    """What an annotation says that a name holds."""
    match node:
        case ast.Constant(value=str() as text):
            try:
                return annotation(evaluator, ast.parse(text, mode="eval").body, frame._replace(at=None))
            except SyntaxError:
                return NOTHING
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            return annotation(evaluator, left, frame) | annotation(evaluator, right, frame)
        case ast.Subscript(value=value, slice=inside):
            return _generic(evaluator, value, inside, frame)
        case ast.Name() | ast.Attribute():
            return _annotated(evaluator, evaluator.of(node, frame._replace(at=None)))
    return NOTHING


def _annotated(evaluator: Evaluator, types: Types) -> Types:
    scalars = {"str", "int", "bool", "float", "bytes", "dict", "set", "list", "tuple"}
    plain = {each.path.rpartition(".")[2] for each in types if isinstance(each, External)} & scalars
    return evaluator.instances(frozenset(each for each in types if not isinstance(each, External))) | union(
        map(native, plain)
    )


def _generic(evaluator: Evaluator, value: ast.expr, inside: ast.expr, frame: Frame) -> Types:
    name = value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", "")
    if name in {"Optional", "Annotated", "Final", "ClassVar", "Required"}:
        return annotation(evaluator, inside.elts[0] if isinstance(inside, ast.Tuple) else inside, frame)
    if name == "Union" and isinstance(inside, ast.Tuple):
        return union(annotation(evaluator, each, frame) for each in inside.elts)
    if name in {"Type", "type"}:
        return frozenset(
            each for each in evaluator.of(inside, frame) if isinstance(each, ModelType | ClassType)
        )
    first, *others = inside.elts if isinstance(inside, ast.Tuple) and inside.elts else [inside]
    held = annotation(evaluator, first, frame)
    if name.endswith(("QuerySet", "Manager")):
        return frozenset(
            evaluator.registry.default_rows(each.model).narrowed
            for each in held
            if isinstance(each, Instance)
        )
    if name.lower() in {"dict", "mapping", "defaultdict", "mutablemapping"} and others:
        return frozenset({Table(keys=held, values=annotation(evaluator, others[0], frame))})
    return frozenset({Many(of=held)})
