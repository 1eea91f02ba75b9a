"""A check of some records alone, by their keys."""

import pytest
from django.db.models import CharField, Count, F, IntegerField, Q, Value
from django.db.models.functions import Cast

from reconcile import (
    EXTRA,
    MISSING,
    STALE,
    AtMost,
    BeUnique,
    FromPython,
    HaveRow,
    HaveRows,
    HaveSource,
    HaveValues,
    Rule,
    Satisfy,
)
from reconcile.core.drift import Status
from reconcile.core.scopes import EVERYTHING, Coverage, Keys, Window
from tests.helpers import checked, statements
from tests.zoo.models import Basket, Bill, Contact, Device, Note, Team, Visit

pytestmark = pytest.mark.django_db

BILL = Rule(
    name="bill",
    every=Basket,
    must=HaveRow(Bill, link={"basket_number": F("pk")}, values={"amount": F("quantity")}),
)


def looked_at(rule, *records, **options):
    return checked(rule, only=Keys([getattr(each, "pk", each) for each in records]), **options)


def drifts(result):
    return {drift: number for drift, number in result.tally.drifted.items() if number}


def baskets(number, **values):
    for _ in range(number):
        Basket.objects.create(**values)
    return list(Basket.objects.order_by("pk"))


def bill(basket, amount=0):
    return Bill.objects.create(basket_number=getattr(basket, "pk", basket), amount=amount)


def test_the_drift_of_these_records_is_found_and_that_of_others_is_not():
    one, two, three, four = baskets(4, quantity=1)
    bill(two, 1)
    bill(three, 5)
    assert drifts(looked_at(BILL, one, two)) == {MISSING: 1}
    assert drifts(looked_at(BILL, two)) == {}
    result = looked_at(BILL, three, four)
    assert drifts(result) == {MISSING: 1, STALE: 1}
    assert {(each.drift, each.key) for each in result.samples} == {
        (MISSING, str(four.pk)),
        (STALE, str(three.pk)),
    }
    assert result.tally.checked == 2


def test_rows_beyond_their_number_are_found_with_their_record():
    one, two = baskets(2, quantity=0)
    for basket in (one, two):
        bill(basket)
        bill(basket)
    assert drifts(looked_at(BILL, one)) == {EXTRA: 1}
    assert drifts(looked_at(BILL, one, two)) == {EXTRA: 2}


def test_the_row_of_a_record_that_every_does_not_name_is_extra():
    one, two = baskets(2, quantity=1)
    Basket.objects.filter(pk=one.pk).update(label="out")
    for basket in (one, two):
        bill(basket, 1)
    rule = Rule(name="r", every=Basket.objects.exclude(label="out"), must=BILL.must)
    result = looked_at(rule, one)
    assert (drifts(result), result.tally.checked) == ({EXTRA: 1}, 0)
    assert "1 of these records is none that every= names, or gone." in result.remarks
    assert drifts(looked_at(rule, two)) == {}


def test_a_link_that_carries_no_key_leads_to_the_rows_of_these_records():
    rule = Rule(
        name="v",
        every=Basket,
        must=HaveRow(Visit, link={"page_code": Cast("pk", CharField())}, count=AtMost(1)),
    )
    one, two = baskets(2)
    for basket in (one, two):
        for _ in range(3):
            Visit.objects.create(page_code=str(basket.pk))
    assert drifts(looked_at(rule, one)) == {EXTRA: 2}
    assert drifts(checked(rule)) == {EXTRA: 4}


def test_rows_that_python_tells_are_found_with_their_record():
    must = HaveRows(
        Bill,
        link={"basket_number": F("pk")},
        reads=["quantity"],
        rows=lambda number: [{"kind": str(n)} for n in range(number)],
        key=["kind"],
    )
    rule = Rule(name="rows", every=Basket, must=must)
    one, two = baskets(2, quantity=1)
    Bill.objects.create(basket_number=one.pk, kind="0")
    Bill.objects.create(basket_number=one.pk, kind="7")
    assert drifts(looked_at(rule, one)) == {EXTRA: 1}
    assert drifts(looked_at(rule, two)) == {MISSING: 1}


