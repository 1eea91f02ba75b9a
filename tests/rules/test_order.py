import pytest
from django.db.models import Count, F, OuterRef, Subquery, Sum
from django.utils import timezone

from reconcile import HaveRow, HaveValues, LookedUp, Rule
from reconcile.rules.order import sort_rules
from reconcile.rules.registry import valid_rules
from sample_project.shop.models import Invoice, Order
from tests.helpers import repaired
from tests.zoo.models import Basket, Bill, Team


def ordered(**rules):
    named = {name: Rule(name=name, every=rule.every, must=rule.must) for name, rule in rules.items()}
    return [rule.name for rule in sort_rules(named, using="default", now=timezone.now()).rules]


@pytest.mark.once
def test_a_rule_that_writes_a_column_runs_before_those_that_read_it():
    invoice = Rule(every=Order, must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")}))
    total = Rule(every=Order, must=HaveValues(total=Sum("items__price")))
    assert ordered(invoice=invoice, total=total) == ["total", "invoice"]
    assert ordered(total=total, invoice=invoice) == ["total", "invoice"]


@pytest.mark.once
def test_rules_that_do_not_touch_each_other_keep_their_order():
    one = Rule(every=Order, must=HaveValues(item_count=Count("items")))
    other = Rule(every=Order, must=HaveValues(customer_name="x"))
    assert ordered(one=one, other=other) == ["one", "other"]
    assert ordered(other=other, one=one) == ["other", "one"]


@pytest.mark.once
def test_a_filter_in_every_is_read_too():
    uses = Rule(every=Team.objects.filter(points__gt=3), must=HaveValues(name="good"))
    makes = Rule(every=Team, must=HaveValues(points=Sum("matches__points")))
    assert ordered(uses=uses, makes=makes) == ["makes", "uses"]


@pytest.mark.once
def test_inserted_rows_come_before_what_counts_them():
    counts = Rule(every=Bill, must=HaveValues(score=F("amount")))
    inserts = Rule(every=Basket, must=HaveRow(Bill, link={"basket_number": F("pk")}))
    assert ordered(counts=counts, inserts=inserts) == ["inserts", "counts"]


@pytest.mark.once
def test_rules_in_a_circle_keep_their_order_and_those_that_need_them_come_after():
    one = Rule(every=Team, must=HaveValues(points=F("player_count")))
    two = Rule(every=Team, must=HaveValues(player_count=F("points")))
    after = Rule(every=Team, must=HaveValues(average=F("points")))
    assert ordered(after=after, one=one, two=two) == ["one", "two", "after"]


@pytest.mark.once
def test_the_sample_project_s_totals_come_before_its_invoices():
    names = [rule.name for rule in sort_rules(valid_rules(), using="default", now=timezone.now()).rules]
    assert names.index("orders.total") < names.index("orders.invoice")


@pytest.mark.django_db
def test_a_rule_is_not_held_up_by_itself():
    Team.objects.create(name="x", points=1, player_count=1)
    rule = Rule(
        name="self", every=Team.objects.filter(points__lt=10), must=HaveValues(points=F("player_count") + 1)
    )
    assert repaired(rule).written.update == 1


@pytest.mark.once
@pytest.mark.parametrize(
    "rows",
    [
        Team.objects.filter(pk=OuterRef("pk")).values("points")[:1],
        Team.objects.filter(pk=OuterRef("pk")).order_by("-points").values("pk")[:1],
        Team.objects.filter(pk=OuterRef("pk")).order_by(F("points") + 1).values("pk")[:1],
    ],
    ids=["selected", "ordered", "ordered by an expression"],
)
def test_what_a_subquery_selects_and_is_ordered_by_is_read_too(rows):
    uses = Rule(every=Team, must=HaveValues(player_count=Subquery(rows)))
    makes = Rule(every=Team, must=HaveValues(points=Sum("matches__points")))
    assert ordered(uses=uses, makes=makes) == ["makes", "uses"]


@pytest.mark.once
def test_what_a_membership_test_selects_is_read_too():
    scores = Basket.objects.values("score")
    uses = Rule(every=Bill.objects.filter(score__in=scores), must=HaveValues(kind="good"))
    makes = Rule(every=Basket, must=HaveValues(score=F("quantity")))
    assert ordered(uses=uses, makes=makes) == ["makes", "uses"]


@pytest.mark.once
def test_a_column_that_the_database_generates_is_written_with_those_that_it_is_made_of():
    reads = Rule(
        every=Bill,
        must=HaveValues(amount=LookedUp(Basket, link={"pk": F("basket_number")}, value="total", by=["pk"])),
    )
    writes = Rule(every=Basket, must=HaveValues(quantity=9))
    assert ordered(reads=reads, writes=writes) == ["writes", "reads"]
    rows = Basket.objects.filter(pk=OuterRef("score")).values("total")[:1]
    fed = Rule(name="fed", every=Basket.objects.exclude(score=0), must=HaveValues(quantity=Subquery(rows)))
    assert sort_rules({"fed": fed}, using="default", now=timezone.now()).circles == [("fed",)]
