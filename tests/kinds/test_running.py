"""`RunningSum` and `Previous`: values along an order of the records, in one statement on each database."""

import random
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db.models import Case, F, OuterRef, Q, Value, When, Window
from django.db.models.functions import RowNumber
from django.utils import timezone

from reconcile import BeUnique, HaveRow, HaveValues, LookedUp, Previous, Rule, RunningSum, Satisfy, Within
from reconcile.core.drift import STALE
from reconcile.rules.order import sort_rules
from tests.helpers import assert_clean, assert_finds, assert_repairs, checked, repaired, statements
from tests.zoo.models import Basket, Bill, Contact, Sheet

pytestmark = pytest.mark.django_db

NOW = timezone.now()


def balance(value="score", **options):
    """Over the bills of a basket, in the order in which they were printed."""
    given = {"over": "basket_number", "by": ["printed_at", "pk"], **options}
    return Rule(name="balance", every=Bill, must=HaveValues(amount=RunningSum(value, **given)))


def bills(*scores, basket=1, amounts=()):
    made = [
        Bill.objects.create(basket_number=basket, score=score, printed_at=NOW + timedelta(minutes=number))
        for number, score in enumerate(scores)
    ]
    for bill, amount in zip(made, amounts, strict=False):
        Bill.objects.filter(pk=bill.pk).update(amount=amount)
    return made


def amounts(basket=1):
    rows = Bill.objects.filter(basket_number=basket).order_by("printed_at", "pk")
    return [int(amount) for amount in rows.values_list("amount", flat=True)]


def test_each_group_is_summed_in_its_own_order():
    bills(1, 2, 3)
    bills(10, 20, basket=2)
    assert_repairs(balance(), update=5)
    assert (amounts(), amounts(2)) == ([1, 3, 6], [10, 30])
    assert_clean(balance())


def test_the_order_is_that_of_by_and_not_of_the_keys():
    made = bills(1, 2, 3)
    Bill.objects.filter(pk=made[0].pk).update(printed_at=NOW + timedelta(hours=1))
    assert_repairs(balance(), update=3)
    assert amounts() == [2, 5, 6]


def test_equal_places_are_told_apart_by_the_key():
    made = bills(1, 2, 3)
    Bill.objects.update(printed_at=NOW)
    assert_repairs(balance(by=["printed_at"]), update=3)
    assert [int(Bill.objects.get(pk=each.pk).amount) for each in made] == [1, 3, 6]


def test_without_groups_all_records_are_one_and_null_is_a_group():
    bills(1, 2, basket=None)
    bills(4, basket=7)
    assert_repairs(balance(), update=3)
    assert sorted(map(int, Bill.objects.values_list("amount", flat=True))) == [1, 3, 4]
    Bill.objects.update(amount=0)
    assert_repairs(balance(over=(), by=["pk"]), update=3)
    assert sorted(map(int, Bill.objects.values_list("amount", flat=True))) == [1, 3, 7]


def test_a_wrong_first_value_is_named_once_and_mended_in_one_run():
    made = bills(*range(1, 41), amounts=[100 + sum(range(1, each + 1)) for each in range(1, 41)])
    found = checked(balance(), samples=5)
    assert found.tally[STALE] == 40
    assert [each.key for each in found.samples] == [str(made[0].pk)]
    assert found.remarks == ("The discrepancy starts at 1 of the 40 stale records.",)
    result = repaired(balance())
    assert (result.written.update, result.left, result.incomplete) == (40, 0, False)
    assert_clean(balance())


def test_each_start_is_named():
    made = bills(1, 1, 1, 1, 1, 1, amounts=[1, 2, 13, 14, 5, 6])
    found = checked(balance())
    assert found.tally[STALE] == 2
    assert [each.key for each in found.samples] == [str(made[2].pk)]
    Bill.objects.filter(pk=made[1].pk).update(amount=99)
    found = checked(balance())
    assert {each.key for each in found.samples} == {str(made[1].pk), str(made[2].pk)}


