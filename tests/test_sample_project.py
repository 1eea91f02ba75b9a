"""The shop: what its signals do, what each bulk path leaves undone, and the rule that finds it."""

import os
import random
import subprocess
import sys
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal

import pytest
from asgiref.sync import async_to_sync
from django.apps import apps
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import TestCase
from django.utils import timezone
from django.utils.module_loading import import_string

from reconcile import runs
from reconcile.detect.checking import check
from reconcile.models import Receipt
from reconcile.rules.registry import valid_rules
from sample_project.shop import bulk, seed, services
from sample_project.shop.models import (
    Access,
    Address,
    Article,
    Category,
    Customer,
    Delivery,
    Group,
    Invoice,
    Item,
    Keyword,
    Note,
    Order,
    PendingCharge,
    Subscriber,
)
from tests.helpers import ROOT, an_hour_ago, found_by_the_night

pytestmark = pytest.mark.django_db


def drifted(now=None):
    """The rules that find anything, each with how much."""
    now = now or timezone.now() + timedelta(hours=1)
    found = {name: check(rule, using="default", now=now).tally.total for name, rule in valid_rules().items()}
    return {name: number for name, number in found.items() if number}


def repair_all():
    Order.objects.update(created_at=an_hour_ago())
    found_by_the_night(*valid_rules().values())
    _, results = runs.repair(valid_rules(), using="default")
    assert {result.left for result in results} == {0}, results


@contextmanager
def committed():
    """What runs on commit runs, as it would outside a test."""
    with TestCase.captureOnCommitCallbacks(execute=True):
        yield


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
        "customers.last_order": 1,
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
    assert drifted() == {"items.archived": 2, "items.archived_charges": 1, "items.storefront": 2}
    repair_all()
    assert drifted() == {}
    assert PendingCharge.objects.get(item=items[1]).status == "charged"


def test_items_archived_through_signals_cancel_their_charges(order):
    item = order.items.first()
    PendingCharge.objects.create(item=item, scheduled_at=timezone.now())
    item.status = Item.Status.ARCHIVED
    with committed():
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


def test_orders_deleted_past_the_signals_leave_their_notes_and_a_wrong_pointer(customer):
    first, last = (services.create_order(customer=customer, items=[]) for _ in range(2))
    for order in (first, last):
        Note.objects.create(target=order)
    last.delete()
    assert Note.objects.count() == 1
    bulk.delete_orders_raw([first.pk])
    services.create_order(customer=customer, items=[])
    Customer.objects.update(last_order=None)
    assert drifted() == {"notes.target": 1, "customers.last_order": 1}
    repair_all()
    assert drifted() == {}
    assert not Note.objects.exists()


def test_a_body_rewritten_past_the_signal_keeps_the_old_keywords():
    article = Article.objects.create(title="Tea", body="#tea and #milk")
    assert drifted() == {}
    bulk.rewrite_articles([article.pk], "#tea and #lemon")
    assert drifted() == {"articles.keywords": 2}
    repair_all()
    assert drifted() == {}
    assert sorted(article.keywords.values_list("word", flat=True)) == ["lemon", "tea"]


def test_imported_articles_get_their_slug():
    bulk.import_articles(["Another Title"])
    assert drifted() == {"articles.slug": 1}
    repair_all()
    assert Article.objects.get().slug == "another-title"


def test_categories_moved_past_the_signals_say_where_they_were():
    house, garden = (Category.objects.create(name=name) for name in ("house", "garden"))
    kitchen = Category.objects.create(name="kitchen", parent=house)
    Category.objects.create(name="mugs", parent=kitchen)
    assert drifted() == {}
    bulk.move_categories([kitchen.pk], garden)
    assert drifted() == {"categories.path": 1}
    repair_all()
    assert drifted() == {}
    assert Category.objects.get(name="mugs").path == "/garden/kitchen/mugs"


def test_imported_customers_are_welcomed_once_and_get_preferences():
    long_ago = timezone.now() - timedelta(hours=5)
    bulk.import_customers([Customer(name="Ada", joined_at=long_ago, preferences={"newsletter": True})])
    assert drifted() == {"customers.preferences": 1, "customers.welcome": 1}
    repair_all()
    assert drifted() == {}
    assert Customer.objects.get().preferences == {"newsletter": True, "language": "en"}
    assert Receipt.objects.get().name == "welcome-mail"


