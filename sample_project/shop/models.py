"""The models of the shop. Each docstring says which columns and rows are side effects."""

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
    """A customer. Receivers keep `order_count` and `last_order`, fill in `preferences`, and send a welcome mail."""

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
    """An address of a customer. A receiver takes care that a customer has at most one default address."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="addresses")
    street = models.CharField(max_length=100)
    is_default = models.BooleanField(default=False)
    updated_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.street


class Order(models.Model):
    """An order. Receivers keep `total`, `item_count` and `customer_name`, and make its invoice and its notification."""

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
    """An invoice. Every order that is not a draft owes one."""

    order = models.OneToOneField(Order, on_delete=models.CASCADE, related_name="invoice")
    amount = models.DecimalField(max_digits=12, decimal_places=2)
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"invoice of order {self.order_id}"


class Notification(models.Model):
    """A message to the customer. Every order that is not a draft owes one of kind `created`."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="notifications")
    kind = models.CharField(max_length=20)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("order", "kind"), name="shop_notification_once"),)

    def __str__(self) -> str:
        return f"{self.kind}: order {self.order_id}"


class Item(models.Model):
    """A line of an order, of one piece or more. An archived item is not on sale: its `on_sale_since` is NULL."""

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
    """Money that the shop will collect for an item. When the item is archived, the charge is cancelled and unscheduled."""

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
    """A text in the shop's magazine. Receivers derive `slug` from the title, and the keywords from the body."""

    title = models.CharField(max_length=100)
    slug = models.CharField(max_length=120, default="", blank=True)
    body = models.TextField(default="", blank=True)

    def __str__(self) -> str:
        return self.title


class Keyword(models.Model):
    """A word that follows a `#` in the body of an article. Keywords are derived from the body alone."""

    article = models.ForeignKey(Article, on_delete=models.CASCADE, related_name="keywords")
    word = models.CharField(max_length=50)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("article", "word"), name="shop_keyword_once"),)

    def __str__(self) -> str:
        return self.word


class Category(models.Model):
    """A category of the catalogue. Receivers make `path` from the path of the parent."""

    parent = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.CASCADE, related_name="children"
    )
    name = models.CharField(max_length=50)
    path = models.CharField(max_length=500, default="", blank=True)

    def __str__(self) -> str:
        return self.path or self.name


class Note(models.Model):
    """A note on an order, an item or any other record. A receiver deletes the notes on an order when the order is deleted."""

    content_type = models.ForeignKey(ContentType, on_delete=models.CASCADE, related_name="+")
    object_id = models.CharField(max_length=36)
    target = GenericForeignKey("content_type", "object_id")
    text = models.CharField(max_length=200, default="", blank=True)

    class Meta:
        indexes = (models.Index(fields=("content_type", "object_id"), name="shop_note_target"),)

    def __str__(self) -> str:
        return self.text


class Subscriber(models.Model):
    """A reader of the newsletter. The sign-up form first looks whether the address is there; an import doesn't."""

    email = models.EmailField()
    phone = models.CharField(max_length=30, null=True, blank=True)
    visits = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return self.email


class Delivery(models.Model):
    """The delivery of one newsletter to a subscriber."""

    subscriber = models.ForeignKey(Subscriber, on_delete=models.CASCADE, related_name="deliveries")
    number = models.PositiveIntegerField(default=1)

    def __str__(self) -> str:
        return f"number {self.number} to subscriber {self.subscriber_id}"


class Group(models.Model):
    """A group of users. An m2m_changed receiver keeps `member_count`, and the `Access` of each member."""

    name = models.CharField(max_length=100)
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="circles", blank=True)
    member_count = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return self.name


class Access(models.Model):
    """The right of a user to use what belongs to a group. Every membership owes one, and nothing else does."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="accesses")
    group = models.ForeignKey(Group, on_delete=models.CASCADE, related_name="accesses")
    granted_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("user", "group"), name="shop_access_once"),)

    def __str__(self) -> str:
        return f"user {self.user_id} in group {self.group_id}"
