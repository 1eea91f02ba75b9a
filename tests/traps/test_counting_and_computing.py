"""Traps that other tools fell into: walking, counting, comparing, order. What is tested elsewhere in full:

Rounding: more decimals than the column -> tests/kinds/test_have_values.py::test_more_decimals_than_the_column_has_do_not_oscillate
Rounding: a constant -> tests/kinds/test_have_values.py::test_a_constant_with_more_decimals_than_the_column_is_rounded
Rounding: an average -> tests/kinds/test_have_values.py::test_an_average_is_rounded_as_the_column_stores_it
Rounding: SQLite keeps floats -> tests/kinds/test_from_python.py::test_a_decimal_with_more_digits_than_sqlite_keeps_is_not_found_again
Recount that another session's increment crosses, held -> tests/repair/test_chunk.py::test_a_counter_that_is_incremented_meanwhile_is_not_overwritten
Wrong order: a path from its parent's -> tests/kinds/test_levels.py::test_a_path_is_made_from_the_parent_s_level_by_level
Wrong order: a parent with the larger key -> tests/kinds/test_levels.py::test_a_parent_with_the_larger_key_is_still_the_first
Random default, once a row -> tests/kinds/test_have_row.py::test_a_value_made_once_a_row_is_not_shared_and_never_compared
Random default, given by the rule -> tests/kinds/test_have_row.py::test_create_only_is_written_once_and_never_compared
"""

import threading
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection, transaction
from django.db.models import CharField, Count, F, Q, Sum
from django.db.models.functions import Cast, Coalesce, Concat, Now
from django.utils import timezone

from reconcile import (
    EXTRA,
    STALE,
    AtLeast,
    Delete,
    FromPython,
    HaveReceipt,
    HaveRow,
    HaveSource,
    HaveValues,
    Report,
    Rule,
    Settle,
    receipts,
    runs,
)
from reconcile.models import Change
from sample_project.shop.models import Customer, Invoice, Item, Notification, Order
from tests.helpers import (
    Session,
    an_hour_ago,
    assert_clean,
    assert_finds,
    assert_repairs,
    at,
    everything,
    nightly,
    repaired,
)
from tests.zoo.models import Basket, Bill, Draft, Memo, Node, Player, Reply, Team, Thread

pytestmark = pytest.mark.django_db

COUNT = Rule(name="count", every=Team, must=HaveValues(player_count=Count("players")))


def team(players=0, **values):
    made = Team.objects.create(name="team", **values)
    Player.objects.bulk_create([Player(team=made) for _ in range(players)])
    return made


def small_pages(monkeypatch, settings):
    settings.RECONCILE = {**settings.RECONCILE, "CHUNK": 100}
    for place in ("repair.drifted_keys.BLOCK", "core.scopes.SIZE", "runs.one_rule.KEEP"):
        monkeypatch.setattr(f"reconcile.{place}", 100)


@pytest.mark.parametrize("pages", ["large", "small"])
@pytest.mark.parametrize("kind", ["generic", "linked"])
def test_deleting_a_thousand_orphans_leaves_none(monkeypatch, settings, pages, kind):
    if pages == "small":
        small_pages(monkeypatch, settings)
    alive, gone = Team.objects.create(), Team.objects.create()
    baskets = [Basket.objects.create() for _ in range(2)]
    for number in range(1_000):
        # Between the orphans stand rows that stay.
        Memo(target=gone).save()
        Bill(basket_number=-5 - number).save()
        if number % 50 == 0:
            Memo(target=alive).save()
    Bill.objects.bulk_create([Bill(basket_number=each.pk) for each in baskets])
    Team.objects.filter(pk=gone.pk).delete()
    must = {"generic": HaveSource("target"), "linked": HaveRow(Bill, link={"basket_number": F("pk")})}[kind]
    every = {"generic": Memo, "linked": Basket}[kind]
    assert_repairs(
        Rule(name="orphans", every=every, must=must, remedies={EXTRA: Delete()}, max_deletes=1_000),
        delete=1_000,
    )
    assert (Memo.objects.count(), Bill.objects.count()) == ((20, 1_002) if kind == "generic" else (1_020, 2))


def test_history_is_asked_for_per_record_and_not_per_table():
    owing = Order.objects.bulk_create([Order() for _ in range(4)])
    Invoice.objects.create(order=owing[1], amount=0)
    receipts.record("mail", owing[2])
    history = Rule(
        name="h", every=Order, must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": 0})
    )
    assert_finds(history, missing=[owing[0], *owing[2:]])
    assert_finds(Rule(name="m", every=Order, must=HaveReceipt("mail")), missing=[*owing[:2], owing[3]])
    assert_repairs(history, insert=3)


