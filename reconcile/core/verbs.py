"""The verbs: what a repair does with rows and records, and the word for it in each report, all in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "CALLED",
    "DELETE",
    "ENQUEUED",
    "INSERT",
    "UNDOABLE",
    "UPDATE",
    "VERBS",
    "Verb",
    "Written",
    "verbs_of",
]


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One verb. Its name stands in the journal and in JSON, and heads a column of the text reports.

    act: what a repair would do, before a number of rows. statement: which of `insert`, `update` and `delete` it is for the database,
    which decides what images a change of it has; empty if it leaves the database. inverse: the verb that takes it back; empty if
    nothing does. always: whether it has its column even if nothing is written.
    """

    act: str
    statement: str = ""
    inverse: str = ""
    always: bool = False


INSERT, UPDATE, DELETE, CALLED, ENQUEUED = "insert", "update", "delete", "called", "enqueued"

VERBS: Mapping[str, Verb] = {
    INSERT: Verb(act="insert", statement=INSERT, inverse=DELETE, always=True),
    UPDATE: Verb(act="update", statement=UPDATE, inverse=UPDATE, always=True),
    DELETE: Verb(act="delete", statement=DELETE, inverse=INSERT),
    CALLED: Verb(act="call for"),
    ENQUEUED: Verb(act="enqueue"),
}
"""All verbs, in the order of the columns. The last two count records that were handed over to the project's code."""

UNDOABLE = tuple(name for name, verb in VERBS.items() if verb.inverse)
"""Verbs of changes that have an image."""


def verbs_of(statement: str) -> Sequence[str]:
    """The verbs that are this statement for the database."""
    return [name for name, verb in VERBS.items() if verb.statement == statement]


class Written:
    """Rows that a repair plans or has written, by verb: `written["insert"]`, or `written.insert`."""

    __slots__ = ("_rows",)

    def __init__(self, **rows: int) -> None:
        if unknown := rows.keys() - VERBS.keys():
            raise TypeError(f"There is no verb {min(unknown)!r}.")
        self._rows = {verb: rows.get(verb, 0) for verb in VERBS}

    def __getitem__(self, verb: str) -> int:
        return self._rows[verb]

    def __getattr__(self, verb: str) -> int:
        if verb not in VERBS:
            raise AttributeError(verb)
        return self._rows[verb]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Written) and self._rows == other._rows

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Written({', '.join(f'{verb}={rows}' for verb, rows in self._rows.items() if rows)})"

    @property
    def total(self) -> int:
        """Rows written by all verbs."""
        return sum(self._rows.values())

    def by(self, statement: str) -> int:
        """Rows written by all verbs that are this statement for the database."""
        return sum(self._rows[verb] for verb in verbs_of(statement))

    def add(self, verb: str, rows: int) -> None:
        """Count `rows` more under `verb`."""
        self._rows[verb] += rows

    def __add__(self, other: Written) -> Written:
        return Written(**{verb: rows + other[verb] for verb, rows in self._rows.items()})

    def as_dict(self) -> dict[str, int]:
        """The counts by verb."""
        return dict(self._rows)
