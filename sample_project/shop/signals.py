"""The receivers of the shop. Each is a thin wrapper around one function of `services`."""

from __future__ import annotations

from typing import Any

from django.db.models.signals import m2m_changed, post_delete, post_save, pre_save
from django.dispatch import receiver

from sample_project.shop import services
from sample_project.shop.models import Address, Article, Category, Customer, Group, Item, Order

__all__ = [
    "handle_address_saved",
    "handle_article_saving",
    "handle_article_written",
    "handle_category_saved",
    "handle_category_saving",
    "handle_customer_created",
    "handle_customer_saving",
    "handle_item_archived",
    "handle_item_changed",
    "handle_item_deleted",
    "handle_item_saving",
    "handle_members_changed",
    "handle_order_created",
    "handle_order_deleted",
    "handle_order_saved",
    "handle_order_saving",
]


@receiver(pre_save, sender=Customer)
def handle_customer_saving(*, instance: Customer, **_: Any) -> None:
    """Fill in the preferences that the customer has not set."""
    services.complete_preferences(instance)


@receiver(post_save, sender=Customer)
def handle_customer_created(*, instance: Customer, created: bool, raw: bool = False, **_: Any) -> None:
    """Welcome a new customer, when the transaction is committed."""
    if created and not raw:
        services.welcome(instance)


@receiver(post_save, sender=Address)
def handle_address_saved(*, instance: Address, **_: Any) -> None:
    """If this is the default address, unset the other default addresses of the customer."""
    if instance.is_default:
        services.keep_default(instance)


@receiver(pre_save, sender=Order)
def handle_order_saving(*, instance: Order, **_: Any) -> None:
    """Copy the customer's name onto the order."""
    instance.customer_name = instance.customer.name if instance.customer else ""


@receiver(post_save, sender=Order)
def handle_order_created(*, instance: Order, raw: bool = False, **_: Any) -> None:
    """Make the invoice and the notification, unless the order is a draft or is loaded from a fixture."""
    if not raw and instance.status != Order.Status.DRAFT:
        services.invoice_order(instance)
        services.notify_order(instance)


@receiver([post_save, post_delete], sender=Order)
def handle_order_saved(*, instance: Order, **_: Any) -> None:
    """Count the orders of the customer, and set its last order."""
    if instance.customer_id:
        services.count_orders(instance.customer_id)


@receiver(post_delete, sender=Order)
def handle_order_deleted(*, instance: Order, **_: Any) -> None:
    """Delete the notes on the order."""
    services.forget_notes(instance)


@receiver(pre_save, sender=Item)
def handle_item_saving(*, instance: Item, **_: Any) -> None:
    """Set the quantity to 1 at least."""
    instance.quantity = max(instance.quantity, 1)


@receiver(post_save, sender=Item)
def handle_item_changed(*, instance: Item, **_: Any) -> None:
    """Sum the items of the order."""
    if instance.order_id:
        services.sum_items(instance.order_id)


@receiver(post_delete, sender=Item)
def handle_item_deleted(*, instance: Item, **_: Any) -> None:
    """Sum the items that the order still has."""
    if instance.order_id:
        services.sum_items(instance.order_id)


@receiver(post_save, sender=Item)
def handle_item_archived(*, instance: Item, **_: Any) -> None:
    """If the item is archived, cancel its charges and tell the storefront."""
    if instance.status == Item.Status.ARCHIVED:
        services.archive_items([instance])


@receiver(pre_save, sender=Article)
def handle_article_saving(*, instance: Article, **_: Any) -> None:
    """Derive the slug of the article."""
    services.normalise_slug(instance)


@receiver(post_save, sender=Article)
def handle_article_written(*, instance: Article, **_: Any) -> None:
    """Derive the keywords of the article."""
    services.index_keywords(instance)


@receiver(pre_save, sender=Category)
def handle_category_saving(*, instance: Category, **_: Any) -> None:
    """Make the path of the category from the path of its parent."""
    services.place_category(instance)


@receiver(post_save, sender=Category)
def handle_category_saved(*, instance: Category, **_: Any) -> None:
    """Save the children, so that their paths follow."""
    for child in instance.children.all():
        child.save()


@receiver(m2m_changed, sender=Group.members.through)
def handle_members_changed(
    *, instance: Any, action: str, reverse: bool, pk_set: set[int] | None, **_: Any
) -> None:
    """Grant and revoke access, and count the members, whichever side of the relation has changed."""
    if action not in {"post_add", "post_remove", "post_clear"}:
        return
    groups = Group.objects.filter(pk__in=pk_set or ()) if reverse else [instance]
    for group in groups:
        users = [instance.pk] if reverse else pk_set
        if action == "post_add":
            services.grant_access(group, users or ())
        elif users is None:
            group.accesses.all().delete()
        else:
            services.revoke_access(group, users)
        services.count_members(group)
