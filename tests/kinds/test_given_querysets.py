"""A queryset where a model is wanted is taken as its model and filter; none is ever run to be shown."""

import pytest
from django.db.models import F, Q

from reconcile import (
    BeUnique,
    HaveReceipt,
    HaveRow,
    HaveRows,
    HaveSource,
    HaveValues,
    LookedUp,
    Rule,
    Satisfy,
)
from tests.helpers import assert_finds, repaired, statements
from tests.zoo.models import Basket, Bill, Memo, Page, Tariff, Thread

pytestmark = pytest.mark.django_db

BILLS = Bill.objects.filter(kind="bill").exclude(score=9)


def test_the_filter_of_a_queryset_says_which_rows_count():
    must = HaveRow(BILLS, link={"basket_number": F("pk")})
    rule = Rule(name="r", every=Basket, must=must)
    assert (must.model, list(rule.faults())) == (Bill, [])
    with_bill, with_draft, with_other = (Basket.objects.create() for _ in range(3))
    Bill.objects.create(basket_number=with_bill.pk)
    Bill.objects.create(basket_number=with_draft.pk, kind="draft")
    Bill.objects.create(basket_number=with_other.pk, score=9)
    assert_finds(rule, missing=[with_draft, with_other])
    assert repaired(rule).written.insert == 2
    assert "counting those with kind = 'bill' and not (score = 9)" in rule.sentence


def test_it_is_added_to_where():
    must = HaveRow(Bill.objects.filter(kind="bill"), link={"basket_number": F("pk")}, where=Q(score=0))
    basket = Basket.objects.create()
    Bill.objects.create(basket_number=basket.pk, score=1)
    assert_finds(Rule(name="r", every=Basket, must=must), missing=[basket])


def test_a_filter_that_joins_is_taken_as_the_keys_that_it_finds():
    replies = Tariff.objects.filter(pk__in=Tariff.objects.filter(price__gt=3))
    looked_up = LookedUp(replies, link={"prefix": F("zip")}, value="price", by=["price"])
    thread = Thread.objects.create(zip="1", postage=None)
    Tariff.objects.create(prefix="1", price=2)
    Tariff.objects.create(prefix="1", price=5)
    rule = Rule(name="r", every=Thread, must=HaveValues(postage=looked_up))
    assert list(rule.faults()) == []
    assert_finds(rule, stale=[thread])
    repaired(rule)
    thread.refresh_from_db()
    assert thread.postage == 5


def test_an_owner_may_be_a_queryset_too():
    must = HaveSource("page_code", model=Page.objects.filter(visits=1), to="code")
    Page.objects.create(code="a", visits=1), Page.objects.create(code="b", visits=2)
    fine, lost = (Memo.objects.create(page_code=code) for code in "ab")
    assert_finds(Rule(name="r", every=Memo, must=must), extra=[lost])
    assert fine.pk


@pytest.mark.parametrize(
    "must",
    [
        HaveRow(Bill.objects.all()[:3], link={"basket_number": F("pk")}),
        HaveRow(Bill.objects.values("kind"), link={"basket_number": F("pk")}),
        HaveRows(Bill.objects.all(), link={"basket_number": F("pk")}, rows=list, reads=["label"], key=["kind"]),
        HaveValues(label=Basket.objects.all()),
        HaveValues(label=[Basket.objects.all()]),
        Satisfy(Basket.objects.all()),
        BeUnique("label", keep=Basket.objects.all()),
        BeUnique("label", others=Basket.objects.all()),
        HaveReceipt(Basket.objects.all()),
        HaveSource("pk", model=Bill.objects.all()[:1], to="basket_number"),
        Basket.objects.all(),
    ],
    ids=lambda each: type(each).__name__,
)  # fmt: skip
def test_no_fault_asks_the_database_to_show_a_queryset(must):
    Basket.objects.create()
    with statements() as sent:
        faults = [str(each) for each in Rule(name="r", every=Basket, must=must).faults()]
    assert (bool(faults), len(sent)) == (True, 0), [*sent]


@pytest.mark.parametrize(
    "option",
    [{"settle": Basket.objects.all()}, {"owner": Basket.objects.all()}, {"tags": [Basket.objects.all()]}, {"max_repairs": Basket.objects.all()},
     {"remedies": {"x": Basket.objects.all()}}, {"covers": [Basket.objects.all()]}, {"name": Basket.objects.all()}],
    ids=lambda each: next(iter(each)),
)  # fmt: skip
def test_nor_does_an_option_of_the_rule(option):
    with statements() as sent:
        said = " ".join(
            map(str, Rule(**{"name": "r", "every": Basket, "must": HaveValues(label="x"), **option}).faults())
        )
    assert len(sent) == 0, [*sent]
    assert option.keys() == {"name"} or "<QuerySet of zoo.Basket>" in said


def test_an_order_that_a_manager_gives_is_taken_away_and_one_of_the_rule_is_a_fault(monkeypatch):
    ordered = Basket.objects.all()
    assert [
        fault.id
        for fault in Rule(name="r", every=ordered.order_by("label"), must=HaveValues(label="x")).faults()
    ] == ["reconcile.E011"]

    monkeypatch.setattr(Basket.objects, "get_queryset", lambda: ordered.order_by("label"))
    Basket.objects.create(label="y")
    rule = Rule(name="r", every=Basket.objects.filter(label="y"), must=HaveValues(label="x"))
    assert list(rule.faults()) == []
    assert repaired(rule).written.update == 1
