"""What differs from database to database: how it begins a chunk, locks and fails in one file, what it spells in words of its own in `…_forms`."""

from __future__ import annotations

from django.db import connections

from reconcile.db.dialects.base import Dialect, Failure, literal
from reconcile.db.dialects.forms import Forms, ImageColumn, spell
from reconcile.db.dialects.mysql import MySQL
from reconcile.db.dialects.postgresql import PostgreSQL
from reconcile.db.dialects.sqlite import SQLite
from reconcile.db.django_compat import BaseDatabaseWrapper
from reconcile.errors import UsageError

__all__ = [
    "DIALECTS",
    "Dialect",
    "Failure",
    "Forms",
    "ImageColumn",
    "dialect_of",
    "forms_of",
    "literal",
    "spell",
]

DIALECTS: dict[str, type[Dialect]] = {"postgresql": PostgreSQL, "mysql": MySQL, "sqlite": SQLite}


def forms_of(connection: BaseDatabaseWrapper) -> Forms:
    """The forms of SQL of the connection's database. Raises UsageError as `dialect_of` does. Costs no statement."""
    return _dialect(connection).forms(connection)


def dialect_of(using: str) -> Dialect:
    """The differences of the database behind the alias `using`.

    Raises UsageError if the database is none of PostgreSQL, MariaDB, MySQL and SQLite. Costs no statement.
    """
    connection = connections[using]
    return _dialect(connection)(connection)


def _dialect(connection: BaseDatabaseWrapper) -> type[Dialect]:
    if connection.vendor not in DIALECTS:
        known = "PostgreSQL, MariaDB, MySQL and SQLite"
        raise UsageError(f"Database {connection.alias!r} is {connection.vendor}; reconcile works on {known}.")
    return DIALECTS[connection.vendor]
