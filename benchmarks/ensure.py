"""`ensure` after a bulk write, beside the hand-written bulk half of the shop's service layer: any database, in rounds by turn, each rolled back.

DATABASE_URL=postgresql://… python benchmarks/ensure.py --orders 500 5000 50000
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from statistics import median

import django
import structlog

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sample_project.settings")
django.setup()

from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from benchmarks.measuring import own_database
from reconcile import ensure
from sample_project.shop import services
from sample_project.shop.models import Customer, Item, Order

CUSTOMERS = 100
THERE_BEFORE = 20_000
"""Orders that the tables hold already."""


def main() -> None:
    """Print seconds, statements and the ratio for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, nargs="+", default=[1, 500, 5_000, 50_000])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with own_database():
        Customer.objects.bulk_create([Customer(name=f"customer {number}") for number in range(CUSTOMERS)])
        by_hand(THERE_BEFORE)
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("ANALYZE")
        for orders in arguments.orders:
            _compare(orders, arguments.rounds)


def made(number: int) -> tuple[list[Order], list[Item]]:
    """Orders of all customers in turn, each with two items."""
    customers = list(Customer.objects.order_by("pk"))
    orders = [Order(customer=customers[place % len(customers)]) for place in range(number)]
    return orders, [Item(order=each, price=Decimal(price)) for each in orders for price in (2, 3)]


def by_hand(number: int) -> None:
    """The bulk half as the shop has it."""
    services.create_orders_bulk(*made(number))


def by_ensure(number: int) -> None:
    """A bulk write, and the rules."""
    orders, items = made(number)
    with transaction.atomic():
        Order.objects.bulk_create(orders)
        Item.objects.bulk_create(items)
        ensure([*orders, *items], new=True)


def _compare(orders: int, rounds: int) -> None:
    ways = {"by hand": by_hand, "ensure": by_ensure}
    for way in ways.values():
        _seconds(way, orders)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(_seconds(way, orders))
    seconds = {name: median(its) for name, its in taken.items()}
    statements = {name: _statements(way, orders) for name, way in ways.items()}
    ratio = seconds["ensure"] / seconds["by hand"]
    print(
        f"{orders:>7,} orders   ensure {seconds['ensure']:.3f} s, {statements['ensure']} statements   by hand {seconds['by hand']:.3f} s, {statements['by hand']}   ratio {ratio:.2f}",
        flush=True,
    )


def _seconds(way: Callable[[int], None], orders: int) -> float:
    """How long the way takes, without its COMMIT: it is rolled back, so that each round finds the same."""
    with transaction.atomic():
        began = time.perf_counter()
        way(orders)
        taken = time.perf_counter() - began
        transaction.set_rollback(True)
    return taken


def _statements(way: Callable[[int], None], orders: int) -> int:
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        way(orders)
        transaction.set_rollback(True)
    return len(queries)


if __name__ == "__main__":
    main()
