"""Customers: what receivers count, point at, fill in and send."""

from django.db.models import Count

from reconcile import (
    MISSING,
    BeUnique,
    Enqueue,
    HaveKeys,
    HaveReceipt,
    HaveValues,
    Latest,
    Rule,
    Settle,
)
from sample_project.shop import services, signals
from sample_project.shop.models import Address, Customer

order_count = Rule(
    every=Customer,
    must=HaveValues(order_count=Count("orders")),
    owner="sales",
    tags=["nightly"],
    unattended=True,
    covers=[signals.handle_order_saved],
    factory="sample_project.shop.factories:orders",
)

last_order = Rule(
    every=Customer,
    must=HaveValues(last_order=Latest("orders", by=["-created_at", "-pk"])),
    owner="sales",
    tags=["nightly"],
    unattended=True,
    covers=[signals.handle_order_saved],
    factory="sample_project.shop.factories:orders",
)

preferences = Rule(
    every=Customer,
    must=HaveValues(preferences=HaveKeys(services.DEFAULT_PREFERENCES)),
    owner="sales",
    tags=["nightly"],
    unattended=True,
    covers=[signals.handle_customer_saving],
    factory="sample_project.shop.factories:orders",
    reason="A preference that a customer has set stays as it is.",
)

default_address = Rule(
    every=Address.objects.filter(is_default=True),
    must=BeUnique("customer", keep=["-updated_at"], others={"is_default": False}),
    owner="sales",
    covers=[signals.handle_address_saved],
    factory="sample_project.shop.factories:orders",
)

welcome = Rule(
    every=Customer,
    must=HaveReceipt("welcome-mail"),
    remedies={MISSING: Enqueue(services.send_welcome, batch=500)},
    settle=Settle("joined_at", hours=2),
    owner="sales",
    covers=[signals.handle_customer_created],
    factory="sample_project.shop.factories:orders",
    reason="Mail goes out once, so a person looks at the number first.",
)
