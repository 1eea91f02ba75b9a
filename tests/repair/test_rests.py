"""While others are at work in the database, a repair leaves it to them most of the time."""

import threading
import time
from contextlib import contextmanager

import pytest
from django.db import connection
from django.db.models import F

from reconcile import HaveRow, Rule
from reconcile.db.dialects import dialect_of
from reconcile.repair import pacing as resting
from reconcile.repair.pacing import Pace
from sample_project.shop.models import Invoice, Order
from tests.helpers import Session, repaired, statements
from tests.zoo.models import Parcel

pytestmark = pytest.mark.django_db(transaction=True)

INVOICE = Rule(
    name="invoice", every=Order, must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")})
)


@contextmanager
def session_at_work():
    """Another session that writes something every few milliseconds."""
    over, begun = threading.Event(), threading.Event()

    def work():
        number = 0
        while not over.is_set():
            number += 1
            Parcel.objects.create(label=f"product {number}")
            begun.set()
            time.sleep(0.01)

    session = Session(work)
    session.start()
    assert begun.wait(20)
    try:
        yield
    finally:
        over.set()
        session.join()


@pytest.fixture
def rested(monkeypatch):
    """Seconds of each rest, which takes none here; a little for the other session all the same."""
    seconds = []

    def note(rest, tick, pause):
        if rest:
            seconds.append(rest)
            time.sleep(max(0.03, dialect_of("default").lock_retry_seconds))
        return rest

    monkeypatch.setattr(resting, "wait", note)
    return seconds


def resting_with(settings, rests):
    settings.RECONCILE = {**settings.RECONCILE, "CHUNK": 5, "REST": rests}
    Order.objects.bulk_create([Order(status="paid", total=number) for number in range(60)])


def test_a_session_alone_has_no_others_beside_it():
    dialect = dialect_of("default")
    _, mark = dialect.look_for_sessions(0)
    Parcel.objects.create(label="its own")
    # What the tests' own sessions did before counts for a second.
    time.sleep(2.1)
    assert dialect.look_for_sessions(mark)[0] is False


def test_another_session_at_work_is_noticed():
    dialect = dialect_of("default")
    _, mark = dialect.look_for_sessions(0)
    with session_at_work():
        assert dialect.look_for_sessions(mark)[0] is True


@contextmanager
def idle_session():
    """A session that has read something, and does nothing during the block."""
    over, begun = threading.Event(), threading.Event()

    def idle():
        assert Order.objects.count() == 0
        begun.set()
        over.wait(20)

    session = Session(idle)
    session.start()
    begun.wait(20)
    try:
        yield
    finally:
        over.set()
        session.join()


def test_one_that_is_only_connected_is_not():
    with idle_session():
        _, mark = dialect_of("default").look_for_sessions(0)
        time.sleep(2.1)
        at_work, _ = dialect_of("default").look_for_sessions(mark)
    assert at_work is False


@pytest.mark.server
def test_one_whose_statement_takes_long_is_at_work_all_the_time():
    begun = threading.Event()

    def sleep():
        with connection.cursor() as cursor:
            begun.set()
            cursor.execute(
                {"postgresql": "SELECT pg_sleep(3)", "mysql": "SELECT SLEEP(3)"}[connection.vendor]
            )

    session = Session(sleep)
    session.start()
    begun.wait(20)
    time.sleep(2.1)
    at_work, _ = dialect_of("default").look_for_sessions(0)
    session.join()
    assert at_work is True


@pytest.mark.postgresql
def test_one_of_which_this_session_may_not_be_told_is_taken_to_be_at_work():
    # The roles are the server's, and beside this one other workers have databases on it.
    role = f"plain_of_{connection.settings_dict['NAME']}"
    with idle_session(), connection.cursor() as cursor:
        time.sleep(2.1)
        cursor.execute(f"CREATE ROLE {role}; SET ROLE {role}")
        at_work, _ = dialect_of("default").look_for_sessions(0)
        cursor.execute(f"RESET ROLE; DROP ROLE {role}")
    assert at_work is True


def test_a_long_rest_has_a_sign_of_life_each_second():
    paused, ticks = [], []
    rests = resting.Rests(using="default", pace=Pace(rests=5, shared=True), took=0.5)
    rests.rest(lambda: ticks.append(1), paused.append)
    assert (paused, len(ticks)) == ([1, 1, 0.5], 3)


def test_a_repair_rests_between_its_chunks_while_others_are_at_work(settings, monkeypatch, rested):
    # On SQLite others are noticed after they have had a turn, so that each chunk is followed by one here.
    monkeypatch.setattr(resting, "STRETCH", 0.0)
    resting_with(settings, 1_000)
    with session_at_work():
        assert repaired(INVOICE).written.insert == 60
    assert any(each > dialect_of("default").lock_retry_seconds for each in rested)
    assert len(rested) <= 12
    assert all(0 < each <= 10 for each in rested)


def test_after_a_second_of_chunks_whoever_waits_has_a_turn_where_the_database_wakes_nobody(rested):
    turn = dialect_of("default").lock_retry_seconds
    rests = resting.Rests(using="default", pace=Pace(rests=0))
    for took in (0.4, 0.4, 0.4, 0.9, 0.2):
        rests.took = took
        rests.rest(lambda: None, lambda _: None)
    assert rested == ([turn, turn] if turn else [])


def test_a_longer_rest_is_a_turn_too(rested):
    rests = resting.Rests(using="default", pace=Pace(rests=2, shared=True))
    for took in (0.9, 0.9):
        rests.took = took
        rests.rest(lambda: None, lambda _: None)
    assert rested == [1.8, 1.8]


def test_it_rests_as_many_times_as_long_as_its_chunks_took(settings, rested):
    rests = resting.Rests(using="default", pace=Pace(rests=4, shared=True), took=0.5)
    rests.rest(lambda: None, lambda _: None)
    assert rested == [2.0]
    rests.rest(lambda: None, lambda _: None)
    assert rested == [2.0], "it has rested for that chunk already"


def test_a_repair_alone_does_not_rest(settings, rested):
    time.sleep(2.1)
    resting_with(settings, 1_000)
    assert repaired(INVOICE).written.insert == 60
    assert rested == []


def test_where_nobody_is_to_rest_nobody_is_asked(settings, rested):
    resting_with(settings, 0)
    with session_at_work(), statements() as captured:
        assert repaired(INVOICE).written.insert == 60
    assert rested == []
    asked = ("pg_stat_activity", "PROCESSLIST", "data_version")
    assert not [each for each in captured.captured_queries if any(word in each["sql"] for word in asked)]


@pytest.mark.parametrize("rests", [0, 2])
def test_a_handler_gets_its_turn_beside_a_long_repair(settings, monkeypatch, rests):
    """On SQLite a chunk is the only writer, and the next begins at once."""
    monkeypatch.setattr(resting, "STRETCH", 0.1)
    settings.RECONCILE = {**settings.RECONCILE, "CHUNK": 100, "REST": rests}
    Order.objects.bulk_create([Order(status="paid", total=number) for number in range(2_000)])
    written = []
    over = threading.Event()

    def work():
        while not over.is_set():
            Parcel.objects.create(label=f"product {len(written)}")
            written.append(time.monotonic())
            time.sleep(0.005)

    session = Session(work)
    session.start()
    try:
        assert repaired(INVOICE).written.insert == 2_000
    finally:
        over.set()
        session.join()
    assert len(written) >= 2
