"""Customers: the counter of their orders."""

from django.db.models import Count

from reconcile import HaveValues, Rule
from sample_project.shop import signals
from sample_project.shop.models import Customer

order_count = Rule(
    every=Customer,
    must=HaveValues(order_count=Count("orders")),
    owner="sales",
    tags=["nightly"],
    unattended=True,
    covers=[signals.handle_order_saved],
)
