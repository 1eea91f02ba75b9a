"""What the shop does, as functions that anyone may call; the receivers are thin wrappers around some of them.

A single and a bulk function stand side by side. The bulk one owes the same effects in about as many
statements as there are effects.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

import structlog
from celery import shared_task
from django.db import transaction
from django.db.models import Count, F, OuterRef, Subquery, Sum
from django.utils.text import slugify

from sample_project.shop.models import (
    Access,
    Article,
    Customer,
    Group,
    Invoice,
    Item,
    Notification,
    Order,
    PendingCharge,
)

__all__ = [
    "archive_items",
    "count_members",
    "count_orders",
    "create_order",
    "create_orders_bulk",
    "grant_access",
    "invoice_order",
    "notify_order",
    "revoke_access",
    "slug_of",
    "sum_items",
    "tell_storefront",
]

log = structlog.get_logger()


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
    """Create orders with their items and all that they owe, without a signal: a statement an effect, not an order."""
    for order in orders:
        order.customer_name = order.customer.name if order.customer else ""
    Order.objects.bulk_create(orders)
    Item.objects.bulk_create(items)
    lines: dict[int, list[Item]] = {}
    for item in items:
        lines.setdefault(item.order_id or 0, []).append(item)
    for order in orders:
        own = lines.get(order.pk, [])
        order.total = sum((item.price * item.quantity for item in own), Decimal(0))
        order.item_count = len(own)
    Order.objects.bulk_update(orders, ["total", "item_count"])
    owing = [order for order in orders if order.status != Order.Status.DRAFT]
    Invoice.objects.bulk_create([Invoice(order=order, amount=order.total) for order in owing])
    Notification.objects.bulk_create([Notification(order=order, kind="created") for order in owing])
    customers = Customer.objects.filter(pk__in={order.customer_id for order in orders if order.customer_id})
    counted = Order.objects.filter(customer=OuterRef("pk")).values("customer").annotate(number=Count("pk"))
    customers.update(order_count=Subquery(counted.values("number")))


def invoice_order(order: Order) -> None:
    """Give the order its invoice, or correct the one it has."""
    Invoice.objects.update_or_create(order=order, defaults={"amount": order.total})


def notify_order(order: Order) -> None:
    """Note the message that the order was created."""
    Notification.objects.get_or_create(order=order, kind="created")


def count_orders(customer_id: int) -> None:
    """Bring a customer's counter up to date."""
    Customer.objects.filter(pk=customer_id).update(
        order_count=Order.objects.filter(customer=customer_id).count()
    )


def sum_items(order_id: int) -> None:
    """Bring an order's total and item count up to date, and its invoice with it."""
    sums = Item.objects.filter(order=order_id).aggregate(
        total=Sum(F("price") * F("quantity"), default=Decimal(0)), item_count=Count("pk")
    )
    Order.objects.filter(pk=order_id).update(**sums)
    Invoice.objects.filter(order=order_id).update(amount=sums["total"])


@transaction.atomic
def archive_items(items: Iterable[Item]) -> None:
    """Archive items: off sale, their open charges cancelled and unscheduled, the storefront told on commit."""
    keys = [item.pk for item in items]
    Item.objects.filter(pk__in=keys).update(status=Item.Status.ARCHIVED, on_sale_since=None)
    PendingCharge.objects.filter(item__in=keys, status=PendingCharge.Status.PENDING).update(
        status=PendingCharge.Status.CANCELLED, scheduled_at=None
    )
    transaction.on_commit(lambda: tell_storefront.delay(keys))


@shared_task(name="shop.tell_storefront")
def tell_storefront(item_keys: list[int]) -> None:
    """Tell the outside storefront that items are gone: one message for the batch."""
    log.info("storefront_told", items=len(item_keys))


def slug_of(title: str) -> str:
    """The slug that an article of this title has."""
    return slugify(title)


def normalise_slug(article: Article) -> None:
    """Derive the article's slug from its title."""
    article.slug = slug_of(article.title)


def grant_access(group: Group, user_keys: Iterable[int]) -> None:
    """Give users their pass to the group."""
    Access.objects.bulk_create([Access(user_id=key, group=group) for key in user_keys], ignore_conflicts=True)


def revoke_access(group: Group, user_keys: Iterable[int]) -> None:
    """Take users' pass to the group back."""
    Access.objects.filter(group=group, user_id__in=list(user_keys)).delete()


def count_members(group: Group) -> None:
    """Bring a group's counter up to date."""
    Group.objects.filter(pk=group.pk).update(member_count=group.members.count())
