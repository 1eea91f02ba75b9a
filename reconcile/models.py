"""The tables of the package: runs and their parts, changes, findings, receipts.

Here stands only what is stored, and the one writer of states; which state may follow which is in `reconcile.states`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from django.db import models
from django.utils import timezone

from reconcile.db.django_compat import BaseDatabaseWrapper
from reconcile.states import OutcomeState, RunState, WorkItemState, states_before

__all__ = [
    "Change",
    "Chunk",
    "ExactField",
    "Finding",
    "KeysField",
    "Outcome",
    "Receipt",
    "Run",
    "Suspension",
    "WorkItem",
    "WrittenRows",
    "transition",
]


def transition(
    rows: models.QuerySet[Any, Any],
    to: models.TextChoices,
    *,
    only: Iterable[models.TextChoices] = (),
    **columns: Any,
) -> int:
    """Give a new state to those of `rows` from whose state an arrow leads there, and write `columns`. Returns their number. One statement.

    only: of the states before, these alone. Nothing else writes a state of a run, an outcome or a work item.
    """
    before = states_before(to)
    if isinstance(to, RunState) and to not in Run.ACTIVE:
        columns.setdefault("night", None)
    return rows.filter(state__in=before.intersection(only) if only else before).update(state=to, **columns)


class KeysField(models.TextField):  # type: ignore[type-arg]
    """A list of keys, as JSON that the database takes for text: reading it as a document costs as much as the chunk's cursor.

    Integers stay integers; any other key is kept as text.
    """

    def get_prep_value(self, value: Any) -> str | None:
        """The list as text."""
        return None if value is None else json.dumps(value, default=str, separators=(",", ":"))

    def from_db_value(self, value: str | None, *_: Any) -> list[Any] | None:
        """The text as a list."""
        keys: list[Any] | None = None if value is None else json.loads(value)
        return keys

    def deconstruct(self) -> Any:
        """As every field, with the path that migrations may import it from for good."""
        name, _, args, keywords = super().deconstruct()
        return name, "reconcile.models.KeysField", args, keywords


class Run(models.Model):
    """A persisted execution: the nightly job, a repair that somebody started, one of some records, one that takes a run's writes back, or what a project's own code had ensured."""

    class Kind(models.TextChoices):
        REPAIR = "repair"
        NIGHTLY = "nightly"
        UNDO = "undo"
        LOOK = "look"
        ENSURE = "ensure"

    State = RunState

    ACTIVE = (State.RUNNING, State.PAUSING, State.CANCELLING)
    """States in which a worker may be at work on the run."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    state = models.CharField(max_length=10, choices=State.choices, default=State.RUNNING)
    now = models.DateTimeField(help_text="The clock that every rule of the run sees.")
    started_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True)
    why_stopped = models.TextField(default="", blank=True)
    token = models.UUIDField(default=uuid.uuid4, help_text="Its worker; one with another token must stop.")
    heartbeat = models.DateTimeField(
        default=timezone.now, help_text="Last sign of life while it looks for drift."
    )
    night = models.CharField(
        max_length=10,
        null=True,
        unique=True,
        help_text="Set while a nightly run goes on, so that there is one at a time.",
    )
    delivery = models.CharField(
        max_length=255,
        default="",
        blank=True,
        help_text="Id of the task's message, the same when a broker delivers it again.",
    )
    undoes = models.ForeignKey(
        "self",
        null=True,
        on_delete=models.CASCADE,
        related_name="undone_by",
        help_text="Run whose writes it takes back.",
    )

    class Meta:
        ordering = ("-started_at",)

    def __str__(self) -> str:
        return str(self.id)[:8]


class Outcome(models.Model):
    """What one run found and did for one rule."""

    State = OutcomeState

    class StoppedBy(models.TextChoices):
        """What kept the run from repairing the rule at all."""

        LEASE = "lease"
        SUSPENSION = "suspension"
        GUARD = "guard"
        PERSON = "person"

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="outcomes")
    rule = models.CharField(max_length=200)
    position = models.PositiveIntegerField(help_text="Place in the order in which the run takes its rules.")
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    leased = models.CharField(
        max_length=200, null=True, unique=True, help_text="The rule's name while this run repairs it."
    )
    may_repair = models.BooleanField(default=False)
    max_repairs = models.CharField(max_length=20, default="", blank=True)
    max_deletes = models.CharField(max_length=20, default="", blank=True)
    only: models.Field[Sequence[Any] | None, list[Any] | None] = KeysField(
        null=True, help_text="Keys of the records that it is about; null for all."
    )
    kept_plan = models.JSONField(
        default=dict, help_text="What the plan that was given says of the rule; empty without a plan."
    )
    fingerprint = models.CharField(
        max_length=64, default="", blank=True, help_text="The rule's, as it was repaired."
    )
    status = models.CharField(max_length=10, default="", blank=True)
    guarantee = models.CharField(max_length=10, default="", blank=True)
    checked = models.PositiveBigIntegerField(default=0)
    missing = models.PositiveBigIntegerField(default=0, help_text="Found before the repair.")
    stale = models.PositiveBigIntegerField(default=0, help_text="Found before the repair.")
    extra = models.PositiveBigIntegerField(default=0, help_text="Found before the repair.")
    samples = models.JSONField(default=list)
    culprits = models.JSONField(
        default=list, help_text="What set the drifted records apart from the others, before the repair."
    )
    planned = models.JSONField(default=dict, help_text="Rows that the repair was to write, by verb.")
    reported = models.JSONField(
        default=dict, help_text="Drifted rows that the rule leaves to people, by kind."
    )
    left = models.PositiveBigIntegerField(
        null=True,
        help_text="Drifted rows at the end, those that are left to people among them; null if nobody could count them.",
    )
    stopped_by = models.CharField(
        max_length=10,
        choices=StoppedBy.choices,
        default="",
        blank=True,
        help_text="What kept the run from repairing it.",
    )
    skipped = models.PositiveBigIntegerField(
        default=0, help_text="Keys locked by others to the end, or failing."
    )
    again = models.PositiveBigIntegerField(
        default=0, help_text="Drifted records that an earlier run had repaired already."
    )
    warning = models.TextField(
        default="", blank=True, help_text="What people should look at, repaired or not."
    )
    refused = models.JSONField(
        default=list, help_text="The first records that were set aside, each with its key and the reason."
    )
    why_stopped = models.TextField(default="", blank=True)
    error = models.TextField(default="", blank=True)
    seconds = models.FloatField(default=0)

    class Meta:
        ordering = ("run", "position")
        constraints = (models.UniqueConstraint(fields=("run", "rule"), name="reconcile_outcome_once"),)

    def __str__(self) -> str:
        return f"{self.rule} in run {self.run_id}"


