"""The Celery task. One line in the beat schedule runs it: `{"task": "reconcile.nightly", "schedule": …}`."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from reconcile import runs
from reconcile.core.drift import Status

__all__ = ["nightly"]


@shared_task(name="reconcile.nightly")
def nightly(database: str = "default") -> dict[str, Any]:
    """Check all rules on `database`, repair those that are unattended; what became of it, as plain values.

    The run and its outcomes are in the database. Raises UsageError and EvaluationError if no run could begin,
    so that the task fails where Celery's own monitoring sees it.
    """
    run, results = runs.nightly(using=database)
    return {
        "run": str(run.pk),
        "rules": len(results),
        "written": sum(result.written.total for result in results),
        "left": sum(result.left for result in results),
        "errors": sorted(result.rule for result in results if result.status is Status.ERROR),
    }
