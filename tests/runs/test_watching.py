"""`watching`: what bulk calls write in a block is brought into being with what it owes, whichever call it was, or only checked."""

import threading
import uuid
from contextlib import nullcontext
from decimal import Decimal

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.exceptions import FieldDoesNotExist
from django.db import connection
from django.db.models import Count, QuerySet
from django.db.models.signals import post_delete

from reconcile import HaveValues, Rule, watching
from reconcile.errors import EnsureError, UsageError
from reconcile.testing import assert_consistent, record_bypasses
from sample_project.shop import bulk
from sample_project.shop.models import (
    Access,
    Category,
    Customer,
    Group,
    Invoice,
    Item,
    Note,
    Notification,
    Order,
    PendingCharge,
)
from tests.audit.test_effects import connected
from tests.helpers import everything
from tests.zoo.models import Badge, Device, Player, Team

pytestmark = pytest.mark.django_db


@pytest.fixture
def customer():
    return Customer.objects.create(name="Ann")


@pytest.fixture
def order(customer):
    order = Order.objects.create(customer=customer)
    Item.objects.create(order=order, price=Decimal(3))
    order.refresh_from_db()
    return order


def assert_all_consistent():
    for model in (Customer, Order, Item, Group, Category, PendingCharge, Group.members.through):
        assert_consistent(model, settled=False)


def test_what_an_import_owes_is_there_at_its_end(customer):
    with watching() as watched:
        orders = Order.objects.bulk_create([Order(customer=customer) for _ in range(3)])
        Item.objects.bulk_create([Item(order=each, price=Decimal(3)) for each in orders])
    assert watched.ensured.complete
    assert Notification.objects.count() == 3
    customer.refresh_from_db()
    assert customer.order_count == 3
    assert_all_consistent()


WRITES = {
    "update": lambda order: Item.objects.filter(order=order).update(price=7),
    "bulk_update": lambda order: Item.objects.bulk_update([Item(pk=order.items.get().pk, price=7)], ["price"]),
    "an update of values()": lambda order: Item.objects.filter(order=order).values("pk").update(price=7),
    "an update in an order": lambda order: Item.objects.order_by("-pk").update(price=7),
    "an update of what it filters by": lambda _: Item.objects.filter(price=3).update(price=7),
    "another customer": lambda order: Order.objects.filter(pk=order.pk).update(customer=Customer.objects.create(name="Bob")),
    "another customer by bulk_update": lambda order: Order.objects.bulk_update([Order(pk=order.pk, customer=Customer.objects.create(name="Bob"))], ["customer"]),
    "a raw delete": lambda order: bulk.delete_items_raw([order.items.get().pk]),
    "a delete that cascades": lambda order: order.items.all().delete(),
    "a reverse key": lambda order: Order.objects.create().items.set(order.items.all(), bulk=True),
    "a status": lambda _: Item.objects.update(status=Item.Status.ARCHIVED),
    "a generator": lambda order: Item.objects.bulk_create(Item(order=order, price=each) for each in (1, 2)),
    "async": lambda order: async_to_sync(Item.objects.filter(order=order).aupdate)(price=7),
}  # fmt: skip


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_whatever_a_bulk_call_writes_is_noted(order, write):
    with watching() as watched:
        write(order)
    assert watched.ensured is not None
    assert_all_consistent()


def test_links_of_a_many_to_many_field_are_noted_though_no_keys_come_back():
    group, users = Group.objects.create(name="x"), [User.objects.create(username=each) for each in "ab"]
    with watching():
        through = Group.members.through
        through.objects.bulk_create(
            [through(group=group, user=each) for each in users], ignore_conflicts=True
        )
    group.refresh_from_db()
    assert (group.member_count, Access.objects.count()) == (2, 2)


def test_a_tree_that_is_moved_follows():
    one, other = (Category.objects.create(name=name) for name in "ab")
    Category.objects.create(name="c", parent=Category.objects.create(name="d", parent=one))
    with watching():
        bulk.move_categories([Category.objects.get(name="d").pk], other)
    assert Category.objects.get(name="c").path == "/b/d/c"


