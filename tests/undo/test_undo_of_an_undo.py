"""A run that was stopped half way, and undone: nobody goes on with it."""

from datetime import timedelta

import pytest
from django.utils import timezone

from reconcile import runs
from reconcile.errors import UsageError
from reconcile.models import Run, WorkItem
from sample_project.shop.models import Invoice
from tests.runs.test_runs import INVOICE, half_repaired

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("state", ["stopped", "paused"])
def test_a_run_that_was_undone_half_way_is_over_and_a_new_one_repairs_all(settings, state):
    run = half_repaired(settings)
    Run.objects.update(state=state)
    run.refresh_from_db()
    by, (result,) = runs.undo(run, using="default")
    run.refresh_from_db()
    by.refresh_from_db()
    assert (result.written.delete, result.left, by.state) == (5, 0, "finished")
    assert (run.state, run.why_stopped) == ("cancelled", "It was undone.")
    # What was taken back lies before its cursor.
    with pytest.raises(UsageError, match="is cancelled; there is nothing to resume"):
        runs.resume(run, {"invoice": INVOICE}, using="default")
    assert not Invoice.objects.exists()
    assert runs.repair({"invoice": INVOICE}, using="default")[1][0].written.insert == 12


def silent_for(run, seconds):
    ago = timezone.now() - timedelta(seconds=seconds)
    Run.objects.filter(pk=run.pk).update(heartbeat=ago, started_at=ago)
    WorkItem.objects.update(heartbeat=ago)
    run.refresh_from_db()


def test_a_run_whose_worker_was_killed_is_paused_at_once_when_it_has_been_silent_for_long(settings):
    run = half_repaired(settings)
    Run.objects.update(state="running")
    silent_for(run, 5)
    assert runs.pause(run, using="default").state == "pausing"
    silent_for(run, 90)
    assert runs.pause(run, using="default").state == "paused"


def test_an_undo_of_a_run_that_is_being_cancelled_says_what_to_wait_for(settings):
    run = half_repaired(settings)
    Run.objects.update(state="running")
    silent_for(run, 5)
    run = runs.cancel(run, using="default")
    with pytest.raises(
        UsageError, match="is cancelling, and its worker may live: it stops before its next chunk"
    ):
        runs.undo(run, using="default")
