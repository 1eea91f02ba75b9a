"""The shop: what its signals do, what each bulk path leaves undone, and the rule that finds it."""

import os
import random
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.management import call_command
from django.utils import timezone

from reconcile import runs
from reconcile.checking import check
from reconcile.registry import valid_rules
from sample_project.shop import bulk, seed, services
from sample_project.shop.models import Access, Article, Customer, Group, Invoice, Item, Order, PendingCharge
from tests.helpers import ROOT, an_hour_ago

pytestmark = pytest.mark.django_db


def drifted(now=None):
    """The rules that find anything, each with how much."""
    now = now or timezone.now() + timedelta(hours=1)
    found = {name: check(rule, using="default", now=now).tally.total for name, rule in valid_rules().items()}
    return {name: number for name, number in found.items() if number}


def repair_all():
    Order.objects.update(created_at=an_hour_ago())
    _, results = runs.repair(valid_rules(), using="default")
    assert {result.left for result in results} == {0}, results


@pytest.fixture
def customer():
    return Customer.objects.create(name="Ada")


@pytest.fixture
def order(customer):
    return services.create_order(
        customer=customer, items=[Item(price=Decimal(3), quantity=2), Item(price=Decimal(1))]
    )


def test_an_order_made_through_signals_owes_nothing(order):
    order.refresh_from_db()
    assert (order.total, order.item_count, order.customer_name, order.invoice.amount) == (7, 2, "Ada", 7)
    assert order.notifications.get().kind == "created"
    assert drifted() == {}


def test_the_bulk_service_leaves_what_signals_leave_in_a_constant_number_of_statements(
    customer, django_assert_num_queries
):
    def create(number):
        keys = range(1_000 * number, 1_000 * number + number)
        orders = [Order(pk=key, customer=customer) for key in keys]
        services.create_orders_bulk(orders, [Item(order=each, price=Decimal(2)) for each in orders])

    create(2)
    with django_assert_num_queries(8):
        create(3)
    with django_assert_num_queries(8):
        create(30)
    assert Invoice.objects.filter(amount=2).count() == 35
    assert drifted() == {}


def test_imported_orders_lack_everything(customer):
    bulk.import_orders([Order(customer=customer) for _ in range(4)])
    Item.objects.bulk_create([Item(order=order, price=Decimal(5)) for order in Order.objects.all()])
    assert drifted() == {
        "customers.order_count": 1,
        "orders.total": 4,
        "orders.item_count": 4,
        "orders.customer_name": 4,
        "orders.invoice": 4,
        "orders.notification": 4,
    }
    repair_all()
    assert drifted() == {}
    assert set(Invoice.objects.values_list("amount", flat=True)) == {Decimal(5)}


@pytest.mark.parametrize(
    ("break_it", "found"),
    [
        (lambda order: bulk.reprice_orders([order.pk], Decimal(9)), {"orders.total": 1, "orders.invoice": 1}),
        (
            lambda order: bulk.reprice_items(order.items.values_list("pk", flat=True), Decimal(9)),
            {"orders.total": 1},
        ),
        (
            lambda order: bulk.delete_items_raw([order.items.first().pk]),
            {"orders.total": 1, "orders.item_count": 1},
        ),
        (lambda order: bulk.lose_invoices([order.pk]), {"orders.invoice": 1}),
        (
            lambda order: bulk.insert_order_by_sql(Decimal(4), order.customer),
            {
                "customers.order_count": 1,
                "orders.total": 1,
                "orders.customer_name": 1,
                "orders.invoice": 1,
                "orders.notification": 1,
            },
        ),
        (
            lambda _: bulk.load_fixture([Order(pk=999_999, customer_name="")]),
            {"orders.invoice": 1, "orders.notification": 1},
        ),
    ],
    ids=[
        "update of orders",
        "update of items",
        "raw delete",
        "raw delete of invoices",
        "raw SQL",
        "loaddata",
    ],
)
def test_each_bulk_path_is_found_by_its_rules_and_repaired(order, break_it, found):
    break_it(order)
    assert drifted() == found
    repair_all()
    assert drifted() == {}


