"""Items: what becomes of them, and of their charges, when they are archived."""

from reconcile import HaveValues, Rule
from sample_project.shop import signals
from sample_project.shop.models import Item, PendingCharge

archived = Rule(
    every=Item.objects.filter(status=Item.Status.ARCHIVED),
    must=HaveValues(on_sale_since=None),
    owner="catalogue",
    tags=["nightly"],
    unattended=True,
    covers=[signals.handle_item_archived],
)

archived_charges = Rule(
    every=PendingCharge.objects.filter(item__status=Item.Status.ARCHIVED).exclude(
        status=PendingCharge.Status.CHARGED
    ),
    must=HaveValues(status=PendingCharge.Status.CANCELLED, scheduled_at=None),
    owner="billing",
    tags=["money"],
    covers=[signals.handle_item_archived],
    reason="It is about money, so a person starts the repair. A charge that has gone through is history.",
)
