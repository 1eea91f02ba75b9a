"""The shop's tables. Which of their columns and rows are side effects is said by each docstring."""

from __future__ import annotations

from decimal import Decimal

from django.conf import settings
from django.db import models
from django.utils import timezone

__all__ = [
    "Access",
    "Article",
    "Customer",
    "Group",
    "Invoice",
    "Item",
    "Notification",
    "Order",
    "PendingCharge",
]


class Customer(models.Model):
    """Someone who orders. `order_count` is a counter kept by a receiver."""

    name = models.CharField(max_length=100)
    email = models.EmailField(blank=True)
    order_count = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return self.name


class Order(models.Model):
    """An order. Receivers keep `total`, `item_count` and `customer_name`, and give it invoice and notification."""

    class Status(models.TextChoices):
        DRAFT = "draft"
        PLACED = "placed"
        PAID = "paid"

    customer = models.ForeignKey(
        Customer, null=True, blank=True, on_delete=models.CASCADE, related_name="orders"
    )
    customer_name = models.CharField(max_length=100, default="", blank=True)
    status = models.CharField(max_length=20, choices=Status.choices, default=Status.PLACED)
    total = models.DecimalField(max_digits=12, decimal_places=2, default=Decimal(0))
    item_count = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"order {self.pk}"


class Invoice(models.Model):
    """Owed by every order that is not a draft."""

    order = models.OneToOneField(Order, on_delete=models.CASCADE, related_name="invoice")
    amount = models.DecimalField(max_digits=12, decimal_places=2)
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"invoice of order {self.order_id}"


class Notification(models.Model):
    """A message to the customer; one of kind `created` is owed by every order that is not a draft."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="notifications")
    kind = models.CharField(max_length=20)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("order", "kind"), name="shop_notification_once"),)

    def __str__(self) -> str:
        return f"{self.kind}: order {self.order_id}"


class Item(models.Model):
    """A line of an order. Once archived it is no longer on sale: `on_sale_since` is cleared."""

    class Status(models.TextChoices):
        ACTIVE = "active"
        ARCHIVED = "archived"

    order = models.ForeignKey(Order, null=True, blank=True, on_delete=models.CASCADE, related_name="items")
    name = models.CharField(max_length=100, default="item")
    price = models.DecimalField(max_digits=10, decimal_places=2, default=Decimal(0))
    quantity = models.PositiveIntegerField(default=1)
    status = models.CharField(max_length=20, choices=Status.choices, default=Status.ACTIVE)
    on_sale_since = models.DateTimeField(null=True, blank=True, default=timezone.now)

    def __str__(self) -> str:
        return self.name


class PendingCharge(models.Model):
    """Money still to be collected for an item; cancelled and unscheduled when the item is archived."""

    class Status(models.TextChoices):
        PENDING = "pending"
        CHARGED = "charged"
        CANCELLED = "cancelled"

    item = models.ForeignKey(Item, on_delete=models.CASCADE, related_name="charges")
    amount = models.DecimalField(max_digits=10, decimal_places=2, default=Decimal(0))
    status = models.CharField(max_length=20, choices=Status.choices, default=Status.PENDING)
    scheduled_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.status} charge of item {self.item_id}"


class Article(models.Model):
    """A text of the shop's journal. `slug` is derived from `title` by a pre_save receiver."""

    title = models.CharField(max_length=100)
    slug = models.CharField(max_length=120, default="", blank=True)

    def __str__(self) -> str:
        return self.title


class Group(models.Model):
    """A circle of users. `member_count` and each member's `Access` are kept by an m2m_changed receiver."""

    name = models.CharField(max_length=100)
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="circles", blank=True)
    member_count = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return self.name


class Access(models.Model):
    """A user's pass to what belongs to a group; owed by every membership, and by nothing else."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="accesses")
    group = models.ForeignKey(Group, on_delete=models.CASCADE, related_name="accesses")
    granted_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("user", "group"), name="shop_access_once"),)

    def __str__(self) -> str:
        return f"user {self.user_id} in group {self.group_id}"
