import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from django.db.models import Avg, Count, F, Max, OuterRef, Q, Subquery, Sum, Value
from django.db.models.functions import Coalesce, Concat, Lower, Now, Upper
from django.utils import timezone

from reconcile import HaveValues, Rule, Satisfy, Settle
from reconcile.core.drift import Guarantee
from reconcile.core.scopes import EVERYTHING
from reconcile.models import Change
from sample_project.shop.models import Customer, Group, Item, Order, PendingCharge
from tests.helpers import assert_finds, assert_repairs, checked, everything, repaired, statements, unaddressed
from tests.zoo.models import Basket, Bill, Device, Match, Page, Parcel, Player, Shy, Team

pytestmark = pytest.mark.django_db


def rule(every, **columns):
    return Rule(name="values", every=every, must=HaveValues(**columns))


def team(players=0, **values):
    made = Team.objects.create(name="team", **values)
    Player.objects.bulk_create([Player(team=made) for _ in range(players)])
    return made


def test_a_wrong_constant_is_found_and_set():
    wrong, _right = Basket.objects.create(label="a"), Basket.objects.create(label="b")
    assert_finds(rule(Basket, label="b"), stale=[wrong])
    assert_repairs(rule(Basket, label="b"), update=1)
    assert set(Basket.objects.values_list("label", flat=True)) == {"b"}


def test_null_equals_null_and_differs_from_everything_else():
    wrong, _right = Basket.objects.create(note=""), Basket.objects.create(note=None)
    assert_finds(rule(Basket, note=None), stale=[wrong])
    assert_repairs(rule(Basket, note=None), update=1)
    other = rule(Basket, note="x")
    assert_finds(other, stale=Basket.objects.all())
    assert_repairs(other, update=2)


@pytest.mark.parametrize(
    "columns",
    [
        {"label": "text"},
        {"rate": 1.5},
        {"changed": True},
        {"price": Decimal("9.99")},
        {"day": date(2026, 2, 3)},
        {"seen_at": datetime(2026, 3, 1, 12, 30, 15, 120, tzinfo=UTC)},
        {"seen_at": datetime(2026, 3, 1, 12, 30, 15, tzinfo=UTC)},
        {"quantity": 5, "note": "both"},
        {"label": Upper(Value("upper"))},
        {"note": Concat(F("label"), Value("-"), F("label"))},
        {"quantity": F("score") + 1},
        {"rate": F("quantity") * 1.1},
        {"price": F("quantity") / Value(3.0)},
        {"seen_at": Now()},
        {"day": Now()},
        {"note": F("quantity")},
    ],
    ids=str,
)
def test_a_repaired_value_is_never_found_again(columns):
    Basket.objects.create(label="label")
    Basket.objects.create(
        label="other", note="note", seen_at=timezone.now() - timedelta(days=1), day=date(2020, 1, 1)
    )
    assert_finds(rule(Basket, **columns), stale=Basket.objects.all())
    result = repaired(rule(Basket, **columns))
    assert (result.written.update, result.left, result.error) == (2, 0, None), result


def test_a_clock_in_a_date_column_is_stored_as_a_date():
    basket = Basket.objects.create()
    assert_repairs(rule(Basket, day=Now()), update=1)
    basket.refresh_from_db()
    assert abs(basket.day - timezone.now().date()) <= timedelta(days=1)


def test_more_decimals_than_the_column_has_do_not_oscillate():
    basket = Basket.objects.create(rate=7)
    thirds = rule(Basket, price=F("rate") / Value(3.0))
    assert_repairs(thirds, update=1)
    basket.refresh_from_db()
    assert basket.price == Decimal("2.33")


def test_text_is_compared_exactly():
    Device.objects.create(name="LAMP")
    Device.objects.create(name="lamp ")
    right = Device.objects.create(name="lamp")
    lower = rule(Device, name="lamp")
    assert_finds(lower, stale=Device.objects.exclude(pk=right.pk))
    assert_repairs(lower, update=2)


def test_an_expression_over_the_row_itself():
    wrong, _right = Device.objects.create(name="Mixed"), Device.objects.create(name="lower")
    assert_finds(rule(Device, name=Lower("name")), stale=[wrong])
    assert_repairs(rule(Device, name=Lower("name")), update=1)


def test_an_expression_over_a_foreign_key():
    ada = Customer.objects.create(name="Ada")
    Order.objects.bulk_create([Order(customer=ada, customer_name="Ada"), Order(customer=ada), Order()])
    named = rule(Order, customer_name=Coalesce(F("customer__name"), Value("")))
    assert_finds(named, stale=[Order.objects.get(customer=ada, customer_name="")])
    assert_repairs(named, update=1)


