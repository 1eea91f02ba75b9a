"""Plain tables: parents, and children whose rows lie scattered, as if many sessions had written them at the same time."""

from __future__ import annotations

from django.contrib.contenttypes.fields import GenericForeignKey
from django.db import models


class Parent(models.Model):
    """A parent, with columns that are derived from its children. In one record of a hundred they have drifted."""

    status = models.CharField(max_length=10)
    child_count = models.IntegerField()
    price_total = models.BigIntegerField()
    last = models.ForeignKey("Child", null=True, on_delete=models.SET_NULL, related_name="+")


class Child(models.Model):
    """A child, whose foreign key has the usual index. There is no other index."""

    parent = models.ForeignKey(Parent, on_delete=models.CASCADE, related_name="children", db_constraint=False)
    created = models.DateTimeField()
    price = models.IntegerField()
    state = models.CharField(max_length=10)
    place = models.IntegerField()


class Note(models.Model):
    """A note that refers to a parent by a generic foreign key, as text."""

    content_type = models.ForeignKey(
        "contenttypes.ContentType", on_delete=models.CASCADE, related_name="+", db_constraint=False
    )
    object_id = models.CharField(max_length=36)
    target = GenericForeignKey()


class Account(models.Model):
    """An account, which owes one statement. No constraint keeps the statement, only the handlers and a rule do."""

    balance = models.IntegerField(default=0)


class Statement(models.Model):
    """The statement of an account. Its foreign key has a constraint, but not a unique one."""

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="statements")
    balance = models.IntegerField()


class Purchase(models.Model):
    """A purchase of one of a few customers, each with many."""

    customer = models.IntegerField(db_index=True)
    number = models.IntegerField()


class Receipt(models.Model):
    """The receipt of a purchase, which it is linked with by two columns, of which the first has an index."""

    customer = models.IntegerField(db_index=True)
    code = models.CharField(max_length=20)


class Branch(models.Model):
    """A node of a tree of texts: each begins with that of its parent, in steps of four characters."""

    path = models.CharField(max_length=40, unique=True)
    below = models.IntegerField(default=1)
