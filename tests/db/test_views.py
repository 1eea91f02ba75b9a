"""A model whose table is a view: what the view hides is never taken for missing, or for gone."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from django.db import connection
from django.db.models import F
from django.utils import timezone

from reconcile import Delete, HaveRow, HaveSource, HaveValues, Rule, runs
from reconcile.core.drift import EXTRA, Guarantee
from reconcile.detect.checking import check
from reconcile.detect.explaining import explain
from reconcile.detect.inspecting import inspect_record
from reconcile.models import Run
from tests.helpers import checked, found_by_the_night, repaired
from tests.zoo.models import Contact, ContactView, Loose

pytestmark = pytest.mark.django_db(transaction=True)

MISSING = Rule(
    name="missing", every=Contact, must=HaveRow(ContactView, link={"id": F("pk")}, create_only={"visits": 1})
)
LOOSE = HaveSource(model=ContactView, link={"id": F("contact_id")})
GONE = Rule(name="gone", every=Loose, must=LOOSE, remedies={EXTRA: Delete()}, max_deletes="100%")
TRUSTED = Rule(
    name="trusted",
    every=Loose,
    must=LOOSE,
    remedies={EXTRA: Delete()},
    max_deletes="100%",
    views_show_all=True,
)


@pytest.fixture(autouse=True)
def view():
    """A view of the contacts that have visits."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE VIEW zoo_contactview AS SELECT id, visits FROM zoo_contact WHERE visits > 0")
        yield
        cursor.execute("DROP VIEW zoo_contactview")


def test_a_check_says_that_the_table_is_a_view():
    Contact.objects.create(email="a", visits=0)
    result = checked(MISSING)
    assert result.guarantee is Guarantee.NONE
    assert "zoo.ContactView is a view, which may not show all rows" in result.remarks[0]


@pytest.mark.parametrize("rule", [MISSING, GONE], ids=lambda rule: rule.name)
def test_explaining_and_inspecting_know_it_as_the_check_does(rule):
    said = checked(rule).remarks
    explained = explain(rule, using="default", now=timezone.now())
    assert (explained.guarantee, explained.remarks) == (Guarantee.NONE, said)
    record = Contact.objects.create(email="a")
    key = str(record.pk if rule is MISSING else Loose.objects.create(contact=record).pk)
    inspected = inspect_record(rule, key, using="default", now=timezone.now())
    assert inspected.guarantee is Guarantee.NONE


def test_the_night_only_reports_what_it_can_not_see_whole():
    Contact.objects.create(email="a", visits=2)
    rule = Rule(
        name="seen",
        every=Contact.objects.filter(pk__in=ContactView.objects.values("pk")),
        must=HaveValues(spent=1),
        unattended=True,
    )
    assert rule.guarantee("default") is Guarantee.CONSTRAINT
    run = runs.running._begin(Run.Kind.NIGHTLY, {"seen": rule}, using="default", may_repair={"seen"})
    (outcome,) = runs.running._advance(run, {"seen": rule}, using="default")
    assert (outcome.written.total, outcome.left) == (0, 1)
    assert "zoo.ContactView is a view" in outcome.why_stopped


def test_nothing_is_inserted_for_what_a_view_hides():
    Contact.objects.create(email="a", visits=0)
    result = repaired(MISSING)
    assert (result.written.total, result.left) == (0, 1)
    assert "views_show_all=True" in result.why_stopped


def test_nothing_is_deleted_whose_source_a_view_hides():
    contact = Contact.objects.create(email="a", visits=0)
    Loose.objects.create(contact=contact)
    for _ in range(2):
        result = repaired(GONE)
        assert (result.written.total, result.left) == (0, 1)
        assert "views_show_all=True" in result.why_stopped
    assert Loose.objects.count() == 1


def test_a_view_that_shows_all_is_believed_where_the_rule_says_so():
    contact = Contact.objects.create(email="a", visits=0)
    Loose.objects.create(contact=contact)
    found_by_the_night(TRUSTED)
    assert checked(TRUSTED).remarks == ()
    assert repaired(TRUSTED).written.delete == 1


def test_a_rule_that_only_updates_is_repaired():
    Contact.objects.create(email="a", visits=2)
    Contact.objects.create(email="b", visits=0)
    rule = Rule(
        name="read",
        every=Contact.objects.filter(pk__in=ContactView.objects.values("pk")),
        must=HaveValues(spent=1),
    )
    result = repaired(rule)
    assert (result.written.update, result.why_stopped) == (1, "")
    assert check(rule, using="default", now=timezone.now()).tally.total == 0


@contextmanager
def joined_view():
    """A view with a join and a sum, which no database can write to."""
    with connection.cursor() as cursor:
        cursor.execute("DROP VIEW zoo_contactview")
        cursor.execute(
            "CREATE VIEW zoo_contactview AS SELECT c.id, SUM(c.visits) AS visits FROM zoo_contact c "
            "LEFT JOIN zoo_loose l ON l.contact_id = c.id GROUP BY c.id"
        )
        yield


@pytest.mark.parametrize(
    ("verb", "rule"),
    [
        ("insert", Rule(name="insert", every=Contact, must=MISSING.must, views_show_all=True)),
        ("update", Rule(name="update", every=ContactView, must=HaveValues(visits=3), views_show_all=True)),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_a_view_can_not_take_is_told_by_check_plan_and_explain_and_not_by_failures(verb, rule):
    Contact.objects.create(email="a", visits=1)
    with joined_view():
        said = f"zoo.ContactView is a view, of which the database can {verb} no row."
        assert said in checked(rule).remarks
        assert said in explain(rule, using="default", now=timezone.now()).remarks
        if verb == "insert":
            return
        (planned,) = runs.preview({rule.name: rule}, using="default", now=timezone.now())
        assert (planned.planned.update, planned.why_stopped) == (1, said)
        result = repaired(rule)
        assert (result.written.total, result.skipped, result.why_stopped) == (0, 0, said)


@pytest.mark.postgresql
def test_a_partitioned_table_without_a_default_partition_is_told():
    with connection.cursor() as cursor:
        cursor.execute("DROP VIEW zoo_contactview")
        cursor.execute(
            "CREATE TABLE zoo_contactview (id bigint, visits integer) PARTITION BY RANGE (id);"
            "CREATE TABLE zoo_contactview_1 PARTITION OF zoo_contactview FOR VALUES FROM (0) TO (1000000)"
        )
        try:
            rule = Rule(name="part", every=Contact, must=MISSING.must)
            assert "zoo.ContactView is partitioned, and has no default partition" in checked(rule).remarks[-1]
            cursor.execute("CREATE TABLE zoo_contactview_2 PARTITION OF zoo_contactview DEFAULT")
            assert not any("partition" in each for each in checked(rule).remarks)
        finally:
            cursor.execute(
                "DROP TABLE zoo_contactview; CREATE VIEW zoo_contactview AS SELECT 1 AS id, 1 AS visits"
            )
