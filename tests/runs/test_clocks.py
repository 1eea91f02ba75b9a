"""Hosts whose clocks differ: leases, settle times and what drifts again go by the database's clock alone."""

import threading
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from click.testing import CliRunner
from django.db.models import F
from django.utils import timezone

from reconcile import HaveRow, HaveValues, Rule, Settle, runs
from reconcile.cli import reconcile
from reconcile.db import clock
from reconcile.db.clock import clock_skew, database_now
from reconcile.models import Chunk, Outcome, Run, Suspension, WorkItem
from sample_project.shop.models import Invoice, Order
from tests.helpers import Session, repaired
from tests.zoo.models import Basket

pytestmark = [pytest.mark.server, pytest.mark.django_db(transaction=True)]

HOUR = timedelta(hours=1)
LABEL = Rule(name="label", every=Basket, must=HaveValues(label="x"), unattended=True)


@pytest.fixture(autouse=True)
def _unread():
    clock._READINGS.clear()
    yield
    clock._READINGS.clear()


@contextmanager
def host_clock(ahead):
    """A host whose clock is so much ahead; the database's is not."""
    with time_machine.travel(datetime.now(UTC) + ahead, tick=True):
        clock._READINGS.clear()
        yield
    clock._READINGS.clear()


def seconds_apart(one, other):
    return abs((one - other).total_seconds())


@pytest.mark.parametrize("ahead", [HOUR, -HOUR, timedelta(days=1)], ids=str)
def test_the_time_is_the_database_s(ahead):
    true = datetime.now(UTC)
    with host_clock(ahead):
        assert seconds_apart(timezone.now(), true) > 3_000
        assert seconds_apart(database_now("default"), true) < 5


def test_a_clock_that_is_set_while_a_run_goes_on_changes_nothing():
    before = database_now("default")
    with time_machine.travel(datetime.now(UTC) - HOUR, tick=True):
        assert timedelta() <= database_now("default") - before < timedelta(seconds=5)


def test_without_time_zones_it_is_as_naive_as_django_s(settings):
    settings.USE_TZ = False
    assert abs(database_now("default") - timezone.now()) < timedelta(seconds=5)


@pytest.mark.parametrize("ahead", [timedelta(), timedelta(seconds=1), timedelta(seconds=-1)], ids=str)
def test_a_small_difference_is_not_worth_a_word(ahead):
    with host_clock(ahead):
        assert clock_skew("default") == ""


@pytest.mark.parametrize(("ahead", "said"), [(HOUR, "3,600 s ahead of"), (-HOUR, "3,600 s behind")], ids=str)
def test_a_larger_one_is_told_when_a_run_starts(ahead, said):
    Order.objects.create(total=3, created_at=timezone.now() - 2 * HOUR)
    with host_clock(ahead):
        result = CliRunner().invoke(reconcile, ["repair", "orders.invoice", "--apply"], prog_name="reconcile")
    assert f"This host's clock is {said} the database's." in " ".join(result.stderr.split())
    assert result.exit_code == 0


def test_all_times_of_a_run_are_the_database_s():
    Basket.objects.create()
    true = datetime.now(UTC)
    with host_clock(HOUR):
        repaired(LABEL)
    run, item, chunk = Run.objects.get(), WorkItem.objects.get(), Chunk.objects.get()
    times = [run.now, run.started_at, run.finished_at, run.heartbeat, item.heartbeat, chunk.committed_at]
    assert all(seconds_apart(each, true) < 10 for each in times), times


def test_a_young_record_is_left_alone_by_a_host_whose_clock_is_ahead():
    """Its handler may still be at work; the host's clock says that it should be done."""
    Order.objects.create(total=3)
    Invoice.objects.all().delete()
    must = HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")})
    rule = Rule(name="invoice", every=Order, must=must, settle=Settle("created_at", minutes=15))
    with host_clock(HOUR):
        assert repaired(rule).written.total == 0
    assert not Invoice.objects.exists()


@pytest.mark.parametrize("ahead", [HOUR, timedelta(days=1)], ids=str)
def test_the_lease_of_a_living_worker_is_not_taken_over_by_a_host_whose_clock_is_ahead(ahead):
    Basket.objects.create()
    held = Run.objects.create(kind="repair", now=timezone.now())
    outcome = Outcome.objects.create(run=held, rule="label", position=0, leased="label", state="repairing")
    WorkItem.objects.create(outcome=outcome, drift="stale", token=uuid.uuid4(), heartbeat=timezone.now())
    with host_clock(ahead):
        result = repaired(LABEL)
    assert (result.lease_held, result.written.total) == (True, 0)
    held.refresh_from_db()
    assert held.state == "running"


def test_a_dead_worker_s_lease_is_taken_over_by_a_host_whose_clock_is_behind():
    Basket.objects.create()
    long_ago = timezone.now() - timedelta(minutes=5)
    dead = Run.objects.create(kind="repair", now=long_ago, heartbeat=long_ago, started_at=long_ago)
    outcome = Outcome.objects.create(run=dead, rule="label", position=0, leased="label", state="repairing")
    WorkItem.objects.create(outcome=outcome, drift="stale", token=uuid.uuid4(), heartbeat=long_ago)
    with host_clock(-HOUR):
        assert repaired(LABEL).written.update == 1


@pytest.mark.parametrize("ahead", [timedelta(seconds=-1), HOUR, -HOUR], ids=str)
def test_what_another_run_repairs_at_this_moment_does_not_drift_again(ahead, settings):
    """A night on a second host comes upon the rule while the first is between two chunks."""
    settings.RECONCILE = {"RULES": []}
    Basket.objects.bulk_create([Basket() for _ in range(20)])
    committed, go_on = threading.Event(), threading.Event()

    def between_chunks(*_):
        committed.set()
        assert go_on.wait(30)

    def first():
        return runs.repair({"label": LABEL}, using="default", progress=between_chunks)

    session = Session(first)
    session.start()
    assert committed.wait(30)
    # Somebody writes the records that the first host has repaired.
    Basket.objects.update(label="y")
    with host_clock(ahead):
        run = runs.running._begin(Run.Kind.NIGHTLY, {"label": LABEL}, using="default", may_repair={"label"})
        (result,) = runs.running._advance(run, {"label": LABEL}, using="default")
    go_on.set()
    session.join()
    assert (result.lease_held, result.again, result.warning) == (True, 0, "")
    assert not Suspension.objects.exists()


def test_a_database_that_does_not_answer_leaves_the_host_s_time(monkeypatch):
    from django.db import OperationalError

    def broken(_):
        raise OperationalError("gone")

    monkeypatch.setattr(type(clock.dialect_of("default")), "read_clock", broken)
    assert seconds_apart(database_now("default"), timezone.now()) < 5
    assert clock_skew("default") == ""
