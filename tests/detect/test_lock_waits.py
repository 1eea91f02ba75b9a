"""A check that another session's lock keeps waiting: it says so, goes on when the lock is free, and ends."""

from threading import Event, Timer

import pytest
import structlog
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone
from structlog.testing import capture_logs

from reconcile import HaveRow, Rule
from reconcile.core.drift import Status
from reconcile.db.dialects import base, dialect_of
from reconcile.detect.checking import check
from tests.helpers import Session, checked
from tests.zoo.models import Basket, Bill

pytestmark = [pytest.mark.server, pytest.mark.django_db(transaction=True)]

RULE = Rule(name="bill", every=Basket, must=HaveRow(Bill, link={"basket_number": F("pk")}))
WAITS = "check_waits_for_lock"


@pytest.fixture(autouse=True)
def _soon(monkeypatch, settings):
    monkeypatch.setattr(base, "SAY_AFTER", 1.0)
    structlog.reset_defaults()
    settings.RECONCILE = {**settings.RECONCILE, "LOCK_WAIT": 2}


def lock_table():
    """As a migration does, until the session is told to go on."""
    vendor = connection.vendor
    with connection.cursor() as cursor:
        if vendor == "postgresql":
            cursor.execute("LOCK TABLE zoo_bill IN ACCESS EXCLUSIVE MODE")
        else:
            cursor.execute("LOCK TABLES zoo_bill WRITE")


@pytest.fixture
def locked():
    """Yields what lets the table go."""
    taken, over = Event(), Event()

    def hold():
        with transaction.atomic():
            lock_table()
            taken.set()
            over.wait(20)
        if connection.vendor == "mysql":
            with connection.cursor() as cursor:
                cursor.execute("UNLOCK TABLES")

    session = Session(hold)
    session.start()
    assert taken.wait(10)
    yield over.set
    over.set()
    session.join()


def unchecked():
    return check(RULE, using="default", now=timezone.now())


def test_a_lock_that_is_not_free_in_time_is_an_error_with_the_way_out(locked):
    Basket.objects.create(label="a")
    before = dialect_of("default")._read_lock_wait()
    with capture_logs() as logged:
        found = unchecked()
    assert found.status is Status.ERROR
    assert "LOCK_WAIT" in found.error
    assert [each["rule"] for each in logged if each["event"] == WAITS] == ["bill"]
    assert dialect_of("default")._read_lock_wait() == before
    locked()


def test_a_check_goes_on_once_the_lock_is_free(locked, settings):
    settings.RECONCILE = {**settings.RECONCILE, "LOCK_WAIT": 20}
    Basket.objects.create(label="a")
    timer = Timer(1.6, locked)
    timer.start()
    with capture_logs() as logged:
        found = unchecked()
    timer.join()
    assert (found.error, found.tally.total) == (None, 1)
    assert WAITS in [each["event"] for each in logged]


def test_a_check_that_need_not_wait_says_nothing():
    Basket.objects.create(label="a")
    before = dialect_of("default")._read_lock_wait()
    with capture_logs() as logged:
        assert checked(RULE).tally.total == 1
    assert WAITS not in [each["event"] for each in logged]
    assert dialect_of("default")._read_lock_wait() == before


def test_a_caller_s_transaction_keeps_its_own_limit():
    with transaction.atomic():
        before = dialect_of("default")._read_lock_wait()
        with dialect_of("default").limit_lock_waits(2, lambda: None):
            assert dialect_of("default")._read_lock_wait() == before
