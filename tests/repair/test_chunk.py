"""The chunk's transaction beside other sessions, real ones where the claim is about them."""

import threading
import uuid
from contextlib import contextmanager
from dataclasses import replace

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models import F
from django.utils import timezone

from reconcile import HaveRow, HaveValues, Rule, runs
from reconcile.core.drift import MISSING
from reconcile.core.row_locks import Lock
from reconcile.core.scopes import Keys
from reconcile.db.dialects import dialect_of
from reconcile.errors import ChunkConflictError, GivenUpError, LeaseLostError, NotRepairedError
from reconcile.models import Change, Chunk, Outcome, Run, WorkItem
from reconcile.remedies import Insert, Remedy, WriteResult
from reconcile.repair.attempt import LeasedItem
from reconcile.repair.chunk import ChunkExecutor
from reconcile.repair.fault_injection import Step, listen
from reconcile.repair.quarantine import Quarantine
from reconcile.repair.repairing import RepairWork
from reconcile.runs import written_rows
from sample_project.shop.models import Invoice, Order
from tests.helpers import Session, repaired
from tests.zoo.models import Basket, Bill, Contact, Player, Team

INVOICE = Rule(
    name="invoice", every=Order, must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")})
)


class Clumsy(Remedy):
    """A remedy that fails as often as it is told to, for some keys."""

    verbs = ("insert",)

    def __init__(self, error, *, times=10**9, keys=()):
        self.error, self.left, self.keys = error, times, set(keys)

    def write(self, finder, keys, journal):
        if self.left and (not self.keys or self.keys & set(keys.values)):
            self.left -= 1
            raise self.error
        return Insert().write(finder, keys, journal)


def executor_of(rule, finder, remedy, work_item, kind=ChunkExecutor, work=RepairWork):
    """What does the work of one work item, and the pauses that it makes."""
    paused = []
    executor = kind(
        work=work(finder=finder, remedy=remedy),
        item=LeasedItem(rule=rule.name, work_item=work_item, using="default"),
        quarantine=Quarantine(rule=rule.name),
        pause=paused.append,
    )
    return executor, paused


def chunks_for(rule, remedy=None):
    run = Run.objects.create(kind="repair", now=timezone.now())
    outcome = Outcome.objects.create(run=run, rule=rule.name, position=0, state="repairing")
    token = uuid.uuid4()
    work_item = WorkItem.objects.create(outcome=outcome, drift="missing", token=token)
    compiled = rule.compile(using="default", now=timezone.now())
    finder = next(finder for finder in compiled.finders if finder.drift is MISSING)
    return executor_of(rule, finder, remedy or Insert(), work_item)


def missing(number):
    Order.objects.bulk_create([Order(total=3) for _ in range(number)])
    return list(Order.objects.order_by("pk").values_list("pk", flat=True))


@contextmanager
def locked_by_another_session(rows):
    """A handler that has locked `rows` and not committed yet."""
    locked, done = threading.Event(), threading.Event()

    def handler():
        with transaction.atomic():
            assert list(rows.select_for_update())
            locked.set()
            assert done.wait(30)

    session = Session(handler)
    session.start()
    assert locked.wait(30)
    try:
        yield
    finally:
        done.set()
        session.join()


@pytest.mark.django_db
def test_the_cursor_and_the_counts_are_those_of_the_chunk():
    keys = missing(3)
    chunks, _ = chunks_for(INVOICE)
    assert chunks.execute(keys) == 3
    work_item = WorkItem.objects.get()
    assert (
        work_item.cursor,
        work_item.chunks,
        written_rows(work_item.outcome).total,
        work_item.quarantined,
    ) == (
        str(keys[-1]),
        1,
        3,
        0,
    )
    assert written_rows(work_item.outcome).insert == 3


@pytest.mark.django_db
def test_a_worker_that_believes_its_last_chunk_undone_which_stands_writes_nothing():
    keys = missing(3)
    chunks, _ = chunks_for(INVOICE)
    WorkItem.objects.update(chunks=1)
    with pytest.raises(LeaseLostError):
        chunks.execute(keys)
    assert not Invoice.objects.exists()
    assert (WorkItem.objects.get().chunks, Chunk.objects.count()) == (1, 0)


