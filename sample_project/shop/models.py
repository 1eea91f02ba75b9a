"""The shop's tables. Which of their columns and rows are side effects is said by each docstring."""

from __future__ import annotations

from decimal import Decimal

from django.conf import settings
from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.utils import timezone

__all__ = [
    "Access",
    "Address",
    "Article",
    "Category",
    "Customer",
    "Delivery",
    "Group",
    "Invoice",
    "Item",
    "Keyword",
    "Note",
    "Notification",
    "Order",
    "PendingCharge",
    "Subscriber",
]


class Customer(models.Model):
    """Someone who orders. Receivers keep `order_count` and `last_order`, fill `preferences` and send a welcome."""

    name = models.CharField(max_length=100)
    email = models.EmailField(blank=True)
    order_count = models.PositiveIntegerField(default=0)
    last_order = models.ForeignKey(
        "Order", null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    preferences = models.JSONField(default=dict, blank=True)
    joined_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.name


class Address(models.Model):
    """Where a customer lives; of several, a receiver keeps one at most the default."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="addresses")
    street = models.CharField(max_length=100)
    is_default = models.BooleanField(default=False)
    updated_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.street


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
    """A line of an order, of one piece or more. Once archived it is no longer on sale: `on_sale_since` is cleared."""

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
    """A text of the shop's journal. Receivers derive `slug` from the title and the keywords from the body."""

    title = models.CharField(max_length=100)
    slug = models.CharField(max_length=120, default="", blank=True)
    body = models.TextField(default="", blank=True)

    def __str__(self) -> str:
        return self.title


class Keyword(models.Model):
    """A word that stands in an article's body behind a `#`; derived from it, and from nothing else."""

    article = models.ForeignKey(Article, on_delete=models.CASCADE, related_name="keywords")
    word = models.CharField(max_length=50)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("article", "word"), name="shop_keyword_once"),)

    def __str__(self) -> str:
        return self.word


class Category(models.Model):
    """A drawer of the catalogue. `path` is made from the parent's by receivers."""

    parent = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.CASCADE, related_name="children"
    )
    name = models.CharField(max_length=50)
    path = models.CharField(max_length=500, default="", blank=True)

    def __str__(self) -> str:
        return self.path or self.name


class Note(models.Model):
    """A remark on an order, an item or anything else; a receiver deletes it with what it is about."""

    content_type = models.ForeignKey(ContentType, on_delete=models.CASCADE, related_name="+")
    object_id = models.CharField(max_length=36)
    target = GenericForeignKey("content_type", "object_id")
    text = models.CharField(max_length=200, default="", blank=True)

    class Meta:
        indexes = (models.Index(fields=("content_type", "object_id"), name="shop_note_target"),)

    def __str__(self) -> str:
        return self.text


class Subscriber(models.Model):
    """Someone who gets the newsletter. The sign-up form looks for the address first; an import doesn't."""

    email = models.EmailField()
    phone = models.CharField(max_length=30, null=True, blank=True)
    visits = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return self.email


class Delivery(models.Model):
    """A newsletter that was sent to a subscriber."""

    subscriber = models.ForeignKey(Subscriber, on_delete=models.CASCADE, related_name="deliveries")
    number = models.PositiveIntegerField(default=1)

    def __str__(self) -> str:
        return f"number {self.number} to subscriber {self.subscriber_id}"


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