def test_a_block_that_fails_leaves_nothing(order):
    before = everything()
    with pytest.raises(ValueError, match="no stock"), watching():
        Item.objects.update(price=7)
        raise ValueError("no stock")
    assert everything() == before


def test_it_may_only_check(order):
    with watching(only_check=True) as watched:
        Item.objects.update(price=7)
    assert watched.ensured is None
    assert {each.rule.name for each in watched.found.checks if each.tally.total} == {"orders.total"}
    order.refresh_from_db()
    assert order.total == 3


def test_young_records_are_checked_too(customer):
    with watching(only_check=True) as watched:
        Order.objects.bulk_create([Order(customer=customer)])
    assert "orders.invoice" in {each.rule.name for each in watched.found.checks if each.tally.total}


def test_rules_may_be_named(order):
    with watching(["orders.total"]) as watched:
        Item.objects.update(price=7)
    assert {*watched.ensured.written} == {"orders.total"}
    with (
        pytest.raises(UsageError, match=r"It doesn't read shop\.Item"),
        watching([Rule(name="own", every=Customer, must=HaveValues(name="x"))]),
    ):
        Item.objects.update(price=8)


def test_where_keys_do_not_come_back_it_is_told(customer):
    before = everything()
    with pytest.raises(EnsureError, match=r"1 shop\.Order.*Leave out ignore_conflicts"), watching():
        Order.objects.bulk_create([Order(customer=customer)], ignore_conflicts=True)
    assert everything() == before


def test_nothing_is_done_where_nothing_is_written_in_bulk(customer, django_assert_num_queries):
    with django_assert_num_queries(2), watching() as watched:
        pass
    assert watched.ensured is None
    with watching() as watched:
        Order.objects.create(customer=customer)
    assert not watched.created, "signals have heard of it"


def test_what_is_written_outside_of_a_block_is_not_watched(order):
    with watching():
        pass
    Item.objects.update(price=7)
    order.refresh_from_db()
    assert order.total == 3


def test_a_recording_that_ends_meanwhile_takes_nothing_away(order):
    with record_bypasses(), watching():
        pass
    with watching():
        Item.objects.update(price=7)
    order.refresh_from_db()
    assert order.total == 7
    assert hasattr(QuerySet.update, "notes_for_watching")


@pytest.mark.parametrize("is_watched", [True, False])
def test_a_column_may_have_any_name(is_watched):
    """A model's columns are arguments of update(): also those that are named as a parameter is here."""
    with watching() if is_watched else nullcontext():
        pass
    for name in ("rows", "watched", "original", "values", "objs"):
        with (
            pytest.raises(FieldDoesNotExist, match=f"no field named '{name}'"),
            watching() if is_watched else nullcontext(),
        ):
            Order.objects.update(**{name: 1})


def test_what_is_new_to_all_needs_no_lock_on_a_table(customer):
    with watching() as watched:
        Order.objects.bulk_create([Order(customer=customer)])
    assert {*watched.created[Order]} == {*watched.written[Order]}


PLAYERS = Rule(name="players", every=Team, must=HaveValues(player_count=Count("players")))


def heard(**_):
    """Hear of it, so that Django reads what it deletes."""


@pytest.mark.parametrize("is_heard", [True, False])
def test_parents_of_what_is_deleted_are_noted_whether_django_reads_it_or_not(is_heard):
    team = Team.objects.create(name="a", player_count=2)
    gone, _ = (Player.objects.create(team=team, age=each) for each in (1, 2))
    with connected(post_delete, heard, Player) if is_heard else nullcontext(), watching([PLAYERS]):
        Player.objects.filter(pk=gone.pk).delete()
    team.refresh_from_db()
    assert team.player_count == 1


def test_parents_of_rows_that_go_along_are_noted():
    """Baskets go with nothing that refers to the team: it is the players' own counter's parents that are left."""
    one, other = (Team.objects.create(name=each) for each in "ab")
    Team.objects.filter(pk=one.pk).update(alternate=other)
    with watching([PLAYERS], only_check=True) as watched:
        Player.objects.bulk_create([Player(team=one)])
        Team.objects.filter(pk=one.pk).delete()
    assert {one.pk, other.pk} <= {*watched.parents[Team]}