@pytest.mark.parametrize(
    ("every", "must", "values"),
    [
        (Team, HaveValues(player_count=Count("players")), {"player_count": 3}),
        (Team, HaveValues(name=FromPython(str.upper, reads=["name"])), {"name": "low"}),
        (Team, Satisfy(Q(player_count=0)), {"player_count": 3}),
    ],
    ids=["HaveValues", "FromPython", "Satisfy"],
)
def test_each_way_of_finding_looks_at_these_records_alone(every, must, values):
    rule = Rule(name="r", every=every, must=must)
    right = every.objects.create(name="UP")
    wrong = [every.objects.create(**{"name": "UP", **values}) for _ in range(3)]
    assert drifts(looked_at(rule, right)) == {}
    assert drifts(looked_at(rule, right, wrong[1])) == {STALE: 1}
    assert drifts(checked(rule)) == {STALE: 3}


def test_a_duplicate_is_found_beside_records_that_are_not_looked_at():
    first, _, third = (Contact.objects.create(email="a") for _ in range(3))
    rule = Rule(name="once", every=Contact, must=BeUnique("email"))
    assert drifts(looked_at(rule, first)) == {}
    assert drifts(looked_at(rule, third)) == {EXTRA: 1}
    assert drifts(checked(rule)) == {EXTRA: 2}


def test_orphans_are_found_by_their_own_keys():
    rule = Rule(name="author", every=Note, must=HaveSource("author_id", model=Device, to="id"))
    notes = [Note.objects.create() for _ in range(2)]
    assert drifts(looked_at(rule, *notes)) == {}


def test_the_check_says_that_it_was_partial():
    (one,) = baskets(1, quantity=1)
    bill(one, 1)
    part, whole = looked_at(BILL, one), checked(BILL)
    assert (part.coverage, whole.coverage) == (Coverage.KEYS, Coverage.FULL)
    assert (part.status, whole.status) == (Status.PASS, Status.PASS)
    assert "Only 1 record was looked at, by keys; nothing is known of the others." in part.remarks
    assert not any("looked at" in each for each in whole.remarks)


def test_a_scope_says_how_much_it_covers():
    assert EVERYTHING.coverage is Coverage.FULL
    assert Window(3, None).coverage is Window(None, 3).coverage is Coverage.RANGE
    assert Keys([1]).coverage is Coverage.KEYS


def test_the_statements_are_as_many_for_1_as_for_1000_records():
    def sent(number):
        Basket.objects.all().delete()
        Bill.objects.all().delete()
        made = Basket.objects.bulk_create([Basket(quantity=1) for _ in range(number)])
        keys = list(Basket.objects.values_list("pk", flat=True))
        assert len(keys) == len(made)
        Bill.objects.bulk_create([Bill(basket_number=key, amount=7) for key in keys])
        with statements() as captured:
            assert looked_at(BILL, *keys, samples=3).tally[STALE] == number
        return len(captured)

    assert sent(1) == sent(1000)


@pytest.mark.postgresql
def test_a_record_that_cannot_be_evaluated_is_told_apart_among_keys():
    rule = Rule(
        name="bad", every=Contact, must=HaveValues(visits=Cast(F("email"), output_field=IntegerField()))
    )
    good, bad, other = (Contact.objects.create(email=text) for text in ("7", "no number", "8"))
    result = looked_at(rule, good, bad, other)
    assert (result.tally[STALE], result.unrepairable) == (3, 1)
    assert any(f"{bad.pk}: " in each for each in result.remarks)
    assert drifts(looked_at(rule, good)) == {STALE: 1}


def test_young_records_stay_young():
    from datetime import timedelta

    from django.utils import timezone

    from reconcile import Settle

    one = Basket.objects.create(quantity=1, seen_at=timezone.now())
    rule = Rule(name="young", every=Basket, must=BILL.must, settle=Settle("seen_at", minutes=15))
    result = looked_at(rule, one)
    assert (result.tally.settling, drifts(result)) == (1, {})
    Basket.objects.update(seen_at=timezone.now() - timedelta(hours=1))
    assert drifts(looked_at(rule, one)) == {MISSING: 1}


def test_a_row_with_another_constant_is_none_of_the_record():
    must = HaveRow(Bill, link={"basket_number": F("pk"), "kind": Value("x")}, count=AtMost(1))
    rule = Rule(name="one", every=Basket, must=must)
    (basket,) = baskets(1)
    for kind in "xxy":
        Bill.objects.create(basket_number=basket.pk, kind=kind)
    assert drifts(looked_at(rule, basket)) == {EXTRA: 1}