def test_a_state_that_follows_from_a_related_row():
    sold, archived = (
        Item.objects.create(status=status) for status in (Item.Status.ACTIVE, Item.Status.ARCHIVED)
    )
    PendingCharge.objects.bulk_create(
        [PendingCharge(item=item, scheduled_at=timezone.now()) for item in (sold, archived)]
    )
    charges = PendingCharge.objects.filter(item__status=Item.Status.ARCHIVED)
    cancelled = rule(charges, status="cancelled", scheduled_at=None)
    assert_finds(cancelled, stale=charges)
    assert_repairs(cancelled, update=1)
    assert PendingCharge.objects.get(item=sold).status == "pending"


def test_a_count_of_related_rows():
    right, low, none, high = team(2, player_count=2), team(3), team(), team(player_count=4)
    counted = rule(Team, player_count=Count("players"))
    assert_finds(counted, stale=[low, high])
    assert_repairs(counted, update=2)
    assert [Team.objects.get(pk=each.pk).player_count for each in (right, low, none, high)] == [2, 3, 0, 0]


def test_a_count_with_a_filter():
    mixed = team(2)
    Player.objects.create(team=mixed, active=False)
    counted = rule(Team, player_count=Count("players", filter=Q(players__active=True)))
    assert_repairs(counted, update=1)
    mixed.refresh_from_db()
    assert mixed.player_count == 2


def test_the_sum_of_nothing_is_zero_where_the_column_cannot_be_null():
    empty = team(player_count=5)
    summed = rule(Team, player_count=Sum("players__age"))
    assert_finds(summed, stale=[empty])
    assert_repairs(summed, update=1)
    empty.refresh_from_db()
    assert empty.player_count == 0


def test_the_sum_of_nothing_is_null_where_the_column_can_be():
    empty = team(points=5)
    assert_repairs(rule(Team, points=Sum("matches__points")), update=1)
    empty.refresh_from_db()
    assert empty.points is None


def test_a_sum_of_an_expression_over_related_rows():
    order = Order.objects.create()
    Item.objects.bulk_create(
        [Item(order=order, price=Decimal("3.33"), quantity=3), Item(order=order, price=Decimal("0.01"))]
    )
    totalled = rule(Order, total=Sum(F("items__price") * F("items__quantity")))
    assert_repairs(totalled, update=1)
    order.refresh_from_db()
    assert order.total == Decimal("10.00")


def test_two_aggregates_over_one_relation():
    made = team(3)
    Player.objects.update(age=30)
    both = rule(Team, player_count=Count("players"), points=Max("players__age"))
    assert_repairs(both, update=1)
    made.refresh_from_db()
    assert (made.player_count, made.points) == (3, 30)


def test_aggregates_over_two_relations_do_not_multiply_each_other():
    made = team(3)
    Match.objects.bulk_create([Match(team=made, points=2) for _ in range(4)])
    both = rule(Team, player_count=Count("players"), points=Sum("matches__points"))
    assert_finds(both, stale=[made])
    assert_repairs(both, update=1)
    made.refresh_from_db()
    assert (made.player_count, made.points) == (3, 8)


def test_an_aggregate_beside_a_value_of_the_record():
    made = team(3)
    mixed = rule(Team, player_count=Count("players") + F("pk"))
    assert_repairs(mixed, update=1)
    made.refresh_from_db()
    assert made.player_count == 3 + made.pk


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (Count("players") + Count("matches"), 3 + 4),
        (Sum("players__age") * 2, 120),
        (Sum("players__age") + Sum("matches__points"), 60 + 8),
        (
            Count("players")
            + Coalesce(
                Subquery(Player.objects.filter(team=OuterRef("pk")).order_by("-age").values("age")[:1]), 0
            ),
            23,
        ),
        (Sum("players__team__pk"), None),
        (Count("players__team__matches"), 12),
    ],
    ids=unaddressed,
)
def test_what_is_computed_from_several_aggregates_multiplies_nothing(expression, expected):
    for _ in range(3):
        Team.objects.create(name="before", player_count=-1)
    made = team(3)
    Match.objects.bulk_create([Match(team=made, points=2) for _ in range(4)])
    mixed = rule(Team, player_count=expression)
    assert repaired(mixed).left == 0
    made.refresh_from_db()
    assert made.player_count == (3 * made.pk if expected is None else expected)
    assert repaired(mixed).written.total == 0