def test_a_record_s_own_delete_is_no_bulk_call(order):
    with watching() as watched:
        order.items.get().delete()
    assert not watched.parents.get(Order)


def test_fields_of_a_bulk_update_may_come_from_a_generator(order):
    item = order.items.get()
    item.price = 9
    with watching():
        assert Item.objects.bulk_update([item], (each for each in ["price"])) == 1
    order.refresh_from_db()
    assert order.total == 9


def test_an_update_forgets_what_the_queryset_has_read(order):
    rows = Item.objects.filter(order=order)
    assert [each.price for each in rows] == [3]
    with watching():
        rows.update(price=8)
        assert [each.price for each in rows] == [8]


def test_each_block_around_notes_what_is_written(order):
    with watching() as outer, watching(only_check=True) as inner:
        Item.objects.update(price=7)
    assert {*inner.written[Item]} == {*outer.written[Item]} == {order.items.get().pk}
    order.refresh_from_db()
    assert order.total == 7


@pytest.mark.django_db(databases=["default", "archive"])
def test_a_block_of_another_database_takes_nothing_from_the_one_around(order):
    with watching() as outer, watching(using="archive") as inner:
        Item.objects.update(price=7)
    assert outer.written[Item]
    assert not inner.written
    order.refresh_from_db()
    assert order.total == 7


def test_rows_that_a_bulk_create_meets_are_noted_with_the_parents_that_they_leave(customer):
    orders = Order.objects.bulk_create([Order(customer=customer) for _ in range(2)])
    there = Invoice.objects.create(order=orders[0], amount=0)
    rows = [Invoice(order=each, amount=5) for each in orders]
    options = {"update_conflicts": True, "update_fields": ["amount"]}
    if connection.vendor == "mysql":
        with pytest.raises(EnsureError, match=r"2 shop\.Invoice: Say unique_fields="), watching():
            Invoice.objects.bulk_create(rows, **options)
        return
    with watching() as watched:
        Invoice.objects.bulk_create(rows, **options, unique_fields=["order"])
    assert {*watched.written[Invoice]} == {*Invoice.objects.values_list("pk", flat=True)}
    assert there.pk in watched.written[Invoice]
    assert not watched.created


@pytest.mark.once
def test_keys_that_a_bulk_create_was_given_are_not_those_of_the_rows_that_it_met():
    device = Device.objects.create(name="a")
    badge = Badge.objects.create(device=device, name="old")
    with watching() as watched:
        Badge.objects.bulk_create(
            [Badge(device=device, name="new")],
            update_conflicts=True,
            unique_fields=["device"],
            update_fields=["name"],
        )
    assert {*watched.written[Badge]} == {badge.pk}
    assert Badge.objects.get().name == "new"


def test_owners_by_a_generic_key_are_noted(order):
    Note.objects.create(target=order, text="a")
    with watching(only_check=True) as watched:
        Note.objects.all().delete()
    assert order.pk in watched.parents[Order]


def test_keys_are_noted_as_the_database_has_them():
    device = uuid.uuid4()
    with watching(only_check=True) as watched:
        Device.objects.bulk_create([Device(id=str(device), name="a")])
        Device.objects.update(name="b")
    assert {*watched.written[Device]} == {device}


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_rows_that_another_session_commits_between_are_told(order):
    """The update meets a row that was not there when its keys were asked for."""

    def commit_another():
        Item.objects.bulk_create([Item(order_id=order.pk, price=1)])
        connection.close()

    def between(execute, sql, params, many, context):
        if sql.startswith("UPDATE") and "shop_item" in sql and not seen:
            seen.append(sql)
            thread = threading.Thread(target=commit_another)
            thread.start()
            thread.join()
        return execute(sql, params, many, context)

    seen = []
    if connection.vendor == "mysql":
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
    told = pytest.raises(EnsureError, match=r"1 shop\.Item: Another session has written rows meanwhile")
    with told, watching(), connection.execute_wrapper(between):
        Item.objects.update(price=7)
    assert {*Item.objects.values_list("price", flat=True)} == {3, 1}
