from datetime import timedelta

import pytest
from django.db.models import Count, F, Q, Value
from django.db.models.functions import Concat

from reconcile import (
    EXTRA,
    MISSING,
    STALE,
    AtMost,
    Delete,
    HaveRow,
    HaveValues,
    Insert,
    Report,
    Rule,
    Settle,
    Update,
)  # fmt: skip
from reconcile.core.drift import Status, Tally
from sample_project.shop.models import Invoice, Order
from tests.helpers import statements
from tests.zoo.models import Basket, Bill, Car, Needy, Pair, Team, Vehicle

pytestmark = pytest.mark.once

OWED = HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")})


def faults(**options):
    return [str(fault) for fault in Rule(**{"name": "r", "every": Order, "must": OWED, **options}).faults()]


def only_fault(**options):
    found = faults(**options)
    assert len(found) == 1, found
    return found[0]


def test_a_good_rule_has_no_fault():
    assert faults(settle=Settle("created_at", minutes=15), max_repairs="1%", warn_if=3, tags=["a"]) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"every": None}, "every= is None."),
        ({"every": "orders"}, "every= is 'orders'. Give a model or a queryset."),
        ({"every": Order.objects.all()[:5]}, "every= is sliced. Remove the slice; a check walks all records in key order."),
        ({"every": Order.objects.order_by("pk")}, "every= is ordered. Remove order_by()"),
        ({"every": Order.objects.values("pk")}, "every= is a values() queryset."),
        ({"every": Order.objects.select_for_update()}, "every= is locking."),
        ({"every": Order.objects.all().union(Order.objects.all())}, "every= is a union, intersection or difference."),
        ({"every": Order.objects.annotate(n=Count("items"))}, "every= is aggregated. Filter with Exists(…) instead."),
        ({"every": Order.objects.extra(select={"one": "1"})}, "every= is extended by extra()."),
        ({"every": Pair, "must": HaveValues(left=1)}, "every= is zoo.Pair, whose primary key is composite."),
        ({"must": None}, "must= is None. Give an effect"),
        ({"must": HaveRow}, "must= is the class HaveRow. Give one of it: must=HaveRow(…)."),
        ({"settle": 15}, "settle= is 15."),
        ({"settle": Settle("created_at")}, "settle= gives no time."),
        ({"settle": Settle("create_at", minutes=1)}, "Did you mean 'created_at'?"),
        ({"max_repairs": "many"}, "max_repairs= is 'many'. Give a count of rows such as 10, or a percent such as '0.5%'."),
        ({"warn_if": -1}, "warn_if= is -1."),
        ({"error_if": True}, "error_if= is True."),
        ({"owner": 3}, "owner= is 3."),
        ({"tags": "money"}, "tags= is 'money'. Give a list of texts."),
        ({"unattended": "yes"}, "unattended= is 'yes'."),
        ({"remedies": [Report()]}, "remedies= is"),
        ({"remedies": {"missing": "insert"}}, "remedies= has 'missing': 'insert'."),
        ({"remedies": {"lost": Report()}}, "remedies= has 'lost'"),
        ({"remedies": {STALE: Insert()}}, "Insert() does not mend stale drift."),
        ({"remedies": {EXTRA: Update()}}, "Update() does not mend extra drift."),
        ({"must": HaveValues()}, "HaveValues() names no column."),
        ({"must": HaveValues(totl=1)}, "HaveValues: shop.Order has no column 'totl'. Did you mean 'total'?"),
        ({"must": HaveValues(zzz=1)}, "Its columns: id, customer"),
        ({"must": HaveValues(id=1)}, "'id' is the primary key."),
        ({"must": HaveValues(total=F("totl"))}, "HaveValues(total=…): Cannot resolve keyword 'totl' into field. Did you mean 'total'?"),
        ({"must": HaveValues(total=Count("itms"))}, "Did you mean 'items'?"),
        ({"must": HaveValues(customer_name=Concat(F("pk"), F("status")))}, "mixed types"),
        ({"every": Basket, "must": HaveValues(total=1)}, "zoo.Basket.total is a generated column."),
        ({"every": Car, "must": HaveValues(wheels=3)}, "zoo.Car.wheels is stored in a parent's table. Write the rule over zoo.Vehicle."),
        ({"must": HaveRow("Invoice", link={"order": F("pk")})}, "HaveRow: 'Invoice' is not a model."),
        ({"must": HaveRow(Invoice)}, "HaveRow: link= is empty."),
        ({"must": HaveRow(Invoice, link="order")}, "HaveRow: link= is 'order'. Give a dictionary of column names."),
        ({"must": HaveRow(Invoice, link={"ordr": F("pk")})}, "HaveRow(link=…): shop.Invoice has no column 'ordr'. Did you mean 'order'?"),
        ({"must": HaveRow(Invoice, link={"order": F("kp")}, values={"amount": F("total")})}, "HaveRow(link={'order': …}): Cannot resolve"),
        ({"must": HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("totals")})}, "Did you mean 'total'?"),
        ({"must": HaveRow(Invoice, link={"order": F("pk")})}, "a new shop.Invoice has no value for amount. Name it in values="),
        ({"must": HaveRow(Invoice, link={"order": F("pk")}, where="x", values={"amount": 1})}, "where= is 'x'."),
        ({"must": HaveRow(Invoice, link={"order": F("pk")}, where=Q(amont=1), values={"amount": 1})}, "Did you mean 'amount'?"),
        ({"must": HaveRow(Invoice, link={"order": F("pk")}, count="many", values={"amount": 1})}, "count= is 'many'."),
        ({"must": HaveRow(Car, link={"doors": F("pk")})}, "zoo.Car inherits from another table."),
        ({"must": HaveRow(Invoice, link={"order": F("pk")}, values={"amount": lambda: 3})}, "Name it in create_only="),
        ({"must": HaveRow(Invoice, link={"order": F("items")}, values={"amount": 1})}, "the path leads to many rows. Give a path to one row."),
        ({"must": HaveRow(Invoice, link={"order": F("pk")}, values={"amount": Count("items")})}, "an aggregate is not served here."),
        ({"must": HaveValues(total=F("items__price"))}, "the path leads to many rows. Aggregate them"),
        ({"settle": Settle("customer_name", hours=1)}, "settle: 'customer_name' is no date."),
        ({"settle": Settle("created_at", hours=-1)}, "settle= gives no time."),
        ({"must": HaveRow(Invoice, link={"order": "pk"}, values={"amount": 1})}, "'pk' can't be stored in 'order'. Did you mean F('pk')?"),
        ({"must": HaveValues(item_count="many")}, "'many' can't be stored in 'item_count'."),
        ({"must": HaveRow(Invoice, link={"order": F("pk")}, values={"amount": 1}, count=True)}, "count= is True."),
        ({"every": Basket, "must": HaveRow(Bill, link={"basket_number": F("pk")}, values={"details": {}})}, "'details' is a JSON column."),
        ({"every": Basket, "must": HaveRow(Pair, link={"left": F("pk")}, values={"right": 1})}, "has a composite primary key."),
        ({"name": "n" * 201}, "its name has 201 characters."),
        ({"every": Basket, "must": HaveRow(Needy, link={"basket": F("pk")})}, "has no value for size"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, str) else None,
)  # fmt: skip
def test_a_bad_rule_says_what_is_wrong_and_the_way_out(options, said):
    found = faults(**options)
    assert any(said in fault for fault in found), found
    assert all(fault.startswith(("Rule 'r': ", "Rule 'nnn")) for fault in found)


