"""The nightly job as it runs for real: from a worker and a beat of their own, and twice at the same time."""

import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db.models import Sum
from django.utils import timezone
from kombu import Connection, Exchange, Queue

from reconcile.models import Outcome, Run
from reconcile.rules.registry import valid_rules
from reconcile.tasks import nightly
from sample_project.shop import bulk, services
from sample_project.shop.models import Customer, Invoice, Item, Order
from tests.helpers import Session, assert_clean, environment

pytestmark = [pytest.mark.server, pytest.mark.django_db(transaction=True)]

DEADLINE = 60

QUEUE = f"reconcile-{os.getpid()}"
"""Of this process alone: tests on several databases run at the same time, over the same brokers."""


def made(number):
    """Orders of two hours ago and an item for each, none of them saved."""
    customer = Customer.objects.create(name="Ada")
    two_hours_ago = timezone.now() - timedelta(hours=2)
    orders = [Order(customer=customer, created_at=two_hours_ago) for _ in range(number)]
    return orders, [
        Item(order=order, price=Decimal(place), quantity=2) for place, order in enumerate(orders, 1)
    ]


def amounts(items):
    """What each order must be invoiced for, by its key."""
    return {item.order_id: item.price * item.quantity for item in items}


def import_orders(number):
    """Orders with nothing of what they owe; the amounts that they owe."""
    orders, items = made(number)
    bulk.import_orders(orders, items)
    return amounts(items)


def create_orders(number):
    """Orders with all that they owe; the amounts."""
    orders, items = made(number)
    services.create_orders_bulk(orders, items)
    return amounts(items)


def invoiced():
    """What was invoiced, as (order, amount) for each invoice."""
    return sorted(Invoice.objects.values_list("order_id", "amount"))


def inserted_invoices():
    return Outcome.objects.filter(rule="orders.invoice").aggregate(total=Sum("work_items__counts__rows"))[
        "total"
    ]


def assert_nothing_drifts():
    for rule in valid_rules().values():
        assert_clean(rule)


class CeleryProcess:
    """`celery` with these arguments, as a process of its own whose output goes to a file."""

    def __init__(self, name, *arguments, folder, broker):
        self.name = name
        self.log = folder / f"{name}.log"
        settings = environment(
            CELERY_BROKER_URL=broker, CELERY_QUEUE=QUEUE, RECONCILE_EVERY_SECONDS="2", PYTHONUNBUFFERED="1"
        )
        command = [sys.executable, "-m", "celery", "-A", "sample_project", name, *arguments]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=folder, env=settings, stdout=output, stderr=subprocess.STDOUT
            )

    def runs(self):
        return self.process.poll() is None

    def said(self):
        return (
            f"--- {self.name} (exit code {self.process.poll()}) ---\n{self.log.read_text(errors='replace')}"
        )

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class WorkerAndBeat:
    def __init__(self, *processes):
        self.processes = processes

    def said(self):
        return "\n".join(process.said() for process in self.processes)

    def assert_both_run(self):
        assert all(process.runs() for process in self.processes), self.said()

    def wait_until(self, what, is_so):
        deadline = time.monotonic() + DEADLINE
        while not is_so():
            self.assert_both_run()
            assert time.monotonic() < deadline, f"Not within {DEADLINE} s: {what}.\n{self.said()}"
            time.sleep(0.1)


@contextmanager
def emptied(broker):
    """No message of another run waits in the queue, and none of this one stays."""
    with Connection(broker) as connection:
        queue = Queue(QUEUE, Exchange(QUEUE), routing_key=QUEUE)(connection.default_channel)
        queue.declare()
        queue.purge()
        try:
            yield
        finally:
            queue.delete()


@pytest.fixture(params=["TEST_REDIS_URL", "TEST_RABBITMQ_URL"])
def broker(request):
    url = os.environ.get(request.param)
    if not url:
        pytest.skip(f"needs a broker whose queue may be emptied: set {request.param}")
    with emptied(url):
        yield url


@pytest.fixture
def worker_and_beat(transactional_db, broker, tmp_path):
    # Asking for the database here has the processes stopped before the tables are emptied, which they would block.
    arguments = {
        "worker": [
            "-n",
            f"{QUEUE}@%h",
            "--pool",
            "solo",
            "--without-mingle",
            "--without-gossip",
            "--loglevel",
            "INFO",
        ],
        "beat": ["-s", str(tmp_path / "schedule"), "--loglevel", "INFO"],
    }
    with ExitStack() as stopping:
        processes = []
        for name, options in arguments.items():
            processes.append(CeleryProcess(name, *options, folder=tmp_path, broker=broker))
            stopping.callback(processes[-1].stop)
        yield WorkerAndBeat(*processes)


@pytest.mark.process
@pytest.mark.broker
def test_orders_bulk_created_while_worker_and_beat_run_get_their_invoices(worker_and_beat):
    nightlies = Run.objects.filter(kind=Run.Kind.NIGHTLY)
    worker_and_beat.wait_until("a first nightly run", nightlies.exists)

    owed = import_orders(500)
    worker_and_beat.wait_until("an invoice for each order", lambda: invoiced() == sorted(owed.items()))

    last = nightlies.filter(started_at__gt=timezone.now(), state=Run.State.FINISHED)
    worker_and_beat.wait_until("one more run, from beginning to end", last.exists)
    worker_and_beat.assert_both_run()

    said = worker_and_beat.said()
    finished = nightlies.filter(state=Run.State.FINISHED)
    assert inserted_invoices() == 500, said
    assert finished.filter(
        outcomes__rule="orders.invoice", outcomes__work_items__counts__rows__gt=0
    ).exists(), said
    for run in finished:
        assert set(run.outcomes.values_list("rule", flat=True)) == set(valid_rules()), said
        assert set(run.outcomes.values_list("state", "error")) == {(Outcome.State.DONE, "")}, said
    assert not nightlies.filter(state=Run.State.STOPPED).exists(), said
    assert invoiced() == sorted(owed.items()), said
    assert_nothing_drifts()


def test_two_nightly_jobs_at_once_make_no_duplicate():
    owed = create_orders(2_000)
    # Only invoices are missing: jobs that repair two rules of the same orders pass over each other's locked rows.
    bulk.lose_invoices(owed)
    together = threading.Barrier(2, timeout=30)

    def job():
        together.wait()
        return nightly()

    sessions = [Session(job), Session(job)]
    for session in sessions:
        session.start()
    results = [session.join() for session in sessions]

    # The second is told of the first, and does nothing beside it.
    assert len({result["run"] for result in results}) == 1
    assert min(result["state"] for result in results) == "finished"
    assert set(Run.objects.values_list("state", flat=True)) == {Run.State.FINISHED}
    assert invoiced() == sorted(owed.items())
    assert inserted_invoices() == 2_000
    assert_nothing_drifts()