def test_a_long_account_is_one_run_and_few_statements():
    Bill.objects.bulk_create(
        [Bill(basket_number=1, score=1, amount=number + 5, printed_at=NOW) for number in range(1, 3_001)]
    )
    with statements() as sent:
        result = repaired(balance())
    assert (result.written.update, result.left) == (3_000, 0)
    assert len(sent) < 400
    assert_clean(balance())


def test_expressions_tolerance_and_several_groups():
    bills(1, 2, 3)
    signed = Case(When(kind="bill", then=F("score")), default=-F("score"))
    rule = Rule(
        name="signed", every=Bill,
        must=HaveValues(amount=Within(RunningSum(signed, over=["basket_number", "kind"], by=["-printed_at"]), Decimal("0.5"))),
    )  # fmt: skip
    assert_repairs(rule, update=3)
    assert amounts() == [6, 5, 3]
    Bill.objects.update(amount=F("amount") + Value(Decimal("0.5")))
    assert_clean(rule)


def test_only_the_records_of_every_are_looked_at_but_all_are_summed():
    made = bills(1, 2, 3)
    rule = Rule(name="some", every=Bill.objects.filter(score=3), must=balance().must)
    assert_finds(rule, stale=[made[2]])
    assert_repairs(rule, update=1)
    assert amounts() == [0, 0, 6]


def opening(**options):
    return Rule(
        name="opening", every=Bill, must=HaveValues(amount=Previous("score", by=["printed_at"], **options))
    )


def test_the_record_before_gives_its_value_and_the_first_has_none():
    bills(4, 5, 6, amounts=[0, 4, 9])
    bills(7, 8, basket=2, amounts=[0, 0])
    rule = Rule(
        name="opening", every=Bill.objects.exclude(score__in=[4, 7]), must=opening(over="basket_number").must
    )
    assert checked(rule).tally[STALE] == 2
    assert_repairs(rule, update=2)
    assert (amounts(), amounts(2)) == ([0, 4, 5], [0, 7])
    assert_clean(rule)
    assert checked(opening(over="basket_number")).tally[STALE] == 2


def test_the_sentences_say_the_order():
    assert opening(over="basket_number").sentence == (
        "Every bill must have amount = score of the one before over basket_number by printed_at."
    )
    assert balance().sentence == (
        "Every bill must have amount = the running sum of score over basket_number by printed_at, pk."
    )


def test_a_value_of_the_one_before_that_the_rule_writes_is_refused():
    rule = Rule(name="kind", every=Bill, must=HaveValues(kind=Previous("kind", by=["pk"], default="")))
    (fault,) = rule.faults()
    assert fault.id == "reconcile.E015"
    assert "reads 'kind', which the rule writes" in fault.message


@pytest.mark.parametrize(
    ("options", "id", "said"),
    [
        ({"by": ()}, "reconcile.E012", "by= is ()"),
        ({"by": ["nothing"]}, "reconcile.E013", "nothing"),
        ({"over": "nowhere"}, "reconcile.E013", "nowhere"),
        ({"over": [3]}, "reconcile.E012", "over= is [3]"),
        ({"over": None}, "reconcile.E012", "over= is None"),
        ({"over": 5}, "reconcile.E012", "over= is 5"),
        ({"over": F("kind")}, "reconcile.E012", "over= is F(kind)"),
        ({"by": F("kind")}, "reconcile.E012", "by= is F(kind)"),
        ({"value": "nothing"}, "reconcile.E013", "nothing"),
        ({"value": "kind"}, "reconcile.E015", "it is text, and 'amount' is not"),
        ({"value": "made_at"}, "reconcile.E015", "it is a date or time, and 'amount' is a number"),
        ({"value": "details"}, "reconcile.E012", "value= is of type JSONField"),
        ({"value": Q(score=1)}, "reconcile.E012", "value= is of type BooleanField"),
        ({"value": F("amount")}, "reconcile.E015", "reads 'amount', which the rule writes"),
    ],
    ids=repr,
)
def test_what_can_not_be_summed_is_a_fault(options, id, said):  # noqa: A002
    faults = list(balance(**options).faults())
    assert [each.id for each in faults][:1] == [id]
    assert said in str(faults[0])


