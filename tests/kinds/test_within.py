import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from django.db.models import Avg, Count, F, Max, Sum, Value

from reconcile import HaveRow, HaveValues, Latest, Rule, Within
from sample_project.shop.models import Item, Order
from tests.helpers import assert_clean, assert_finds, assert_repairs, repaired, statements
from tests.zoo.models import Basket, Bill, Device, Player, Reply, Team, Thread

pytestmark = pytest.mark.django_db
CENT = Decimal("0.01")
NOW = datetime(2026, 3, 1, 12, 30, 15, 500, tzinfo=UTC)


def rule(every, **columns):
    return Rule(name="within", every=every, must=HaveValues(**columns))


def order(total, *prices):
    made = Order.objects.create(total=Decimal(total))
    Item.objects.bulk_create([Item(order=made, price=Decimal(price)) for price in prices])
    return made


def test_what_is_within_the_tolerance_is_not_found_on_either_side():
    order("10.01", "3.33", "6.67"), order("9.99", "10.00"), order("10.00", "10.00")
    assert_clean(rule(Order, total=Within(Sum("items__price"), CENT)))


def test_what_is_beyond_it_is_found_and_set_to_the_exact_value():
    above, below = order("10.02", "10.00"), order("9.98", "10.00")
    near = order("10.01", "10.00")
    totalled = rule(Order, total=Within(Sum("items__price"), CENT))
    assert_finds(totalled, stale=[above, below])
    assert_repairs(totalled, update=2)
    for each in (above, below, near):
        each.refresh_from_db()
    assert (above.total, below.total, near.total) == (Decimal("10.00"), Decimal("10.00"), Decimal("10.01"))


@pytest.mark.parametrize("expected", [None, 5])
@pytest.mark.parametrize("stored", [None, 5])
def test_null_is_near_null_alone(stored, expected):
    team = Team.objects.create(points=stored, player_count=1)
    value = Value(expected) if expected is not None else Max("players__age")
    near = rule(Team, points=Within(value, 1_000))
    assert_finds(near, stale=[] if stored == expected else [team])
    assert_repairs(near, **({} if stored == expected else {"update": 1}))
    team.refresh_from_db()
    assert team.points == expected


def test_the_sum_of_nothing_is_0():
    order("0.01"), order("0.02")
    assert_repairs(rule(Order, total=Within(Sum("items__price"), CENT)), update=1)


@pytest.mark.parametrize(
    ("column", "stored", "near", "far", "tolerance"),
    [
        ("reply_count", 3, 5, 6, 2),
        ("reply_count", 0, 2, 3, 2),
        ("reply_count", 3, 3, 4, Decimal("0.5")),
        ("ratio", 1.0, 1.25, 1.5, 0.25),
        ("ratio", 1.0, 1.25, 1.5, Decimal("0.25")),
        ("weight", Decimal("0.30"), Decimal("0.10"), Decimal("0.09"), Decimal("0.2")),
        ("weight", Decimal("1.10"), Decimal("1.00"), Decimal("0.99"), 0.1),
        ("last_at", NOW, NOW + timedelta(seconds=90), NOW - timedelta(seconds=91), timedelta(seconds=90)),
        (
            "last_at",
            NOW,
            NOW - timedelta(microseconds=9),
            NOW + timedelta(microseconds=10),
            timedelta(microseconds=9),
        ),
        ("last_on", date(2026, 3, 1), date(2026, 2, 27), date(2026, 2, 26), timedelta(days=2)),
        ("last_on", date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 3), timedelta(hours=36)),
    ],
    ids=str,
)
def test_numbers_dates_and_times_have_distances(column, stored, near, far, tolerance):
    thread = Thread.objects.create(**{column: stored})
    assert_clean(rule(Thread, **{column: Within(near, tolerance)}))
    beyond = rule(Thread, **{column: Within(far, tolerance)})
    assert_finds(beyond, stale=[thread])
    assert_repairs(beyond, update=1)
    thread.refresh_from_db()
    assert getattr(thread, column) == far


def test_an_unsigned_column_below_the_expected_value():
    low, high = Thread.objects.create(reply_count=0), Thread.objects.create(reply_count=10)
    Reply.objects.bulk_create([Reply(thread=low) for _ in range(3)])
    counted = rule(Thread, reply_count=Within(Count("replies"), 2))
    assert_finds(counted, stale=[low, high])
    assert_repairs(counted, update=2)


def test_a_tolerance_of_nothing_is_equality():
    order("10.01", "10.00"), order("10.00", "10.00")
    assert_repairs(rule(Order, total=Within(Sum("items__price"), 0)), update=1)


