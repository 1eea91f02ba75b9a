"""Statements as people read them: values written in, lines broken; for reading, or to be pasted into the shell of a database."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any
from uuid import uuid4

import sqlparse
from django.db.models import Expression, QuerySet
from sqlparse.exceptions import SQLParseError

from reconcile.db.dialects import dialect_of, literal
from reconcile.db.django_compat import SQL
from reconcile.db.statements import select_sql

__all__ = ["Symbol", "executable_select", "executable_text", "statement_text"]


class Symbol(Expression):
    """A name in the place of a value, such as `:after`, for a statement that is printed and never run."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[str | int, ...]]:  # noqa: ARG002
        """The bare name; lookups put it into parentheses, which `statement_text` takes away."""
        return self.name, ()


def statement_text(
    queryset: QuerySet[Any, Any], *, symbols: tuple[Symbol, ...] = (), words: Mapping[str, str] | None = None
) -> str | None:
    """The queryset's SELECT with its values written in; None if Django knows that it has no rows.

    `words` are to stand for the values that read like their keys. With symbols, the text is the same under each
    version of Django.
    """
    selected = select_sql(queryset)
    if selected is None:
        return None
    sql, params = selected
    if symbols:
        sql = _alike(sql, symbols)
    replacements = words or {}
    return _break_lines(sql % tuple(replacements.get(str(param)) or literal(param) for param in params))


_LITERAL = re.compile("'(?:[^']|'')*'")


def _break_lines(sql: str) -> str:
    """The statement in lines. Its literals are taken out meanwhile: the formatter takes a backslash in one for an escape, and breaks the rest."""
    literals = iter(_LITERAL.findall(sql))
    try:
        broken = sqlparse.format(_LITERAL.sub("''", sql), reindent=True)
    except SQLParseError:
        # It gives up on very long lists of values.
        return sql
    # It takes the word for the statement.
    locking = re.sub(r"\bFOR(?: NO KEY)?\s+UPDATE\b", lambda found: " ".join(found[0].split()), broken)
    return re.sub("''", lambda _: next(literals), locking)


def executable_select(queryset: QuerySet[Any, Any]) -> str | None:
    """The queryset's SELECT as `executable_text`; None if Django knows that it has no rows."""
    selected = select_sql(queryset)
    return None if selected is None else executable_text(selected, using=queryset.db)


def executable_text(statement: SQL, *, using: str) -> str:
    """The statement as its database takes it without parameters.

    It has no character that a terminal would not print as it is, so that a copy of the screen is the same statement.
    """
    sql, params = statement
    dialect = dialect_of(using)
    spelled: dict[str, str] = {}
    named = [_named(each, spelled, dialect.spell_text) for each in params]
    written = dialect.write_out(_break_lines(sql), named)
    return reduce(lambda so_far, each: so_far.replace(f"'{each}'", spelled[each]), spelled, written)


def _named(value: Any, spelled: dict[str, str], spell: Callable[[str], str]) -> Any:
    """The value; one that has what can't be printed by a name of its own, under which it is then `spelled`."""
    if isinstance(value, str) and not value.isprintable():
        found = spell(str.__str__(value))
    elif isinstance(value, list) and any(isinstance(each, str) and not each.isprintable() for each in value):
        # An array's text would have the characters as they are.
        items = (
            literal(each) if not isinstance(each, str) or each.isprintable() else spell(each)
            for each in value
        )
        found = f"ARRAY[{', '.join(items)}]"
    else:
        return value
    name = f"text-{uuid4().hex}"
    spelled[name] = found
    return name


def _alike(sql: str, symbols: tuple[Symbol, ...]) -> str:
    for each in symbols:
        sql = sql.replace(f"({each.name})", each.name)
    # Since Django 6 the aliases of subqueries and of filtered relations are quoted.
    return re.sub(r"""(["`])([T-Z]\d+|_\w+(?=["`](?:\.| ON )))\1""", r"\2", sql)