@pytest.mark.django_db
def test_records_that_somebody_mended_after_the_check_are_passed_over_without_a_retry():
    keys = missing(6)
    chunks, paused = chunks_for(INVOICE)
    Invoice.objects.bulk_create([Invoice(order_id=key, amount=3) for key in keys[:2]])
    assert chunks.execute(keys) == 4
    assert (paused, chunks.quarantine.failures, chunks.quarantine.to_retry) == ([], {}, [])
    assert Change.objects.count() == 4
    assert chunks.execute(keys) == 0


@pytest.mark.mariadb
@pytest.mark.django_db(transaction=True)
def test_the_session_s_lock_wait_is_set_back_after_a_chunk():
    def timeout():
        with connection.cursor() as cursor:
            cursor.execute("SELECT @@session.innodb_lock_wait_timeout")
            return cursor.fetchone()[0]

    before = timeout()
    missing(2)
    assert repaired(INVOICE).written.insert == 2
    assert timeout() == before > 1


@pytest.mark.django_db
def test_a_worker_that_was_taken_over_writes_nothing():
    keys = missing(3)
    chunks, _ = chunks_for(INVOICE)
    WorkItem.objects.update(token=uuid.uuid4())
    with pytest.raises(LeaseLostError, match="has taken over"):
        chunks.execute(keys)
    assert not Invoice.objects.exists()
    assert not Change.objects.exists()


@pytest.mark.django_db
def test_a_worker_whose_heartbeat_is_due_is_fenced_while_it_walks():
    chunks, _ = chunks_for(INVOICE)
    chunks.beat()
    chunks._last_beat -= 60
    before = WorkItem.objects.get().heartbeat
    chunks.beat()
    assert WorkItem.objects.get().heartbeat > before
    WorkItem.objects.update(token=uuid.uuid4())
    chunks._last_beat -= 60
    with pytest.raises(LeaseLostError):
        chunks.beat()


@pytest.mark.django_db
def test_a_transient_failure_is_tried_again_after_a_pause():
    keys = missing(4)
    chunks, paused = chunks_for(INVOICE, Clumsy(ChunkConflictError("raced"), times=2))
    assert chunks.execute(keys) == 4
    assert len(paused) == 2
    assert all(0 <= seconds <= 5 for seconds in paused)
    assert Change.objects.count() == 4


@pytest.mark.django_db
def test_a_chunk_that_fails_is_halved_down_to_the_record_that_fails():
    keys = missing(9)
    chunks, _ = chunks_for(INVOICE, Clumsy(NotRepairedError("still wrong"), keys=[keys[4]]))
    assert chunks.execute(keys) == 8
    assert (chunks.quarantine.failures, chunks.quarantine.to_retry) == ({}, [keys[4]])
    chunks.execute(chunks.quarantine.to_retry)
    assert chunks.quarantine.failures == {keys[4]: "still wrong"}
    assert set(Order.objects.filter(invoice=None).values_list("pk", flat=True)) == {keys[4]}


@pytest.mark.django_db
def test_a_rule_is_given_up_when_more_records_fail_than_are_mended():
    keys = missing(80)
    chunks, _ = chunks_for(INVOICE, Clumsy(NotRepairedError("hopeless")))
    with pytest.raises(GivenUpError, match="50 records failed and 0 were mended"):
        chunks.execute(keys)
    assert not Invoice.objects.exists()
    assert len(chunks.quarantine.failures) == 50


@pytest.mark.django_db
def test_a_record_that_somebody_writes_between_its_write_and_its_verification_is_tried_again():
    (key,) = missing(1)
    chunks, paused = chunks_for(INVOICE, Clumsy(NotRepairedError("still wrong"), times=2))
    assert chunks.execute([key]) == 1
    assert (
        len(paused),
        chunks.quarantine.failures,
        chunks.quarantine.to_retry,
        chunks.quarantine.unverified,
    ) == (2, {}, [], set())


