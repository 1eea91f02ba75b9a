"""Rows that have been read from the database, as a SELECT of constants that another statement joins.

The constants are the driver's own values, so that nothing is lost on the way through a field's Python type. An empty
SELECT of the columns that they are for comes first: it gives NULLs, texts and keys the columns' types and
collations, and a key of the right type is looked up by its index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

__all__ = ["BATCH", "LONG", "batches", "select_constants"]

Row = Sequence[Any]

BATCH = 5_000
"""Rows in one statement: a whole chunk, for which the server takes 8 MB."""

LONG = 1_000_000
"""Characters in one statement, but for a single row that has more: servers take 16 MB, and escaping may double it."""


def batches(rows: Sequence[Row], *, most: int = BATCH, long: int = LONG) -> Iterator[Sequence[Row]]:
    """`rows`, cut so that each batch has at most `most` rows and `long` characters."""
    start = characters = 0
    for at, row in enumerate(rows):
        size = sum(len(value) for value in row if isinstance(value, str | bytes))
        if at > start and (at - start == most or characters + size > long):
            yield rows[start:at]
            start, characters = at, 0
        characters += size
    if start < len(rows):
        yield rows[start:]


def select_constants(
    rows: Sequence[Row], *, table: str, columns: Sequence[tuple[str, str]], row: str = ""
) -> tuple[str, tuple[Any, ...]]:
    """`rows` as a SELECT of `columns`: of `table`, the column that each is for, and its alias. Names are quoted.

    row: the word that the database wants before each row of VALUES.
    """
    typed = ", ".join(f"{table}.{column} AS {alias}" for column, alias in columns)
    constants = ", ".join([f"{row}({', '.join(['%s'] * len(columns))})"] * len(rows))
    sql = f"SELECT {typed} FROM {table} WHERE FALSE UNION ALL VALUES {constants}"
    return sql, tuple(chain.from_iterable(rows))
