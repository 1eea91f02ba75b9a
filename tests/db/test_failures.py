"""Whose failure an error is: code by code, provoked on real servers where a test can."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from django.db import DatabaseError, connection, transaction

from reconcile import HaveValues, Rule
from reconcile.db.dialects import Failure, dialect_of
from tests.helpers import repaired, statements
from tests.zoo.models import Contact

VISITS = Rule(name="visits", every=Contact, must=HaveValues(visits=1))


def failure_of(*statements):
    with pytest.raises(DatabaseError) as raised, transaction.atomic(), connection.cursor() as cursor:
        for each in statements:
            cursor.execute(each)
    return dialect_of("default").failure(raised.value)


@contextmanager
def trigger(raising, *, deferred=False):
    """While this lasts, an update of the contact whose email is `bad` runs the statement."""
    vendor = connection.vendor
    with connection.cursor() as cursor:
        if vendor == "postgresql":
            cursor.execute(
                f"CREATE FUNCTION zoo_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                f"IF NEW.email = 'bad' THEN {raising}; END IF; RETURN NEW; END $$"
            )
            made = "CREATE CONSTRAINT TRIGGER zoo_refuse AFTER UPDATE ON zoo_contact DEFERRABLE INITIALLY DEFERRED"
            plain = "CREATE TRIGGER zoo_refuse BEFORE UPDATE ON zoo_contact"
            cursor.execute(f"{made if deferred else plain} FOR EACH ROW EXECUTE FUNCTION zoo_refuse()")
        elif vendor == "mysql":
            cursor.execute(
                f"CREATE TRIGGER zoo_refuse BEFORE UPDATE ON zoo_contact FOR EACH ROW "
                f"IF NEW.email = 'bad' THEN {raising}; END IF"
            )
        else:
            cursor.execute(
                f"CREATE TRIGGER zoo_refuse BEFORE UPDATE ON zoo_contact WHEN NEW.email = 'bad' BEGIN {raising}; END"
            )
        try:
            yield
        finally:
            cursor.execute("DROP TRIGGER zoo_refuse" + (" ON zoo_contact" if vendor == "postgresql" else ""))
            if vendor == "postgresql":
                cursor.execute("DROP FUNCTION zoo_refuse")


REFUSAL = {
    "postgresql": "RAISE EXCEPTION 'closed account' USING DETAIL = 'since March'",
    "mysql": "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'closed account'",
    "sqlite": "SELECT RAISE(ABORT, 'closed account')",
}


def contacts(good):
    Contact.objects.bulk_create(
        [*(Contact(email=str(each)) for each in range(good)), Contact(email="bad"), Contact(email="last")]
    )


@pytest.mark.django_db(transaction=True)
def test_a_record_that_a_trigger_refuses_is_named_and_the_others_are_written():
    contacts(30)
    with trigger(REFUSAL[connection.vendor]):
        result = repaired(VISITS)
    assert (result.written.update, result.left, result.error) == (31, 1, None)
    assert "closed account" in result.why_stopped
    if connection.vendor == "postgresql":
        assert "since March" in result.why_stopped


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_trigger_that_refuses_at_commit_refuses_its_record_alone():
    contacts(30)
    with trigger(REFUSAL["postgresql"], deferred=True):
        result = repaired(VISITS)
    assert (result.written.update, result.left) == (31, 1)
    assert "closed account" in result.why_stopped


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("code", ["53100", "53200", "42501", "25006", "XX000", "0A000"])
def test_what_is_no_record_s_fault_ends_the_rule_at_once(code):
    assert_nothing_is_written(f"RAISE EXCEPTION 'no more' USING ERRCODE = '{code}'")


def assert_nothing_is_written(raising):
    contacts(300)
    with trigger(raising):
        result = repaired(VISITS)
    assert "no more" in (result.error or result.why_stopped)
    assert result.written.update == 0


@pytest.mark.mariadb
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("code", [1114, 1030, 1021, 1290, 1142, 1226])
def test_what_is_no_record_s_fault_ends_the_rule_at_once_on_mariadb(code):
    assert_nothing_is_written(f"SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = 'no more'")


LONG = Rule(name="long", every=Contact, must=HaveValues(details={"long": "x" * 2_000}))


def assert_ends_at_once(rule, said, *, chunks):
    """The repair stops with the first chunk that the disk has no room for, and what it tells is that."""
    with statements() as sent:
        result = repaired(rule)
    assert said in (result.error or result.why_stopped)
    assert result.left > 0
    updates = [
        each
        for each in sent.captured_queries
        if each["sql"].startswith("UPDATE") and "zoo_contact" in each["sql"]
    ]
    assert len(updates) <= chunks
    return result


@contextmanager
def full_disk(path):
    """A disk of eight megabytes. Yields what fills it up to the last page and what empties it."""
    path.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0777", "tmpfs", path], check=False
    ).returncode:
        pytest.skip("needs the right to mount a disk")
    filling = path / "filling"

    def fill():
        with suppress(OSError), filling.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4_096)

    try:
        yield fill, filling.unlink
    finally:
        subprocess.run(["umount", "-l", path], check=True)


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_full_disk_ends_the_rule_and_with_room_it_goes_on():
    if shutil.which("mount") is None or os.geteuid():
        pytest.skip("needs the right to mount a disk")
    contacts(3_000)
    place = Path(tempfile.mkdtemp()) / "disk"
    place.parent.chmod(0o755)
    with full_disk(place) as (fill, empty), connection.cursor() as cursor:
        space = place / "space"
        space.mkdir()
        shutil.chown(space, "postgres")
        cursor.execute(f"CREATE TABLESPACE zoo_full LOCATION '{space}'")
        try:
            cursor.execute("ALTER TABLE zoo_contact SET TABLESPACE zoo_full")
            fill()
            result = assert_ends_at_once(LONG, "No space left on device", chunks=8)
            assert result.why_stopped == "" or "No space" in result.why_stopped
            empty()
            assert repaired(LONG).left == 0
        finally:
            cursor.execute("ALTER TABLE zoo_contact SET TABLESPACE pg_default")
            cursor.execute("DROP TABLESPACE zoo_full")


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "sqlite", reason="is SQLite's")
def test_a_full_database_file_ends_the_rule_and_with_room_it_goes_on():
    contacts(3_000)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM")
        pages = cursor.execute("PRAGMA page_count").fetchone()[0]
        cursor.execute(f"PRAGMA max_page_count = {pages + 20}")
        try:
            assert_ends_at_once(LONG, "database or disk is full", chunks=8)
        finally:
            cursor.execute("PRAGMA max_page_count = 1073741823")
    assert repaired(LONG).left == 0


@pytest.mark.mariadb
@pytest.mark.django_db(transaction=True)
def test_a_full_table_is_the_database_s_affair():
    assert (
        failure_of(
            "SET max_heap_table_size = 16384",
            "CREATE TEMPORARY TABLE full_table (a CHAR(255)) ENGINE = MEMORY",
            "INSERT INTO full_table SELECT REPEAT('x', 255) FROM information_schema.columns LIMIT 1000",
        )
        is Failure.DATABASE
    )


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("23514", Failure.RECORD), ("22003", Failure.RECORD), ("P0001", Failure.RECORD), ("21000", Failure.RECORD),
        ("40001", Failure.CHUNK), ("40P01", Failure.CHUNK), ("40002", Failure.RECORD), ("55P03", Failure.CHUNK),
        ("57014", Failure.CHUNK), ("57P01", Failure.CONNECTION), ("57P03", Failure.CONNECTION),
        ("08006", Failure.CONNECTION), ("53100", Failure.DATABASE), ("53300", Failure.DATABASE),
        ("25006", Failure.DATABASE), ("42501", Failure.DATABASE), ("42P01", Failure.STATEMENT),
        ("55000", Failure.STATEMENT), ("0A000", Failure.STATEMENT), ("45Z99", Failure.RECORD),
    ],
)  # fmt: skip
def test_each_class_of_codes_is_of_its_kind(code, failure):
    assert failure_of(f"DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{code}'; END $$") is failure


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_read_only_transaction_is_the_database_s_affair():
    assert failure_of("SET TRANSACTION READ ONLY", "DELETE FROM zoo_contact") is Failure.DATABASE


@pytest.mark.mariadb
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("statements", "failure"),
    [
        (["INSERT INTO zoo_contact (email) VALUES (REPEAT('x', 400))"], Failure.RECORD),
        (["SIGNAL SQLSTATE '45000'"], Failure.RECORD),
        (["SELECT * FROM no_such_table"], Failure.STATEMENT),
        (["SELECT no_such_column FROM zoo_contact"], Failure.STATEMENT),
        (["SELECT FROM WHERE"], Failure.STATEMENT),
        (["SET STATEMENT max_statement_time = 0.05 FOR SELECT SLEEP(2) FROM zoo_team"], Failure.CHUNK),
        (["SET TRANSACTION READ ONLY", "SELECT 1"], None),
    ],
)
def test_the_codes_of_mariadb_are_of_their_kind(statements, failure):
    from tests.zoo.models import Team

    Team.objects.create(name="a")
    if failure is None:
        with connection.cursor() as cursor:
            cursor.execute("START TRANSACTION READ ONLY")
            try:
                with pytest.raises(DatabaseError) as raised:
                    cursor.execute("DELETE FROM zoo_contact")
            finally:
                cursor.execute("ROLLBACK")
        assert dialect_of("default").failure(raised.value) is Failure.DATABASE
        return
    assert failure_of(*statements) is failure


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "sqlite", reason="is SQLite's")
@pytest.mark.parametrize(
    ("statements", "failure"),
    [
        (["SELECT * FROM no_such_table"], Failure.STATEMENT),
        (["INSERT INTO zoo_team (id, name, player_count) VALUES (NULL, NULL, NULL)"], Failure.RECORD),
        (["PRAGMA query_only = ON", "DELETE FROM zoo_contact"], Failure.DATABASE),
    ],
)
def test_the_codes_of_sqlite_are_of_their_kind(statements, failure):
    try:
        assert failure_of(*statements) is failure
    finally:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA query_only = OFF")
