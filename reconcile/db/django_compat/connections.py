"""Connections and what stands in the database: what hand-made SQL and the protocol need to know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import connections, router
from django.db.backends.base.base import (
    BaseDatabaseWrapper,  # The type of a connection, which each as_sql() is given.
)
from django.db.backends.utils import (
    CursorWrapper,  # The class of each cursor, by whose execute() and executemany() each statement goes.
    names_digest,  # The digest in a long name of a constraint, short and the same in each process.
)
from django.db.models import Index, Model, QuerySet

__all__ = [
    "INDEX_TYPE",
    "BaseDatabaseWrapper",
    "CursorWrapper",
    "begin_mode",
    "connect",
    "constraints_in",
    "driver_connection",
    "explicit_alias",
    "has_pending_migrations",
    "hooks_on_commit",
    "in_transaction",
    "index_sql",
    "integer_range",
    "is_mariadb",
    "is_migrated",
    "is_nested_in_transaction",
    "is_utf8",
    "mysql_version",
    "name_index",
    "names_digest",
    "postgresql_version",
    "quoter",
    "rows_in_statement",
    "settings_of",
    "stand_in_for_server",
    "stored_tables",
    "subtract_times",
    "table_names",
    "write_in_values",
]


# Indexes.

INDEX_TYPE = Index.suffix
"""`Index.suffix`: the type by which `constraints_in` names a plain index on SQLite."""


def name_index(index: Index, model: type[Model]) -> None:
    """`set_name_with_model()`: give the index the name that Django would give it in a migration."""
    index.set_name_with_model(model)


def index_sql(index: Index, model: type[Model], connection: BaseDatabaseWrapper, **options: Any) -> str:
    """`Index.create_sql()`: the statement that would make the index, for people to run."""
    # Outside its own `with` the editor only words statements.
    return str(index.create_sql(model, connection.schema_editor(), **options))


def constraints_in(connection: BaseDatabaseWrapper, table: str) -> Mapping[str, Mapping[str, Any]]:
    """`introspection.get_constraints()`: the table's keys, indexes and constraints by name. A few statements."""
    with connection.cursor() as cursor:
        return connection.introspection.get_constraints(cursor, table)


def stored_tables(connection: BaseDatabaseWrapper) -> frozenset[str]:
    """`introspection.get_table_list()`: the tables that there are, partitioned ones too, views not. One statement."""
    with connection.cursor() as cursor:
        listed = connection.introspection.get_table_list(cursor)
    return frozenset(each.name for each in listed if each.type in {"t", "p"})


def table_names(connection: BaseDatabaseWrapper) -> Sequence[str]:
    """`introspection.table_names()`: whether our own tables were made. One statement."""
    return connection.introspection.table_names()


# Connections: what hand-made SQL and the protocol need to know.


def rows_in_statement(using: str, fields: Sequence[Any], rows: Sequence[Any]) -> int:
    """`bulk_batch_size()`: how many of the rows one statement of Django's takes, with a parameter for each of the fields."""
    return int(connections[using].ops.bulk_batch_size(fields, rows))


def quoter(connection: BaseDatabaseWrapper) -> Callable[[str], str]:
    """`ops.quote_name()`: the function that quotes a name for this database."""
    return connection.ops.quote_name


def subtract_times(connection: BaseDatabaseWrapper, kind: str, lhs: Any, rhs: Any) -> tuple[str, Any]:
    """`ops.subtract_temporals()`: SQL and parameters of a difference of two times, as the ORM words it."""
    return connection.ops.subtract_temporals(kind, lhs, rhs)


def integer_range(connection: BaseDatabaseWrapper, kind: str) -> tuple[int | None, int | None]:
    """`ops.integer_field_range()`: the least and the largest that an integer column holds; None if nothing limits it."""
    return connection.ops.integer_field_range(kind)


def write_in_values(connection: BaseDatabaseWrapper, sql: str, params: Sequence[Any]) -> str:
    """`ops.compose_sql()` of PostgreSQL: the statement with its values written in."""
    written: str = connection.ops.compose_sql(sql, tuple(params))  # type: ignore[attr-defined]
    return written


def driver_connection(connection: BaseDatabaseWrapper) -> Any:
    """`connection.connection`: the driver's own connection; None if none is open."""
    return connection.connection


