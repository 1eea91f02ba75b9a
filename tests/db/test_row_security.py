"""Row level security: what a policy hides is never taken for missing, or for gone."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from django.db import connection, connections, transaction
from django.db.models import F
from django.utils import timezone

from reconcile import Delete, HaveRow, HaveSource, Rule, runs
from reconcile.core.drift import EXTRA, Guarantee, Status
from reconcile.detect.checking import check
from reconcile.detect.explaining import explain
from reconcile.errors import EvaluationError
from tests.helpers import checked, repaired
from tests.zoo.models import Card, Contact, Loose

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]

CARD = Rule(name="card", every=Contact, must=HaveRow(Card, link={"contact": F("pk")}))
SOURCE = Rule(
    name="loose", every=Loose, must=HaveSource("contact"), remedies={EXTRA: Delete()}, max_deletes="100%"
)


@contextmanager
def tenant(*tables):
    """A session of a role from which a policy hides the rows with odd keys; it may do everything else."""
    # The roles are the server's, and beside this one other workers have databases on it.
    role = f"zoo_tenant_of_{connection.settings_dict['NAME']}"
    with connection.cursor() as cursor:
        cursor.execute(f"DROP ROLE IF EXISTS {role}")
        cursor.execute(f"CREATE ROLE {role}")
        cursor.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
        cursor.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}")
        for table in tables:
            cursor.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
            cursor.execute(f"CREATE POLICY even ON {table} USING (id % 2 = 0)")
        cursor.execute(f"SET ROLE {role}")
        try:
            yield
        finally:
            cursor.execute("RESET ROLE")
            for table in tables:
                cursor.execute(f"DROP POLICY even ON {table}")
                cursor.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
            cursor.execute(f"DROP OWNED BY {role}")
            cursor.execute(f"DROP ROLE {role}")


@pytest.fixture
def carded():
    """Ten contacts, each with its card."""
    Contact.objects.bulk_create([Contact(email=str(each)) for each in range(10)])
    Card.objects.bulk_create([Card(contact=each) for each in Contact.objects.all()])


def security():
    with connection.cursor() as cursor:
        cursor.execute("SHOW row_security")
        return cursor.fetchone()[0]


def test_a_check_of_rows_that_a_policy_hides_is_an_error_that_names_policy_role_and_way_out(carded):
    with tenant("zoo_card"):
        result = check(CARD, using="default", now=timezone.now())
    assert (result.status, result.tally.total) == (Status.ERROR, 0)
    for said in ("zoo_card", "zoo_tenant", "even", "BYPASSRLS", 'RECONCILE["ROW_SECURITY"] = "filtered"'):
        assert said in result.error


def test_a_repair_inserts_nothing_for_rows_that_a_policy_hides(carded):
    with tenant("zoo_card"):
        result = repaired(CARD)
        assert "Row level security" in result.error
    assert Card.objects.count() == 10


def test_a_repair_deletes_nothing_whose_source_a_policy_hides(carded):
    Loose.objects.bulk_create([Loose(contact=each) for each in Contact.objects.all()])
    with tenant("zoo_contact"):
        for _ in range(2):
            assert "Row level security" in repaired(SOURCE).error
    assert Loose.objects.count() == 10


@pytest.mark.parametrize("acts", [runs.preview_undo, runs.undo], ids=["preview", "undo"])
def test_an_undo_takes_no_row_for_gone_that_a_policy_hides(acts):
    Contact.objects.bulk_create([Contact(email=str(each)) for each in range(10)])
    run, (result,) = runs.repair({"card": CARD}, using="default")
    assert result.written.insert == 10
    with (
        tenant("zoo_card"),
        pytest.raises(EvaluationError, match="Row level security hides rows of zoo_card"),
    ):
        acts(run, using="default")
    assert Card.objects.count() == 10


def test_explain_says_it_too(carded):
    with tenant("zoo_card"), pytest.raises(EvaluationError, match="Row level security"):
        explain(CARD, using="default", now=timezone.now())


def test_whoever_sees_all_rows_is_checked_as_before(carded):
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE zoo_card ENABLE ROW LEVEL SECURITY")
        try:
            assert checked(CARD).tally.total == 0
        finally:
            cursor.execute("ALTER TABLE zoo_card DISABLE ROW LEVEL SECURITY")


def test_the_session_is_left_as_it_was(carded):
    assert security() == "on"
    checked(CARD)
    assert security() == "on"
    with tenant("zoo_card"):
        check(CARD, using="default", now=timezone.now())
        assert security() == "on"
        repaired(CARD)
        assert security() == "on"
    assert connections["default"].connection is not None


def test_the_session_is_left_as_it_was_inside_a_transaction_that_a_check_fails_in(carded):
    with tenant("zoo_card"), transaction.atomic():
        assert check(CARD, using="default", now=timezone.now()).status is Status.ERROR
        assert security() == "on"
        assert Card.objects.count() < 10


@pytest.fixture
def filtered(settings):
    settings.RECONCILE = {**settings.RECONCILE, "ROW_SECURITY": "filtered"}


def test_who_means_it_checks_what_the_role_sees_and_deletes_nothing(carded, filtered):
    Loose.objects.bulk_create([Loose(contact=each) for each in Contact.objects.all()])
    with tenant("zoo_contact"):
        found = checked(SOURCE)
        assert (found.tally[EXTRA], found.guarantee) == (5, Guarantee.NONE)
        assert "Row level security hides rows of zoo.Contact" in found.remarks[0]
        for _ in range(2):
            result = repaired(SOURCE)
            assert (result.written.total, result.left) == (0, 5)
            assert "nothing is deleted" in result.why_stopped
    assert Loose.objects.count() == 10


def test_who_means_it_repairs_what_the_role_sees(carded, filtered):
    lacking = list(Contact.objects.all())[:4]
    Card.objects.filter(contact__in=lacking).delete()
    with tenant("zoo_contact"):
        assert repaired(CARD).written.insert == 2
    assert Card.objects.count() == 8
