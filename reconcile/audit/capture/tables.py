"""All rows of a database as its driver gives them, and what has changed between two readings: triggers, cascades and raw SQL included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db import connections

from reconcile.db.django_compat import key_columns, quoter, stored_tables
from reconcile.errors import EvaluationError

__all__ = ["MOST_ROWS", "Image", "RowChange", "changes_between", "read_tables"]

MOST_ROWS = 200_000
"""Rows of all tables together that are read."""

_LEFT_OUT = frozenset({"django_migrations"})

Key = tuple[Any, ...]
Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RowChange:
    """One row that an act has changed. before: what it was, None of a new one. after: what it is, None of one that is gone.

    key: the values of its primary key; all of its values, where the table has none that is known.
    """

    table: str
    key: Key
    before: Row | None
    after: Row | None

    @property
    def changed(self) -> tuple[str, ...]:
        """The columns that have another value than before; none of a new row or one that is gone."""
        if self.before is None or self.after is None:
            return ()
        return tuple(name for name, value in self.after.items() if not _is_same(self.before[name], value))


Image = Mapping[str, Mapping[Key, Row]]
"""The rows of each table by their keys."""


def read_tables(using: str) -> Image:
    """Read all tables of the database but those of the package's own runs. Raises EvaluationError if they hold more than MOST_ROWS rows."""
    keys = {each._meta.db_table: key_columns(each) for each in apps.get_models(include_auto_created=True)}
    own = {
        each._meta.db_table
        for each in apps.get_app_config("reconcile").get_models()
        if each.__name__ != "Receipt"
    }
    found: dict[str, Mapping[Key, Row]] = {}
    left = MOST_ROWS
    for table in sorted(stored_tables(connections[using]) - _LEFT_OUT - own):
        found[table] = _read(using, table, keys.get(table, ()), left)
        left -= len(found[table])
    return found


def _read(using: str, table: str, key: Sequence[str], left: int) -> Mapping[Key, Row]:
    connection = connections[using]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {quoter(connection)(table)} LIMIT {left + 1}")
        names = [each[0] for each in cursor.description]
        rows = cursor.fetchall()
    if len(rows) > left:
        raise EvaluationError(
            f"The tables hold more than {MOST_ROWS:,} rows ({table} is one of the last that were read), and all of them are compared before and after. "
            "Run it on a copy with fewer rows, or on a test database with fixtures."
        )
    return dict(_with_keys([dict(zip(names, row, strict=True)) for row in rows], key))


def _with_keys(rows: Sequence[Row], key: Sequence[str]) -> Iterator[tuple[Key, Row]]:
    """The rows by their keys; those of a table without one by all that they hold, and how many like them came before."""
    seen: Counter[Key] = Counter()
    for row in rows:
        if key:
            yield tuple(row[each] for each in key), row
        else:
            values = tuple(map(repr, row.values()))
            seen[values] += 1
            yield (*values, seen[values]), row


def changes_between(before: Image, after: Image) -> tuple[RowChange, ...]:
    """The rows that are new, gone, or hold another value, by table and key."""
    return tuple(
        each for table in sorted({*before, *after}) for each in _changes(table, before.get(table, {}), after.get(table, {}))
    )  # fmt: skip


def _changes(table: str, before: Mapping[Key, Row], after: Mapping[Key, Row]) -> Iterator[RowChange]:
    for key in {**before, **after}:
        one, other = before.get(key), after.get(key)
        if one is None or other is None or not _are_same(one, other):
            yield RowChange(table=table, key=key, before=one, after=other)


def _are_same(one: Row, other: Row) -> bool:
    if one == other:
        return [*map(type, one.values())] == [*map(type, other.values())]
    return all(_is_same(one[name], other.get(name)) for name in one)


def _is_same(one: Any, other: Any) -> bool:
    """Whether they are one value: 1, 1.0 and True are three, as a database may tell them apart, and NaN is itself."""
    return one is other or (type(one) is type(other) and (one == other or repr(one) == repr(other)))
