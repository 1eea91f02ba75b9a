"""Every path that writes past the signals, as a shop would have them: an import, an admin action, a migration.

Each leaves drift behind. That is what they are here for.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path

from django.contrib.auth.models import User
from django.core import serializers
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import Model

from sample_project.shop.models import (
    Address,
    Article,
    Category,
    Customer,
    Group,
    Invoice,
    Item,
    Notification,
    Order,
    PendingCharge,
    Subscriber,
)

__all__ = [
    "add_members",
    "archive_by_update",
    "delete_items_raw",
    "delete_orders_raw",
    "import_addresses",
    "import_articles",
    "import_customers",
    "import_items",
    "import_orders",
    "import_subscribers",
    "insert_order_by_sql",
    "load_fixture",
    "lose_invoices",
    "move_categories",
    "rename_articles",
    "reprice_items",
    "reprice_orders",
    "rewrite_articles",
]


@transaction.atomic
def import_orders(orders: Sequence[Order], items: Iterable[Item] = ()) -> None:
    """`bulk_create`: no invoice, no notification, no totals, no counters."""
    Order.objects.bulk_create(orders)
    Item.objects.bulk_create(items)


def import_customers(customers: Sequence[Customer]) -> None:
    """`bulk_create`: customers whom nobody welcomed, and without preferences."""
    Customer.objects.bulk_create(customers)


def import_addresses(addresses: Sequence[Address]) -> None:
    """`bulk_create`: customers with several default addresses."""
    Address.objects.bulk_create(addresses)


def import_items(items: Sequence[Item]) -> None:
    """`bulk_create` past `pre_save`: lines of no piece at all."""
    Item.objects.bulk_create(items)


def import_subscribers(subscribers: Sequence[Subscriber]) -> None:
    """`bulk_create` without looking first: the same address several times."""
    Subscriber.objects.bulk_create(subscribers)


def import_articles(titles: Iterable[str]) -> None:
    """`bulk_create` past `pre_save`: articles whose slug was never derived."""
    Article.objects.bulk_create([Article(title=title) for title in titles])


def rename_articles(articles: Sequence[Article], suffix: str) -> None:
    """`bulk_update`: the title moves on, the slug stays."""
    for article in articles:
        article.title += suffix
    Article.objects.bulk_update(articles, ["title"])


def rewrite_articles(keys: Iterable[int], body: str) -> None:
    """`QuerySet.update`: the body changes, the keywords are those of the old one."""
    Article.objects.filter(pk__in=list(keys)).update(body=body)


def move_categories(keys: Iterable[int], parent: Category | None) -> None:
    """`QuerySet.update`: the drawer hangs elsewhere, and all paths below still say where it was."""
    Category.objects.filter(pk__in=list(keys)).update(parent=parent)


def reprice_orders(keys: Iterable[int], total: Decimal) -> None:
    """`QuerySet.update`: the order's total changes, its invoice doesn't."""
    Order.objects.filter(pk__in=list(keys)).update(total=total)


def reprice_items(keys: Iterable[int], price: Decimal) -> None:
    """`QuerySet.update` on the lines: the order's total doesn't follow."""
    Item.objects.filter(pk__in=list(keys)).update(price=price)


def archive_by_update(keys: Iterable[int]) -> None:
    """`QuerySet.update`: the items are archived, and their charges still pending."""
    Item.objects.filter(pk__in=list(keys)).update(status=Item.Status.ARCHIVED)


def add_members(group: Group, users: Iterable[User]) -> None:
    """`Through.objects.bulk_create`: members without access, and a counter that is off."""
    through = Group.members.through
    through._default_manager.bulk_create([through(group_id=group.pk, user_id=user.pk) for user in users])


def delete_items_raw(keys: Iterable[int]) -> None:
    """`_raw_delete`: lines vanish, the order's counters don't notice."""
    PendingCharge.objects.filter(item__in=list(keys)).delete()
    items = Item.objects.filter(pk__in=list(keys))
    items._raw_delete(items.db)


def delete_orders_raw(keys: Iterable[int]) -> None:
    """`_raw_delete` of orders and what refers to them: their notes stay behind, and counters and pointers are off."""
    keys = list(keys)
    Customer.objects.filter(last_order__in=keys).update(last_order=None)
    Item.objects.filter(order__in=keys).delete()
    for model in (Invoice, Notification):
        rows = model._base_manager.filter(order__in=keys)
        rows._raw_delete(rows.db)
    orders = Order.objects.filter(pk__in=keys)
    orders._raw_delete(orders.db)


def load_fixture(objects: Iterable[Model]) -> None:
    """`loaddata`: receivers are called with `raw=True`, and the careful ones then do nothing."""
    text = serializers.serialize("json", objects)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "fixture.json")
        path.write_text(json.dumps(json.loads(text)))
        call_command("loaddata", str(path), verbosity=0)


def insert_order_by_sql(total: Decimal, customer: Customer | None = None) -> None:
    """Raw SQL: an order that no Python code has seen."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO shop_order (customer_id, customer_name, status, total, item_count, created_at) "
            "VALUES (%s, '', 'paid', %s, 0, %s)",
            [customer.pk if customer else None, str(total), "2026-01-01 00:00:00"],
        )


def lose_invoices(keys: Iterable[int]) -> None:
    """`_raw_delete` on invoices: the orders stay, without them."""
    invoices = Invoice.objects.filter(order__in=list(keys))
    invoices._raw_delete(invoices.db)
