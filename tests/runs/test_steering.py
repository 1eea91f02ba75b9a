"""Pausing, cancelling and going on, as people ask for it while a worker is at it."""

from datetime import timedelta

import pytest
from django.db.models import F
from django.utils import timezone

from reconcile import HaveRow, Rule, runs
from reconcile.errors import CancelledError, PausedError, UsageError
from reconcile.models import Change, Outcome, Run, WorkItem
from reconcile.repair.caps import Caps
from sample_project.shop.models import Invoice, Order

INVOICE = Rule(
    name="invoice", every=Order, must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")})
)
RULES = {"invoice": INVOICE}

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _small_chunks(settings):
    settings.RECONCILE = {**settings.RECONCILE, "CHUNK": 10}


def missing(number):
    Order.objects.bulk_create([Order(total=3) for _ in range(number)])


def asking(act):
    """Ask once the first chunk is through, as somebody else would."""
    asked = []

    def progress(*_):
        if not asked:
            asked.append(act(Run.objects.get(), using="default").state)

    return progress, asked


def test_a_run_pauses_before_its_next_chunk_and_goes_on_where_it_was():
    missing(35)
    progress, asked = asking(runs.pause)
    with pytest.raises(PausedError, match="Go on with: reconcile runs resume"):
        runs.repair(RULES, using="default", progress=progress)
    run = Run.objects.get()
    assert asked == ["pausing"]
    assert (run.state, run.why_stopped, Invoice.objects.count()) == ("paused", "Somebody has paused it.", 10)
    assert not Outcome.objects.exclude(leased=None).exists()
    (result,) = runs.resume(run, RULES, using="default")
    run.refresh_from_db()
    assert (result.written.insert, result.left, run.state) == (35, 0, "finished")
    assert Invoice.objects.count() == Change.objects.count() == 35
    assert WorkItem.objects.get(drift="missing").chunks == 4


def test_a_run_is_cancelled_before_its_next_chunk_and_what_it_wrote_stands():
    missing(35)
    progress, asked = asking(runs.cancel)
    with pytest.raises(CancelledError, match="What it had written stands"):
        runs.repair(RULES, using="default", progress=progress)
    run = Run.objects.get()
    assert asked == ["cancelling"]
    assert (run.state, Invoice.objects.count(), Change.objects.count()) == ("cancelled", 10, 10)
    with pytest.raises(UsageError, match="is cancelled; there is nothing to resume"):
        runs.resume(run, RULES, using="default")
    _, (result,) = runs.repair(RULES, using="default")
    assert (result.written.insert, result.left) == (25, 0)


def test_a_run_that_is_paused_between_two_rules_begins_no_other():
    missing(5)
    progress, _ = asking(runs.pause)
    other = Rule(name="other", every=Order.objects.filter(total=4), must=INVOICE.must)
    with pytest.raises(PausedError):
        runs.repair({**RULES, "other": other}, using="default", progress=progress)
    states = dict(Outcome.objects.values_list("rule", "state"))
    assert sorted(states.values()) == ["done", "waiting"]


@pytest.mark.parametrize(("act", "state"), [(runs.pause, "paused"), (runs.cancel, "cancelled")])
def test_a_run_whose_worker_is_dead_is_steered_at_once_and_lets_its_rules_go(act, state):
    long_ago = timezone.now() - timedelta(minutes=10)
    run = Run.objects.create(kind="repair", now=long_ago, started_at=long_ago, heartbeat=long_ago)
    outcome = Outcome.objects.create(run=run, rule="invoice", position=0, state="repairing", leased="invoice")
    WorkItem.objects.create(outcome=outcome, drift="missing", token=run.pk, heartbeat=long_ago)
    assert act(run, using="default").state == state
    outcome.refresh_from_db()
    assert outcome.leased is None


@pytest.mark.parametrize("state", ["stopped", "paused", "pausing"])
def test_a_run_that_has_stopped_can_be_cancelled(state):
    long_ago = timezone.now() - timedelta(minutes=10)
    run = Run.objects.create(
        kind="repair", now=long_ago, started_at=long_ago, heartbeat=long_ago, state=state
    )
    assert runs.cancel(run, using="default").state == "cancelled"


def test_pausing_twice_is_pausing_once():
    run = Run.objects.create(kind="repair", now=timezone.now(), state="paused")
    assert runs.pause(run, using="default").state == "paused"


@pytest.mark.parametrize("state", ["finished", "stopped", "cancelled", "cancelling"])
def test_a_run_that_does_not_go_on_cannot_be_paused(state):
    run = Run.objects.create(kind="repair", now=timezone.now(), state=state)
    with pytest.raises(UsageError, match=f"is {state}; only a run that goes on can be paused"):
        runs.pause(run, using="default")


@pytest.mark.parametrize("state", ["finished", "cancelled"])
def test_a_run_that_has_ended_cannot_be_cancelled(state):
    run = Run.objects.create(kind="repair", now=timezone.now(), state=state)
    with pytest.raises(UsageError, match="there is nothing to cancel"):
        runs.cancel(run, using="default")


def test_the_cap_counts_what_was_written_before_the_pause():
    missing(35)
    progress, _ = asking(runs.pause)
    with pytest.raises(PausedError):
        runs.repair(RULES, using="default", progress=progress, caps=Caps(max_repairs=35))
    missing(10)
    (result,) = runs.resume(Run.objects.get(), RULES, using="default")
    assert "The cap on repairs is reached" in result.why_stopped
    assert Invoice.objects.count() <= 35
