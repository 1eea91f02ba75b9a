"""`manage.py shop_bulk N`: imports orders that no signal sees, so that a check finds something."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from sample_project.shop.bulk import import_orders
from sample_project.shop.models import Order


class Command(BaseCommand):
    """A command that imports paid orders, an hour old."""

    help = "Import orders past the signals."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the number of orders."""
        parser.add_argument("orders", type=int)

    def handle(self, *_: Any, orders: int, **__: Any) -> None:
        """Import the orders, and print their number."""
        created_at = timezone.now() - timedelta(hours=1)
        import_orders(
            [Order(status=Order.Status.PAID, total=Decimal(0), created_at=created_at) for _ in range(orders)]
        )
        self.stdout.write(f"{orders} orders imported by bulk_create; no receiver was called.")