def test_all_faults_of_a_rule_are_reported_together():
    found = faults(every=Order.objects.order_by("pk")[:3], settle=1, owner=3)
    assert len(found) == 4


@pytest.mark.django_db
def test_validation_touches_no_database():
    with statements() as sent:
        faults()
        faults(must=HaveValues(total=F("nothing")))
    assert len(sent) == 0


def test_at_most_needs_no_value_for_a_new_row():
    assert faults(every=Basket, must=HaveRow(Needy, link={"basket": F("pk")}, count=AtMost(1))) == []


def test_a_rule_over_a_parent_of_multi_table_inheritance_is_fine():
    assert faults(every=Vehicle, must=HaveValues(wheels=4)) == []


def test_building_a_rule_has_no_side_effect_and_it_is_frozen():
    rule = Rule(every=Order, must=OWED)
    with pytest.raises(AttributeError):
        rule.owner = "x"


@pytest.mark.parametrize(
    ("options", "drifted", "status"),
    [
        ({}, 0, Status.PASS),
        ({}, 1, Status.FAIL),
        ({"warn_if": 0}, 1, Status.WARN),
        ({"warn_if": 5}, 5, Status.PASS),
        ({"warn_if": 5}, 6, Status.WARN),
        ({"error_if": 5}, 5, Status.WARN),
        ({"error_if": 5}, 6, Status.FAIL),
        ({"warn_if": 2, "error_if": 5}, 2, Status.PASS),
        ({"warn_if": 2, "error_if": 5}, 3, Status.WARN),
        ({"warn_if": "1%", "error_if": "2.5%"}, 2, Status.WARN),
        ({"warn_if": "2%", "error_if": "2.5%"}, 2, Status.PASS),
        ({"error_if": "2.5%"}, 3, Status.FAIL),
    ],
)
def test_tolerance_as_counts_and_percents_of_the_checked(options, drifted, status):
    tally = Tally(checked=100, drifted={MISSING: drifted})
    assert Rule(every=Order, must=OWED, **options).status(tally) is status


