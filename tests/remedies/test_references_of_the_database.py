"""References that no model declares: a table of another program refers to the rows, and the database acts on a DELETE."""

from contextlib import contextmanager

import pytest
from django.db import connection, models
from django.db.models import F
from django.utils import timezone

from reconcile import EXTRA, BeUnique, Delete, HaveRow, HaveSource, Merge, Rule, runs
from reconcile.db.dialects import dialect_of
from reconcile.detect.checking import check
from tests.helpers import everything, repaired, statements
from tests.tables import model_of, table_of
from tests.zoo.models import Contact, Device

pytestmark = pytest.mark.django_db(transaction=True)

ACTIONS = ["", "ON DELETE CASCADE", "ON DELETE SET NULL"]
ALIKE = Rule(name="alike", every=Contact, must=BeUnique("email"), remedies={EXTRA: Delete()})
MERGED = Rule(
    name="merged", every=Contact, must=BeUnique("email", merge={"visits": "sum"}), remedies={EXTRA: Merge()}
)


@contextmanager
def audit(action, *contacts):
    """A table of another program, with a row for each of the contacts."""
    quote = connection.ops.quote_name
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TABLE {quote('Audit log')} (id integer PRIMARY KEY, {quote('who is it')} bigint, "
            f"FOREIGN KEY ({quote('who is it')}) REFERENCES zoo_contact (id) {action})"
        )
    try:
        with connection.cursor() as cursor:
            for number, contact in enumerate(contacts):
                cursor.execute(f"INSERT INTO {quote('Audit log')} VALUES (%s, %s)", [number, contact.pk])
        yield rows_of_audit
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"DROP TABLE {quote('Audit log')}")


def rows_of_audit():
    quote = connection.ops.quote_name
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {quote('who is it')} FROM {quote('Audit log')} ORDER BY id")
        return [who for (who,) in cursor.fetchall()]


def alike(number):
    return [Contact.objects.create(email="a", visits=1) for _ in range(number)]


@pytest.mark.parametrize("action", ACTIONS)
def test_a_row_that_an_undeclared_table_refers_to_is_not_deleted(action):
    first, second, _ = alike(3)
    with audit(action, first, second) as rows:
        result = repaired(ALIKE)
        assert (result.written.delete, result.skipped) == (1, 1)
        assert "Audit log" in result.why_stopped
        assert "who is it" in result.why_stopped
        assert rows() == [first.pk, second.pk]
    assert set(Contact.objects.all()) == {first, second}


@pytest.mark.parametrize("action", ACTIONS)
def test_a_group_with_a_row_that_an_undeclared_table_refers_to_is_not_merged(action):
    first, second = alike(2)
    free = [Contact.objects.create(email="b", visits=1) for _ in range(2)]
    with audit(action, second) as rows:
        before = rows()
        result = repaired(MERGED)
        assert "Audit log" in result.why_stopped
        assert rows() == before
    assert set(Contact.objects.all()) == {first, second, free[0]}


@pytest.mark.parametrize("action", ACTIONS)
def test_the_undo_of_an_insert_leaves_a_row_that_an_undeclared_table_refers_to(action):
    device, other = Device.objects.create(name="a"), Device.objects.create(name="b")
    rule = Rule(name="card", every=Device, must=HaveRow(Contact, link={"email": F("name")}))
    run, _ = runs.repair({rule.name: rule}, using="default")
    kept = Contact.objects.get(email=device.name)
    with audit(action, kept) as rows:
        _, results = runs.undo(run, using="default")
        assert rows() == [kept.pk]
        assert "Audit log" in str(results)
    assert list(Contact.objects.all()) == [kept]
    assert other.name not in Contact.objects.values_list("email", flat=True)


def test_the_catalogue_is_read_once_a_run_and_not_for_each_row():
    def read(number):
        Contact.objects.all().delete()
        alike(number)
        with statements() as captured:
            result = repaired(ALIKE)
        assert result.written.delete == number - 1, result
        catalogues = ("f.confdeltype", "REFERENTIAL_CONSTRAINTS", "JOIN pragma_foreign_key_list")
        return sum(name in each["sql"] for each in captured for name in catalogues)

    assert read(3) == read(9) == 1