def test_two_aggregates_of_which_one_goes_deeper_do_not_multiply():
    order = Order.objects.create()
    items = [Item.objects.create(order=order, price=1) for _ in range(2)]
    PendingCharge.objects.bulk_create(
        [PendingCharge(item=item, amount=3) for item in items for _ in range(2)]
    )
    Order.objects.update(item_count=0, total=0)
    assert repaired(rule(Order, item_count=Count("items"), total=Sum("items__charges__amount"))).left == 0
    order.refresh_from_db()
    assert (order.item_count, order.total) == (2, 12)


def test_a_constant_with_more_decimals_than_the_column_is_rounded():
    Basket.objects.create()
    assert_repairs(rule(Basket, price=Decimal("1.006")), update=1)
    assert Basket.objects.get().price == Decimal("1.01")


def test_an_average_is_rounded_as_the_column_stores_it():
    made = team(3)
    for age, player in zip((20, 21, 21), Player.objects.all(), strict=True):
        Player.objects.filter(pk=player.pk).update(age=age)
    assert_repairs(rule(Team, average=Avg("players__age")), update=1)
    made.refresh_from_db()
    assert made.average == Decimal("20.7")


def charges(*, archived=0, active=0, status="pending", **values):
    """Charges of archived items and of active ones."""
    order = Order.objects.create()
    for kind, number in (("archived", archived), ("active", active)):
        item = Item.objects.create(order=order, price=1, status=kind)
        PendingCharge.objects.bulk_create(
            [PendingCharge(item=item, amount=1, status=status, **values) for _ in range(number)]
        )


CANCELLED = Rule(
    name="values",
    every=PendingCharge.objects.filter(item__status="archived"),
    must=HaveValues(status="cancelled"),
)


def test_what_every_joins_is_read_once_and_the_records_are_counted_with_it(monkeypatch):
    monkeypatch.setattr("reconcile.core.scopes.SIZE", 3)
    charges(archived=10, active=4), charges(archived=5, status="cancelled")
    with statements() as captured:
        result = checked(CANCELLED, samples=2)
    assert len(captured) == 2
    assert (result.tally.checked, result.tally.settling, result.tally.total) == (15, 0, 10)
    assert len(result.samples) == 2
    assert_repairs(CANCELLED, update=10)
    with statements() as captured:
        assert checked(CANCELLED).tally.checked == 15
    assert len(captured) == 1


def test_young_records_are_counted_apart_there_too():
    charges(archived=2, scheduled_at=timezone.now())
    charges(archived=3, scheduled_at=timezone.now() - timedelta(hours=1)), charges(archived=1)
    settled = Rule(
        name="values", every=CANCELLED.every, must=CANCELLED.must, settle=Settle("scheduled_at", minutes=5)
    )
    tally = checked(settled).tally
    assert (tally.checked, tally.settling, tally.total) == (4, 2, 4)


def test_what_an_expression_joins_is_read_once_too(monkeypatch):
    monkeypatch.setattr("reconcile.core.scopes.SIZE", 3)
    ada = Customer.objects.create(name="Ada")
    Order.objects.bulk_create([Order(customer=ada) for _ in range(10)])
    with statements() as captured:
        assert checked(rule(Order, customer_name=F("customer__name")), samples=0).tally.total == 10
    assert len(captured) == 1


def test_aggregates_over_records_that_are_named_by_a_join():
    ada = Customer.objects.create(name="Ada")
    mine, _other = Order.objects.create(customer=ada), Order.objects.create()
    Item.objects.bulk_create([Item(order=order, price=1) for order in Order.objects.all()])
    Order.objects.update(item_count=0)
    counted = rule(Order.objects.filter(customer__name="Ada"), item_count=Count("items"))
    assert_finds(counted, stale=[mine])
    assert checked(counted).tally.checked == 1
    assert_repairs(counted, update=1)


def test_an_average_in_a_column_of_integers_is_rounded():
    made = team(2, player_count=0)
    Player.objects.filter(pk=Player.objects.first().pk).update(age=23)
    averaged = rule(Team, player_count=Avg("players__age"))
    assert_repairs(averaged, update=1)
    made.refresh_from_db()
    assert made.player_count in {21, 22}


def test_a_count_over_many_to_many():
    from django.contrib.auth.models import User

    group = Group.objects.create(name="friends")
    users = User.objects.bulk_create([User(username=f"user {number}") for number in range(3)])
    through = Group.members.through
    through.objects.bulk_create([through(group_id=group.pk, user_id=user.pk) for user in User.objects.all()])
    assert len(users) == 3
    assert_repairs(rule(Group, member_count=Count("members")), update=1)
    group.refresh_from_db()
    assert group.member_count == 3


