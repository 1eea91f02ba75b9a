"""Orders: their invoice and notification, and the values that receivers keep on them."""

from django.db.models import Count, F, Sum, Value
from django.db.models.functions import Coalesce

from reconcile import HaveRow, HaveValues, Rule, Settle
from sample_project.shop import signals
from sample_project.shop.models import Invoice, Notification, Order

total = Rule(
    every=Order,
    must=HaveValues(total=Sum(F("items__price") * F("items__quantity"))),
    owner="sales",
    tags=["nightly"],
    unattended=True,
    covers=[signals.handle_item_changed, signals.handle_item_deleted],
    factory="sample_project.shop.factories:orders",
)

item_count = Rule(
    every=Order,
    must=HaveValues(item_count=Count("items")),
    owner="sales",
    tags=["nightly"],
    unattended=True,
    covers=[signals.handle_item_changed, signals.handle_item_deleted],
    factory="sample_project.shop.factories:orders",
)

customer_name = Rule(
    every=Order,
    must=HaveValues(customer_name=Coalesce(F("customer__name"), Value(""))),
    owner="sales",
    tags=["nightly"],
    unattended=True,
    covers=[signals.handle_order_saving],
    factory="sample_project.shop.factories:orders",
    reason="The name is copied so that lists of orders need no join.",
)

invoice = Rule(
    every=Order.objects.exclude(status=Order.Status.DRAFT),
    must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")}),
    settle=Settle("created_at", minutes=15),
    owner="billing",
    tags=["money", "nightly"],
    unattended=True,
    covers=[signals.handle_order_created],
    factory="sample_project.shop.factories:orders",
)

notification = Rule(
    every=Order.objects.exclude(status=Order.Status.DRAFT),
    must=HaveRow(Notification, link={"order": F("pk"), "kind": "created"}),
    settle=Settle("created_at", minutes=15),
    owner="sales",
    tags=["nightly"],
    unattended=True,
    covers=[signals.handle_order_created],
    factory="sample_project.shop.factories:orders",
)
