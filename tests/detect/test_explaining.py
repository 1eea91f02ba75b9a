import re

import pytest
from django.db import connection, transaction
from django.db.models import Count, Exists, F, OuterRef, Q, Sum
from django.db.models.functions import Cast
from django.utils import timezone

from reconcile import EXTRA, MISSING, STALE, AtLeast, AtMost, HaveRow, HaveValues, Report, Rule
from reconcile.core.finder import PythonFinder
from reconcile.detect.explaining import explain
from sample_project.shop.models import Group, Invoice, Item, Order
from tests.helpers import everything, statements
from tests.zoo.models import Basket, Bill, Device, Page, SeenBill, Shy, Team, Ticket, Visit

pytestmark = pytest.mark.django_db


def explained(every, must, **options):
    return explain(Rule(every=every, must=must, name="r", **options), using="default", now=timezone.now())


def unindexed(every, must, **options):
    parts = explained(every, must, **options).parts
    return {(missing.table, missing.columns) for part in parts for missing in part.unindexed}


def ticket(**link):
    return HaveRow(Ticket, link=link, count=AtLeast(1))


def test_a_link_without_an_index_is_warned_of():
    must = HaveRow(Bill, link={"basket_number": F("pk")}, values={"amount": F("total")})
    assert unindexed(Basket, must) == {("zoo_bill", ("basket_number",))}


def test_a_link_with_an_index_is_not_warned_of():
    assert unindexed(Basket, ticket(indexed=F("pk"))) == set()


def test_primary_keys_foreign_keys_and_unique_constraints_count():
    assert unindexed(Order, HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")})) == set()
    assert unindexed(Group, HaveValues(member_count=Count("members"))) == set()
    assert unindexed(Device, HaveValues(name=F("badge__name"))) == set()
    assert unindexed(Page, HaveRow(Page, link={"code": F("pk")})) == set()


def test_the_columns_that_are_walked_through_are_not_warned_of():
    assert unindexed(Basket.objects.filter(label="x", quantity__gt=3), HaveValues(note="y")) == set()


def test_an_index_that_begins_with_another_column_does_not_count():
    assert unindexed(Basket, ticket(behind=F("pk"))) == {("zoo_ticket", ("behind",))}


def test_an_index_that_begins_with_a_constant_of_the_statement_counts():
    assert unindexed(Basket, ticket(behind=F("pk"), kind="k")) == set()
    assert unindexed(Basket, HaveRow(Ticket, link={"behind": F("pk")}, where=Q(kind="k"))) == set()


def test_an_index_that_begins_with_one_of_two_links_counts():
    assert unindexed(Basket, ticket(indexed=F("pk"), holder_id=F("quantity"))) == set()


def test_two_links_without_an_index_are_one_warning():
    found = unindexed(Basket, ticket(odd_name=F("pk"), holder_id=F("quantity")))
    assert found == {("zoo_ticket", ("Odd name", "holder_id"))}


@pytest.mark.skipif(connection.vendor == "mysql", reason="has no partial indexes")
def test_a_partial_index_counts_where_the_statement_names_its_condition():
    must = HaveRow(Ticket, link={"open_only": F("pk")}, where=Q(closed=False))
    assert unindexed(Basket, must) == set()


def test_a_partial_index_does_not_count_elsewhere():
    assert unindexed(Basket, ticket(open_only=F("pk"))) == {("zoo_ticket", ("open_only",))}


def test_a_text_link_is_warned_of_though_it_has_no_window():
    assert unindexed(Page, HaveRow(Visit, link={"page_code": F("pk")})) == {("zoo_visit", ("page_code",))}


def test_an_aggregate_s_link_is_looked_at_as_well():
    parts = explained(Team, HaveValues(player_count=Count("players"))).parts
    assert [part.unindexed for part in parts] == [()]


def test_a_subquery_of_every_is_looked_at_as_well():
    every = Basket.objects.filter(Exists(Bill.objects.filter(basket_number=OuterRef("pk"))))
    assert unindexed(every, HaveValues(label="x")) == {("zoo_bill", ("basket_number",))}


def test_an_alternative_and_a_converted_column_are_not_called_links():
    either = Bill.objects.filter(Q(basket_number=OuterRef("pk")) | Q(score=OuterRef("quantity")))
    assert unindexed(Basket.objects.filter(Exists(either)), HaveValues(label="x")) == set()
    text = Basket._meta.get_field("label")
    converted = Bill.objects.alias(t=Cast("score", text)).filter(t=OuterRef("label"))
    assert unindexed(Basket.objects.filter(Exists(converted)), HaveValues(label="x")) == set()


def test_surplus_rows_are_looked_for_by_the_link_and_in_ranges_of_it():
    must = HaveRow(Bill, link={"basket_number": F("pk")}, count=AtMost(1))
    assert unindexed(Basket, must) == {("zoo_bill", ("basket_number",))}
    # Where nothing is owed all rows are extra, and are still read in ranges.
    must = HaveRow(Bill, link={"basket_number": F("pk")})
    assert unindexed(Basket.objects.none(), must) == {("zoo_bill", ("basket_number",))}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "link", [{"holder_id": F("pk")}, {"odd_name": F("pk")}, {"long": F("label"), "holder_id": F("pk")}]
)
def test_the_statement_makes_the_index_and_then_nothing_is_warned_of(link):
    before = explained(Basket, ticket(**link)).parts[0].unindexed
    assert len(before) == 1
    (missing,) = before
    assert ("CONCURRENTLY" in missing.create) is (connection.vendor == "postgresql")
    with connection.cursor() as cursor:
        cursor.execute(missing.create.replace("%", "%%"))
    try:
        assert unindexed(Basket, ticket(**link)) == set()
    finally:
        name = re.search(r"(?:CONCURRENTLY|INDEX) ([`\"][^`\"]+[`\"])", missing.create).group(1)
        on = " ON zoo_ticket" if connection.vendor == "mysql" else ""
        with connection.cursor() as cursor:
            cursor.execute(f"DROP INDEX {name}{on}")