def test_keys_of_several_columns_and_their_actions_are_read():
    quote = connection.ops.quote_name
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE pair (one integer NOT NULL, two integer NOT NULL, UNIQUE (two, one))")
        cursor.execute(
            "CREATE TABLE of_pair (two integer, one integer, FOREIGN KEY (two, one) REFERENCES pair (two, one) ON DELETE SET NULL)"
        )
        try:
            (key,) = dialect_of("default").read_foreign_keys_into("pair")
        finally:
            cursor.execute("DROP TABLE of_pair")
            cursor.execute("DROP TABLE pair")
    assert (key.table, key.columns, key.referred, key.acts) == (
        quote("of_pair"),
        ("two", "one"),
        ("two", "one"),
        "SET NULL",
    )


@pytest.mark.postgresql
def test_a_table_of_the_same_name_in_another_schema_is_another_table():
    """As where each tenant has a schema of its own: no model's manager reads that one."""
    first, second = alike(2)
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA tenant")
        cursor.execute(
            "CREATE TABLE tenant.zoo_letter (id integer, contact_id bigint REFERENCES zoo_contact ON DELETE CASCADE)"
        )
        try:
            cursor.execute("INSERT INTO tenant.zoo_letter VALUES (1, %s)", [second.pk])
            result = repaired(ALIKE)
            cursor.execute("SELECT COUNT(*) FROM tenant.zoo_letter")
            assert cursor.fetchone() == (1,)
        finally:
            cursor.execute("DROP SCHEMA tenant CASCADE")
    assert '"tenant"."zoo_letter"' in result.why_stopped
    assert set(Contact.objects.all()) == {first, second}


@pytest.mark.mariadb
def test_a_text_that_refers_by_folding_case_keeps_its_row():
    """The database takes "x" for a reference to "X", and would delete its row along."""
    parent = {
        "code": models.CharField(max_length=10, primary_key=True),
        "device": models.IntegerField(null=True),
    }
    with table_of("Folded", parent, db_table="folded") as folded:
        child = {"of": models.ForeignKey(folded, models.CASCADE, db_column="of_code")}
        with table_of("FoldedPart", child, db_table="folded_part") as part:
            with connection.cursor() as cursor:
                found = connection.introspection.get_constraints(cursor, "folded_part")
                (name,) = [key for key, each in found.items() if each["foreign_key"]]
                cursor.execute(f"ALTER TABLE folded_part DROP FOREIGN KEY {name}")
                cursor.execute(
                    "ALTER TABLE folded_part ADD FOREIGN KEY (of_code) REFERENCES folded (code) ON DELETE CASCADE"
                )
            folded.objects.create(code="X", device=1)
            part.objects.create(of_id="x")
            rule = Rule(
                name="orphans",
                every=folded,
                must=HaveSource("device", model=Device),
                remedies={EXTRA: Delete()},
            )
            before = everything()
            result = repaired(rule)
            assert (result.written.delete, part.objects.count(), folded.objects.count()) == (0, 1, 1), result
            assert "folded_part" in result.why_stopped
            assert everything() == before


@pytest.mark.postgresql
def test_a_key_into_the_whole_of_a_partitioned_table_keeps_a_row_of_its_partition():
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE whole (id bigint PRIMARY KEY, device integer) PARTITION BY RANGE (id)")
        cursor.execute("CREATE TABLE part PARTITION OF whole FOR VALUES FROM (0) TO (100)")
        cursor.execute("CREATE TABLE of_whole (whole_id bigint REFERENCES whole ON DELETE CASCADE)")
        try:
            fields = {
                "id": models.BigIntegerField(primary_key=True),
                "device": models.IntegerField(null=True),
            }
            part = model_of("Part", fields, db_table="part")
            part.objects.create(id=1, device=9)
            part.objects.create(id=2, device=9)
            cursor.execute("INSERT INTO of_whole VALUES (1)")
            rule = Rule(
                name="orphans",
                every=part,
                must=HaveSource("device", model=Contact),
                remedies={EXTRA: Delete()},
            )
            result = repaired(rule)
            cursor.execute("SELECT COUNT(*) FROM of_whole")
            assert cursor.fetchone() == (1,)
        finally:
            cursor.execute("DROP TABLE of_whole")
            cursor.execute("DROP TABLE whole")
    assert (result.written.delete, "of_whole" in result.why_stopped) == (1, True)