@pytest.mark.django_db
def test_a_record_that_was_not_mended_at_first_is_mended_at_the_end():
    (key,) = missing(1)
    chunks, paused = chunks_for(INVOICE, Clumsy(NotRepairedError("still wrong"), times=5))
    assert chunks.execute([key]) == 0
    assert (len(paused), chunks.quarantine.to_retry, chunks.quarantine.unverified) == (4, [key], {key})
    assert chunks.execute([key]) == 1
    assert (chunks.quarantine.failures, chunks.quarantine.unverified) == ({}, set())


@pytest.mark.django_db
def test_the_tries_are_bounded_where_others_are_in_the_way_of_every_record():
    keys = missing(200)
    clumsy = Clumsy(ChunkConflictError("raced"))
    chunks, paused = chunks_for(INVOICE, clumsy)
    for first in range(0, 200, 10):
        chunks.execute(keys[first : first + 10])
    assert sorted(chunks.quarantine.to_retry) == keys
    assert (chunks.quarantine.failures, {*chunks.quarantine.last_errors.values()}) == ({}, {"raced"})
    assert 10**9 - clumsy.left < 250
    again, chunks.quarantine.to_retry = chunks.quarantine.to_retry, []
    before = len(paused)
    chunks.execute(again)
    assert (sorted(chunks.quarantine.to_retry), len(paused)) == (keys, before)


@pytest.mark.django_db
def test_once_a_chunk_is_committed_again_the_next_that_fails_is_halved():
    keys = missing(70)
    chunks, _ = chunks_for(INVOICE, Clumsy(ChunkConflictError("raced"), keys=[*keys[:20], keys[60]]))
    for key in keys[:20]:
        chunks.execute([key])
    assert chunks.execute(keys[20:50]) == 30
    assert chunks.execute(keys[50:]) == 19
    assert sorted(chunks.quarantine.to_retry) == [*keys[:20], keys[60]]


@pytest.mark.django_db
def test_a_duplicate_that_is_met_at_each_try_is_a_failure_and_not_held():
    """MariaDB can't tell one that another session has just committed from one that the repair itself makes."""
    Contact.objects.bulk_create([Contact(email=f"{n}@x", code=f"c{n}") for n in range(4)])
    rule = Rule(name="code", every=Contact, must=HaveValues(code="same"))
    result = repaired(rule)
    assert (result.written.update, result.left, result.skipped) == (1, 3, 3)
    assert "3 records could not be repaired" in result.why_stopped


@pytest.mark.django_db
def test_a_table_that_cannot_be_locked_leaves_none_of_the_chunk_s_records_out():
    keys = missing(3)
    chunks, _ = chunks_for(INVOICE)
    chunks.work.finder = replace(chunks.work.finder, lock=Lock(tables=(Invoice,)))

    def refused(step):
        if step is Step.TABLES:
            raise DatabaseError("no such lock")

    with listen(refused):
        assert chunks.execute(keys) == 0
    assert chunks.quarantine.failures == dict.fromkeys(keys, "no such lock")
    assert WorkItem.objects.get().quarantined == 3


@pytest.mark.django_db
def test_the_proof_of_a_chunk_names_only_records_that_had_drifted_under_their_lock():
    keys = missing(3)
    chunks, _ = chunks_for(INVOICE)
    Invoice.objects.bulk_create([Invoice(order_id=keys[1], amount=3)])
    assert chunks.execute(keys) == 2
    assert Chunk.objects.get().keys == [keys[0], keys[2]]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "act", [lambda: Invoice.objects.update(amount=3), lambda: Invoice.objects.filter(pk=1).update(amount=3)]
)
def test_the_proof_of_an_update_leaves_out_what_somebody_had_mended_before_the_lock(act):
    keys = missing(3)
    Invoice.objects.bulk_create([Invoice(pk=n + 1, order_id=key, amount=1) for n, key in enumerate(keys)])

    def meanwhile(step):
        if step is Step.FENCE:
            act()

    with listen(meanwhile):
        result = repaired(INVOICE)
    assert (result.left, result.skipped) == (0, 0)
    noted = [key for chunk in Chunk.objects.all() for key in chunk.keys]
    assert len(noted) == result.written.update < 3
    assert keys[0] not in noted


