"""All ways to write without signals, as a shop has them: an import, an admin action, a migration.

Each of these functions leaves drift behind. The demo and the tests need it.
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
    """Import orders by `bulk_create`: they get no invoice, no notification, no totals and no counters."""
    Order.objects.bulk_create(orders)
    Item.objects.bulk_create(items)


def import_customers(customers: Sequence[Customer]) -> None:
    """Import customers by `bulk_create`: they get no welcome and no preferences."""
    Customer.objects.bulk_create(customers)


def import_addresses(addresses: Sequence[Address]) -> None:
    """Import addresses by `bulk_create`: a customer may then have several default addresses."""
    Address.objects.bulk_create(addresses)


def import_items(items: Sequence[Item]) -> None:
    """Import items by `bulk_create`, without `pre_save`: an item may then have a quantity of 0."""
    Item.objects.bulk_create(items)


def import_subscribers(subscribers: Sequence[Subscriber]) -> None:
    """Import subscribers by `bulk_create`, without looking first: the same address may then be there several times."""
    Subscriber.objects.bulk_create(subscribers)


def import_articles(titles: Iterable[str]) -> None:
    """Import articles by `bulk_create`, without `pre_save`: they get no slug."""
    Article.objects.bulk_create([Article(title=title) for title in titles])


def rename_articles(articles: Sequence[Article], suffix: str) -> None:
    """Rename articles by `bulk_update`: their slugs stay those of the old titles."""
    for article in articles:
        article.title += suffix
    Article.objects.bulk_update(articles, ["title"])


def rewrite_articles(keys: Iterable[int], body: str) -> None:
    """Rewrite articles by `QuerySet.update`: their keywords stay those of the old body."""
    Article.objects.filter(pk__in=list(keys)).update(body=body)


def move_categories(keys: Iterable[int], parent: Category | None) -> None:
    """Move categories by `QuerySet.update`: their paths, and all paths below them, stay the old ones."""
    Category.objects.filter(pk__in=list(keys)).update(parent=parent)


def reprice_orders(keys: Iterable[int], total: Decimal) -> None:
    """Change the totals of orders by `QuerySet.update`: their invoices keep the old amount."""
    Order.objects.filter(pk__in=list(keys)).update(total=total)


def reprice_items(keys: Iterable[int], price: Decimal) -> None:
    """Change the prices of items by `QuerySet.update`: the totals of their orders stay the old ones."""
    Item.objects.filter(pk__in=list(keys)).update(price=price)


def archive_by_update(keys: Iterable[int]) -> None:
    """Archive items by `QuerySet.update`: their charges stay pending."""
    Item.objects.filter(pk__in=list(keys)).update(status=Item.Status.ARCHIVED)


def add_members(group: Group, users: Iterable[User]) -> None:
    """Add members by `bulk_create` on the through model: they get no access, and the group's counter stays the old one."""
    through = Group.members.through
    through._default_manager.bulk_create([through(group_id=group.pk, user_id=user.pk) for user in users])


def delete_items_raw(keys: Iterable[int]) -> None:
    """Delete items by `_raw_delete`: the counters of their orders stay the old ones."""
    PendingCharge.objects.filter(item__in=list(keys)).delete()
    items = Item.objects.filter(pk__in=list(keys))
    items._raw_delete(items.db)


def delete_orders_raw(keys: Iterable[int]) -> None:
    """Delete orders, and the rows that refer to them, by `_raw_delete`: their notes stay, and the customers' counters, too."""
    keys = list(keys)
    Customer.objects.filter(last_order__in=keys).update(last_order=None)
    Item.objects.filter(order__in=keys).delete()
    for model in (Invoice, Notification):
        rows = model._base_manager.filter(order__in=keys)
        rows._raw_delete(rows.db)
    orders = Order.objects.filter(pk__in=keys)
    orders._raw_delete(orders.db)


def load_fixture(objects: Iterable[Model]) -> None:
    """Load the objects by `loaddata`: receivers are called with `raw=True`, and then some of them do nothing."""
    text = serializers.serialize("json", objects)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "fixture.json")
        path.write_text(json.dumps(json.loads(text)))
        call_command("loaddata", str(path), verbosity=0)


def insert_order_by_sql(total: Decimal, customer: Customer | None = None) -> None:
    """Insert an order by SQL: no Python code sees it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO shop_order (customer_id, customer_name, status, total, item_count, created_at) "
            "VALUES (%s, '', 'paid', %s, 0, %s)",
            [customer.pk if customer else None, str(total), "2026-01-01 00:00:00"],
        )


def lose_invoices(keys: Iterable[int]) -> None:
    """Delete the invoices of these orders by `_raw_delete`."""
    invoices = Invoice.objects.filter(order__in=list(keys))
    invoices._raw_delete(invoices.db)
