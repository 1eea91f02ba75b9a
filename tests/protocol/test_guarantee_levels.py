"""What each guarantee keeps apart, beside live handlers in sessions of their own.

Each fact stands by itself first, in plain SQL; then what a repair makes of it. A handler stops where it calls
`pause()`, until the test lets it go on.
"""

import threading
import time
from contextlib import contextmanager, suppress

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.models import Count, F

from reconcile import HaveRow, Insert, Rule
from reconcile.core.drift import Guarantee
from reconcile.db.dialects import dialect_of
from sample_project.shop.models import Invoice, Order
from tests.helpers import Session, assert_finds, repaired
from tests.repair.test_chunk import chunks_for
from tests.zoo.models import Basket, Bill, Parcel, Stamp

pytestmark = pytest.mark.django_db(transaction=True)

INVOICE = Rule(
    name="invoice", every=Order, must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")})
)
STAMP = Rule(name="stamp", every=Parcel, must=HaveRow(Stamp, link={"parcel": F("pk")}))
OWED = HaveRow(Bill, link={"basket_number": F("pk")})
BILL = Rule(name="bill", every=Basket, must=OWED)


def nothing():
    """What a handler that doesn't stop calls."""


def add_bill(*, instance, pause):
    """Looks, and inserts what isn't there."""
    there = Bill.objects.filter(basket_number=instance.pk).exists()
    pause()
    if not there:
        Bill.objects.create(basket_number=instance.pk)


@contextmanager
def in_flight(act):
    """A handler that has come to its pause; the function lets it go on, and gives what it raised."""
    reached, go = threading.Event(), threading.Event()

    def pause():
        reached.set()
        assert go.wait(30)

    session = Session(lambda: act(pause))
    session.start()
    assert reached.wait(30)

    def finish():
        go.set()
        return failure_of(session)

    try:
        yield finish
    finally:
        go.set()
        with suppress(Exception):
            session.join()


def failure_of(session):
    try:
        session.join()
    except (OperationalError, IntegrityError) as error:
        return error
    return None


def started(act):
    session = Session(act)
    session.start()
    return session


def until_somebody_waits():
    """Until a session of PostgreSQL waits for a lock."""
    for _ in range(1_000):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) "
                "WHERE NOT granted AND datname = current_database()"
            )
            if cursor.fetchone()[0]:
                return
        time.sleep(0.01)
    raise AssertionError("nobody waits")


def stamps():
    """How many stamps each parcel has."""
    return list(Parcel.objects.order_by("pk").annotate(n=Count("stamps")).values_list("n", flat=True))


def insert_stamp(parcel, pause, *, weigh=False):
    """A handler of one transaction: it inserts, is in flight for a while, and perhaps writes its record, too."""
    with transaction.atomic():
        Stamp.objects.create(parcel_id=parcel.pk)
        pause()
        if weigh:
            Parcel.objects.filter(pk=parcel.pk).update(weight=1)


def deadlocked(*failures):
    return ["deadlock" in str(each) for each in failures if each is not None]


# At `lock`: a handler in flight.


@pytest.mark.postgresql
@pytest.mark.parametrize("no_key", [False, True])
def test_fact_a_lock_on_the_parent_lets_a_handler_by_that_has_inserted_and_not_committed(no_key):
    """Django's foreign keys are deferred: theirs is taken at COMMIT."""
    parcel = Parcel.objects.create()
    with in_flight(lambda pause: insert_stamp(parcel, pause)) as finish:
        with transaction.atomic():
            assert list(Parcel.objects.select_for_update(no_key=no_key).filter(pk=parcel.pk))
            assert not Stamp.objects.filter(parcel=parcel).exists()
            Stamp.objects.create(parcel=parcel)
        assert finish() is None
    assert stamps() == [2]


@pytest.mark.server
def test_at_lock_a_handler_in_flight_and_a_repair_make_one_row():
    """On PostgreSQL by the table's lock, on MariaDB by the parent's, since the foreign key is checked at once."""
    assert STAMP.guarantee("default") == Guarantee.LOCK
    parcels = Parcel.objects.bulk_create([Parcel() for _ in range(3)])
    parcel = Parcel.objects.order_by("pk")[1]
    with in_flight(lambda pause: insert_stamp(parcel, pause)) as finish:
        repair = started(lambda: repaired(STAMP))
        # Longer than a chunk waits for a lock: it yields, and is tried again.
        time.sleep(0.5)
        assert finish() is None
    assert repair.join().error is None
    again = repaired(STAMP)
    assert (again.error, again.left) == (None, 0)
    assert stamps() == [1] * len(parcels)


@pytest.mark.postgresql
def test_fact_a_table_lock_that_comes_after_the_parent_s_kills_one_of_the_two():
    parcel = Parcel.objects.create()

    def wrong_order():
        with transaction.atomic(), connection.cursor() as cursor:
            assert list(Parcel.objects.select_for_update(no_key=True).filter(pk=parcel.pk))
            cursor.execute("LOCK TABLE zoo_stamp IN SHARE ROW EXCLUSIVE MODE")

    with in_flight(lambda pause: insert_stamp(parcel, pause, weigh=True)) as finish:
        repair = started(wrong_order)
        until_somebody_waits()
        assert deadlocked(finish(), failure_of(repair)) == [True]


