"""What the models declare and the database lacks: constraints that were dropped, never made, or made in vain."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from django.db import connection, models
from django.db.models import F, Q
from django.utils import timezone

from reconcile import AtMost, HaveRow, Rule
from reconcile.core.drift import EXTRA, MISSING, Guarantee
from reconcile.db.dialects import dialect_of
from reconcile.detect.explaining import explain
from tests.helpers import checked, repaired
from tests.zoo.models import Card, Contact, Member, Mention, Rack, Seat, Staff

CARD = Rule(name="card", every=Contact, must=HaveRow(Card, link={"contact": F("pk")}))
LACKS = "The model zoo.Card declares unique(contact); the database has no such constraint."


@contextmanager
def without_unique(model, name):
    """While this lasts, the column is no longer unique in the database; the model still says so."""
    field = model._meta.get_field(name)
    plain = models.ForeignKey(field.related_model, on_delete=models.CASCADE)
    plain.set_attributes_from_name(name)
    plain.model = model
    with connection.schema_editor() as editor:
        editor.alter_field(model, field, plain)
    try:
        yield
    finally:
        model.objects.all().delete()
        with connection.schema_editor() as editor:
            editor.alter_field(model, plain, field)


@contextmanager
def without_constraint(model, name):
    constraint = next(each for each in model._meta.constraints if each.name == name)
    with connection.schema_editor() as editor:
        editor.remove_constraint(model, constraint)
    try:
        yield constraint
    finally:
        with connection.schema_editor() as editor:
            editor.add_constraint(model, constraint)


def table(model):
    return dialect_of("default").read_table(model._meta.db_table)


def uniques(model):
    return {(each.columns, each.partial) for each in table(model).uniques}


@pytest.mark.django_db
def test_the_unique_indexes_of_a_table_are_those_that_it_has():
    assert uniques(Card) == {(("id",), False), (("contact_id",), False)}
    assert uniques(Member) == {(("contact_id",), False)}
    assert uniques(Staff) >= {(("id",), False), (("code",), False)}
    assert (("note_id", "user_name"), False) in uniques(Mention)
    assert table(Card).kind == "table"
    assert dialect_of("default").read_table("no_such_table") is None


@pytest.mark.django_db
def test_a_condition_and_an_expression_are_told():
    known = connection.features.supports_partial_indexes
    assert ((("contact_id",), True) in uniques(Seat)) is known
    known = connection.features.supports_expression_indexes
    assert any("" in columns for columns, _ in uniques(Rack)) is known


@pytest.mark.django_db
def test_foreign_keys_are_those_that_the_database_checks():
    assert table(Card).foreign_keys == {"contact_id"}
    assert "note_id" not in table(Mention).foreign_keys


@pytest.mark.django_db
def test_a_view_is_no_table():
    with connection.cursor() as cursor:
        cursor.execute("CREATE VIEW zoo_view AS SELECT id FROM zoo_card")
        try:
            assert dialect_of("default").read_table("zoo_view").kind == "view"
        finally:
            cursor.execute("DROP VIEW zoo_view")


@pytest.mark.django_db(transaction=True)
def test_a_constraint_that_is_there_is_believed_without_a_remark():
    result = checked(CARD)
    assert (result.guarantee, result.remarks) == (Guarantee.CONSTRAINT, ())


@pytest.mark.django_db(transaction=True)
def test_surplus_rows_are_found_where_only_the_model_is_unique():
    contact = Contact.objects.create(email="a")
    with without_unique(Card, "contact"):
        Card.objects.bulk_create([Card(contact=contact), Card(contact=contact)])
        result = checked(CARD)
        assert result.tally[EXTRA] == 1
        assert result.guarantee is not Guarantee.CONSTRAINT
        assert result.remarks == (LACKS,)


@pytest.mark.django_db(transaction=True)
def test_at_most_one_is_checked_where_only_the_model_is_unique():
    contact = Contact.objects.create(email="a")
    rule = Rule(name="most", every=Contact, must=HaveRow(Card, link={"contact": F("pk")}, count=AtMost(1)))
    assert checked(rule).tally[EXTRA] == 0
    with without_unique(Card, "contact"):
        Card.objects.bulk_create([Card(contact=contact), Card(contact=contact)])
        assert checked(rule).tally[EXTRA] == 1


@pytest.mark.django_db(transaction=True)
def test_the_repair_goes_on_without_the_constraint_and_explain_says_it():
    Contact.objects.create(email="a")
    with without_unique(Card, "contact"):
        explained = explain(CARD, using="default", now=timezone.now())
        assert explained.guarantee is not Guarantee.CONSTRAINT
        assert explained.remarks == (LACKS,)
        result = repaired(CARD)
        assert (result.written.insert, result.left) == (1, 0)
        assert repaired(CARD).written.total == 0


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_without_the_constraint_a_chunk_locks_the_table():
    Contact.objects.create(email="a")
    with without_unique(Card, "contact"), dialect_of("default").read_schema():
        (missing, *_) = CARD.compile(using="default", now=timezone.now()).finders
        assert (missing.drift, missing.lock.tables) == (MISSING, (Card,))
        assert CARD.guarantee("default") is Guarantee.LOCK
    assert CARD.guarantee("default") is Guarantee.CONSTRAINT


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_an_index_that_was_left_invalid_counts_for_nothing():
    contact = Contact.objects.create(email="a")
    with without_unique(Card, "contact"):
        Card.objects.bulk_create([Card(contact=contact), Card(contact=contact)])
        with connection.cursor() as cursor:
            with pytest.raises(Exception, match="could not create unique index"):
                cursor.execute("CREATE UNIQUE INDEX CONCURRENTLY zoo_card_once ON zoo_card (contact_id)")
            try:
                assert checked(CARD).remarks == (LACKS,)
            finally:
                cursor.execute("DROP INDEX zoo_card_once")


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_constraint_that_was_made_deferred_is_none_for_a_rule_of_rows():
    with without_unique(Card, "contact"), connection.cursor() as cursor:
        cursor.execute(
            "ALTER TABLE zoo_card ADD CONSTRAINT zoo_late UNIQUE (contact_id) DEFERRABLE INITIALLY DEFERRED"
        )
        try:
            assert checked(CARD).guarantee is not Guarantee.CONSTRAINT
        finally:
            cursor.execute("ALTER TABLE zoo_card DROP CONSTRAINT zoo_late")


@pytest.mark.django_db(transaction=True)
def test_an_index_of_another_name_over_the_same_columns_will_do():
    with without_constraint(Mention, "zoo_mention_once"), connection.cursor() as cursor:
        cursor.execute("CREATE UNIQUE INDEX zoo_other_name ON zoo_mention (user_name, note_id)")
        try:
            with dialect_of("default").read_schema() as schema:
                rule = Rule(
                    name="m",
                    every=Contact,
                    must=HaveRow(Mention, link={"note": F("pk"), "user_name": F("email")}),
                )
                assert rule.guarantee("default") is Guarantee.CONSTRAINT
            assert schema.lacking == {}
        finally:
            cursor.execute(
                "DROP INDEX zoo_other_name" + (" ON zoo_mention" if connection.vendor == "mysql" else "")
            )


@pytest.mark.django_db(transaction=True)
def test_a_condition_goes_by_the_constraints_name():
    if not connection.features.supports_partial_indexes:
        pytest.skip("Django makes no constraint with a condition here.")
    rule = Rule(
        name="seat", every=Contact, must=HaveRow(Seat, link={"contact": F("pk")}, where=Q(taken=True))
    )
    assert checked(rule).guarantee is Guarantee.CONSTRAINT
    with without_constraint(Seat, "zoo_seat_taken"):
        assert checked(rule).guarantee is not Guarantee.CONSTRAINT
        with connection.cursor() as cursor:
            cursor.execute("CREATE UNIQUE INDEX zoo_seat_taken ON zoo_seat (contact_id, taken)")
            try:
                assert checked(rule).guarantee is not Guarantee.CONSTRAINT
            finally:
                cursor.execute("DROP INDEX zoo_seat_taken")


@pytest.mark.mariadb
@pytest.mark.django_db(transaction=True)
def test_a_foreign_key_that_the_database_does_not_check_locks_nobody_out():
    field = Seat._meta.get_field("contact")
    rule = Rule(name="seat", every=Contact, must=HaveRow(Seat, link={"contact": F("pk")}))
    assert checked(rule).guarantee is Guarantee.LOCK
    free = models.ForeignKey(Contact, on_delete=models.CASCADE, db_constraint=False)
    free.set_attributes_from_name("contact")
    free.model = Seat
    with connection.schema_editor() as editor:
        editor.alter_field(Seat, field, free)
    try:
        result = checked(rule)
        assert result.guarantee is Guarantee.NONE
        assert result.remarks == (
            "The model zoo.Seat declares the foreign key 'contact'; the database has no such constraint.",
        )
    finally:
        with connection.schema_editor() as editor:
            editor.alter_field(Seat, free, field)
