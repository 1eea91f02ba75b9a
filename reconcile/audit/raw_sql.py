"""Which tables a statement writes. Parsing is sqlglot's, which the extra `audit` installs; without it nothing is told of any statement."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["TableWrite", "Verb", "can_parse", "is_writing", "writes_of"]

DIALECTS = {"postgresql": "postgres", "mysql": "mysql", "sqlite": "sqlite"}
"""What sqlglot calls the databases."""

_WRITING = re.compile(r"\b(insert|update|delete|replace|merge|truncate|copy)\b", re.IGNORECASE)
_READING = re.compile(
    r"\s*(select|show|explain|set|create|alter|drop|vacuum|analyze|lock|savepoint|pragma|listen|notify)\b",
    re.IGNORECASE,
)
_PARAMETER = re.compile(r"%s|%\(\w+\)s")
_REPLACE = re.compile(
    r"\A\s*(replace(\s+into)?|insert\s+ignore(\s+into)?|insert\s+or\s+\w+\s+into)\b", re.IGNORECASE
)


class Verb(StrEnum):
    """What a statement does to a table."""

    INSERT = "INSERT"
    UPDATE = "UPDATE"
    DELETE = "DELETE"


@dataclass(frozen=True, kw_only=True)
class TableWrite:
    """One table that a statement writes. columns: those that an UPDATE names."""

    table: str
    verb: Verb
    columns: tuple[str, ...] = ()


def can_parse() -> bool:
    """Whether sqlglot is installed."""
    try:
        import sqlglot  # noqa: F401
    except ImportError:
        return False
    return True


def is_writing(sql: str) -> bool:
    """Whether a text may be a statement that writes rows, by its words alone."""
    return bool(_WRITING.search(sql)) and not _READING.match(sql)


def writes_of(sql: str, vendor: str) -> list[TableWrite] | None:
    """The tables that the statement writes, outermost first; None where it can't be parsed."""
    import sqlglot
    from sqlglot.errors import SqlglotError

    # It logs what it doesn't know, and goes on without it.
    logging.getLogger("sqlglot").setLevel(logging.CRITICAL)
    text = _REPLACE.sub("INSERT INTO", _PARAMETER.sub("NULL", sql).replace("%%", "%"))
    try:
        parsed = sqlglot.parse(text, read=DIALECTS.get(vendor))
    except SqlglotError:
        return None
    if any(type(each).__name__ == "Command" for each in parsed):
        return None
    return [
        write
        for statement in parsed
        if statement is not None
        for node in statement.walk()
        for write in _writes(node)
    ]


def _writes(node: Any) -> Iterator[TableWrite]:
    from sqlglot import exp

    match node:
        case exp.Insert():
            yield from _named(node.this, Verb.INSERT)
        case exp.Copy() if node.args.get("kind"):
            yield from _named(node.this, Verb.INSERT)
        case exp.Update():
            columns = tuple(each.this.name for each in node.expressions if isinstance(each.this, exp.Column))
            yield from _named(node.this, Verb.UPDATE, columns)
        case exp.Delete():
            for each in node.args.get("tables") or [node.this]:
                yield from _named(each, Verb.DELETE)
        case exp.TruncateTable():
            for each in node.expressions:
                yield from _named(each, Verb.DELETE)
        case exp.Merge():
            for when in node.args["whens"].expressions:
                yield from _named(node.this, _merged(when.args.get("then")))


def _merged(then: Any) -> Verb:
    from sqlglot import exp

    if isinstance(then, exp.Insert):
        return Verb.INSERT
    return Verb.UPDATE if isinstance(then, exp.Update) else Verb.DELETE


def _named(node: Any, verb: Verb, columns: tuple[str, ...] = ()) -> Iterator[TableWrite]:
    from sqlglot import exp

    table = (
        node
        if isinstance(node, exp.Table)
        else next(iter(node.find_all(exp.Table)), None)
        if node is not None
        else None
    )
    if table is not None and table.name:
        yield TableWrite(table=table.name, verb=verb, columns=columns)