def test_a_customer_made_through_signals_is_welcomed_on_commit():
    with committed():
        Customer.objects.create(name="Ada", joined_at=timezone.now() - timedelta(hours=5))
    assert drifted() == {}


def test_of_several_default_addresses_the_newest_stays(customer):
    old, new = (
        Address(
            customer=customer,
            street=street,
            is_default=True,
            updated_at=timezone.now() - timedelta(days=days),
        )
        for street, days in (("old", 2), ("new", 1))
    )
    bulk.import_addresses([old, new])
    assert drifted() == {"customers.default_address": 1}
    repair_all()
    assert Address.objects.get(is_default=True).street == "new"
    Address.objects.create(customer=customer, street="newest", is_default=True)
    assert drifted() == {}


def test_subscribers_imported_twice_become_one_with_all_deliveries():
    first = Subscriber.objects.create(email="a@example.org", visits=2)
    bulk.import_subscribers(
        [Subscriber(email="a@example.org", phone="555", visits=3), Subscriber(email="b@example.org")]
    )
    for subscriber in Subscriber.objects.filter(email="a@example.org"):
        Delivery.objects.create(subscriber=subscriber)
    assert drifted() == {"subscribers.email": 1}
    repair_all()
    assert drifted() == {}
    first.refresh_from_db()
    assert (first.visits, first.phone, first.deliveries.count()) == (5, "555", 2)


def test_lines_of_no_piece_are_one_piece(order):
    bulk.import_items([Item(order=order, quantity=0, price=Decimal(0))])
    assert drifted() == {"items.quantity": 1, "orders.item_count": 1}
    repair_all()
    assert drifted() == {}


def test_dear_items_are_archived_by_the_service_and_the_rest_as_a_set(order):
    dear = Item.objects.create(order=order, price=Decimal(500))
    items = [dear, *order.items.exclude(pk=dear.pk)]
    PendingCharge.objects.create(item=dear)
    bulk.archive_by_update([item.pk for item in items])
    rules = {"items.archived": valid_rules()["items.archived"]}
    _, (result,) = runs.repair(rules, using="default")
    assert (result.written.called, result.written.update, result.left) == (1, 2, 0)
    assert PendingCharge.objects.get().status == "cancelled"


def test_a_bulk_path_in_async_code_is_found_the_same():
    async def import_some():
        await Order.objects.abulk_create([Order(), Order()])

    async_to_sync(import_some)()
    assert drifted() == {"orders.invoice": 2, "orders.notification": 2}


def test_the_seed_makes_half_of_the_orders_right_and_half_of_them_not():
    with committed():
        seed.fill_through_signals(200, random.Random(1))
    assert drifted() == {}
    seed.fill_past_signals(200, random.Random(1))
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
    rows += [
        Address(street="x"),
        Category(name="c"),
        Delivery(subscriber_id=1),
        Keyword(word="w"),
        Note(text="n"),
    ]
    rows += [Subscriber(email="a@example.org"), PendingCharge(item=item), Access(user_id=1, group_id=1)]
    assert all(str(row) for row in rows)


@pytest.mark.django_db(databases=["default", "archive"])
def test_no_migration_is_missing():
    call_command("makemigrations", "--check", "--dry-run", "shop", "reconcile", verbosity=0)


def test_migrations_import_only_what_is_public():
    """A migration stays as it is for good, and a private module may go tomorrow."""
    fields = [
        field for model in apps.get_app_config("reconcile").get_models() for field in model._meta.local_fields
    ]
    paths = {field.deconstruct()[1] for field in fields}
    own = {path for path in paths if path.startswith("reconcile.")}
    assert own == {"reconcile.models.ExactField", "reconcile.models.KeysField"}
    for path in own:
        assert import_string(path).__name__ == path.rpartition(".")[2]
    for written in (ROOT / "reconcile" / "migrations").glob("0*.py"):
        assert "reconcile.models._" not in written.read_text(), written


@pytest.mark.process
@pytest.mark.once
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
    assert "drifted rows in 21 of 21 rules" in done.stdout
    assert "Nothing has been: add --apply to write." in done.stdout
    assert "All clean: 21 rules checked" in done.stdout
    assert (tmp_path / "demo.sqlite3").exists()
