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

from sample_project.shop.models import Article, Customer, Group, Invoice, Item, Order, PendingCharge

__all__ = [
    "add_members",
    "archive_by_update",
    "delete_items_raw",
    "import_articles",
    "import_orders",
    "insert_order_by_sql",
    "load_fixture",
    "lose_invoices",
    "rename_articles",
    "reprice_items",
    "reprice_orders",
]


@transaction.atomic
def import_orders(orders: Sequence[Order], items: Iterable[Item] = ()) -> None:
    """`bulk_create`: no invoice, no notification, no totals, no counters."""
    Order.objects.bulk_create(orders)
    Item.objects.bulk_create(items)


def import_articles(titles: Iterable[str]) -> None:
    """`bulk_create` past `pre_save`: articles whose slug was never derived."""
    Article.objects.bulk_create([Article(title=title) for title in titles])


def rename_articles(articles: Sequence[Article], suffix: str) -> None:
    """`bulk_update`: the title moves on, the slug stays."""
    for article in articles:
        article.title += suffix
    Article.objects.bulk_update(articles, ["title"])


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
