"""The culprit on many orders, beside the check that found the drift: any database.

DATABASE_URL=postgresql://… python benchmarks/culprit.py --orders 1000000
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import sys
import time
from datetime import timedelta
from pathlib import Path

import django
import structlog

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sample_project.settings")
django.setup()

from django.db import connection
from django.utils import timezone

from benchmarks.measuring import own_database
from reconcile.detect.checking import check
from reconcile.detect.culprit import KEPT, find_culprits, written_columns
from reconcile.rules.registry import project_rules
from sample_project.shop.models import Customer, Invoice, Order

CUSTOMERS = 1_000


def main() -> None:
    """Print seconds of check and culprit, the clues, and the peak memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=1_000_000)
    parser.add_argument("--drifted", type=float, default=0.01, help="Part of the orders without an invoice.")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with own_database():
        _fill(arguments.orders, arguments.drifted)
        for _ in range(arguments.rounds):
            _look()
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB")


def _fill(orders: int, drifted: float) -> None:
    """Orders of sixty days; those of one stretch of time have no invoice, and 3 in 10,000 of the others."""
    customers = Customer.objects.bulk_create(
        [Customer(name=f"customer {number}") for number in range(CUSTOMERS)]
    )
    start = timezone.now() - timedelta(days=60)
    lost = range(orders // 2, orders // 2 + int(orders * drifted))
    for first in range(0, orders, 20_000):
        numbers = range(first, min(first + 20_000, orders))
        made = Order.objects.bulk_create([_order(number, orders, customers, start) for number in numbers])
        kept = [
            each for number, each in zip(numbers, made, strict=True) if number not in lost and number % 3_333
        ]
        Invoice.objects.bulk_create([Invoice(order=each, amount=each.total) for each in kept])
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")


def _order(number: int, orders: int, customers: list[Customer], start: object) -> Order:
    customer = customers[number * 7919 % CUSTOMERS]
    return Order(
        customer=customer, customer_name=customer.name, status=("placed", "paid")[number * 31 % 2], total=number % 90,
        created_at=start + timedelta(days=59) * number / orders,
    )  # fmt: skip


def _look() -> None:
    rule = project_rules()["orders.invoice"]
    now, started = timezone.now(), time.perf_counter()
    found = check(rule, using="default", now=now, keep=KEPT)
    checked = time.perf_counter()
    left_out = written_columns([*project_rules().values()])
    culprits = find_culprits(rule, found, using="default", now=now, left_out=left_out)
    ended = time.perf_counter()
    ratio = (ended - checked) / (checked - started)
    print(
        f"{found.tally.total:,} of {found.tally.checked:,} drift: check {checked - started:.2f} s, culprit {ended - checked:.2f} s, {ratio:.2f} of it"
    )
    print(*(f"    {sentence}" for each in culprits for sentence in each.sentences), sep="\n")


if __name__ == "__main__":
    main()
