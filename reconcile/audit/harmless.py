"""Whether a statement leaves its transaction open and does nothing outside of it, by its text alone: what isn't known to be harmless is not."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["harm_of", "is_reading", "text_of"]

_PLAIN = r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\""
_ESCAPED = r"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\""
_DOLLAR = r"(\$\w*\$).*?\1"
_COMMENTS = r"--[^\n]*|/\*.*?\*/"
_QUOTED = {
    "postgresql": (rf"{_PLAIN}|{_DOLLAR}|{_COMMENTS}", rf"{_ESCAPED}|{_DOLLAR}|{_COMMENTS}"),
    "mysql": (rf"{_PLAIN}|`[^`]*`|#[^\n]*|{_COMMENTS}", rf"{_ESCAPED}|`[^`]*`|#[^\n]*|{_COMMENTS}"),
    "sqlite": (rf"{_PLAIN}|`[^`]*`|{_COMMENTS}",),
}
"""Texts, names and comments, in which no word is one of the statement, in each way in which the database may take them: a setting, or an `E` before the text,
says whether a backslash quotes."""

_BEGINS = frozenset({
    "select", "with", "insert", "update", "delete", "replace", "merge", "values", "savepoint", "release", "rollback", "set", "show", "explain", "table",
    "pragma", "notify",
})  # fmt: skip

_HARM = re.compile(
    r"\binto\s+(outfile|dumpfile)\b|\bor\s+rollback\b|^\s*rollback(?!\s+to\b)"
    r"|^\s*set\s+(global|persist|password|default|statement|@@global)\b|^\s*set\b.*\bautocommit\b|^\s*pragma\b.*=",
    re.IGNORECASE | re.DOTALL,
)
_WRITES = re.compile(r"\b(insert|update|delete|replace|merge|set|notify)\b", re.IGNORECASE)


def text_of(sql: Any, cursor: Any) -> str:
    """The text of what a cursor is handed: a text, its bytes, or what the driver composes."""
    if isinstance(sql, str):
        return str.__str__(sql)
    if isinstance(sql, bytes | bytearray):
        return bytes(sql).decode(errors="replace")
    return str(sql.as_string(cursor)) if hasattr(sql, "as_string") else repr(sql)


def harm_of(sql: str, vendor: str) -> str:
    """What the statement may do that a rollback does not undo, in words; empty if nothing."""
    if "/*!" in sql or "/*M!" in sql:
        return "a comment that the server executes"
    return next(filter(None, map(_harm_in, _words_of(sql, vendor))), "")


def _words_of(sql: str, vendor: str) -> list[str]:
    """The statement without what isn't a word of it, in each way in which it may be taken."""
    return [re.sub(each, " ", sql, flags=re.DOTALL) for each in _QUOTED[vendor]]


def _harm_in(words: str) -> str:
    words = words.lstrip("( \t\r\n")
    if sum(bool(each.strip()) for each in words.split(";")) > 1:
        return "several statements at once"
    first = re.match(r"\w+", words)
    if first is None or first[0].lower() not in _BEGINS or _HARM.search(words):
        return f"the statement {' '.join(words.split()[:2])}"
    return ""


def is_reading(sql: str, vendor: str) -> bool:
    """Whether the statement is one that only reads."""
    return not harm_of(sql, vendor) and not any(map(_WRITES.search, _words_of(sql, vendor)))
