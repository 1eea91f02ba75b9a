"""Pushes the sequences of tables apart, so that a key of a new row is no number that anything else may be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from django.db import connections
from django.db.models import AutoField, BigAutoField, Model, SmallAutoField

from reconcile.db.django_compat import in_transaction, own_columns, quoter, stored_tables

__all__ = ["sequences_apart"]

STEP = 1_000_003
"""How far the keys of two tables are apart; a prime, so that no round number is one."""


@contextmanager
def sequences_apart(using: str, models: Sequence[type[Model]]) -> Iterator[Mapping[str, int]]:
    """While the block runs, each table makes keys from a range of its own. Yields the least of these by table. For a database of tests: the next keys stay there.

    Within a transaction of MariaDB, which pushing would commit, all tables make keys that are far apart, from one range.
    """
    connection = connections[using]
    if connection.vendor == "mysql" and in_transaction(using):
        with _apart_in_session(using, models) as least:
            yield least
        return
    stored = stored_tables(connection)
    push = {"postgresql": _push_postgresql, "sqlite": _push_sqlite, "mysql": _push_mysql}[connection.vendor]
    least = {}
    for place, (table, column) in enumerate(_made_keys(models), 1):
        if table in stored:
            least[table] = STEP * place
            push(using, table, column, STEP * place)
    yield least


def _made_keys(models: Sequence[type[Model]]) -> Iterator[tuple[str, str]]:
    """The tables whose keys are made, with the column; a small key has no room for a range."""
    for model in models:
        for each in own_columns(model):
            if isinstance(each, AutoField | BigAutoField) and not isinstance(each, SmallAutoField):
                yield model._meta.db_table, str(each.column)


def _push_postgresql(using: str, table: str, column: str, least: int) -> None:
    connection = connections[using]
    quote = quoter(connection)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_get_serial_sequence(%s, %s)", [quote(table), column])
        (sequence,) = cursor.fetchone()
        if sequence is not None:
            cursor.execute(f"SELECT setval(%s, GREATEST(last_value, %s)) FROM {sequence}", [sequence, least])


def _push_sqlite(using: str, table: str, column: str, least: int) -> None:  # noqa: ARG001
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT seq FROM sqlite_sequence WHERE name = %s", [table])
        found = cursor.fetchone()
        if found is None:
            cursor.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (%s, %s)", [table, least])
        else:
            cursor.execute(
                "UPDATE sqlite_sequence SET seq = %s WHERE name = %s", [max(found[0], least), table]
            )


def _push_mysql(using: str, table: str, column: str, least: int) -> None:  # noqa: ARG001
    connection = connections[using]
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {quoter(connection)(table)} AUTO_INCREMENT = {least}")


@contextmanager
def _apart_in_session(using: str, models: Sequence[type[Model]]) -> Iterator[Mapping[str, int]]:
    if any(isinstance(each, SmallAutoField) for model in models for each in own_columns(model)):
        # Such a key would overflow.
        yield {}
        return
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT @@SESSION.auto_increment_increment, @@SESSION.auto_increment_offset")
        before = cursor.fetchone()
        cursor.execute(_APART, [SESSION_STEP, SESSION_OFFSET])
    try:
        yield {table: SESSION_OFFSET for table, _ in _made_keys(models)}
    finally:
        with connections[using].cursor() as cursor:
            cursor.execute(_APART, before)


_APART = "SET SESSION auto_increment_increment = %s, SESSION auto_increment_offset = %s"
SESSION_STEP, SESSION_OFFSET = 65_521, 31_337
"""The largest that the server takes is 65,535."""
