"""Unsaved records of the shop, on which `reconcile signals parity` shows that the rules do what the receivers do."""

from __future__ import annotations

from decimal import Decimal

from django.contrib.auth.models import User
from django.utils import timezone

from reconcile.testing import Linked
from sample_project.shop.models import Address, Article, Category, Customer, Group, Item, Order, PendingCharge

__all__ = ["articles", "categories", "groups", "items", "orders"]


def orders() -> list[Customer | Address | Order | Item]:
    """Customers with addresses and with orders of every status, with and without items."""
    ann, bob = Customer(name="Ann", preferences={"language": "de"}), Customer(name="Bob")
    first, second, draft, nobodys = (
        Order(customer=ann),
        Order(customer=ann, status=Order.Status.PAID),
        Order(customer=bob, status=Order.Status.DRAFT),
        Order(),
    )
    now = timezone.now()
    addresses = [
        Address(customer=ann, street=street, is_default=is_default, updated_at=now.replace(microsecond=place))
        for place, (street, is_default) in enumerate([("a", True), ("b", True), ("c", False)])
    ]
    lines = [(first, "12.50", 2), (first, "0.99", 0), (second, "100", 1), (draft, "5", 3)]
    items = [Item(order=order, price=Decimal(price), quantity=number) for order, price, number in lines]
    return [ann, bob, *addresses, first, second, draft, nobodys, *items]


def items() -> list[Item | PendingCharge]:
    """Items that are on sale, and archived ones that are cheap and dear; to some of these a charge has been made before."""
    archived = [
        Item.objects.create(price=Decimal(price), status=Item.Status.ACTIVE, on_sale_since=None)
        for price in (10, 500)
    ]
    PendingCharge.objects.bulk_create([PendingCharge(item=each, amount=1) for each in archived])
    return [
        Item(price=Decimal(3)),
        Item(price=Decimal(10), status=Item.Status.ARCHIVED),
        Item(price=Decimal(500), status=Item.Status.ARCHIVED),
    ]


def articles() -> list[Article]:
    """Articles with and without keywords."""
    return [
        Article(title="Fresh Goods!", body="#new #goods and #New"),
        Article(title="Nothing", body="none"),
    ]


def categories() -> list[Category]:
    """A tree of three levels."""
    top = Category(name="top")
    middle = Category(name="middle", parent=top)
    return [top, middle, Category(name="low", parent=middle), Category(name="other", parent=top)]


def groups() -> list[Group | Linked]:
    """A group with members, and one without."""
    users = [User.objects.create(username=name) for name in ("ann", "bob")]
    group = Group(name="readers")
    return [group, Group(name="nobody"), Linked(group, "members", users)]