@pytest.mark.parametrize(
    ("expression", "counted"),
    [
        (Count("players"), "team_id"),
        (Count("players", distinct=True), "id"),
        (Count("players__age"), "age"),
        (Count("players", distinct=True) + Count("matches"), "team_id"),
    ],
    ids=str,
)
def test_a_count_of_related_rows_takes_their_foreign_key_and_a_distinct_or_another_one_does_not(
    expression, counted
):
    made = team(3)
    with statements() as captured:
        assert_finds(rule(Team, player_count=expression), stale=[made])
    columns = re.findall(r'COUNT\((?:DISTINCT )?[^()"`]*["`]?\w*["`]?\.?["`](\w+)["`]\)', captured[-1]["sql"])
    assert columns[-1] == counted, captured[-1]["sql"]
    assert_repairs(rule(Team, player_count=expression), update=1)
    made.refresh_from_db()
    assert made.player_count == 3


def test_moving_a_child_is_found_at_both_parents():
    left, right = team(2, player_count=2), team(1, player_count=1)
    Player.objects.filter(pk=Player.objects.filter(team=left).first().pk).update(team=right)
    assert_finds(rule(Team, player_count=Count("players")), stale=[left, right])


def test_records_that_the_default_manager_hides_are_checked_too():
    hidden = Shy._base_manager.create(visible=False, value=1)
    assert_finds(rule(Shy, value=2), stale=[hidden])
    assert_repairs(rule(Shy, value=2), update=1)


def test_a_text_key_and_a_uuid_key():
    Page.objects.create(code="a"), Page.objects.create(code="b", visits=3)
    assert_finds(rule(Page, visits=3), stale=["a"])
    assert_repairs(rule(Page, visits=3), update=1)
    device = Device.objects.create(name="x")
    assert_finds(rule(Device, name="y"), stale=[device])
    assert_repairs(rule(Device, name="y"), update=1)
    assert str(Change.objects.latest("pk").key).replace("-", "") == device.pk.hex


def test_only_the_rule_s_columns_of_stale_rows_are_written():
    wrong, right = Basket.objects.create(label="a", note="n"), Basket.objects.create(label="b", note="n")
    Bill.objects.create(basket_number=1)
    before = everything()
    assert_repairs(rule(Basket, label="b"), update=1)
    after = everything()
    assert {label for label in after if after[label] != before[label]} == {"zoo.Basket"}
    assert (wrong.note, Basket.objects.get(pk=right.pk).label) == ("n", "b")


def test_the_journal_holds_the_columns_before_and_after():
    Basket.objects.create(label="old", quantity=1)
    assert_repairs(rule(Basket, label="new", quantity=2), update=1)
    change = Change.objects.get()
    assert change.before == {"label": "old", "quantity": 1}
    assert change.after == {"label": "new", "quantity": 2}


def test_a_value_too_long_for_its_column_is_not_cut():
    from django.db import connection

    Device.objects.create(name="x")
    result = repaired(rule(Device, name="y" * 60))
    if connection.vendor == "sqlite":
        assert result.written.update == 1
        return
    assert (result.written.update, result.left, result.skipped) == (0, 1, 1)
    assert Device.objects.get().name == "x"


def test_null_in_a_column_that_refuses_it_is_an_error_of_that_record():
    team(player_count=1)
    result = repaired(rule(Team, player_count=F("points")))
    assert result.left + result.written.update == 1
    empty = Team.objects.create(name="none", points=None)
    result = repaired(rule(Team.objects.filter(pk=empty.pk), player_count=F("points")))
    assert (result.written.update, result.left, result.skipped) == (0, 1, 1)
    assert "could not be repaired" in result.why_stopped


def test_the_guarantee_is_constraint():
    assert rule(Team, player_count=1).guarantee("default") == Guarantee.CONSTRAINT


def test_texts_that_a_filter_lists_are_values_and_not_paths():
    made = team()
    Parcel.objects.bulk_create(
        [Parcel(team=made, label=label) for label in ("parcels", "parcels__label", "x")]
    )
    listed = Q(parcels__label__in=("parcels", "parcels__label"))
    assert_repairs(rule(Team, points=Count("parcels", filter=listed)), update=1)
    made.refresh_from_db()
    assert made.points == 2


def test_each_clock_in_a_range_is_pinned():
    now = timezone.now()
    of_late = Q(seen_at__range=(Now() - timedelta(days=1), Now()))
    seen = Rule(name="seen", every=Basket, must=Satisfy(of_late))
    Basket.objects.create(seen_at=now - timedelta(hours=30))
    for shift, found in ((timedelta(), 1), (timedelta(hours=-8), 0), (timedelta(hours=-40), 1)):
        compiled = seen.compile(using="default", now=now + shift)
        assert compiled.finders[0].count(EVERYTHING) == found
