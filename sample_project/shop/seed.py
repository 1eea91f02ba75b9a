"""Filling the shop: half through signals, half in ways that no signal sees."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from decimal import Decimal

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from sample_project.shop import bulk, services
from sample_project.shop.models import (
    Address,
    Article,
    Category,
    Customer,
    Delivery,
    Group,
    Item,
    Note,
    Order,
    PendingCharge,
    Subscriber,
)

__all__ = ["fill", "fill_past_signals", "fill_through_signals"]

CUSTOMERS = ("Ada", "Bruno", "Chloé", "Dmitri", "Emi", "Farah", "Gus", "Hana")
WARES = (("teapot", "24.90"), ("lamp", "79.00"), ("notebook", "6.50"), ("chair", "149.00"), ("mug", "9.95"))


def fill(orders: int = 2_000, *, seed: int = 7) -> None:
    """Make this number of orders with everything that belongs to them. Half of them drift."""
    chance = random.Random(seed)
    fill_through_signals(orders // 2, chance)
    fill_past_signals(orders - orders // 2, chance)


@transaction.atomic
def fill_through_signals(orders: int, chance: random.Random) -> None:
    """Make records of all models, as the web site does. Nothing drifts."""
    customers = [Customer.objects.create(name=name, joined_at=_long_ago()) for name in CUSTOMERS]
    for number in range(orders):
        status = Order.Status.DRAFT if number % 20 == 0 else Order.Status.PAID
        services.create_order(customer=chance.choice(customers), items=_items(chance), status=status)
    for number in range(orders // 20):
        ware = chance.choice(WARES)[0]
        Article.objects.create(
            title=f"How we choose our {ware}s, part {number}", body=f"About #{ware} and #care."
        )
    group = Group.objects.create(name="Friends of the shop")
    group.members.add(*[User.objects.create(username=f"friend-{number}") for number in range(orders // 50)])
    Order.objects.update(created_at=_long_ago())
    for customer in customers:
        services.count_orders(customer.pk)
        Address.objects.create(customer=customer, street="1 Main Street", is_default=True)
    for order in Order.objects.all()[: orders // 20]:
        Note.objects.create(target=order, text="Call before delivery.")
    house = Category.objects.create(name="house")
    kitchen = Category.objects.create(name="kitchen", parent=house)
    for name, _ in WARES:
        Category.objects.create(name=name, parent=kitchen)
    for number in range(orders // 20):
        reader = Subscriber.objects.create(email=f"reader-{number}@example.org", visits=1)
        Delivery.objects.create(subscriber=reader)


@transaction.atomic
def fill_past_signals(orders: int, chance: random.Random) -> None:
    """Make orders by an import, an admin action, a fixture and SQL. They owe everything that receivers would have done."""
    customers = list(Customer.objects.all())
    imported = [
        Order(customer=chance.choice(customers), status=Order.Status.PAID, created_at=_long_ago())
        for _ in range(orders)
    ]
    bulk.import_orders(imported)
    keys = list(Order.objects.filter(item_count=0, customer_name="").values_list("pk", flat=True))
    lines = [(key, item) for key in keys for item in _items(chance)]
    for key, item in lines:
        item.order_id = key
    Item.objects.bulk_create([item for _, item in lines])
    bulk.import_customers(
        [Customer(name=f"Guest {number}", joined_at=_long_ago()) for number in range(orders // 20)]
    )
    bulk.insert_order_by_sql(Decimal("19.90"), customers[0])
    bulk.load_fixture([Order(pk=10_000_000, status=Order.Status.PAID, created_at=_long_ago())])
    _make_drift(orders, chance)


def _make_drift(orders: int, chance: random.Random) -> None:
    """Change, delete and import records without signals, so that records that were right drift, too."""
    invoiced = list(Order.objects.filter(invoice__isnull=False).values_list("pk", flat=True))
    bulk.lose_invoices(chance.sample(invoiced, orders // 50))
    bulk.reprice_orders(chance.sample(invoiced, orders // 40), Decimal("1.00"))
    items = list(Item.objects.filter(order__in=invoiced).values_list("pk", flat=True))
    PendingCharge.objects.bulk_create(
        [
            PendingCharge(item_id=key, amount=Decimal(5), scheduled_at=timezone.now())
            for key in items[: orders // 10]
        ]
    )
    bulk.archive_by_update(items[: orders // 20])
    bulk.reprice_items(items[-orders // 30 :], Decimal("3.33"))
    bulk.delete_items_raw(items[orders // 2 : orders // 2 + orders // 40])
    bulk.import_articles([f"A letter from customer {number}" for number in range(orders // 50)])
    bulk.rename_articles(list(Article.objects.all()[:5]), " (revised)")
    bulk.rewrite_articles(Article.objects.order_by("-pk").values_list("pk", flat=True)[:7], "All about #tea.")
    bulk.import_items([Item(order_id=invoiced[0], quantity=0) for _ in range(orders // 40)])
    customers = list(Customer.objects.order_by("pk")[: orders // 100])
    bulk.import_addresses(
        [Address(customer=customer, street="2 Side Street", is_default=True) for customer in customers]
    )
    bulk.import_subscribers(
        [
            Subscriber(email=f"reader-{number}@example.org", phone="555", visits=2)
            for number in range(orders // 100)
        ]
    )
    cellar = Category.objects.create(name="cellar")
    bulk.move_categories(Category.objects.filter(name="kitchen").values_list("pk", flat=True), cellar)
    returned = [services.create_order(customer=customers[0], items=[]) for _ in range(orders // 100)]
    for order in returned:
        Note.objects.create(target=order, text="Sent back.")
    bulk.delete_orders_raw([order.pk for order in returned])
    newcomers = User.objects.bulk_create(
        [User(username=f"newcomer-{number}") for number in range(orders // 50)]
    )
    bulk.add_members(
        Group.objects.get(), User.objects.filter(username__in=[user.username for user in newcomers])
    )


def _items(chance: random.Random) -> list[Item]:
    wares = chance.sample(WARES, chance.randint(1, 3))
    return [Item(name=name, price=Decimal(price), quantity=chance.randint(1, 4)) for name, price in wares]


def _long_ago() -> datetime:
    return timezone.now() - timedelta(hours=2)
