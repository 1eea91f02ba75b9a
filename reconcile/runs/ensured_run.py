"""The run that one call of `ensure` leaves where it is asked to: what it wrote, to be taken back by `undo` once the caller's transaction is committed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import models

from reconcile.core.drift import Drift, Status
from reconcile.core.verbs import Written
from reconcile.models import Outcome, Run, WorkItem, WrittenRows, transition
from reconcile.repair.journal import ChunkJournal
from reconcile.rules.fingerprints import fingerprint
from reconcile.rules.rule import Rule

__all__ = ["EnsuredRun"]


@dataclass(kw_only=True)
class EnsuredRun:
    """A run whose rows are made with the first row that is written for a rule, all in the caller's transaction. No other session sees it before that is committed.

    One statement for the run, one for each rule, one for each kind of drift, and five at its end.
    """

    using: str
    now: datetime
    run: Run | None = None
    _outcomes: dict[str, Outcome] = field(default_factory=dict)
    _journals: dict[tuple[str, Drift], ChunkJournal] = field(default_factory=dict)
    _written: dict[tuple[str, Drift], Written] = field(default_factory=dict)

    @property
    def id(self) -> UUID | None:
        """The id of the run; None if nothing was written."""
        return None if self.run is None else self.run.pk

    def journal(self, rule: Rule, drift: Drift, keys: Sequence[Any]) -> ChunkJournal:
        """The journal of what is written next for this kind of drift. keys: of the records."""
        place = (rule.name, drift)
        outcome = self._outcome(rule)
        outcome.only = [*dict.fromkeys([*(outcome.only or ()), *keys])]
        before = self._journals.get(place)
        if before is None:
            item = self._made(WorkItem(outcome=outcome, drift=str(drift), token=outcome.run.token))
            self._journals[place] = ChunkJournal(work_item=item, chunk=1, using=self.using)
        else:
            self._journals[place] = ChunkJournal(
                work_item=before.work_item,
                chunk=before.chunk + 1,
                using=self.using,
                prepared=before.prepared,
                moved=before.moved,
            )
        return self._journals[place]

    def count(self, rule: Rule, drift: Drift, written: Written) -> None:
        """Count what was written."""
        place = (rule.name, drift)
        self._written[place] = self._written.get(place, Written()) + written

    def close(self) -> None:
        """Say what was written by each rule, and that all of it is done."""
        if self.run is None:
            return
        self._all(WrittenRows).bulk_create(
            WrittenRows(work_item=self._journals[place].work_item, verb=verb, rows=rows)
            for place, written in self._written.items()
            for verb, rows in written.as_dict().items()
            if rows
        )
        for outcome in self._outcomes.values():
            outcome.checked = len(outcome.only or ())
        self._all(Outcome).bulk_update(self._outcomes.values(), ["only", "checked"], batch_size=100)
        for state in (Outcome.State.REPAIRING, Outcome.State.DONE):
            transition(self._all(Outcome).filter(run=self.run), state)
        transition(self._all(WorkItem).filter(outcome__run=self.run), WorkItem.State.DONE)
        own = self._all(Run).filter(pk=self.run.pk)
        transition(own, Run.State.FINISHED, finished_at=self.now)

    def _outcome(self, rule: Rule) -> Outcome:
        if rule.name not in self._outcomes:
            self._outcomes[rule.name] = self._made(
                Outcome(
                    run=self._run(),
                    rule=rule.name,
                    position=len(self._outcomes),
                    may_repair=True,
                    status=str(Status.PASS),
                    left=0,
                    guarantee=str(rule.guarantee(self.using)),
                    fingerprint=fingerprint(rule, self.using),
                )
            )
        return self._outcomes[rule.name]

    def _run(self) -> Run:
        if self.run is None:
            times = dict.fromkeys(("now", "started_at", "heartbeat"), self.now)
            self.run = self._made(Run(kind=Run.Kind.ENSURE, **times))
        return self.run

    def _made(self, row: Any) -> Any:
        row.save(using=self.using, force_insert=True)
        return row

    def _all(self, model: type[models.Model]) -> models.QuerySet[Any, Any]:
        return model._base_manager.using(self.using)
