"""`manage.py shop_bulk N`: orders that no signal sees, to have something to find."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from sample_project.shop.bulk import import_orders
from sample_project.shop.models import Order


class Command(BaseCommand):
    """Imports paid orders an hour old."""

    help = "Import orders past the signals."

    def add_arguments(self, parser: CommandParser) -> None:
        """How many."""
        parser.add_argument("orders", type=int)

    def handle(self, *_: Any, orders: int, **__: Any) -> None:
        """Import them."""
        created_at = timezone.now() - timedelta(hours=1)
        import_orders(
            [Order(status=Order.Status.PAID, total=Decimal(0), created_at=created_at) for _ in range(orders)]
        )
        self.stdout.write(f"{orders} orders imported by bulk_create; no receiver was called.")
