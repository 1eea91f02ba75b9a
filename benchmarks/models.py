"""Plain tables: a parent, and children whose rows lie scattered, as those that many write at the same time do."""

from __future__ import annotations

from django.contrib.contenttypes.fields import GenericForeignKey
from django.db import models


class Parent(models.Model):
    """What it says of its children has drifted in one of a hundred records."""

    status = models.CharField(max_length=10)
    child_count = models.IntegerField()
    price_total = models.BigIntegerField()
    last = models.ForeignKey("Child", null=True, on_delete=models.SET_NULL, related_name="+")


class Child(models.Model):
    """A foreign key with its usual index, and no other."""

    parent = models.ForeignKey(Parent, on_delete=models.CASCADE, related_name="children", db_constraint=False)
    created = models.DateTimeField()
    price = models.IntegerField()
    state = models.CharField(max_length=10)
    place = models.IntegerField()


class Note(models.Model):
    """Refers to a parent by a generic foreign key, as text."""

    content_type = models.ForeignKey(
        "contenttypes.ContentType", on_delete=models.CASCADE, related_name="+", db_constraint=False
    )
    object_id = models.CharField(max_length=36)
    target = GenericForeignKey()


class Account(models.Model):
    """Owes one statement, which nothing but its handlers and a rule keep."""

    balance = models.IntegerField(default=0)


class Statement(models.Model):
    """A foreign key with its constraint, and no unique one."""

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="statements")
    balance = models.IntegerField()
