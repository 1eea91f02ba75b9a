"""An insert and its journal in one statement, where PostgreSQL returns the new rows as they will stand."""

from contextlib import contextmanager

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from reconcile import MISSING, HaveRow, Rule
from reconcile.core.scopes import Keys
from reconcile.db.placeholders import PendingKeys
from reconcile.db.statements import _reads_once
from reconcile.models import Change, WorkItem
from reconcile.remedies import Insert
from reconcile.repair.journal import ChunkJournal
from sample_project.shop.models import Invoice, Order
from tests.helpers import assert_repairs, repaired, statements

pytestmark = pytest.mark.django_db(transaction=True)

INVOICE = Rule(
    name="invoice", every=Order, must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")})
)
ANY_INVOICE = Rule(
    name="invoice",
    every=Order,
    must=HaveRow(Invoice, link={"order": F("pk")}, create_only={"amount": F("total")}),
)


def orders(number):
    return Order.objects.bulk_create([Order(status="paid", total=each) for each in range(number)])


@contextmanager
def trigger(when):
    """A trigger on invoices that adds 1 to the amount, before or after the row is there."""
    body = {
        "BEFORE": "NEW.amount := NEW.amount + 1; RETURN NEW;",
        "AFTER": "UPDATE shop_invoice SET amount = amount + 1 WHERE id = NEW.id; RETURN NULL;",
    }[when]
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE FUNCTION one_more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$; "
            f"CREATE TRIGGER one_more {when} INSERT ON shop_invoice FOR EACH ROW EXECUTE FUNCTION one_more()"
        )
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP FUNCTION one_more CASCADE")


def with_journal(captured):
    return [each["sql"] for each in captured.captured_queries if "reconcile_noted" in each["sql"]]


def images():
    return {int(each.key): each.after["amount"] for each in Change.objects.filter(verb="insert")}


def amounts():
    return {each.pk: str(each.amount) for each in Invoice.objects.all()}


@pytest.mark.postgresql
def test_rows_are_inserted_and_noted_by_one_statement_a_chunk(settings):
    settings.RECONCILE = {**settings.RECONCILE, "CHUNK": 10}
    orders(25)
    with statements() as captured:
        assert repaired(INVOICE).written.insert == 25
    assert len(with_journal(captured)) == 3
    # The constraint makes up for the look whether the row is there; whether the table is plain is asked once a work item.
    assert not [each for each in with_journal(captured) if "EXISTS" in each]
    assert len([each for each in captured.captured_queries if "NOT relhasrules" in each["sql"]]) == 1
    assert images() == amounts()
    assert sorted(Change.objects.values_list("chunk", flat=True).distinct()) == [1, 2, 3]


@pytest.mark.postgresql
def test_what_comes_before_the_row_is_part_of_its_image():
    orders(3)
    with trigger("BEFORE"), statements() as captured:
        assert repaired(ANY_INVOICE).written.insert == 3
    assert len(with_journal(captured)) == 1
    assert images() == amounts()


@pytest.mark.postgresql
def test_where_a_trigger_might_write_the_row_again_it_is_read_when_that_is_done():
    orders(3)
    with trigger("AFTER"), statements() as captured:
        assert repaired(ANY_INVOICE).written.insert == 3
    assert with_journal(captured) == []
    assert images() == amounts()


def test_a_record_that_was_mended_meanwhile_leaves_the_others_of_its_chunk_to_be_mended():
    made = orders(4)
    Invoice.objects.create(order=made[1], amount=made[1].total)
    finder = next(
        each for each in INVOICE.compile(using="default", now=timezone.now()).finders if each.drift is MISSING
    )
    keys = Keys([each.pk for each in made])
    with transaction.atomic():
        wrote = Insert().write(finder, keys, ChunkJournal(work_item=WorkItem(pk=1), chunk=1, using="default"))
    assert wrote.written.insert == 3
    assert [*wrote.keys] == [made[0].pk, made[2].pk, made[3].pk]
    assert Invoice.objects.count() == 4
    assert Change.objects.count() == 3
    Change.objects.all().delete()


def test_a_second_repair_finds_nothing():
    orders(3)
    assert_repairs(INVOICE, insert=3)


@pytest.mark.parametrize(
    ("select", "once"),
    [
        ('SELECT 1 FROM "t" WHERE "t"."a" = 1', True),
        ('SELECT 1 FROM "t" INNER JOIN "u" ON "u"."t" = "t"."id"', True),
        ('SELECT 1 FROM "t" WHERE EXISTS(SELECT 1 FROM "t" U0)', False),
        ('SELECT 1 FROM "u" INNER JOIN "t" ON 1 = 1 LEFT OUTER JOIN "t" T3 ON 1 = 1', False),
        ('SELECT 1 FROM "u"', False),
        ('SELECT 1 FROM "t"."t"', False),
    ],
)
def test_the_new_rows_take_the_place_of_their_table_where_that_is_read_once(select, once):
    assert _reads_once(select, '"t"') is once


def test_a_table_of_another_schema_has_no_name_that_the_new_rows_could_take():
    assert not _reads_once('SELECT 1 FROM "s"."t"', '"s"."t"')


def test_keys_that_come_later_can_t_be_looked_at():
    keys = PendingKeys("keys")
    assert keys
    for look in (len, list, lambda each: each[0]):
        with pytest.raises(TypeError, match="'keys' is filled in later"):
            look(keys)
