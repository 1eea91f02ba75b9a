"""The Celery task. One line in the beat schedule runs it: `{"task": "reconcile.nightly", "schedule": …}`."""

from __future__ import annotations

from typing import Any

from celery import Task, shared_task

from reconcile import runs

__all__ = ["nightly"]


@shared_task(name="reconcile.nightly", bind=True)
def nightly(self: Task[Any, Any], database: str = "default", *, allow_empty: bool = False) -> dict[str, Any]:
    """Check all rules on `database`, repair those that are unattended; what became of each, as plain values.

    A second night returns at once while another goes on, with that one's run and its state. One that a broker delivers again, after its
    worker has died, goes on where it was. Raises NightIncomplete after all
    rules have had their turn, if any of them is as bad as `RECONCILE["ALARM"]` says; UsageError and EvaluationError if no run could
    begin. It does so, too, if no record was there to look at, unless `allow_empty`. So the task fails where Celery's own monitoring sees it.
    """
    run, _ = runs.nightly(using=database, delivery=self.request.id or "")
    result = runs.run_result(run, using=database)
    runs.raise_alarm(result, allow_empty=allow_empty)
    return result.as_dict()