def test_around_a_latest():
    thread = Thread.objects.create(last_at=NOW)
    Reply.objects.create(thread=thread, at=NOW + timedelta(seconds=5))
    latest = Latest("replies", by=["-at"], value="at")
    assert_clean(rule(Thread, last_at=Within(latest, timedelta(seconds=5))))
    assert_repairs(rule(Thread, last_at=Within(latest, timedelta(seconds=4))), update=1)


def test_beside_a_column_without_a_tolerance_both_are_set():
    team = Team.objects.create(name="old", player_count=9)
    Player.objects.bulk_create([Player(team=team, age=age) for age in (20, 21)])
    both = rule(
        Team, name="new", average=Within(Avg("players__age"), 30), player_count=Within(Count("players"), 8)
    )
    assert_finds(both, stale=[team])
    assert_repairs(both, update=1)
    team.refresh_from_db()
    assert (team.name, team.average, team.player_count) == ("new", Decimal("20.5"), 2)


def test_in_the_values_of_a_row():
    near, far, bare = (Basket.objects.create(price=Decimal("5.00"), quantity=1) for _ in range(3))
    Bill.objects.create(basket_number=near.pk, amount=Decimal("5.01"))
    wrong = Bill.objects.create(basket_number=far.pk, amount=Decimal("4.98"))
    must = HaveRow(Bill, link={"basket_number": F("pk")}, values={"amount": Within(F("price"), CENT)})
    billed = Rule(name="bill", every=Basket, must=must)
    assert not list(billed.faults())
    assert (
        billed.sentence
        == "Every basket must have exactly 1 Bill with basket_number = pk, whose amount = price within 0.01."
    )
    assert_finds(billed, missing=[bare], stale=[far])
    assert repaired(billed).left == 0
    wrong.refresh_from_db()
    assert wrong.amount == Decimal("5.00")
    assert Bill.objects.get(basket_number=bare.pk).amount == Decimal("5.00")
    assert Bill.objects.get(basket_number=near.pk).amount == Decimal("5.01")


def test_a_thousand_records_take_as_many_statements_as_ten():
    counts = []
    for size in (1, 10, 1_000):
        Order.objects.all().delete()
        Order.objects.bulk_create([Order(total=5) for _ in range(size)])
        with statements() as captured:
            assert repaired(rule(Order, total=Within(Sum("items__price"), CENT))).written.update == size
        counts.append(len(captured))
    assert counts[1] == counts[2]


@pytest.mark.parametrize(
    ("column", "within", "fault"),
    [
        ("total", Within(Sum("items__price"), "0.01"), "E012.*the tolerance is '0.01'.*number of 0 or more"),
        ("total", Within(Sum("items__price"), -CENT), "E012.*the tolerance is Decimal"),
        ("total", Within(Sum("items__price"), True), "E012.*the tolerance is True"),
        ("total", Within(Sum("items__price"), float("nan")), "E012.*the tolerance is nan"),
        ("total", Within(Sum("items__price"), Decimal("NaN")), "E012.*the tolerance is Decimal"),
        ("total", Within(Sum("items__price"), timedelta(1)), "E012.*the tolerance is datetime"),
        ("created_at", Within(F("created_at"), 1), "E012.*the tolerance is 1.*timedelta"),
        ("created_at", Within(F("created_at"), timedelta(-1)), "E012.*the tolerance is"),
        ("customer_name", Within(F("status"), 1), "E012.*'customer_name' is no number, date or time"),
        ("total", Within(Within(1, 1), 1), "E012.*inside another"),
        ("total", Within(Sum("items__prize"), 1), "E013.*'prize'"),
        ("total", Within(Latest("itemz", by=["pk"], value="price"), 1), "E013.*Did you mean 'items'"),
    ],
    ids=str,
)
def test_a_fault(column, within, fault):
    found = [f"{each.id} {each}" for each in rule(Order, **{column: within}).faults()]
    assert len(found) == 1, found
    assert re.search(fault, found[0]), found


def test_a_link_and_what_is_written_once_have_no_tolerance():
    for option in ("link", "create_only"):
        given = {"link": {"basket_number": F("pk")}, option: {"basket_number": Within(F("pk"), 1)}}
        found = [str(each) for each in Rule(name="row", every=Basket, must=HaveRow(Bill, **given)).faults()]
        assert len(found) == 1
        assert "it has a tolerance" in found[0]


def test_the_sentence():
    near = rule(Order, total=Within(Sum("items__price"), CENT))
    assert near.sentence == "Every order must have total = Sum(items.price) within 0.01."
    assert rule(Device, name="x").sentence == "Every device must have name = 'x'."
