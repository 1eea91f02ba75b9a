import sqlite3

import pytest
from django.db import Error, IntegrityError, InterfaceError, OperationalError, connections

from reconcile.db.dialects import dialect_of, mysql
from reconcile.db.dialects.mysql import MySQL
from reconcile.db.dialects.postgresql import PostgreSQL
from reconcile.db.dialects.sqlite import SQLite
from reconcile.errors import UsageError


def error(kind, *args, **codes):
    """A Django error as its backend raises it, with the driver's error as its cause."""
    made = kind(*args)
    made.__cause__ = type("Cause", (Exception,), codes)()
    return made


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03", "57014"])
def test_postgresql_s_passing_states_are_tried_again(state):
    assert PostgreSQL(None).is_transient(error(OperationalError, sqlstate=state))
    assert not PostgreSQL(None).is_lost(error(OperationalError, sqlstate=state))


@pytest.mark.parametrize("state", ["57P01", "08006", None])
def test_postgresql_s_ended_sessions_are_not_tried_again(state):
    assert PostgreSQL(None).is_lost(error(InterfaceError, sqlstate=state))
    assert not PostgreSQL(None).is_transient(error(InterfaceError, sqlstate=state))


def test_a_unique_violation_on_postgresql_is_neither():
    violation = error(Error, sqlstate="23505")
    assert not PostgreSQL(None).is_lost(violation)
    assert not PostgreSQL(None).is_transient(violation)


@pytest.mark.parametrize("code", [1062, 1205, 1213])
def test_mariadb_s_passing_errors_are_tried_again(code):
    assert MySQL(None).is_transient(OperationalError(code, "x"))
    assert not MySQL(None).is_lost(OperationalError(code, "x"))


@pytest.mark.parametrize("code", [2006, 2013, 1927])
def test_mariadb_s_ended_sessions_are_not_tried_again(code):
    assert MySQL(None).is_lost(OperationalError(code, "x"))
    assert not MySQL(None).is_transient(OperationalError(code, "x"))


def test_an_update_on_mariadb_looks_its_rows_up_by_their_keys():
    statement = MySQL(None).update_from(
        table="`t`", key="`id`", wanted_key="e.`k`", assignments=[("`n`", "e.`v`")], select="SELECT 1"
    )
    assert statement == (
        "UPDATE (SELECT 1) AS e STRAIGHT_JOIN `t` FORCE INDEX (PRIMARY) ON `t`.`id` = e.`k` SET `t`.`n` = e.`v`"
    )


@pytest.mark.parametrize(("mariadb", "word"), [(True, ""), (False, "ROW")])
def test_rows_of_values_are_named_on_mysql_alone(mariadb, word):
    server = type("Server", (), {"mysql_is_mariadb": mariadb})()
    assert MySQL(server).row_word() == word
    assert PostgreSQL(server).row_word() == ""


def test_a_locked_sqlite_file_is_tried_again():
    for code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_BUSY_SNAPSHOT):
        assert SQLite(None).is_transient(error(OperationalError, sqlite_errorcode=code))
    assert not SQLite(None).is_transient(error(OperationalError, sqlite_errorcode=sqlite3.SQLITE_FULL))
    assert not SQLite(None).is_transient(OperationalError("no such table: x"))
    assert not SQLite(None).is_lost(OperationalError("disk I/O error"))


def test_a_constraint_on_sqlite_is_not_transient_whatever_its_table_is_called():
    said = "UNIQUE constraint failed: shop_blockeduser.email"
    assert not SQLite(None).is_transient(IntegrityError(said))
    assert not SQLite(None).is_transient(OperationalError("no such table: busy_locked"))


def test_a_database_of_another_kind_is_refused(settings):
    other = type("Oracle", (), {"vendor": "oracle", "alias": "default"})()
    mine = connections["default"]
    connections["default"] = other
    try:
        with pytest.raises(UsageError, match="is oracle; reconcile works on PostgreSQL"):
            dialect_of("default")
    finally:
        connections["default"] = mine


@pytest.mark.django_db(transaction=True)
def test_a_chunk_on_sqlite_begins_as_a_writer():
    connection = connections["default"]
    if connection.vendor != "sqlite":
        pytest.skip("SQLite alone has transaction modes")
    sent = []
    connection.close()

    def note(execute, sql, params, many, context):
        sent.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note), dialect_of("default").transaction():
        pass
    assert sent == ["BEGIN IMMEDIATE"]
    assert connection.transaction_mode is None


@pytest.mark.parametrize(
    ("grant", "shown"),
    [
        ("GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost`", True),
        ("GRANT SELECT, INSERT ON `shop`.* TO `u`@`%`", True),
        ("GRANT SELECT, INSERT ON `sho_`.* TO `u`@`%`", True),
        ("GRANT SELECT, INSERT ON `sh%`.* TO `u`@`%`", True),
        (r"GRANT SELECT, INSERT ON `sho\_`.* TO `u`@`%`", False),
        ("GRANT SELECT ON `shop`.* TO `u`@`%`", False),
        ("GRANT PROCESS, RELOAD ON *.* TO `u`@`%`", False),
        ("GRANT CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE ON `shop`.* TO `u`@`%`", False),
        ("GRANT INSERT ON `other`.* TO `u`@`%`", False),
        ("GRANT SELECT, INSERT ON `shop`.`orders` TO `u`@`%`", False),
        ("GRANT USAGE ON *.* TO `u`@`%`", False),
    ],
)
def test_which_rights_show_foreign_keys(grant, shown):
    matched = mysql._GRANT.match(grant)
    assert bool(matched and mysql._shows_keys(matched, "shop")) is shown