@pytest.mark.parametrize(
    ("options", "drifted", "status"),
    [
        ({"error_if": {EXTRA: 5}}, {EXTRA: 5}, Status.WARN),
        ({"error_if": {EXTRA: 5}}, {EXTRA: 6}, Status.FAIL),
        ({"error_if": {EXTRA: 5}}, {EXTRA: 5, MISSING: 1}, Status.FAIL),
        ({"error_if": {EXTRA: 5, MISSING: "2%"}}, {EXTRA: 5, MISSING: 2}, Status.WARN),
        ({"warn_if": {EXTRA: 5}}, {EXTRA: 5}, Status.PASS),
        ({"warn_if": {EXTRA: 5}}, {EXTRA: 6}, Status.WARN),
        ({"warn_if": {EXTRA: 5}, "error_if": 9}, {EXTRA: 9, MISSING: 9}, Status.WARN),
        ({"warn_if": {EXTRA: 5}, "error_if": 9}, {EXTRA: 5}, Status.PASS),
        ({"warn_if": 3, "error_if": {EXTRA: 9}}, {EXTRA: 3}, Status.PASS),
        ({"error_if": {EXTRA: 5}}, {}, Status.PASS),
        ({"error_if": {EXTRA: 5}}, {EXTRA: 0, MISSING: 0}, Status.PASS),
    ],
)
def test_tolerance_by_kind_of_drift_is_that_of_the_worst_kind(options, drifted, status):
    tally = Tally(checked=100, drifted=drifted)
    assert Rule(every=Order, must=OWED, **options).status(tally) is status


@pytest.mark.parametrize("limit", [{}, {"lost": 3}, {EXTRA: -1}, {EXTRA: None}, {EXTRA: {EXTRA: 1}}, [3]])
def test_a_tolerance_that_is_none_is_a_fault(limit):
    (said,) = faults(error_if=limit)
    assert "error_if= is" in said
    assert "{EXTRA: 10}" in said


def test_settle_adds_up_its_units():
    assert Settle("created_at", minutes=30, hours=1, days=1).age == timedelta(days=1, hours=1, minutes=30)


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (
            Rule(every=Order.objects.exclude(status="draft"), must=OWED),
            "Every order with not (status = 'draft') must have exactly 1 Invoice with order = pk, whose amount = total.",
        ),
        (
            Rule(every=Team, must=HaveValues(points=Count("players", filter=Q(players__active=True)) + 1)),
            "Every team must have points = Count(players where players.active = True) + 1.",
        ),
        (
            Rule(
                every=Order.objects.filter(customer__name="Ada", total__gt=3),
                must=HaveValues(customer_name="Ada"),
            ),
            "Every order with customer.name = 'Ada' and total > 3 must have customer_name = 'Ada'.",
        ),
        (
            Rule(
                every=Basket.objects.filter(Q(label__isnull=False) | ~Q(quantity__in=[1, 2])),
                must=HaveRow(
                    Bill,
                    link={"basket_number": F("pk")},
                    where=Q(kind="x") & ~Q(score__gte=3),
                    count=AtMost(2),
                ),
            ),
            (
                "Every basket with label is there or not (quantity in [1, 2]) must have at most 2 Bill with "
                "basket_number = pk, counting those with kind = 'x' and not (score ≥ 3)."
            ),
        ),
    ],
)
def test_a_rule_reads_as_a_sentence(rule, sentence):
    assert rule.sentence == sentence


def test_a_remedy_for_the_wrong_effect_is_a_programming_error():
    from reconcile.core.finder import QueryFinder
    from reconcile.core.scopes import Keys

    finder = QueryFinder(
        drift=EXTRA, model=Order, using="default", in_windows=True, query=lambda _: Order.objects.none()
    )
    for remedy in (Insert(), Update()):
        with pytest.raises(TypeError, match="has nothing to"):
            remedy.write(finder, Keys([1]), None)
    assert Report().write(finder, Keys([1]), None).written.total == 0
    assert list(Report().faults(EXTRA, None)) == []


def test_a_concatenation_reads_as_it_was_written():
    must = HaveValues(name=Concat(F("alternate__name"), Value("/"), F("name")))
    assert (
        Rule(every=Team, must=must).sentence
        == "Every team must have name = Concat(alternate.name, '/', name)."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tags": [None]}, "tags= is [None]. Give a list of texts."),
        ({"tags": [[]]}, "tags= is [[]]. Give a list of texts."),
        ({"covers": [None, 1]}, "covers= is [None, 1]. Give a list of functions."),
        ({"databases": "total"}, "databases= is 'total'. Give a list of aliases."),
        ({"silence": [1]}, 'silence= is [1]. Give a list of ids: silence=["reconcile.W002"].'),
    ],
    ids=str,
)
def test_what_is_listed_is_of_its_type(options, message):
    faults = [
        str(each) for each in Rule(name="r", every=Basket, must=HaveValues(label="a"), **options).faults()
    ]
    assert faults == [f"Rule 'r': {message}"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"every": Order.objects}, "every= is a manager of shop.Order. Give its queryset: add .all()."),
        ({"remedies": {STALE: Delete}}, "remedies= has stale: the class Delete. Give one of it: Delete(…)."),
        (
            {"name": "two\nlines"},
            "its name has characters that can't be printed. Give it a name= in one line.",
        ),
    ],
)
def test_what_was_given_is_said_in_the_words_of_who_gave_it(options, said):
    rule = Rule(**{"name": "r", "every": Order, "must": HaveValues(item_count=1), **options})
    assert any(said in str(fault) for fault in rule.faults())
