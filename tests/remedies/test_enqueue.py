import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from celery import Celery
from django.db import IntegrityError, connection
from django.db.models import Q
from django.utils import timezone
from kombu import Connection

from reconcile import (
    MISSING,
    STALE,
    Call,
    Enqueue,
    HaveReceipt,
    HaveValues,
    Report,
    Rule,
    Split,
    receipts,
    runs,
)
from reconcile.models import Change, Outcome, Receipt, Run
from reconcile.runs import written_rows
from tests.helpers import (
    ROOT,
    Session,
    assert_finds,
    assert_repairs,
    checked,
    environment,
    repaired,
    statements,
)
from tests.zoo.models import Basket, Device, Page
from tests.zoo.tasks import MESSAGES, greet, keep, label, stumble

QUEUE = f"reconcile-enqueue-{os.getpid()}"
pytestmark = pytest.mark.django_db

DEAD = Celery("dead", broker="redis://127.0.0.1:1/0", set_as_current=False)
DEAD.conf.update(
    task_publish_retry=False, broker_connection_retry=False, broker_transport_options={"max_retries": 1}
)


@DEAD.task(name="dead.letter")
def letter(keys):
    """It never arrives."""


@pytest.fixture(autouse=True)
def _no_messages():
    MESSAGES.clear()


def greeting(task=keep, every=Basket, name="greeting", within=None, **options):
    return Rule(
        name=name, every=every, must=HaveReceipt("greeting", confirmed_within=within),
        remedies={MISSING: Enqueue(task, **options)},
    )  # fmt: skip


def labelled(task):
    return Rule(name="labelled", every=Basket, must=HaveValues(label="b"), remedies={STALE: Enqueue(task)})


def baskets(number):
    Basket.objects.bulk_create([Basket() for _ in range(number)])
    return sorted(Basket.objects.values_list("pk", flat=True))


def states():
    return sorted(Receipt.objects.values_list("state", flat=True))


def test_a_record_without_a_receipt_is_enqueued_once():
    keys = baskets(3)
    assert_repairs(greeting(), enqueued=3)
    assert [("keep", keys)] == MESSAGES
    assert states() == ["sent"] * 3


def test_a_record_with_a_receipt_is_not_enqueued():
    done, owed = baskets(2)
    receipts.record("greeting", Basket, keys=[done])
    assert_repairs(greeting(), enqueued=1)
    assert [("keep", [owed])] == MESSAGES
    assert states() == ["done", "sent"]


def test_a_task_that_records_its_receipts_makes_them_done():
    baskets(3)
    assert_repairs(greeting(greet), enqueued=3)
    assert states() == ["done"] * 3


def test_each_chunk_is_one_message():
    keys = baskets(5)
    assert_repairs(greeting(batch=2), enqueued=5)
    assert [("keep", keys[:2]), ("keep", keys[2:4]), ("keep", keys[4:])] == MESSAGES
    outcome = Outcome.objects.first()
    assert Run.objects.count() == 2
    assert set(Change.objects.values_list("verb", "model", "before", "after")) == {
        ("enqueued", "zoo.Basket", None, None)
    }
    assert written_rows(outcome).enqueued in {0, 5}


def test_uuids_and_texts_go_out_as_text():
    device, page = Device.objects.create(name="x"), Page.objects.create(code="a b")
    assert_repairs(greeting(every=Device), enqueued=1)
    assert_repairs(greeting(every=Page), enqueued=1)
    assert [("keep", [str(device.pk)]), ("keep", [page.pk])] == MESSAGES


@pytest.mark.parametrize(
    ("state", "age", "sent"),
    [
        ("promised", timedelta(minutes=9), False),
        ("promised", timedelta(minutes=11), True),
        ("sent", timedelta(minutes=59), False),
        ("sent", timedelta(minutes=61), True),
        ("done", timedelta(days=9), False),
    ],
)
def test_what_counts_no_more_is_sent_again(state, age, sent):
    (key,) = baskets(1)
    at = timezone.now() - age
    Receipt.objects.create(name="greeting", model="zoo.Basket", key=str(key), state=state, recorded_at=at)
    assert_repairs(greeting(within=timedelta(hours=1)), **({"enqueued": 1} if sent else {}))
    assert ([("keep", [key])] if sent else []) == MESSAGES
    assert states() == ["sent" if sent else state]


def test_a_task_by_its_registered_name():
    (key,) = baskets(1)
    assert_repairs(greeting("tests.zoo.tasks.keep"), enqueued=1)
    assert [("keep", [key])] == MESSAGES


def test_other_drift_goes_when_the_task_has_run():
    baskets(2)
    result = repaired(labelled(label))
    assert (result.written.enqueued, result.left, result.why_stopped) == (2, 0, "")
    assert repaired(labelled(label)).written.total == 0


