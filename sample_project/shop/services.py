"""What the shop does, as functions that any code may call. The receivers are thin wrappers around some of them.

A function for one record and a function for many stand side by side. The one for many has the same effects, in about as many
statements as there are effects.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import partial

import structlog
from celery import shared_task
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import Count, F, OuterRef, Subquery, Sum
from django.utils.text import slugify

from reconcile import receipts
from sample_project.shop.models import (
    Access,
    Address,
    Article,
    Category,
    Customer,
    Group,
    Invoice,
    Item,
    Keyword,
    Note,
    Notification,
    Order,
    PendingCharge,
)

__all__ = [
    "DEFAULT_PREFERENCES",
    "archive_items",
    "complete_preferences",
    "count_members",
    "count_orders",
    "create_order",
    "create_orders_bulk",
    "forget_notes",
    "grant_access",
    "index_keywords",
    "invoice_order",
    "keep_default",
    "keywords_of",
    "notify_order",
    "place_category",
    "revoke_access",
    "send_welcome",
    "slug_of",
    "sum_items",
    "tell_storefront",
    "welcome",
    "withdraw_items",
]

log = structlog.get_logger()

DEFAULT_PREFERENCES = {"language": "en", "newsletter": False}
"""The keys that the preferences of each customer have, with the values for a customer who has set nothing."""


@transaction.atomic
def create_order(
    *, customer: Customer | None, items: Sequence[Item], status: str = Order.Status.PLACED
) -> Order:
    """Create one order with its items, through signals."""
    order = Order.objects.create(customer=customer, status=status)
    for item in items:
        item.order = order
        item.save()
    return order


@transaction.atomic
def create_orders_bulk(orders: Sequence[Order], items: Sequence[Item]) -> None:
    """Create orders with their items and everything that they owe, without a signal. Costs one statement for each effect."""
    for order in orders:
        order.customer_name = order.customer.name if order.customer else ""
    Order.objects.bulk_create(orders)
    Item.objects.bulk_create(items)
    items_of_order: dict[int, list[Item]] = {}
    for item in items:
        items_of_order.setdefault(item.order_id or 0, []).append(item)
    for order in orders:
        own_items = items_of_order.get(order.pk, [])
        order.total = sum((item.price * item.quantity for item in own_items), Decimal(0))
        order.item_count = len(own_items)
    Order.objects.bulk_update(orders, ["total", "item_count"], batch_size=500)
    owing = [order for order in orders if order.status != Order.Status.DRAFT]
    Invoice.objects.bulk_create([Invoice(order=order, amount=order.total) for order in owing])
    Notification.objects.bulk_create([Notification(order=order, kind="created") for order in owing])
    customers = Customer.objects.filter(pk__in={order.customer_id for order in orders if order.customer_id})
    placed = Order.objects.filter(customer=OuterRef("pk"))
    counted = placed.values("customer").annotate(number=Count("pk"))
    latest = placed.order_by("-created_at", "-pk").values("pk")[:1]
    customers.update(order_count=Subquery(counted.values("number")), last_order=Subquery(latest))


def invoice_order(order: Order) -> None:
    """Give the order its invoice, or correct the one it has."""
    Invoice.objects.update_or_create(order=order, defaults={"amount": order.total})


def notify_order(order: Order) -> None:
    """Store the message that the order was created, unless it is there."""
    Notification.objects.get_or_create(order=order, kind="created")


def count_orders(customer_id: int) -> None:
    """Bring a customer's counter and last order up to date."""
    orders = Order.objects.filter(customer=customer_id).order_by("-created_at", "-pk")
    Customer.objects.filter(pk=customer_id).update(order_count=orders.count(), last_order=orders.first())


def complete_preferences(customer: Customer) -> None:
    """Give the customer each preference that isn't set."""
    customer.preferences = {**DEFAULT_PREFERENCES, **customer.preferences}