def test_it_runs_after_what_writes_the_summed_column_and_is_no_circle():
    scores = Rule(name="scores", every=Bill, must=HaveValues(score=3))
    order = sort_rules({"balance": balance(), "scores": scores}, using="default", now=NOW)
    assert [each.name for each in order.rules] == ["scores", "balance"]
    assert order.circles == []


def test_any_ledger_comes_out_as_python_sums_it():
    draw = random.Random(7)
    for number in range(60):
        Bill.objects.create(
            basket_number=draw.choice([1, 2, None]), score=draw.randint(-5, 5), amount=draw.randint(-9, 9),
            printed_at=NOW + timedelta(minutes=draw.randint(0, 20)), kind=str(number),
        )  # fmt: skip
    repaired(balance())
    for basket in (1, 2, None):
        total = 0
        for bill in Bill.objects.filter(basket_number=basket).order_by("printed_at", "pk"):
            total += bill.score
            assert bill.amount == total
    assert_clean(balance())


def test_floats_and_decimals_are_summed_into_columns_of_other_types():
    Basket.objects.bulk_create([Basket(rate=each, price=Decimal("1.25")) for each in (0.5, 1.5, 2.25)])
    floats = Rule(name="floats", every=Basket, must=HaveValues(score=RunningSum("rate", by=["pk"])))
    decimals = Rule(name="decimals", every=Basket, must=HaveValues(rate=RunningSum("price", by=["pk"])))
    for rule in (floats, decimals):
        assert not list(rule.faults())
        assert_repairs(rule, update=3)
        assert_clean(rule)


def test_null_counts_as_nothing_and_leads_to_0():
    Contact.objects.bulk_create(
        [Contact(email=str(number), visits=visits) for number, visits in enumerate((None, 2, None, 3))]
    )
    rule = Rule(name="spent", every=Contact, must=HaveValues(spent=RunningSum("visits", by=["pk"])))
    repaired(rule)
    assert [int(each) for each in Contact.objects.order_by("pk").values_list("spent", flat=True)] == [
        0,
        2,
        2,
        5,
    ]
    assert_clean(rule)


def test_a_window_function_as_a_value_is_refused():
    rule = Rule(name="rank", every=Bill, must=HaveValues(score=Window(RowNumber(), order_by="pk")))
    (fault,) = rule.faults()
    assert (fault.id, "RunningSum" in fault.hint) == ("reconcile.E015", True)


def test_where_a_discrepancy_starts_is_told_beside_the_largest_number():
    """The sum of two integers may be larger than their type; the check of the others goes on."""
    Sheet.objects.bulk_create(
        [Sheet(small=1, large=2**63 - 1), Sheet(small=1, large=2), Sheet(small=1, large=3)]
    )
    rule = Rule(name="large", every=Sheet, must=HaveValues(large=RunningSum("small", by=["pk"])))
    found = checked(rule)
    assert found.tally.total == 1
    assert_repairs(rule, update=1)
    assert list(Sheet.objects.order_by("pk").values_list("large", flat=True)) == [1, 2, 3]


def test_previous_gives_the_first_its_default():
    Sheet.objects.bulk_create([Sheet(number=number, number_too=None) for number in (3, 4, 5)])
    rule = Rule(name="before", every=Sheet, must=HaveValues(natural=Previous("number", by=["pk"], default=7)))
    assert not list(rule.faults())
    assert "number of the one before by pk, or 7" in rule.sentence
    assert_repairs(rule, update=3)
    assert list(Sheet.objects.order_by("pk").values_list("natural", flat=True)) == [7, 3, 4]
    own = Rule(
        name="own", every=Sheet, must=HaveValues(small=Previous("number_too", by=["pk"], default=F("number")))
    )
    assert_repairs(own, update=3)
    assert list(Sheet.objects.order_by("pk").values_list("small", flat=True)) == [3, 4, 5]