def test_other_drift_stays_until_the_task_has_run():
    keys = baskets(2)
    for _ in range(2):
        result = repaired(labelled(keep))
        assert (result.written.enqueued, result.left, result.incomplete) == (2, 2, True)
        assert "when the tasks that were enqueued have run" in result.why_stopped
    assert [("keep", keys)] * 2 == MESSAGES
    assert not Receipt.objects.exists()


@pytest.mark.parametrize("task", [letter, stumble], ids=["no broker", "a task that fails at once"])
def test_a_message_that_can_not_be_sent_is_taken_back_and_the_run_ends_incomplete(task):
    keys = baskets(5)
    Receipt.objects.create(
        name="greeting", model="zoo.Basket", key=str(keys[0]), state="promised",
        recorded_at=timezone.now() - timedelta(hours=1),
    )  # fmt: skip
    result = repaired(greeting(task, batch=2))
    assert "could not be sent" in result.why_stopped
    assert (result.written.total, result.left, result.incomplete) == (0, 5, True)
    assert (Receipt.objects.count(), Change.objects.count()) == (0, 0)
    run = Run.objects.get()
    assert run.state == Run.State.STOPPED
    assert_finds(greeting(), missing=keys)
    (resumed,) = runs.resume(run, {"greeting": greeting(keep)}, using="default")
    assert (resumed.written.enqueued, resumed.left, resumed.why_stopped) == (5, 0, "")
    assert sorted(key for _, sent in MESSAGES for key in sent) == keys


def test_other_drift_whose_message_can_not_be_sent_is_not_counted_as_enqueued():
    baskets(2)
    result = repaired(labelled(letter))
    assert "could not be sent" in result.why_stopped
    assert (result.written.total, result.left, Change.objects.count()) == (0, 2, 0)


def test_the_number_of_statements_does_not_grow():
    numbers = []
    for number in (10, 490):
        baskets(number)
        with statements() as sent:
            assert repaired(greeting()).written.enqueued == number
        numbers.append(len(sent))
    assert numbers[0] == numbers[1]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("names", [("one", "one"), ("one", "other")], ids=["one rule", "two rules"])
def test_two_repairers_at_once_send_each_record_once(names):
    keys = baskets(600)
    together = threading.Barrier(2, timeout=30)

    def repairer(name):
        def act():
            together.wait()
            return repaired(greeting(name=name, batch=50))

        return act

    sessions = [Session(repairer(name)) for name in names]
    for session in sessions:
        session.start()
    results = [session.join() for session in sessions]
    repaired(greeting(name="third"))
    assert sorted(key for _, sent in MESSAGES for key in sent) == keys
    assert states() == ["sent"] * 600
    assert [result.error for result in results] == [None, None]


DYING = """
import os
import django
django.setup()
from celery import shared_task
from reconcile import MISSING, Enqueue, HaveReceipt, Rule, runs
from tests.zoo.models import Basket

@shared_task
def task(keys):
    os._exit(9)

rule = Rule(name="greeting", every=Basket, must=HaveReceipt("greeting"), remedies={MISSING: Enqueue(task, batch=2)})
runs.repair({"greeting": rule}, using="default")
"""


@pytest.mark.process
@pytest.mark.django_db(transaction=True)
def test_a_kill_between_commit_and_send_loses_nothing():
    keys = baskets(3)
    killed = subprocess.run([sys.executable, "-c", DYING], env=environment(), cwd=ROOT, timeout=60)
    assert killed.returncode == 9
    assert states() == ["promised"] * 2
    Outcome.objects.update(leased=None)
    assert_repairs(greeting(), enqueued=1)
    assert [("keep", keys[2:])] == MESSAGES
    Receipt.objects.filter(state="promised").update(recorded_at=timezone.now() - timedelta(minutes=11))
    assert_repairs(greeting(), enqueued=2)
    assert MESSAGES[1:] == [("keep", keys[:2])]
    assert states() == ["sent"] * 3


@contextmanager
def queue(url, name):
    with Connection(url) as broker:
        waiting = broker.SimpleQueue(name)
        waiting.clear()
        try:
            yield waiting
        finally:
            waiting.clear()
            waiting.close()


@pytest.mark.broker
def test_over_a_real_broker_a_message_holds_the_keys():
    url = os.environ.get("TEST_REDIS_URL")
    if not url:
        pytest.skip("needs a broker whose queue may be emptied: set TEST_REDIS_URL")
    app = Celery("real", broker=url, set_as_current=False)
    app.conf.task_default_queue = QUEUE

    @app.task(name="real.letter")
    def real(keys):
        """Nobody takes it."""

    device = Device.objects.create(name="x")
    with queue(url, QUEUE) as waiting:
        assert_repairs(greeting(real, every=Device), enqueued=1)
        message = waiting.get(timeout=10)
        assert message.payload[0] == [[str(device.pk)]]
        assert message.headers["task"] == "real.letter"
        message.ack()
    assert states() == ["sent"]