@pytest.mark.django_db
def test_a_row_that_is_held_hides_no_other_record_that_is_not_mended():
    keys = missing(2)

    class Sparing(Insert):
        def write(self, finder, keys, journal):
            super().write(finder, Keys(()), journal)
            return WriteResult.of("insert", 0, waiting=[keys.values[0]])

    chunks, _ = chunks_for(INVOICE, Sparing())
    assert chunks.execute(keys) == 0
    assert chunks.quarantine.to_retry == [keys[0], keys[1]]
    assert chunks.quarantine.unverified == set()
    assert Chunk.objects.count() == 2


@pytest.mark.django_db
def test_what_a_rolled_back_chunk_wrote_is_gone_with_its_journal():
    keys = missing(2)

    class Late(Insert):
        def write(self, finder, keys, journal):
            super().write(finder, keys, journal)
            raise NotRepairedError("after the write")

    chunks, _ = chunks_for(INVOICE, Late())
    assert chunks.execute(keys) == 0
    assert (Invoice.objects.count(), Change.objects.count(), WorkItem.objects.get().cursor) == (0, 0, None)


@pytest.mark.django_db
def test_a_remedy_that_mends_nothing_is_found_out_by_the_verification():
    keys = missing(1)

    class Lazy(Insert):
        def write(self, finder, keys, journal):
            return WriteResult()

    chunks, _ = chunks_for(INVOICE, Lazy())
    chunks.execute(keys)
    chunks.execute(keys)
    assert "is still missing after the repair" in chunks.quarantine.failures[keys[0]]