def test_previous_needs_a_default_where_the_column_can_not_be_null():
    rule = Rule(name="before", every=Sheet, must=HaveValues(natural=Previous("number", by=["pk"])))
    (fault,) = rule.faults()
    assert (fault.id, "default=0" in fault.hint) == ("reconcile.E012", True)
    wrong = Rule(
        name="before", every=Sheet, must=HaveValues(natural=Previous("number", by=["pk"], default="x"))
    )
    assert [fault.id for fault in wrong.faults()] == ["reconcile.E012"]
    null = Rule(name="before", every=Sheet, must=HaveValues(number_too=Previous("number", by=["pk"])))
    assert not list(null.faults())


@pytest.mark.parametrize(
    "must",
    [
        HaveValues(score=OuterRef("amount")),
        HaveValues(score=F("score") + OuterRef("amount")),
        HaveValues(score=RunningSum(OuterRef("amount"), by=["pk"])),
        HaveValues(score=RunningSum("score", by=[OuterRef("amount")])),
        HaveValues(score=RunningSum("score", by=[Window(RowNumber(), order_by="pk")])),
        Satisfy(Q(score__gt=OuterRef("amount"))),
    ],
    ids=["value", "part of a value", "value of a sum", "order", "window in an order", "condition"],
)  # fmt: skip
def test_a_column_of_no_query_or_a_window_is_a_fault(must):
    assert [fault.id for fault in Rule(name="r", every=Bill, must=must).faults()] in (
        ["reconcile.E012"],
        ["reconcile.E015"],
    )


def test_a_window_function_in_every_is_refused_and_the_way_out_works():
    bills(5, 6, 7)
    numbered = Bill.objects.annotate(place=Window(RowNumber(), order_by=F("printed_at").asc()))
    for every in (numbered, numbered.filter(place__gt=1)):
        (fault,) = Rule(name="r", every=every, must=HaveValues(kind="later")).faults()
        assert (fault.id, "pk__in" in fault.hint) == ("reconcile.E011", True)
    inside = Bill.objects.filter(pk__in=numbered.filter(place__gt=1).values("pk"))
    rule = Rule(name="r", every=inside, must=HaveValues(kind="later"))
    assert not list(rule.faults())
    assert_repairs(rule, update=2)
    assert list(Bill.objects.order_by("printed_at").values_list("kind", flat=True)) == [
        "bill",
        "later",
        "later",
    ]


@pytest.mark.parametrize(
    "must",
    [
        BeUnique(Window(RowNumber(), order_by="pk")),
        BeUnique("kind", keep=[Window(RowNumber(), order_by="pk")]),
        BeUnique(OuterRef("amount")),
        HaveRow(Basket, link={"price": F("amount")}, where=Q(score=OuterRef("score"))),
        HaveValues(score=LookedUp(Bill, link={"basket_number": F("pk")}, value="score", by=["pk"], where=Q(score=OuterRef("score")))),
    ],
    ids=["unique window", "kept by a window", "unique outer", "where of a row", "where of a look-up"],
)  # fmt: skip
def test_so_it_is_in_the_other_kinds(must):
    assert {fault.id for fault in Rule(name="r", every=Bill, must=must).faults()} & {
        "reconcile.E012",
        "reconcile.E015",
    }


def test_groups_are_told_apart_to_the_character():
    for number, kind in enumerate(["a", "A", "a ", "a"]):
        Bill.objects.create(kind=kind, score=1, printed_at=NOW + timedelta(minutes=number))
    assert_repairs(balance(over="kind"), update=4)
    found = Bill.objects.order_by("printed_at").values_list("kind", "amount")
    assert [(kind, int(amount)) for kind, amount in found] == [("a", 1), ("A", 1), ("a ", 1), ("a", 2)]
