"""The texts of SQL that an expression in the source may stand for, with what is put in at run time left open."""

from __future__ import annotations

import ast
import re
from itertools import product

from reconcile.audit.resolver.evaluator import Evaluator
from reconcile.audit.resolver.project import CallUse
from reconcile.audit.resolver.scopes import How
from reconcile.audit.resolver.types import Api, Instance, ModelType, Native
from reconcile.audit.texts import Texts

__all__ = ["HOLE", "SqlTexts"]

HOLE = "put_in_here"
"""What stands in a statement where something is put in at run time."""


class SqlTexts:
    """Reads statements where calls execute them."""

    def __init__(self, evaluator: Evaluator, texts: Texts) -> None:
        self.evaluator = evaluator
        self.texts = texts

    def ways(self, use: CallUse, node: ast.expr) -> list[tuple[str, bool]]:
        """The texts that a statement may have, with names in place of what is put in at run time, each with whether it is whole."""
        match node:
            case ast.Constant(value=str() as text):
                return [(text, True)]
            case ast.JoinedStr(values=values):
                parts = [self._part(use, each) for each in values]
                return [("".join(text for text, _ in parts), all(whole for _, whole in parts))]
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                ways = product(self.ways(use, left) or [("", False)], self.ways(use, right) or [("", False)])
                return [(one + two, first and second) for (one, first), (two, second) in ways]
            case ast.BinOp(op=ast.Mod(), left=left):
                return [(text.replace("%s", HOLE), False) for text, _ in self.ways(use, left)]
            case ast.IfExp(body=body, orelse=other):
                return [*self.ways(use, body), *self.ways(use, other)]
            case ast.Call(func=ast.Attribute(value=base, attr="format")):
                return [(re.sub(r"\{[^{}]*\}", HOLE, text), False) for text, _ in self.ways(use, base)]
            case ast.Call(
                func=ast.Attribute(value=ast.Constant(value=str() as glue), attr="join"),
                args=[ast.List(elts=parts) | ast.Tuple(elts=parts)],
            ):
                return [(glue.join(text for each in parts for text, _ in self.ways(use, each)), False)]
            case ast.Call(func=ast.Attribute(value=base), args=[]):
                return self.ways(use, base)
        found = self.texts.of(node, use.scope)
        return [(each, True) for each in sorted(found)] or self._composed(use, node)

    def _composed(self, use: CallUse, node: ast.expr) -> list[tuple[str, bool]]:
        """A statement that stands in a name, or in what `psycopg.sql` makes of it."""
        match node:
            case ast.Name(id=name):
                return self._held_in(use, name) or self._likely(use, node)
            case ast.Call(args=[first, *_]):
                return self.ways(use, first)
            case ast.Attribute(attr="db_table"):
                return [(self._table(use, node), True)]
        return self._likely(use, node)

    def _held_in(self, use: CallUse, name: str) -> list[tuple[str, bool]]:
        """The statements that a name may hold: what is added to one is left out."""
        bindings = use.scope.visible(name, use.position)
        is_alone = len(bindings) == 1 and name not in use.scope.parameters
        found = []
        for each in bindings:
            values = (
                each.node.elts
                if each.how is How.ELEMENT and isinstance(each.node, ast.Tuple | ast.List)
                else [each.node]
            )
            if each.how in {How.VALUE, How.ELEMENT}:
                at = use._replace(position=each.position)
                found += [way for one in values if isinstance(one, ast.expr) for way in self.ways(at, one)]
        return found if is_alone else [(text, False) for text, _ in found]

    def _likely(self, use: CallUse, node: ast.expr) -> list[tuple[str, bool]]:
        """The text that is known of most ways to an expression: it tells the table, and not the columns."""
        found = self.text(use, node)
        return [(found, False)] if found is not None else []

    def _part(self, use: CallUse, node: ast.expr) -> tuple[str, bool]:
        match node:
            case ast.Constant(value=text):
                return str(text), True
            case ast.FormattedValue(value=value):
                if table := self._table(use, value):
                    return table, True
                ways = self.texts.of(value, use.scope)
                return (next(iter(ways)), True) if len(ways) == 1 else (self.text(use, value) or HOLE, False)
        return HOLE, False

    def _table(self, use: CallUse, node: ast.expr) -> str:
        """`{Order._meta.db_table}`: the table of a model that is known."""
        for each in self.evaluator.of(node, self.evaluator.frame(use)):
            match each:
                case Api(
                    name="db_table", of=Api(name="_meta", of=ModelType(model=model) | Instance(model=model))
                ):
                    return model._meta.db_table
        return ""

    def text(self, use: CallUse, node: ast.expr) -> str | None:
        """The one text that the expression is known to be; None if there are several."""
        texts = {
            each.text if isinstance(each, Native) else None
            for each in self.evaluator.of(node, self.evaluator.frame(use))
        }
        return next(iter(texts)) if len(texts) == 1 else None
