"""What is kept of runs: Run, Outcome, Shard, Chunk, and the Suspension of a rule.

How a state follows another is decided in `runs`; here stands only what is stored.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

from django.db import models
from django.utils import timezone

__all__ = ["Chunk", "Outcome", "Run", "Shard", "Suspension"]


class Run(models.Model):
    """A persisted execution: the nightly job, a repair that somebody started, or one that takes a run's writes back."""

    class Kind(models.TextChoices):
        REPAIR = "repair"
        NIGHTLY = "nightly"
        UNDO = "undo"

    class State(models.TextChoices):
        RUNNING = "running"
        # running -> finished occurs when each of its rules has an outcome.
        FINISHED = "finished"
        # running -> stopped occurs when an error ends it, or when another worker takes over its shard.
        # stopped -> running and running -> running occur when the run is resumed; the latter after a kill.
        STOPPED = "stopped"
        # running -> pausing occurs when somebody asks for it; the worker finds out before its next chunk.
        PAUSING = "pausing"
        # pausing -> paused occurs when the worker has stopped there.
        # pausing -> running and paused -> running occur when the run is resumed.
        PAUSED = "paused"
        # running, pausing -> cancelling occurs when somebody asks for it; the worker finds out before its next chunk.
        CANCELLING = "cancelling"
        # cancelling -> cancelled occurs when the worker has stopped there; stopped, paused -> cancelled at once.
        # What the run has written stands, and it can't be resumed.
        CANCELLED = "cancelled"

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

    class State(models.TextChoices):
        WAITING = "waiting"
        # waiting -> repairing occurs when the run reaches the rule and it may be repaired.
        REPAIRING = "repairing"
        # done -> waiting occurs when another rule has since written what this one reads.
        # waiting, repairing -> done occurs when the rule was checked, and repaired and verified where due.
        DONE = "done"

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="outcomes")
    rule = models.CharField(max_length=200)
    position = models.PositiveIntegerField(help_text="Place in the order in which the run takes its rules.")
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    held = models.CharField(
        max_length=200, null=True, unique=True, help_text="The rule's name while this run repairs it."
    )
    may_repair = models.BooleanField(default=False)
    max_repairs = models.CharField(max_length=20, default="", blank=True)
    max_deletes = models.CharField(max_length=20, default="", blank=True)
    kept_plan = models.JSONField(
        default=dict, help_text="What the plan that was given says of the rule; empty without a plan."
    )
    fingerprint = models.CharField(
        max_length=64, default="", blank=True, help_text="The rule's, as it was repaired."
    )
    status = models.CharField(max_length=10, default="", blank=True)
    guarantee = models.CharField(max_length=1, default="", blank=True)
    checked = models.PositiveBigIntegerField(default=0)
    missing = models.PositiveBigIntegerField(default=0, help_text="Found before the repair.")
    stale = models.PositiveBigIntegerField(default=0, help_text="Found before the repair.")
    extra = models.PositiveBigIntegerField(default=0, help_text="Found before the repair.")
    samples = models.JSONField(default=list)
    planned = models.JSONField(default=dict, help_text="Rows that the repair was to write, by verb.")
    reported = models.JSONField(
        default=dict, help_text="Drifted rows that the rule leaves to people, by kind."
    )
    inserted = models.PositiveBigIntegerField(default=0)
    updated = models.PositiveBigIntegerField(default=0)
    deleted = models.PositiveBigIntegerField(default=0)
    called = models.PositiveBigIntegerField(
        default=0, help_text="Records handed to the project's own functions."
    )
    enqueued = models.PositiveBigIntegerField(default=0, help_text="Records sent to tasks.")
    left = models.PositiveBigIntegerField(
        default=0, help_text="Drifted rows found when the repair was verified."
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

    COUNTED = {
        "insert": "inserted", "update": "updated", "delete": "deleted", "called": "called", "enqueued": "enqueued",
    }  # fmt: skip
    """Which column counts the rows of which verb."""

    class Meta:
        ordering = ("run", "position")
        constraints = (models.UniqueConstraint(fields=("run", "rule"), name="reconcile_outcome_once"),)

    def __str__(self) -> str:
        return f"{self.rule} in run {self.run_id}"


class Shard(models.Model):
    """Key range that one worker repairs, and how far it is: one for each drift of a rule.

    `cursor` and the counts are written in the chunk's own transaction, so they are never ahead of the data
    nor behind it.
    """

    class State(models.TextChoices):
        RUNNING = "running"
        # running -> done occurs when the cursor has passed the last key.
        DONE = "done"

    outcome = models.ForeignKey(Outcome, on_delete=models.CASCADE, related_name="shards")
    drift = models.CharField(max_length=10)
    state = models.CharField(max_length=10, choices=State.choices, default=State.RUNNING)
    token = models.UUIDField(help_text="Owner of the shard; a worker with another token must stop.")
    heartbeat = models.DateTimeField(default=timezone.now)
    cursor = models.TextField(null=True, help_text="Largest key that was repaired or set aside.")
    chunks = models.PositiveBigIntegerField(default=0)
    written = models.PositiveBigIntegerField(default=0)
    set_aside = models.PositiveBigIntegerField(default=0, help_text="Keys to be tried again at the end.")

    class Meta:
        constraints = (models.UniqueConstraint(fields=("outcome", "drift"), name="reconcile_shard_once"),)

    def __str__(self) -> str:
        return f"{self.drift} of {self.outcome_id}"


class KeysField(models.TextField):  # type: ignore[type-arg]
    """A list of keys, as JSON that the database takes for text: reading it as a document costs as much as the chunk's cursor.

    Integers stay integers; any other key is kept as text.
    """

    def get_prep_value(self, value: Any) -> str:
        """The list as text."""
        return json.dumps(value, default=str, separators=(",", ":"))

    def from_db_value(self, value: str, *_: Any) -> list[Any]:
        """The text as a list."""
        keys: list[Any] = json.loads(value)
        return keys


class Chunk(models.Model):
    """One committed transaction of a shard: proof that it was committed, and which keys it has dealt with.

    It is written in the chunk's own transaction. `keys` are those of the records that were repaired in it, which is how a
    later run knows a record that drifts again.
    """

    shard = models.ForeignKey(Shard, on_delete=models.CASCADE, related_name="committed")
    number = models.PositiveBigIntegerField()
    keys: models.Field[Sequence[Any], list[Any]] = KeysField(default=list)
    committed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("shard", "number"), name="reconcile_chunk_once"),)

    def __str__(self) -> str:
        return f"chunk {self.number} of {self.shard_id}"


class Suspension(models.Model):
    """That the nightly job leaves a rule alone, since what it had repaired drifted again, until somebody resumes it."""

    rule = models.CharField(max_length=200, unique=True)
    run = models.UUIDField(help_text="Run that found the records drifting again.")
    since = models.DateTimeField(default=timezone.now)
    why = models.TextField()

    def __str__(self) -> str:
        return self.rule
