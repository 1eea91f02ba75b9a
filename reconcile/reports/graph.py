"""`reconcile rules graph`: which rule runs before which, and for the sake of which columns, as Mermaid or DOT.

An arrow leads from a rule that writes columns to one that reads them. In a circle each rule waits for another, so that its arrows are dotted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reconcile.db.expressions import Column
from reconcile.rules.order import Order

__all__ = ["dot", "escaped", "mermaid"]


@dataclass(frozen=True)
class _Arrow:
    before: str
    after: str
    columns: str
    in_circle: bool


def mermaid(order: Order) -> str:
    """A flowchart, as Markdown pages of many hosts draw it."""
    ids = {rule.name: f"r{number}" for number, rule in enumerate(order.rules)}
    lines = ["flowchart LR", *(f'    {ids[name]}["{escaped(name)}"]' for name in ids)]
    for each in _arrows(order):
        line = "-.->" if each.in_circle else "-->"
        lines.append(f'    {ids[each.before]} {line}|"{escaped(each.columns)}"| {ids[each.after]}')
    return "\n".join(lines)


def escaped(text: str) -> str:
    """The text inside of quotes: Mermaid reads entities, with # in the place of &."""
    return "".join(char if char.isalnum() or char in " ._-,+" else f"#{ord(char)};" for char in text)


def dot(order: Order) -> str:
    """A digraph for Graphviz: `reconcile rules graph --format dot | dot -Tsvg`."""
    lines = ["digraph rules {", "    rankdir=LR;", "    node [shape=box];"]
    lines += [f"    {_quoted(rule.name)};" for rule in order.rules]
    for each in _arrows(order):
        style = ", style=dotted" if each.in_circle else ""
        lines.append(
            f"    {_quoted(each.before)} -> {_quoted(each.after)} [label={_quoted(each.columns)}{style}];"
        )
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    return '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"'))


NAMED = 3
"""Columns that an arrow names."""


def _arrows(order: Order) -> Iterator[_Arrow]:
    for rule in order.rules:
        for before, columns in order.before(rule.name):
            together = any({before, rule.name} <= {*circle} for circle in order.circles)
            yield _Arrow(before, rule.name, _columns_in_words(columns), together)


def _columns_in_words(columns: Sequence[Column]) -> str:
    named = ", ".join(f"{model.__name__}.{name}" for model, name in columns[:NAMED])
    return f"{named}, +{len(columns) - NAMED}" if len(columns) > NAMED else named