@pytest.mark.parametrize(
    ("remedy", "fault_id", "said"),
    [
        (Enqueue(print), "E012", "is no task"),
        (Enqueue(None), "E012", "None is no task"),
        (Enqueue("tests.zoo.tasks.kep"), "E012", "Did you mean 'tests.zoo.tasks.keep'?"),
        (Enqueue("nothing like it"), "E012", "no task is registered as"),
        (Enqueue(keep, batch=0), "E012", "batch= is 0"),
        (Enqueue(keep, batch=5_001), "E012", "batch= is 5001"),
        (Enqueue(keep, batch=True), "E012", "batch= is True"),
    ],
)
def test_each_fault_says_the_way_out(remedy, fault_id, said):
    rule = Rule(name="faulty", every=Basket, must=HaveReceipt("x"), remedies={MISSING: remedy})
    (fault,) = rule.faults()
    assert fault.id == f"reconcile.{fault_id}"
    assert said in str(fault)
    assert fault.hint


@pytest.mark.parametrize("task", [keep, "tests.zoo.tasks.keep"], ids=["task", "name"])
def test_a_task_is_no_fault(task):
    assert not [*greeting(task).faults()]


def test_a_check_enqueues_nothing():
    baskets(2)
    assert checked(greeting()).planned.enqueued == 2
    assert not MESSAGES


def test_a_rule_with_a_promise_may_only_report():
    baskets(1)
    rule = Rule(name="x", every=Basket, must=HaveReceipt("greeting"), remedies={MISSING: Report()})
    assert repaired(rule).written.total == 0
    assert connection.vendor


def split(rest, each, must=None, drift=MISSING):
    parts = Split(when=Q(score=9), each=each, rest=rest)
    return Rule(name="split", every=Basket, must=must or HaveReceipt("greeting"), remedies={drift: parts})


def test_both_parts_of_a_split_send_their_messages():
    heavy = [Basket.objects.create(score=9).pk for _ in range(2)]
    keys = baskets(5)
    rest = [key for key in keys if key not in heavy]
    assert_repairs(split(Enqueue(keep), Enqueue(keep)), enqueued=7)
    assert [("keep", heavy[:1]), ("keep", heavy[1:]), ("keep", rest)] == MESSAGES
    assert states() == ["sent"] * 7


def test_a_part_that_isn_t_sent_later_stands_where_the_message_can_not_be_sent():
    heavy = Basket.objects.create(score=9)
    light = Basket.objects.create()
    labelling = Call(
        lambda records: Basket.objects.filter(pk__in=[each.pk for each in records]).update(label="b")
    )
    result = repaired(split(Enqueue(letter), labelling, HaveValues(label="b"), STALE))
    assert "could not be sent" in result.why_stopped
    assert (result.written.called, result.written.enqueued, result.left) == (1, 0, 1)
    assert list(Change.objects.values_list("verb", "key")) == [("called", str(heavy.pk))]
    assert light.pk != heavy.pk


def test_only_what_was_not_sent_is_taken_back():
    heavy = Basket.objects.create(score=9)
    light = Basket.objects.create()
    result = repaired(split(Enqueue(letter), Enqueue(keep)))
    assert "could not be sent" in result.why_stopped
    assert (result.written.enqueued, result.left) == (1, 1)
    assert [("keep", [heavy.pk])] == MESSAGES
    assert list(Receipt.objects.values_list("key", "state")) == [(str(heavy.pk), "sent")]
    assert list(Change.objects.values_list("verb", "key")) == [("enqueued", str(heavy.pk))]
    assert_repairs(greeting(), enqueued=1)
    assert MESSAGES[1:] == [("keep", [light.pk])]


class NeverTakenBack(Enqueue):
    """Its promises can't be taken back, since the database doesn't let them."""

    def write(self, finder, keys, journal):
        wrote = super().write(finder, keys, journal)
        return replace(wrote, messages=[replace(each, failed=refuse) for each in wrote.messages])


def refuse():
    raise IntegrityError("not now")


def test_a_message_that_can_be_neither_sent_nor_taken_back_ends_the_run_incomplete():
    baskets(2)
    rule = Rule(
        name="greeting",
        every=Basket,
        must=HaveReceipt("greeting"),
        remedies={MISSING: NeverTakenBack(letter)},
    )
    result = repaired(rule)
    assert "could not be sent" in result.why_stopped
    assert "could not be taken back either (not now)" in result.why_stopped
    assert result.incomplete
    assert states() == ["promised"] * 2
