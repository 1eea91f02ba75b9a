"""`ensure`: after a bulk write, all that the records owe is there, in the caller's transaction."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal

import pytest
from asgiref.sync import async_to_sync
from django.contrib.contenttypes.models import ContentType
from django.db import OperationalError, connection, transaction
from django.db.models import CharField, Count, F
from django.db.models.functions import Cast

from reconcile import MISSING, Call, HaveRow, HaveValues, Rule, aensure, ensure, ensuring
from reconcile.audit.capture.capturing import Statements, counting
from reconcile.audit.shut import Outside, shut_outside
from reconcile.db.dialects import dialect_of
from reconcile.errors import EnsureError, EvaluationError, UsageError
from reconcile.rules.invalid import InvalidRule
from reconcile.runs import ensuring as ensuring_module
from reconcile.testing import assert_consistent, assert_parity
from sample_project.shop import services
from sample_project.shop.models import Category, Customer, Invoice, Item, Note, Notification, Order
from tests.helpers import everything
from tests.repair.test_triggers import trigger
from tests.zoo.models import Bill, Device, Pair, Player, Team

pytestmark = pytest.mark.django_db


@pytest.fixture
def customer():
    return Customer.objects.create(name="Ann")


def in_bulk(customer, number, status=Order.Status.PLACED):
    """Orders with an item each, past every receiver."""
    orders = Order.objects.bulk_create([Order(customer=customer, status=status) for _ in range(number)])
    items = Item.objects.bulk_create([Item(order=each, price=Decimal(3)) for each in orders])
    return orders, items


def test_what_signals_would_have_done_is_there(customer):
    orders, items = in_bulk(customer, 3)
    found = ensure([*orders, *items], new=True)
    assert found.complete, found.refused
    assert_consistent(Order)
    assert_consistent(Item)
    customer.refresh_from_db()
    assert (customer.order_count, customer.last_order) == (3, orders[-1])
    assert (
        Invoice.objects.filter(amount=3).count() == Notification.objects.filter(kind="created").count() == 3
    )
    assert {each.customer_name for each in Order.objects.all()} == {"Ann"}


def test_it_leaves_the_same_as_the_receivers(customer):
    def by_signals():
        for _ in range(3):
            services.create_order(customer=customer, items=[Item(price=Decimal(3))])

    def by_ensure():
        orders, items = in_bulk(customer, 3)
        ensure([*orders, *items], new=True)

    assert_parity(by_signals, by_ensure)


def test_a_second_time_it_writes_nothing(customer):
    orders, items = in_bulk(customer, 3)
    assert ensure([*orders, *items], new=True).total
    before = everything()
    assert ensure([*orders, *items], new=True).total == 0
    assert everything() == before


def test_the_number_of_statements_does_not_depend_on_the_number_of_records(customer):
    ensure(in_bulk(customer, 1)[0], new=True)
    numbers = []
    for number in (1, 10, 300):
        orders, items = in_bulk(customer, number)
        statements = Statements()
        with counting(statements, "default"):
            ensure([*orders, *items], new=True)
        numbers.append(statements.total)
    assert len({*numbers}) == 1, numbers


def test_a_draft_owes_no_invoice(customer):
    orders, items = in_bulk(customer, 2, Order.Status.DRAFT)
    ensure([*orders, *items], new=True)
    assert not Invoice.objects.exists()


def test_a_queryset_says_which_where_no_keys_came_back(customer):
    in_bulk(customer, 2)
    ensure(Order.objects.filter(customer=customer), new=True)
    assert Invoice.objects.count() == 2


def test_more_than_the_cap_is_an_error_and_nothing_is_written(customer):
    orders, items = in_bulk(customer, 3)
    before = everything()
    with pytest.raises(EnsureError, match="max_repairs=2"):
        ensure([*orders, *items], new=True, max_repairs=2)
    assert everything() == before


@pytest.mark.django_db(transaction=True)
def test_without_a_transaction_it_is_refused():
    order = Order.objects.create()
    with pytest.raises(UsageError, match=r"with transaction\.atomic"):
        ensure(order)
    with transaction.atomic():
        ensure(order, new=True)


def test_what_needs_a_lock_on_a_table_is_refused_by_name_unless_the_records_are_new(customer):
    orders, _ = in_bulk(customer, 1)
    kind = ContentType.objects.get_for_model(Order).pk
    link = {"object_id": Cast(F("pk"), CharField()), "content_type": kind}
    rule = Rule(name="loose", every=Order, must=HaveRow(Note, link=link, values={"text": "loose"}))
    if dialect_of("default").locks_tables:
        with pytest.raises(UsageError, match=r"loose.*needs a lock on shop_note"):
            ensure(orders, [rule])
    assert ensure(orders, [rule], new=True).total == 1
    assert Note.objects.get().text == "loose"


def paths():
    return [*Category.objects.order_by("pk").values_list("path", flat=True)]


def test_a_second_call_works_nothing_out_again_and_other_rules_do(customer, monkeypatch):
    sort, sorted_ = ensuring_module.sort_rules, []
    monkeypatch.setattr(
        ensuring_module, "sort_rules", lambda *args, **kwargs: sorted_.append(1) or sort(*args, **kwargs)
    )
    ensuring_module._plan_of.cache_clear()
    for _ in range(3):
        orders, items = in_bulk(customer, 1)
        assert ensure([*orders, *items], new=True).complete
    assert len(sorted_) == 1
    assert {*Order.objects.values_list("total", flat=True)} == {items[0].price * items[0].quantity}
    for value in ("one", "other"):
        rule = Rule(name="own", every=Order, must=HaveValues(customer_name=value))
        ensure(orders, [rule])
        assert Order.objects.get(pk=orders[0].pk).customer_name == value
    assert len(sorted_) == 3


def test_a_tree_is_written_level_by_level():
    top = Category(name="top")
    Category.objects.bulk_create([top])
    middle = Category(name="middle", parent=Category.objects.get())
    Category.objects.bulk_create([middle])
    Category.objects.bulk_create([Category(name="low", parent=Category.objects.get(name="middle"))])
    found = ensure(Category.objects.all())
    assert paths() == ["/top", "/top/middle", "/top/middle/low"]
    assert found.complete
    assert found.total == 3
    assert ensure(Category.objects.all()).total == 0


def test_what_stands_below_a_record_that_has_moved_follows():
    one, other = (Category.objects.create(name=name) for name in "ab")
    child = Category.objects.create(name="c", parent=one)
    Category.objects.create(name="d", parent=child)
    Category.objects.filter(pk=child.pk).update(parent=other)
    assert ensure(child).total == 2
    assert paths() == ["/a", "/b", "/b/c", "/b/c/d"]


def test_a_circle_is_told_and_nothing_is_written():
    one, other = (Category.objects.create(name=name) for name in "ab")
    Category.objects.filter(pk=one.pk).update(parent=other)
    Category.objects.filter(pk=other.pk).update(parent=one)
    with pytest.raises(EnsureError, match=r"is computed from itself, through 'parent': .* Break the circle"):
        ensure([one, other])
    assert paths() == ["/a", "/b"]


@pytest.mark.django_db(transaction=True)
def test_a_trigger_that_changes_what_is_written_is_told(customer):
    changing = trigger(
        "shop_order",
        postgresql=("BEFORE UPDATE", "NEW.total = 99;"),
        mysql="BEFORE UPDATE ON shop_order FOR EACH ROW SET NEW.total = 99",
        sqlite="AFTER UPDATE ON shop_order WHEN NEW.total <> 99 BEGIN UPDATE shop_order SET total = 99; END",
    )
    told = pytest.raises(EnsureError, match="is still stale after what was written for it")
    with changing, told, transaction.atomic():
        orders, items = in_bulk(customer, 1)
        ensure([*orders, *items], new=True)


def test_messages_go_out_on_commit_one_for_all(customer, django_capture_on_commit_callbacks):
    items = Item.objects.bulk_create(
        [Item(price=Decimal(3), status=Item.Status.ARCHIVED, on_sale_since=None) for _ in range(3)]
    )
    outside = Outside(is_shut=False)
    with shut_outside("default", outside):
        with django_capture_on_commit_callbacks(execute=True):
            found = ensure(items, new=True)
            assert outside.tasks == []
        assert found.messages == len(outside.tasks) == 1
        assert sorted(outside.tasks[0].args[0]) == [each.pk for each in items]
        with django_capture_on_commit_callbacks(execute=True):
            assert ensure(items, new=True).messages == 0, "since the receipts are promised"


def test_the_projects_own_function_runs_in_the_transaction(customer):
    def greet_all(orders):
        Notification.objects.bulk_create([Notification(order=each, kind="greeting") for each in orders])

    rule = Rule(
        name="greeted",
        every=Order,
        must=HaveRow(Notification, link={"order": F("pk"), "kind": "greeting"}),
        remedies={MISSING: Call(greet_all)},
    )
    orders, _ = in_bulk(customer, 2)
    assert ensure(orders, [rule], new=True).total == 2
    assert Notification.objects.filter(kind="greeting").count() == 2


def test_what_the_projects_own_function_does_not_do_is_told(customer):
    rule = Rule(
        name="greeted",
        every=Order,
        must=HaveRow(Notification, link={"order": F("pk"), "kind": "greeting"}),
        remedies={MISSING: Call(lambda orders: None)},
    )
    orders, _ = in_bulk(customer, 2)
    before = everything()
    with pytest.raises(EnsureError, match="is still missing"):
        ensure(orders, [rule], new=True)
    assert everything() == before


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_rows_that_another_session_holds_are_waited_for(customer):
    order = Order.objects.create(customer=customer)
    Invoice.objects.filter(order=order).update(amount=7)
    holds, ensured = threading.Event(), threading.Event()

    def hold():
        with transaction.atomic():
            Invoice.objects.select_for_update().get(order=order)
            holds.set()
            ensured.wait(1)
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    assert holds.wait(5)
    with transaction.atomic():
        found = ensure(order, ["orders.invoice"])
    ensured.set()
    thread.join()
    assert found.total == 1
    assert Invoice.objects.get(order=order).amount == 0


def test_records_that_are_not_saved_are_a_mistake():
    with pytest.raises(UsageError, match="is not saved"):
        ensure(Order())
    with pytest.raises(UsageError, match=r"ensure\(\) takes records"):
        ensure(Order)


@pytest.mark.django_db(transaction=True)
def test_it_can_be_awaited(customer):
    def write():
        with transaction.atomic():
            orders, items = in_bulk(customer, 2)
            return async_to_sync(aensure)([*orders, *items], new=True)

    assert write().complete
    assert Invoice.objects.count() == 2


def import_twice(customer, transaction_of, *, rounds=5):
    """Two sessions that import orders of one customer at once. Returns how many orders each import made, and how many deadlocks there were."""

    def importer(_):
        for _ in range(rounds):
            try:
                with transaction_of(customer):
                    orders, items = in_bulk(Customer.objects.get(pk=customer.pk), 3)
                    ensure([*orders, *items], new=True)
            except (OperationalError, EvaluationError) as error:
                deadlocks.append(str(error))
                continue
            done.append(3)
        connection.close()

    done, deadlocks = [], []
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(importer, range(2)))
    return sum(done), deadlocks


def assert_counted(customer, number):
    customer.refresh_from_db()
    assert customer.order_count == Order.objects.filter(customer=customer).count() == number
    assert customer.last_order == Order.objects.latest("created_at", "pk")


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_two_importers_of_one_customers_orders_count_them_all_or_one_is_told(customer):
    number, deadlocks = import_twice(customer, lambda _: transaction.atomic(), rounds=50)
    assert number
    assert all("eadlock" in each for each in deadlocks)
    assert not deadlocks or connection.vendor == "mysql"
    assert_counted(customer, number)


@pytest.mark.django_db(transaction=True)
def test_importers_that_lock_the_parents_first_wait_for_each_other(customer):
    assert import_twice(customer, ensuring, rounds=50) == (300, [])
    assert_counted(customer, 300)


def test_parents_are_given_in_any_form(customer):
    other = Customer.objects.create(name="Bob")
    with ensuring(customer, [other], Customer.objects.all(), Order.objects.none()):
        orders, _ = in_bulk(other, 1)
        ensure(orders, new=True)
    with ensuring():
        assert transaction.get_connection().in_atomic_block
    with pytest.raises(UsageError, match="is not saved"), ensuring(Customer()):
        pass


def test_named_rules_that_read_nothing_of_it_are_a_mistake(customer):
    with pytest.raises(UsageError, match=r"doesn't read shop\.Customer"):
        ensure(customer, ["articles.slug"])


def test_a_record_that_a_row_leaves_by_a_rule_is_mended_too():
    one, other = Team.objects.create(name="a", player_count=1), Team.objects.create(name="b")
    Team.objects.filter(pk=one.pk).update(alternate=other)
    Team.objects.filter(pk=other.pk).update(alternate=other)
    player = Player.objects.create(team=one, age=99)
    moved = Rule(
        name="moved", every=Player.objects.filter(age=99), must=HaveValues(team=F("team__alternate"))
    )
    counted = Rule(name="counted", every=Team, must=HaveValues(player_count=Count("players")))
    assert ensure([player], [moved, counted]).complete
    assert [*Team.objects.order_by("name").values_list("name", "player_count")] == [("a", 0), ("b", 1)]


def test_records_that_new_ones_lead_to_are_not_new(customer):
    """Another session may be inserting the row of a customer that was there before."""
    orders, _ = in_bulk(customer, 1)
    placed = Customer.objects.filter(orders__status="placed")
    rule = Rule(name="loose", every=placed, must=HaveRow(Bill, link={"basket_number": F("pk")}))
    if dialect_of("default").locks_tables:
        with pytest.raises(UsageError, match=r"loose.*needs a lock on zoo_bill"):
            ensure(orders, [rule], new=True)
    assert ensure([customer, *orders], [rule], new=True).total == 1


def test_keys_may_be_texts():
    device = Device(id=str(uuid.uuid4()), name="a")
    device.save()
    again = Device.objects.get()
    rule = Rule(name="name", every=Device, must=HaveValues(name="b"))
    assert ensure([device, again], [rule]).total == 1


def test_a_rule_that_can_t_be_used_is_refused_where_it_is_about_these_records(customer, monkeypatch):
    rules = {
        "pairs": InvalidRule.of(Rule(name="pairs", every=Pair, must=HaveValues(left=1)), []),
        "orders": InvalidRule.of(Rule(name="orders", every=Order, must=HaveValues(total=1)), []),
    }
    monkeypatch.setattr("reconcile.runs.given.project_rules", lambda: rules)
    orders, _ = in_bulk(customer, 1)
    assert [*ensure(orders).refused] == ["orders"]
    assert ensure(customer).complete


@pytest.mark.django_db(transaction=True)
def test_callbacks_of_the_caller_run_though_neither_broker_nor_note_work(customer, monkeypatch):
    def fails(*_, **__):
        raise OperationalError("gone")

    ran = []
    real = ensuring_module._send
    monkeypatch.setattr(
        ensuring_module, "_send", lambda name, message: real(name, replace(message, send=fails, failed=fails))
    )
    with transaction.atomic():
        Customer.objects.bulk_create([Customer(name="Bob")])
        assert ensure(Customer.objects.filter(name="Bob"), ["customers.welcome"]).messages == 1
        transaction.on_commit(lambda: ran.append("mine"))
    assert ran == ["mine"]