def rows_written(table, act):
    """How many rows of `table` the updates matched."""
    written, name = [], connection.ops.quote_name(table)

    def counting(execute, sql, parameters, many, context):
        result = execute(sql, parameters, many, context)
        # On MariaDB the values come first.
        if sql.startswith("UPDATE") and (sql.startswith(f"UPDATE {name}") or f"STRAIGHT_JOIN {name}" in sql):
            written.append(context["cursor"].rowcount)
        return result

    with connection.execute_wrapper(counting):
        act()
    return sum(written)


@pytest.mark.parametrize("way", ["aggregate", "python", "expression"])
def test_a_recount_writes_only_the_rows_that_differ(way):
    Team.objects.bulk_create([Team(name="x", points=1, player_count=0) for _ in range(300)])
    Team.objects.filter(pk__in=[each.pk for each in Team.objects.all()[:3]]).update(player_count=9)
    value = {"aggregate": Count("players"), "python": FromPython(lambda points: points - 1, reads=["points"])}
    rule = Rule(name="r", every=Team, must=HaveValues(player_count=value.get(way, F("points") - 1)))
    assert rows_written("zoo_team", lambda: repaired(rule)) == 3
    assert Change.objects.count() == 3
    assert rows_written("zoo_team", lambda: repaired(rule)) == 0


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_an_increment_between_check_and_write_is_not_lost():
    made = team(2, player_count=7)

    def handler():
        with transaction.atomic():
            Team.objects.filter(pk=made.pk).update(player_count=F("player_count") + 1)
            Player.objects.create(team=made)

    crossed = []

    def cross(execute, sql, parameters, many, context):
        # The check is over, the chunk's transaction has begun, and nothing is locked yet.
        if not crossed and sql.startswith("UPDATE") and "reconcile_workitem" in sql and "heartbeat" in sql:
            crossed.append(sql)
            session = Session(handler)
            session.start()
            session.join()
        return execute(sql, parameters, many, context)

    with connection.execute_wrapper(cross):
        result = repaired(COUNT)
    assert crossed
    assert (result.written.update, result.left) == (1, 0)
    made.refresh_from_db()
    assert made.player_count == 3


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_no_increment_of_live_sessions_is_lost_while_counters_are_repaired():
    teams = [team(3, player_count=40) for _ in range(4)]
    repaired(COUNT)
    over = threading.Event()

    def handler():
        for _ in range(25):
            for each in teams:
                with transaction.atomic():
                    Team.objects.filter(pk=each.pk).update(player_count=F("player_count") + 1)
                    Player.objects.create(team=each)

    def repairer():
        while not over.is_set():
            result = repaired(COUNT)
            assert result.error is None, result

    handlers, repairs = [Session(handler) for _ in range(2)], Session(repairer)
    for session in (repairs, *handlers):
        session.start()
    for session in handlers:
        session.join()
    over.set()
    repairs.join()
    assert {*Team.objects.values_list("player_count", flat=True)} == {3 + 2 * 25}
    assert_clean(COUNT)


@pytest.mark.parametrize(
    "value",
    [98_765, F("quantity"), FromPython(lambda number: number * 7, reads=["quantity"])],
    ids=["constant", "expression", "python"],
)
@pytest.mark.parametrize("column", ["label", "note"])
def test_a_number_that_is_kept_as_text_is_not_reported_forever(column, value):
    Basket.objects.create(quantity=12_345)
    rule = Rule(name="hash", every=Basket, must=HaveValues(**{column: value}))
    assert_repairs(rule, update=1)
    assert_clean(rule)


def test_drift_that_an_update_made_is_found_though_no_timestamp_moved():
    """What `update()` skips is `auto_now`, so nothing may go by it, nor by what was found right before."""
    made = [Draft.objects.create(title="x", slug="x") for _ in range(3)]
    seen = timezone.now() - timedelta(days=30)
    Draft.objects.update(updated_at=seen)
    rule = Rule(
        name="slug", every=Draft, must=HaveValues(slug=F("title")), settle=Settle("updated_at", minutes=5)
    )
    repaired(rule)
    Draft.objects.filter(pk=made[1].pk).update(title="y")
    assert_finds(rule, stale=[made[1]])
    assert_repairs(rule, update=1)
    assert {*Draft.objects.values_list("updated_at", flat=True)} == {seen}


def test_the_nightly_job_finds_today_s_drift_of_an_old_record():
    order = Order.objects.create(created_at=timezone.now() - timedelta(days=400))
    nightly()
    Order.objects.filter(pk=order.pk).update(item_count=5)
    Invoice.objects.filter(order=order).delete()
    assert nightly()["written"] == 2
    order.refresh_from_db()
    assert (order.item_count, Invoice.objects.count()) == (0, 1)


def test_what_skipped_two_side_effects_is_found_by_both_rules():
    order = Order.objects.bulk_create([Order(created_at=an_hour_ago())])[0]
    audit = Rule(
        name="a", every=Order, must=HaveRow(Notification, link={"order": F("pk"), "kind": "created"})
    )
    invoice = Rule(
        name="i", every=Order, must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")})
    )
    for rule in (audit, invoice):
        assert_finds(rule, missing=[order])


