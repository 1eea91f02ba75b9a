"""Items: what becomes of them, of their charges and of the outside world when they are archived."""

from django.db.models import Q

from reconcile import MISSING, STALE, Call, Enqueue, HaveReceipt, HaveValues, Rule, Satisfy, Split, Update
from sample_project.shop import services, signals
from sample_project.shop.models import Item, PendingCharge

archived = Rule(
    every=Item.objects.filter(status=Item.Status.ARCHIVED),
    must=HaveValues(on_sale_since=None),
    remedies={STALE: Split(when=Q(price__gte=100), each=Call(services.withdraw_items), rest=Update())},
    owner="catalogue",
    tags=["nightly"],
    unattended=True,
    covers=[signals.handle_item_archived],
    factory="sample_project.shop.factories:items",
    reason="Dear items go through the service one by one, as the receiver would; the rest go as a set. `storefront` tells of both, once.",
)

archived_charges = Rule(
    every=PendingCharge.objects.filter(item__status=Item.Status.ARCHIVED).exclude(
        status=PendingCharge.Status.CHARGED
    ),
    must=HaveValues(status=PendingCharge.Status.CANCELLED, scheduled_at=None),
    owner="billing",
    tags=["money"],
    covers=[signals.handle_item_archived],
    factory="sample_project.shop.factories:items",
    reason="It is about money, so a person starts the repair. A charge that has gone through is history.",
)

storefront = Rule(
    every=Item.objects.filter(status=Item.Status.ARCHIVED),
    must=HaveReceipt("storefront"),
    remedies={MISSING: Enqueue(services.tell_storefront, batch=500)},
    owner="catalogue",
    covers=[signals.handle_item_archived],
    factory="sample_project.shop.factories:items",
    reason="The storefront is another service; what it was told is known by receipts alone.",
)

quantity = Rule(
    every=Item,
    must=Satisfy(Q(quantity__gte=1), values={"quantity": 1}),
    owner="sales",
    tags=["nightly"],
    unattended=True,
    covers=[signals.handle_item_saving],
    factory="sample_project.shop.factories:items",
)