@pytest.mark.postgresql
def test_a_repair_locks_the_table_first_and_the_handler_goes_through():
    parcel = Parcel.objects.create()
    with in_flight(lambda pause: insert_stamp(parcel, pause, weigh=True)) as finish:
        repair = started(lambda: repaired(STAMP))
        until_somebody_waits()
        with transaction.atomic():
            # While it waits for the table it holds no record, which would have the handler wait for it.
            assert Parcel.objects.select_for_update(nowait=True).get(pk=parcel.pk)
        assert finish() is None
    result = repair.join()
    assert (result.error, result.left, result.written.total) == (None, 0, 0)
    assert stamps() == [1]


@pytest.mark.postgresql
def test_a_repair_whose_table_a_handler_holds_for_long_gives_way_and_says_what_is_left():
    parcel = Parcel.objects.create()
    with in_flight(lambda pause: insert_stamp(parcel, pause)) as finish:
        result = repaired(STAMP)
        assert finish() is None
    assert (result.written.total, result.left, result.skipped) == (0, 1, 1)
    assert [each["key"] for each in result.refused] == [str(parcel.pk)]
    assert "lock timeout" in result.refused[0]["why"]
    assert stamps() == [1]


# At `constraint`: the constraint, and locks that don't get in a handler's way.


def insert_invoice(order, pause):
    with transaction.atomic():
        Invoice.objects.create(order_id=order.pk, amount=order.total)
        pause()


@pytest.mark.postgresql
def test_fact_for_update_on_the_parent_deadlocks_with_a_handler_at_the_unique_constraint():
    order = Order.objects.bulk_create([Order(total=3)])[0]

    def obvious():
        with transaction.atomic():
            assert list(Order.objects.select_for_update().filter(pk=order.pk))
            Invoice.objects.bulk_create([Invoice(order=order, amount=3)], ignore_conflicts=True)

    with in_flight(lambda pause: insert_invoice(order, pause)) as finish:
        repair = started(obvious)
        until_somebody_waits()
        assert deadlocked(finish(), failure_of(repair)) == [True]
    assert Invoice.objects.count() <= 1


@pytest.mark.postgresql
@pytest.mark.parametrize("mode", ["SHARE", ""])
def test_two_chunks_that_lock_a_table_come_one_after_the_other(mode):
    """SHARE keeps handlers out, too, but not a second repair: both would hold it, and deadlock at their first row."""

    def lock():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '300ms'")
            if mode:
                cursor.execute(f"LOCK TABLE zoo_stamp IN {mode} MODE")
            else:
                dialect_of("default").lock_tables([Stamp])

    def first(pause):
        with transaction.atomic():
            lock()
            pause()

    with in_flight(first) as finish:
        second = failure_of(started(lambda: first(nothing)))
        assert finish() is None
    assert (second is None) == (mode == "SHARE")


@pytest.mark.postgresql
def test_a_chunk_meets_the_handler_at_the_unique_constraint_and_neither_holds_the_other_up():
    order = Order.objects.bulk_create([Order(total=3)])[0]
    met = []

    class Noting(Insert):
        def write(self, finder, keys, journal):
            try:
                return super().write(finder, keys, journal)
            except Exception as error:
                met.append(type(error))
                raise

    with in_flight(lambda pause: insert_invoice(order, pause)) as finish:
        chunks, _ = chunks_for(INVOICE, Noting())
        repair = started(lambda: chunks.execute([order.pk]))
        until_somebody_waits()
        assert finish() is None
    assert (repair.join(), chunks.quarantine.failures) == (0, {})
    # Neither a deadlock nor a time-out: it saw the handler's row, and left the order alone.
    assert met == []
    assert Invoice.objects.count() == 1


# A late handler, which has looked before the repair and inserts after it.


def test_at_lock_a_late_handler_that_inserts_blindly_makes_a_second_row():
    basket = Basket.objects.create()
    with in_flight(lambda pause: add_bill(instance=basket, pause=pause)) as finish:
        assert repaired(BILL).written.insert == 1
        assert finish() is None
    first, second = Bill.objects.order_by("pk")
    assert_finds(BILL, extra=[second])
    assert first.basket_number == second.basket_number == basket.pk


def test_at_constraint_it_gets_an_error_instead():
    order = Order.objects.bulk_create([Order(total=3)])[0]

    def late(pause):
        assert not Invoice.objects.filter(order=order).exists()
        pause()
        Invoice.objects.create(order_id=order.pk, amount=3)

    with in_flight(late) as finish:
        assert repaired(INVOICE).written.insert == 1
        assert isinstance(finish(), IntegrityError)
    assert Invoice.objects.count() == 1