def test_items_archived_past_the_signals_leave_charges_pending(order):
    items = list(order.items.all())
    PendingCharge.objects.bulk_create(
        [PendingCharge(item=item, scheduled_at=timezone.now()) for item in items]
    )
    PendingCharge.objects.filter(item=items[1]).update(status=PendingCharge.Status.CHARGED)
    bulk.archive_by_update([item.pk for item in items])
    assert drifted() == {"items.archived": 2, "items.archived_charges": 1}
    repair_all()
    assert drifted() == {}
    assert PendingCharge.objects.get(item=items[1]).status == "charged"


def test_items_archived_through_signals_cancel_their_charges(order):
    item = order.items.first()
    PendingCharge.objects.create(item=item, scheduled_at=timezone.now())
    item.status = Item.Status.ARCHIVED
    item.save()
    assert PendingCharge.objects.get().status == "cancelled"
    assert drifted() == {}


def test_members_added_past_the_signal_have_no_access():
    group = Group.objects.create(name="friends")
    users = [User.objects.create(username=f"user {number}") for number in range(3)]
    bulk.add_members(group, users)
    assert drifted() == {"groups.access": 3, "groups.member_count": 1}
    repair_all()
    assert drifted() == {}
    Access.objects.create(user=User.objects.create(username="intruder"), group=group)
    assert drifted() == {"groups.access": 1}


def test_members_changed_through_the_signal_owe_nothing():
    first, second = (Group.objects.create(name=name) for name in ("first", "second"))
    users = [User.objects.create(username=f"user {number}") for number in range(3)]
    first.members.add(*users)
    users[0].circles.add(second)
    first.members.remove(users[1])
    second.members.clear()
    assert Access.objects.count() == 2
    assert drifted() == {}


def test_articles_get_their_slug_by_the_signal_and_not_by_bulk():
    assert Article.objects.create(title="A Fine Title").slug == "a-fine-title"
    bulk.import_articles(["Another Title"])
    assert Article.objects.get(title="Another Title").slug == ""
    bulk.rename_articles(list(Article.objects.filter(title="A Fine Title")), " II")
    assert Article.objects.get(title="A Fine Title II").slug == "a-fine-title"


def test_a_bulk_path_in_async_code_is_found_the_same():
    async def import_some():
        await Order.objects.abulk_create([Order(), Order()])

    async_to_sync(import_some)()
    assert drifted() == {"orders.invoice": 2, "orders.notification": 2}


def test_the_seed_makes_half_of_the_orders_right_and_half_of_them_not():
    seed.fill_through_signals(60, random.Random(1))
    assert drifted() == {}
    seed.fill_past_signals(60, random.Random(1))
    assert set(drifted()) == set(valid_rules())


def test_the_command_that_imports_orders(capsys):
    call_command("shop_bulk", "3")
    assert "3 orders imported by bulk_create" in capsys.readouterr().out
    assert drifted()["orders.invoice"] == 3


def test_every_model_of_the_shop_has_a_name():
    item = Item.objects.create(name="mug")
    order = services.create_order(customer=Customer.objects.create(name="Ada"), items=[item])
    rows = [
        order,
        item,
        order.customer,
        order.invoice,
        order.notifications.get(),
        Article(title="x"),
        Group(name="g"),
    ]
    assert all(str(row) for row in [*rows, PendingCharge(item=item), Access(user_id=1, group_id=1)])


@pytest.mark.django_db(databases=["default", "archive"])
def test_no_migration_is_missing():
    call_command("makemigrations", "--check", "--dry-run", "shop", "reconcile", verbosity=0)


@pytest.mark.skipif(
    "DATABASE_URL" in os.environ, reason="the demo runs on SQLite alone; the SQLite run shows it"
)
def test_the_demo_tells_its_story_from_an_empty_file_to_a_clean_check(tmp_path):
    settings = {"DEMO_DATABASE": str(tmp_path / "demo.sqlite3"), "PATH": os.environ["PATH"], "COLUMNS": "140"}
    done = subprocess.run(
        [sys.executable, "-m", "sample_project.demo"],
        cwd=ROOT,
        env=settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2,002 orders are in" in done.stdout
    assert "drifted rows in 10 of 10 rules" in done.stdout
    assert "Nothing has been: add --apply to write." in done.stdout
    assert "All clean: 10 rules checked" in done.stdout
    assert (tmp_path / "demo.sqlite3").exists()