def welcome(customer: Customer) -> None:
    """Enqueue the welcome mail when the transaction that stores the customer is committed.

    `partial` holds the key of this customer; a lambda would look it up when the transaction commits, and in a loop find the last one's each time.
    """
    transaction.on_commit(partial(send_welcome.delay, [customer.pk]))


@shared_task(name="shop.send_welcome")
def send_welcome(customer_keys: list[int]) -> None:
    """Welcome customers by mail. Logs one event for all of them, and records a receipt for each."""
    log.info("welcome_sent", customers=len(customer_keys))
    receipts.record("welcome-mail", Customer, keys=customer_keys)


def keep_default(address: Address) -> None:
    """Unset `is_default` in the other addresses of the customer."""
    Address.objects.filter(customer=address.customer_id, is_default=True).exclude(pk=address.pk).update(
        is_default=False
    )


def forget_notes(order: Order) -> None:
    """Delete the notes on an order that is gone."""
    kind = ContentType.objects.get_for_model(Order)
    Note.objects.filter(content_type=kind, object_id=str(order.pk)).delete()


def sum_items(order_id: int) -> None:
    """Bring an order's total and item count up to date, and its invoice with it."""
    sums = Item.objects.filter(order=order_id).aggregate(
        total=Sum(F("price") * F("quantity"), default=Decimal(0)), item_count=Count("pk")
    )
    Order.objects.filter(pk=order_id).update(**sums)
    Invoice.objects.filter(order=order_id).update(amount=sums["total"])


@transaction.atomic
def archive_items(items: Iterable[Item]) -> None:
    """Archive items: take them off sale, cancel their pending charges and, on commit, tell the storefront."""
    keys = [item.pk for item in items]
    withdraw_items(keys)
    transaction.on_commit(partial(tell_storefront.delay, keys))


@transaction.atomic
def withdraw_items(items: Iterable[Item | int]) -> None:
    """Take items off sale, and cancel their pending charges. Tells nobody."""
    keys = [item if isinstance(item, int) else item.pk for item in items]
    Item.objects.filter(pk__in=keys).update(status=Item.Status.ARCHIVED, on_sale_since=None)
    PendingCharge.objects.filter(item__in=keys, status=PendingCharge.Status.PENDING).update(
        status=PendingCharge.Status.CANCELLED, scheduled_at=None
    )


@shared_task(name="shop.tell_storefront")
def tell_storefront(item_keys: list[int]) -> None:
    """Tell the storefront that items are gone. Logs one event for all of them, and records a receipt for each."""
    log.info("storefront_told", items=len(item_keys))
    receipts.record("storefront", Item, keys=item_keys)


def slug_of(title: str) -> str:
    """The slug that an article of this title has."""
    return slugify(title)


def normalise_slug(article: Article) -> None:
    """Derive the article's slug from its title."""
    article.slug = slug_of(article.title)


def keywords_of(body: str) -> list[str]:
    """The words that follow a `#`, each once, in order."""
    return sorted(set(re.findall(r"#(\w{1,50})", body.lower())))


def index_keywords(article: Article) -> None:
    """Bring the article's keywords up to date."""
    words = keywords_of(article.body)
    article.keywords.exclude(word__in=words).delete()
    Keyword.objects.bulk_create(
        [Keyword(article=article, word=word) for word in words], ignore_conflicts=True
    )


def place_category(category: Category) -> None:
    """Make the path of the category from the path of its parent."""
    category.path = f"{category.parent.path if category.parent else ''}/{category.name}"


def grant_access(group: Group, user_keys: Iterable[int]) -> None:
    """Give users their pass to the group."""
    Access.objects.bulk_create([Access(user_id=key, group=group) for key in user_keys], ignore_conflicts=True)


def revoke_access(group: Group, user_keys: Iterable[int]) -> None:
    """Take the pass to the group back from users."""
    Access.objects.filter(group=group, user_id__in=list(user_keys)).delete()


def count_members(group: Group) -> None:
    """Bring a group's counter up to date."""
    Group.objects.filter(pk=group.pk).update(member_count=group.members.count())