@pytest.mark.django_db(transaction=True)
def test_a_repair_refuses_to_be_nested_in_a_transaction():
    missing(1)
    with transaction.atomic():
        result = repaired(INVOICE)
    assert "durable" in result.why_stopped
    assert not Invoice.objects.exists()


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_a_repair_in_repeatable_read_is_refused_with_the_way_out():
    missing(1)
    level = {"postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ"}
    with connection.cursor() as cursor:
        cursor.execute(
            level.get(connection.vendor, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        )
    try:
        result = repaired(INVOICE)
    finally:
        connection.close()
    assert "runs transactions in REPEATABLE READ" in result.why_stopped
    assert "set OPTIONS['isolation_level']" in result.why_stopped
    assert not Invoice.objects.exists()


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_a_record_that_another_session_holds_is_skipped_and_reported_and_repaired_later():
    held, *_ = missing(5)
    with locked_by_another_session(Order.objects.filter(pk=held)):
        result = repaired(INVOICE)
    assert (result.written.insert, result.left, result.skipped, result.incomplete) == (4, 1, 1, True)
    assert "other sessions hold" in result.why_stopped
    assert repaired(INVOICE).written.insert == 1


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_a_chunk_waits_for_no_record_and_writes_none_that_it_has_not_locked():
    keys = missing(4)
    chunks, paused = chunks_for(INVOICE)
    with locked_by_another_session(Order.objects.filter(pk__in=keys[1:3])):
        assert chunks.execute(keys) == 2
        assert {*Invoice.objects.values_list("order_id", flat=True)} == {keys[0], keys[3]}
    assert (paused, chunks.quarantine.to_retry, chunks.quarantine.failures) == ([], keys[1:3], {})


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_an_invoice_that_another_session_holds_is_skipped_and_the_others_are_corrected():
    held, *_ = missing(4)
    Invoice.objects.bulk_create([Invoice(order=order, amount=1) for order in Order.objects.all()])
    with locked_by_another_session(Invoice.objects.filter(order=held)):
        result = repaired(INVOICE)
    assert (result.written.update, result.left, result.skipped) == (3, 1, 1)
    assert "other sessions hold" in result.why_stopped
    assert repaired(INVOICE).written.update == 1


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_a_handler_in_flight_that_inserts_the_invoice_is_neither_doubled_nor_killed():
    """On PostgreSQL the foreign key locks at COMMIT, so the repair meets the handler only at the unique constraint."""
    inserted, go_on = threading.Event(), threading.Event()
    keys = missing(3)

    def handler():
        with transaction.atomic():
            Invoice.objects.bulk_create([Invoice(order_id=keys[1], amount=3)])
            inserted.set()
            assert go_on.wait(30)

    def repairer():
        return repaired(INVOICE)

    session, repair = Session(handler), Session(repairer)
    session.start()
    assert inserted.wait(30)
    repair.start()
    threading.Event().wait(0.4)
    go_on.set()
    session.join()
    result = repair.join()
    again = repaired(INVOICE)
    assert (result.error, result.left, result.skipped, result.why_stopped) == (None, 0, 0, "")
    assert (again.left, again.why_stopped) == (0, "")
    assert sorted(Invoice.objects.values_list("order", flat=True)) == keys
    journalled = set(Change.objects.values_list("key", flat=True))
    handlers_own = str(Invoice.objects.get(order=keys[1]).pk)
    assert handlers_own not in journalled
    assert len(journalled) == 2


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_a_counter_that_is_incremented_meanwhile_is_not_overwritten():
    from django.db.models import Count

    rule = Rule(name="count", every=Team, must=HaveValues(player_count=Count("players")))
    team = Team.objects.create(name="x")
    Player.objects.create(team=team)
    inserted, go_on = threading.Event(), threading.Event()

    def handler():
        with transaction.atomic():
            Team.objects.filter(pk=team.pk).update(player_count=F("player_count") + 1)
            Player.objects.bulk_create([Player(team=team)])
            inserted.set()
            assert go_on.wait(30)

    session = Session(handler)
    session.start()
    assert inserted.wait(30)
    held = repaired(rule)
    go_on.set()
    session.join()
    assert (held.written.update, held.skipped) == (0, 1)
    repaired(rule)
    team.refresh_from_db()
    assert team.player_count == 2


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_two_repairs_at_once_repair_each_record_once():
    missing(400)
    rules = {INVOICE.name: INVOICE}
    sessions = [Session(lambda: runs.repair(rules, using="default")[1][0]) for _ in range(2)]
    for session in sessions:
        session.start()
    results = [session.join() for session in sessions]
    assert Invoice.objects.count() == 400
    assert Change.objects.count() == sum(result.written.insert for result in results) == 400


@pytest.mark.django_db
def test_records_are_found_in_blocks_where_the_scope_is_not_carried():
    from django.db.models import CharField
    from django.db.models.functions import Cast

    from reconcile.repair.drifted_keys import DriftedKeys
    from tests.zoo.models import Visit

    rule = Rule(name="v", every=Basket, must=HaveRow(Visit, link={"page_code": Cast("pk", CharField())}))
    Basket.objects.bulk_create([Basket() for _ in range(7)])
    compiled = rule.compile(using="default", now=timezone.now())
    chunks, _ = chunks_for(rule)
    keys = DriftedKeys(chunks.beat, compiled.source, 0, compiled.finders[0])
    found = list(keys.within(None))
    assert found == sorted(Basket.objects.values_list("pk", flat=True))
    assert list(keys.beyond(found[2])) == found[3:]


def test_programming_errors_and_lost_connections_are_not_transient():
    from django.db import OperationalError, ProgrammingError

    dialect = dialect_of("default")
    assert dialect.is_transient(ChunkConflictError("x"))
    assert not dialect.is_transient(ProgrammingError(1064, "syntax"))
    assert not dialect.is_transient(OperationalError(2013, "lost connection"))
    assert not dialect.is_transient(ValueError("x"))


@pytest.mark.django_db
def test_a_programming_error_stops_the_rule_at_once():
    keys = missing(8)
    from django.db import ProgrammingError

    from reconcile.errors import EvaluationError

    chunks, paused = chunks_for(INVOICE, Clumsy(ProgrammingError("no such function")))
    with pytest.raises(EvaluationError, match="no such function"):
        chunks.execute(keys)
    assert paused == []


@pytest.mark.django_db
def test_bills_without_a_constraint_are_not_doubled_by_a_second_repair():
    rule = Rule(name="bill", every=Basket, must=HaveRow(Bill, link={"basket_number": F("pk")}))
    Basket.objects.bulk_create([Basket() for _ in range(3)])
    assert repaired(rule).written.insert == 3
    assert repaired(rule).written.insert == 0
    assert Bill.objects.count() == 3