def test_forum_counts_that_read_topic_counts_are_right_after_one_run():
    forum = Customer.objects.create(name="forum", order_count=99)
    topics = Order.objects.bulk_create([Order(customer=forum, item_count=50) for _ in range(3)])
    Item.objects.bulk_create([Item(order=topics[number % 3]) for number in range(7)])
    rules = {
        "a_forum": Rule(
            name="a_forum", every=Customer, must=HaveValues(order_count=Sum("orders__item_count"))
        ),
        "b_topic": Rule(name="b_topic", every=Order, must=HaveValues(item_count=Count("items"))),
    }
    for names in (["a_forum", "b_topic"], ["b_topic", "a_forum"]):
        Order.objects.update(item_count=50)
        Customer.objects.update(order_count=99)
        runs.repair({name: rules[name] for name in names}, using="default")
        forum.refresh_from_db()
        assert forum.order_count == 7


def test_a_path_that_reads_a_count_of_children_leaves_no_grandchild_wrong():
    top = Node.objects.create(name="t")
    middle = Node.objects.create(name="m", parent=top)
    Node.objects.create(name="l", parent=middle)
    count = Rule(name="z_size", every=Node, must=HaveValues(size=Count("children")))
    path = Rule(
        name="a_path",
        every=Node,
        must=HaveValues(path=Concat(Coalesce("parent__path", "name"), "name", Cast("size", CharField()))),
    )
    Node.objects.update(size=8)
    _, results = runs.repair({"a_path": path, "z_size": count}, using="default")
    assert [(each.rule, each.left, each.error) for each in results] == [
        ("z_size", 0, None),
        ("a_path", 0, None),
    ]
    assert list(Node.objects.order_by("pk").values_list("path", flat=True)) == ["tt1", "tt1m1", "tt1m1l0"]


def test_moving_a_child_mends_the_counter_of_the_old_owner_too():
    old, new, other = (Order.objects.create() for _ in range(3))
    item = Item.objects.create(order=old, price=3)
    Item.objects.create(order=other, price=3)
    item.order = new
    item.save()
    rule = Rule(name="n", every=Order, must=HaveValues(item_count=Count("items"), total=Sum("items__price")))
    # The shop's receiver has counted the new owner's items alone, as receivers do.
    assert_finds(rule, stale=[old])
    Item.objects.filter(pk=item.pk).update(order=old)
    assert_finds(rule, stale=[new])
    Item.objects.filter(pk=item.pk).update(order=other)
    assert_finds(rule, stale=[old, new, other])
    assert_repairs(rule, update=3)
    counts = Order.objects.order_by("pk").values_list("item_count", "total")
    assert list(counts) == [(0, Decimal(0)), (0, Decimal(0)), (2, Decimal(6))]


def test_a_value_that_moves_with_the_clock_drifts_with_no_write_at_all():
    thread = Thread.objects.create(reply_count=1)
    Reply.objects.create(thread=thread, at=timezone.now())
    week = Q(replies__at__gte=Now() - timedelta(days=7))
    rule = Rule(
        name="week", every=Thread, must=HaveValues(reply_count=Count("replies", filter=week)),
    )  # fmt: skip
    assert_clean(rule)
    later = timezone.now() + timedelta(days=8)
    with at(later):
        assert_finds(rule, stale=[thread])
        assert_repairs(rule, update=1)
    thread.refresh_from_db()
    assert thread.reply_count == 0


@pytest.mark.parametrize(
    "ledger",
    [
        {"create_only": {"amount": F("price")}, "count": AtLeast(1)},
        {"values": {"amount": F("price")}},
    ],
    ids=["written once", "compared and left"],
)
def test_a_ledger_is_appended_to_and_never_rewritten(ledger):
    entered, lacking = (Basket.objects.create(price=Decimal("7.00")) for _ in range(2))
    old = Bill.objects.create(basket_number=entered.pk, amount=1)
    Bill.objects.create(basket_number=None, amount=2)
    Bill.objects.create(basket_number=-3, amount=4)
    before = everything()["zoo.Bill"]
    must = HaveRow(Bill, link={"basket_number": F("pk")}, **ledger)
    rule = Rule(
        name="ledger", every=Basket, must=must, remedies={STALE: Report()} if "values" in ledger else {}
    )
    result = repaired(rule)
    assert (result.written.insert, result.written.total) == (1, 1)
    after = everything()["zoo.Bill"]
    assert {*before} < {*after}
    assert len(after) == len(before) + 1
    assert Bill.objects.get(basket_number=lacking.pk).amount == Decimal("7.00")
    old.refresh_from_db()
    assert old.amount == 1