@pytest.mark.once
def test_a_text_that_refers_by_the_parent_s_collation_keeps_its_row_on_sqlite():
    parent = {
        "code": models.CharField(max_length=10, unique=True, db_collation="NOCASE"),
        "device": models.IntegerField(null=True),
    }
    with table_of("Nocase", parent, db_table="nocase") as model, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE of_nocase (code text REFERENCES nocase (code) ON DELETE CASCADE)")
        try:
            model.objects.create(code="X", device=9)
            cursor.execute("INSERT INTO of_nocase VALUES ('x')")
            rule = Rule(
                name="orphans",
                every=model,
                must=HaveSource("device", model=Contact),
                remedies={EXTRA: Delete()},
            )
            result = repaired(rule)
            assert (result.written.delete, model.objects.count()) == (0, 1)
            assert "of_nocase" in result.why_stopped
        finally:
            cursor.execute("DROP TABLE of_nocase")


@contextmanager
def signed_in_as(name, *grants):
    """A session of another user of MariaDB, who has just these rights."""
    settings, before = connection.settings_dict, dict(connection.settings_dict)
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE OR REPLACE USER '{name}'@'%%' IDENTIFIED BY 'x'")
        cursor.execute(f"CREATE OR REPLACE USER '{name}'@'localhost' IDENTIFIED BY 'x'")
        for grant in grants:
            cursor.execute(f"GRANT {grant} TO '{name}'@'%%'")
            cursor.execute(f"GRANT {grant} TO '{name}'@'localhost'")
    connection.close()
    settings.update(USER=name, PASSWORD="x")
    try:
        yield
    finally:
        connection.close()
        settings.clear()
        settings.update(before)
        with connection.cursor() as cursor:
            cursor.execute(f"DROP USER '{name}'@'%%', '{name}'@'localhost'")


def rights_to_tables(but_for):
    quote = connection.ops.quote_name
    tables = {*connection.introspection.table_names()} - {but_for}
    return [f"SELECT, INSERT, UPDATE, DELETE ON {quote(table)}" for table in sorted(tables)]


RIGHTS_THAT_SHOW_NOTHING = ["PROCESS ON *.*", "RELOAD ON *.*"]


@pytest.mark.mariadb
@pytest.mark.parametrize("more", [False, True], ids=["tables alone", "and of the server's"])
def test_who_is_shown_no_foreign_keys_of_other_tables_deletes_nothing(more):
    first, second = alike(2)
    name = f"zoo_{connection.settings_dict['NAME']}"[:30]
    with audit("ON DELETE CASCADE", second) as rows:
        rights = rights_to_tables("Audit log")
        with signed_in_as(name, *rights, *(RIGHTS_THAT_SHOW_NOTHING if more else [])):
            found = check(ALIKE, using="default", now=timezone.now())
            assert "Give it its rights on the whole database" in found.remarks[0]
            assert found.tally.total == 1
            result = repaired(ALIKE)
            assert (result.written.total, result.left) == (0, 1)
            assert "nothing is deleted" in result.why_stopped
        assert rows() == [second.pk]
        quote = connection.ops.quote_name
        whole = f"ALL ON {quote(connection.settings_dict['NAME'])}.*"
        with signed_in_as(name, whole):
            assert check(ALIKE, using="default", now=timezone.now()).remarks == ()
            assert repaired(ALIKE).written.total == 0
        assert rows() == [second.pk]
    assert repaired(ALIKE).written.delete == 1
    assert Contact.objects.get() == first


@pytest.mark.postgresql
def test_a_role_that_may_not_read_what_refers_is_told_what_it_lacks():
    first, second = alike(2)
    role = f"zoo_clerk_of_{connection.settings_dict['NAME']}"
    with audit("", first, second), connection.cursor() as cursor:
        cursor.execute(f"DROP ROLE IF EXISTS {role}")
        cursor.execute(f"CREATE ROLE {role}")
        cursor.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
        cursor.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}")
        cursor.execute(f'REVOKE ALL ON "Audit log" FROM {role}')
        cursor.execute(f"SET ROLE {role}")
        try:
            result = repaired(ALIKE)
        finally:
            cursor.execute("RESET ROLE")
            cursor.execute(f"DROP OWNED BY {role}")
            cursor.execute(f"DROP ROLE {role}")
    said = result.error or result.why_stopped
    assert "lacks a right: permission denied for table Audit log. It reads" in said
    assert result.written.total == 0
