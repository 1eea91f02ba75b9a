"""What is kept of rows: the Change that a chunk made, the Finding that two runs must agree on, the Receipt of an effect."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from reconcile.models._runs import Shard

__all__ = ["Change", "ExactField", "Finding", "Receipt"]


class Change(models.Model):
    """Journal row: one row's image before and after it was written by a chunk.

    `before` is null for an inserted row, `after` for a deleted one; both are for a record that was handed to a
    function or a task. Images hold the written columns by name; for an inserted or deleted row all.
    The reference to the shard has no constraint in the database: checking it for each journal row cost
    as much as writing the row.
    """

    class Verb(models.TextChoices):
        INSERT = "insert"
        UPDATE = "update"
        DELETE = "delete"
        CALLED = "called"
        ENQUEUED = "enqueued"

    id = models.BigAutoField(primary_key=True)
    shard = models.ForeignKey(
        Shard, on_delete=models.CASCADE, related_name="changes", db_constraint=False, db_index=False
    )
    chunk = models.PositiveBigIntegerField()
    verb = models.CharField(max_length=10, choices=Verb.choices)
    model = models.CharField(max_length=200, help_text="Label of the written model.")
    key = models.TextField(help_text="Primary key of the written row, as text.")
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)

    class Meta:
        indexes = (models.Index(fields=("shard", "chunk"), name="reconcile_change_chunk"),)

    def __str__(self) -> str:
        return f"{self.verb} {self.model} {self.key}"


class ExactField(models.CharField):  # type: ignore[type-arg]
    """Characters that are told apart exactly. MariaDB and MySQL would fold case in a unique constraint."""

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        """The column's type, with a collation where the database has another by default that folds."""
        parameters: Any = super().db_parameters(connection)
        return {**parameters, "collation": "utf8mb4_bin"} if connection.vendor == "mysql" else parameters


class Finding(models.Model):
    """A drifted row that a repair would delete, remembered between runs: it is deleted when a second run finds it, too."""

    id = models.BigAutoField(primary_key=True)
    rule = ExactField(max_length=200)
    drift = models.CharField(max_length=10)
    key = ExactField(max_length=255, help_text="Primary key of the drifted row, as text.")
    fingerprint = models.CharField(
        max_length=64, help_text="The rule's; what another rule of its name has found is another's."
    )
    first_run = models.UUIDField(help_text="Run that found it first.")
    first_found_at = models.DateTimeField(default=timezone.now)
    found_at = models.DateTimeField(default=timezone.now, help_text="When a run found it last.")

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("rule", "drift", "key"), name="reconcile_finding_once"),
        )

    def __str__(self) -> str:
        return f"{self.drift} {self.key} of {self.rule}"


class Receipt(models.Model):
    """That an effect outside the database was done for one record, or is on its way."""

    class State(models.TextChoices):
        PROMISED = "promised"
        # promised -> sent occurs when the message was handed to the broker, after the chunk's commit.
        # A promise that was never sent is void after a while: the worker died in between.
        SENT = "sent"
        # sent -> done occurs when the task records it.
        DONE = "done"

    id = models.BigAutoField(primary_key=True)
    name = ExactField(max_length=100, help_text="Name of the effect.")
    model = ExactField(max_length=200, help_text="Label of the record's model.")
    key = ExactField(max_length=255, help_text="Primary key of the record, as text.")
    state = models.CharField(max_length=10, choices=State.choices, default=State.DONE)
    recorded_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("name", "model", "key"), name="reconcile_receipt_once"),
        )

    def __str__(self) -> str:
        return f"{self.name} of {self.model} {self.key}"