class WorkItem(models.Model):
    """The part of a run that one worker leases: one kind of drift of one rule, and how far it is repaired.

    `cursor` and the counts are written in the chunk's own transaction, so they are never ahead of the data
    nor behind it.
    """

    State = WorkItemState

    outcome = models.ForeignKey(Outcome, on_delete=models.CASCADE, related_name="work_items")
    drift = models.CharField(max_length=10)
    state = models.CharField(max_length=10, choices=State.choices, default=State.RUNNING)
    token = models.UUIDField(help_text="Owner of the work item; a worker with another token must stop.")
    heartbeat = models.DateTimeField(default=timezone.now)
    cursor = models.TextField(null=True, help_text="Largest key that was repaired or set aside.")
    chunks = models.PositiveBigIntegerField(default=0)
    quarantined = models.PositiveBigIntegerField(default=0, help_text="Keys to be tried again at the end.")

    class Meta:
        constraints = (models.UniqueConstraint(fields=("outcome", "drift"), name="reconcile_work_item_once"),)

    def __str__(self) -> str:
        return f"{self.drift} of {self.outcome_id}"


class WrittenRows(models.Model):
    """How many rows a work item has written under one verb, or how many records it has handed over."""

    work_item = models.ForeignKey(WorkItem, on_delete=models.CASCADE, related_name="counts")
    verb = models.CharField(max_length=10)
    rows = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("work_item", "verb"), name="reconcile_written_once"),)

    def __str__(self) -> str:
        return f"{self.verb} {self.rows} of {self.work_item_id}"


class Chunk(models.Model):
    """One committed transaction of a work item: proof that it was committed, and which keys it has dealt with.

    It is written in the chunk's own transaction. `keys` are those of the records that were repaired in it, which is how a
    later run knows a record that drifts again.
    """

    work_item = models.ForeignKey(WorkItem, on_delete=models.CASCADE, related_name="committed")
    number = models.PositiveBigIntegerField()
    keys: models.Field[Sequence[Any], list[Any]] = KeysField(default=list)
    committed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("work_item", "number"), name="reconcile_chunk_once"),)

    def __str__(self) -> str:
        return f"chunk {self.number} of {self.work_item_id}"


class Suspension(models.Model):
    """That the nightly job leaves a rule alone, since what it had repaired drifted again, until somebody resumes it."""

    rule = models.CharField(max_length=200, unique=True)
    run = models.UUIDField(help_text="Run that found the records drifting again.")
    since = models.DateTimeField(default=timezone.now)
    why = models.TextField()

    def __str__(self) -> str:
        return self.rule


class Change(models.Model):
    """Journal row: one row's image before and after it was written by a chunk.

    `before` is null for an inserted row, `after` for a deleted one; both are for a record that was handed to a
    function or a task. Images hold the written columns by name; for an inserted or deleted row all.
    The reference to the work item has no constraint in the database: checking it for each journal row cost
    as much as writing the row.
    """

    id = models.BigAutoField(primary_key=True)
    work_item = models.ForeignKey(
        WorkItem, on_delete=models.CASCADE, related_name="changes", db_constraint=False, db_index=False
    )
    chunk = models.PositiveBigIntegerField()
    verb = models.CharField(max_length=10)
    model = models.CharField(max_length=200, help_text="Label of the written model.")
    key = models.TextField(help_text="Primary key of the written row, as text.")
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)

    class Meta:
        indexes = (models.Index(fields=("work_item", "chunk"), name="reconcile_change_chunk"),)

    def __str__(self) -> str:
        return f"{self.verb} {self.model} {self.key}"


class ExactField(models.CharField):  # type: ignore[type-arg]
    """Characters that are told apart exactly. MariaDB and MySQL would fold case in a unique constraint."""

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        """The column's type, with a collation where the database has another by default that folds."""
        # Django's setup imports the models, and shouldn't import what each dialect needs.
        from reconcile.db.dialects import forms_of

        parameters: Any = super().db_parameters(connection)
        collation = forms_of(connection).exact_collation
        return {**parameters, "collation": collation} if collation else parameters

    def deconstruct(self) -> Any:
        """As every field, with the path that migrations may import it from for good."""
        name, _, args, keywords = super().deconstruct()
        return name, "reconcile.models.ExactField", args, keywords


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
    version = ExactField(
        max_length=32,
        default="",
        db_default="",
        blank=True,
        help_text="Hash of the columns that the effect was done for; empty if the effect doesn't depend on any.",
    )

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("name", "model", "key"), name="reconcile_receipt_once"),
        )

    def __str__(self) -> str:
        return f"{self.name} of {self.model} {self.key}"
