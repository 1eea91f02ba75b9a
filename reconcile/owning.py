"""What a worker does to the row of its own shard: it proves that it still owns it, and notes how far it is.

Each statement names the owner's token, so that a worker that was taken over changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from uuid import UUID

from django.db.models import F, QuerySet
from django.utils import timezone

from reconcile._committing import Attempt
from reconcile.errors import TakenOverError
from reconcile.models import Chunk, Outcome, Shard

__all__ = ["OwnShard"]


@dataclass(kw_only=True)
class OwnShard:
    """The row of one shard, as its owner has it."""

    rule: str
    shard: Shard
    using: str

    @property
    def row(self) -> QuerySet[Shard, Shard]:
        """The row, as long as this worker owns it."""
        return Shard._base_manager.using(self.using).filter(pk=self.shard.pk, token=self.shard.token)

    @cached_property
    def run_id(self) -> UUID:
        """The run's. One statement at the first time; the relation would ask the database that a router reads from."""
        return self._outcome.values_list("run_id", flat=True).get()

    @property
    def _outcome(self) -> QuerySet[Outcome, Outcome]:
        return Outcome._base_manager.using(self.using).filter(pk=self.shard.outcome_id)

    def fence(self, tried: Attempt | None = None) -> None:
        """Step 0, and a heartbeat. Raises TakenOverError where another worker has the shard. One statement.

        The chunk's number is part of it, so that no chunk is committed twice. The row's lock, held until the chunk is
        over, makes whoever takes over wait for it, and whoever asks what became of it.
        """
        mine = self.row.filter(state=Shard.State.RUNNING)
        if tried is not None:
            mine = mine.filter(chunks=tried.number - 1)
        if not mine.update(heartbeat=timezone.now()):
            raise TakenOverError(
                f"Another worker has taken over the repair of {self.rule}; this one has stopped."
            )

    def advance(self, tried: Attempt, *, deferred: bool) -> None:
        """Step 6: the cursor, the proof and the counts, in the data's own transaction. Three statements."""
        written = tried.wrote.written
        self.row.update(
            cursor=str(tried.keys[-1]),
            chunks=tried.number,
            written=F("written") + written.total,
            set_aside=F("set_aside") + len(tried.skipped),
        )
        # What a task does later is not repaired yet.
        keys = [] if deferred else tried.repaired
        proof = Chunk(shard=self.shard, number=tried.number, keys=keys)
        Chunk._base_manager.using(self.using).bulk_create([proof])
        counts = {Outcome.COUNTED[verb]: rows for verb, rows in written.as_dict().items() if rows}
        if counts:
            self._outcome.update(**{column: F(column) + rows for column, rows in counts.items()})

    def committed(self, done: Attempt) -> None:
        """Remember what the commit has made of the row. No statement."""
        self.shard.chunks = done.number
        self.shard.cursor = str(done.keys[-1])

    def set_aside(self, number: int) -> None:
        """Count records that are left without a chunk of theirs. One statement.

        Only this worker knows which; the count makes whoever resumes look at all of them again.
        """
        self.row.update(set_aside=F("set_aside") + number)