def has_pending_migrations(connection: BaseDatabaseWrapper) -> bool:
    """`MigrationExecutor.migration_plan()`: whether `migrate` would change the database. Two statements. Raises its error."""
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connection)
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def connect(connection: BaseDatabaseWrapper) -> None:
    """`ensure_connection()`: connect now, so that a database that can't be reached is told here. Raises its error."""
    connection.ensure_connection()


def settings_of(connection: BaseDatabaseWrapper) -> Mapping[str, Any]:
    """`settings_dict`: host and name of the database that is really used, which a test's may differ from."""
    return connection.settings_dict


def in_transaction(using: str) -> bool:
    """`in_atomic_block`: whether an atomic() of the caller's is open, which only the caller can try again."""
    return connections[using].in_atomic_block


def explicit_alias(queryset: QuerySet[Any]) -> str | None:
    """`_db`: the database that somebody has chosen for the queryset by `using()`; None if a router chooses."""
    alias: str | None = queryset._db  # type: ignore[attr-defined]
    return alias


def is_nested_in_transaction(using: str) -> bool:
    """`atomic_blocks`: whether an atomic() is open that is not a test case's, so that a durable one can't be begun."""
    return any(not getattr(block, "_from_testcase", False) for block in connections[using].atomic_blocks)


def hooks_on_commit(using: str) -> list[Any]:
    """`run_on_commit`: what is to be done after COMMIT, as (savepoints, function, robust); the list itself."""
    hooks: list[Any] = connections[using].run_on_commit
    return hooks


@contextmanager
def begin_mode(connection: BaseDatabaseWrapper, mode: str) -> Iterator[None]:
    """`transaction_mode`: on SQLite, the word after BEGIN, which the settings give for all transactions alike."""
    wrapper: Any = connection
    # Connecting sets the mode from the settings, so it has to come first.
    connect(wrapper)
    before = wrapper.transaction_mode
    wrapper.transaction_mode = mode
    try:
        yield
    finally:
        wrapper.transaction_mode = before


def is_mariadb(connection: BaseDatabaseWrapper) -> bool:
    """`mysql_is_mariadb`: the one vendor "mysql" is two servers, with other locks. Asks the server once."""
    wrapper: Any = connection
    return bool(wrapper.mysql_is_mariadb)


def mysql_version(connection: BaseDatabaseWrapper) -> tuple[int, ...]:
    """`mysql_version`: the isolation level's variable has another name since MariaDB 11.1. Asks the server once."""
    wrapper: Any = connection
    version: tuple[int, ...] = wrapper.mysql_version
    return version


def postgresql_version(connection: BaseDatabaseWrapper) -> int:
    """`pg_version`: 140000 for 14.0; older servers lack a setting of the chunk's. Asks the server once."""
    wrapper: Any = connection
    return int(wrapper.pg_version)


def is_utf8(connection: BaseDatabaseWrapper) -> bool:
    """Whether the PostgreSQL server keeps texts as UTF-8, as the driver was told when it connected; no if there is no session."""
    session: Any = connection.connection
    if session is None:
        return False
    read = getattr(session.info, "parameter_status", None) or session.get_parameter_status
    return read("server_encoding") in {"UTF8", b"UTF8"}


@contextmanager
def stand_in_for_server(
    connection: BaseDatabaseWrapper, facts: Mapping[str, Any], *, forgetting: Iterable[str] = ()
) -> Iterator[None]:
    """`features_class`: while statements are compiled to be read, `facts` stand in for what Django asks the server.

    `forgetting` are facts that it works out of these; it keeps them all, and its features, as attributes.
    """
    remembered: dict[str, Any] = vars(connection)
    names = ("features", *facts, *forgetting)
    before = {name: remembered.pop(name) for name in names if name in remembered}
    remembered.update(facts)
    remembered["features"] = connection.features_class(connection)
    try:
        yield
    finally:
        for name in names:
            remembered.pop(name, None)
        remembered.update(before)


def is_migrated(model: type[Model], using: str) -> bool:
    """`router.allow_migrate_model()`: whether the table is made on this database, with the hints of migrate."""
    return router.allow_migrate_model(using, model)
