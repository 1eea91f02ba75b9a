"""Which tables a statement writes, in the words of each database."""

import pytest

from reconcile.audit.raw_sql import is_writing, writes_of

pytestmark = pytest.mark.once

WRITES = {
    ("sqlite", "INSERT INTO a (x) VALUES (?)"): [("a", "INSERT", ())],
    ("sqlite", "INSERT OR REPLACE INTO a (x) VALUES (%s)"): [("a", "INSERT", ())],
    ("postgresql", 'UPDATE "a" SET x = %s, y = 2 FROM b WHERE b.id = a.id'): [("a", "UPDATE", ("x", "y"))],
    ("postgresql", "INSERT INTO a (x) VALUES (1) ON CONFLICT (x) DO UPDATE SET x = 2"): [("a", "INSERT", ())],
    ("postgresql", "DELETE FROM a USING b WHERE a.id = b.id"): [("a", "DELETE", ())],
    ("postgresql", "WITH gone AS (DELETE FROM a RETURNING id) INSERT INTO b SELECT id FROM gone"): [("b", "INSERT", ()), ("a", "DELETE", ())],
    ("postgresql", "TRUNCATE TABLE a, b"): [("a", "DELETE", ()), ("b", "DELETE", ())],
    ("postgresql", "COPY a FROM STDIN"): [("a", "INSERT", ())],
    ("postgresql", "MERGE INTO a USING b ON a.x = b.x WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (x) VALUES (1)"): [
        ("a", "DELETE", ()), ("a", "INSERT", ()),
    ],
    ("mysql", "UPDATE `a` JOIN b ON a.x = b.x SET a.y = 1"): [("a", "UPDATE", ("y",))],
    ("mysql", "DELETE a FROM a JOIN b ON a.x = b.x"): [("a", "DELETE", ())],
    ("mysql", "REPLACE INTO a VALUES (%s)"): [("a", "INSERT", ())],
    ("mysql", "INSERT IGNORE INTO a VALUES (%s)"): [("a", "INSERT", ())],
    ("mysql", "SELECT 1; DELETE FROM a"): [("a", "DELETE", ())],
    ("postgresql", "UPDATE a SET x = x || '100%%' WHERE y LIKE %(like)s"): [("a", "UPDATE", ("x",))],
}  # fmt: skip


@pytest.mark.parametrize(
    ("statement", "found"), WRITES.items(), ids=lambda each: each[1] if isinstance(each, tuple) else ""
)
def test_a_statement_names_what_it_writes(statement, found):
    vendor, sql = statement
    assert [(each.table, str(each.verb), each.columns) for each in writes_of(sql, vendor)] == found


def test_what_cannot_be_parsed_is_told_apart_from_what_writes_nothing():
    assert writes_of("DELETE FROM (", "postgresql") is None
    assert writes_of("SELECT 1", "postgresql") == []


@pytest.mark.parametrize(
    "sql", ["SELECT * FROM a FOR UPDATE", "SET TIME ZONE 1", "CREATE TABLE updates (x int)", "", "VACUUM"]
)
def test_a_reading_statement_is_known_by_its_first_word(sql):
    assert not is_writing(sql)


@pytest.mark.parametrize(
    "sql", ["delete from a", "\n  WITH x AS (SELECT 1) UPDATE a SET b = 1", "TRUNCATE a"]
)
def test_a_writing_statement_is_known_by_its_words(sql):
    assert is_writing(sql)
