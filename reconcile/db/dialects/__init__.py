"""One file of differences per database: transactions, locks, retryable errors, statement shapes."""

from __future__ import annotations

from django.db import connections

from reconcile.db.dialects.base import Dialect, Failure
from reconcile.db.dialects.mysql import MySQL
from reconcile.db.dialects.postgresql import PostgreSQL
from reconcile.db.dialects.sqlite import SQLite
from reconcile.errors import UsageError

__all__ = ["Dialect", "Failure", "dialect_of"]

_DIALECTS: dict[str, type[Dialect]] = {"postgresql": PostgreSQL, "mysql": MySQL, "sqlite": SQLite}


def dialect_of(using: str) -> Dialect:
    """The differences of the database behind the alias `using`.

    Raises UsageError if the database is none of PostgreSQL, MariaDB, MySQL and SQLite. Costs no statement.
    """
    connection = connections[using]
    if connection.vendor not in _DIALECTS:
        known = "PostgreSQL, MariaDB, MySQL and SQLite"
        raise UsageError(f"Database {using!r} is {connection.vendor}; reconcile works on {known}.")
    return _DIALECTS[connection.vendor](connection)