def test_the_declaration_names_fields_and_is_left_out_where_django_can_make_none():
    (missing,) = explained(Basket, ticket(odd_name=F("pk"))).parts[0].unindexed
    assert missing.django == 'models.Index(fields=["odd_name"])'
    (missing,) = explained(Basket, ticket(long=F("label"))).parts[0].unindexed
    assert (missing.django is None) is (connection.vendor == "mysql")


@pytest.mark.django_db(transaction=True)
def test_a_view_is_not_warned_of():
    with connection.cursor() as cursor:
        cursor.execute("CREATE VIEW zoo_seenbill AS SELECT id, basket_number FROM zoo_bill")
    try:
        must = HaveRow(SeenBill, link={"basket_number": F("pk")}, count=AtLeast(1))
        assert unindexed(Basket, must) == set()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP VIEW zoo_seenbill")


def test_the_parts_have_sql_and_plan():
    made = explained(Basket, HaveRow(Bill, link={"basket_number": F("pk")}), remedies={EXTRA: Report()})
    assert [(part.drift, part.remedy, part.windows) for part in made.parts] == [
        (MISSING, "Insert", True), (EXTRA, "Report", True),
    ]  # fmt: skip
    assert all("SELECT" in part.sql and part.plan for part in made.parts)


def test_a_rule_that_never_finds_anything_has_no_sql_and_no_plan():
    (part,) = explained(Basket.objects.none(), HaveValues(label="x")).parts
    assert (part.sql, part.plan, part.unindexed) == (None, "", ())


class Sifting(HaveValues):
    """As a kind that only Python can tell: with or without a word on what it reads."""

    shows = True

    def finders(self, source):
        def sift(scope):
            raise AssertionError("explaining reads no records")

        reads = source.records if self.shows else None
        return (
            PythonFinder(drift=STALE, model=source.model, using=source.using, sift=sift, rows_read=reads),
        )


class Silent(Sifting):
    shows = False


def test_where_python_tells_what_drifts_the_select_that_it_reads_is_shown():
    (part,) = explained(Basket, Sifting(label="x")).parts
    assert part.needs_python
    assert "zoo_basket" in part.sql
    assert part.plan
    (part,) = explained(Basket, Silent(label="x")).parts
    assert (part.needs_python, part.sql, part.plan) == (True, None, "")


def test_long_lists_of_constants_are_printed():
    every = Basket.objects.filter(quantity__in=range(12_000))
    if connection.vendor == "sqlite":
        every = Basket.objects.filter(quantity__in=range(4_000))
    (part,) = explained(every, HaveValues(label="x")).parts
    assert "3999" in part.sql


def test_explaining_writes_nothing_and_costs_the_same_for_any_number_of_rows():
    def cost():
        with statements() as sent, transaction.atomic():
            explained(Order, HaveValues(total=Sum(F("items__price") * F("items__quantity"))))
        return len(sent)

    Order.objects.create()
    few = cost()
    before = everything()
    Order.objects.bulk_create([Order() for _ in range(1_000)])
    Item.objects.all().delete()
    assert cost() == few
    assert len(everything()["shop.Order"]) == len(before["shop.Order"]) + 1_000


def test_rows_that_the_default_manager_hides_are_in_the_statement():
    (part,) = explained(Shy, HaveValues(value=1)).parts
    assert '"visible"' not in part.sql.replace("`", '"')
