"""What databases do beside other sessions, as facts that overturn the obvious design, and what a repair makes of them.

A test whose name begins with `fact` shows the obvious design going wrong; the ones beside it, the repair's own.
"""

import os
import sqlite3
import threading
import time
import uuid
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest
from django.db import OperationalError, connection, transaction
from django.db.models import Count, F
from django.utils import timezone

from reconcile import HaveRow, HaveValues, Rule
from reconcile.core.row_locks import Lock
from reconcile.db.dialects import dialect_of
from reconcile.models import Change, Outcome, Run, WorkItem
from reconcile.repair.fault_injection import Step, listen
from reconcile.repair.repairing import RepairWork
from tests.helpers import Session, repaired
from tests.protocol.killing import assert_killed, forked, kill
from tests.protocol.works import committing
from tests.repair.test_chunk import executor_of
from tests.zoo.models import Basket, Bill, Player, Team

pytestmark = committing

BILL = Rule(name="bill", every=Basket, must=HaveRow(Bill, link={"basket_number": F("pk")}))
COUNT = Rule(name="count", every=Team, must=HaveValues(player_count=Count("players")))

sqlite_only = pytest.mark.skipif("connection.vendor != 'sqlite'", reason="needs SQLite")


WAITS_FOR_ME = """
    SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid)))
"""


def until_somebody_waits(*, seconds):
    """Until another session waits for a lock of this one's, but no longer than that; MariaDB isn't asked."""
    if connection.vendor != "postgresql":
        time.sleep(seconds)
        return
    until = time.monotonic() + seconds
    with connection.cursor() as cursor:
        while time.monotonic() < until:
            cursor.execute(WAITS_FOR_ME)
            if cursor.fetchone()[0]:
                return
            time.sleep(0.02)


@contextmanager
def handler_in_flight(act):
    """Another session that has done `act` and commits once somebody waits for it, or half a second after the block has begun."""
    done, go_on = threading.Event(), threading.Event()

    def handle():
        with transaction.atomic():
            act()
            done.set()
            assert go_on.wait(30)
            until_somebody_waits(seconds=0.5)

    session = Session(handle)
    session.start()
    assert done.wait(30)
    go_on.set()
    try:
        yield
    finally:
        session.join()


def raw(*statements, values, level="READ COMMITTED"):
    """A transaction of these statements; each waits for locks as long as it takes."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
        for statement in statements:
            cursor.execute(statement, values)


# Lock and check

LOCK = "SELECT id FROM zoo_basket WHERE id = %(key)s FOR NO KEY UPDATE"
INSERT = """
    INSERT INTO zoo_bill (basket_number, amount, score, kind, made_at, printed_at, details)
    SELECT b.id, 0, 0, 'bill', now(), now(), '{}' FROM zoo_basket b
    WHERE b.id = %(key)s AND NOT EXISTS (SELECT FROM zoo_bill WHERE basket_number = b.id)
"""


def bill_in_flight(basket):
    """A handler that locks the basket, as is agreed, and has written its bill."""

    def act():
        assert Basket.objects.select_for_update().get(pk=basket.pk)
        Bill.objects.create(basket_number=basket.pk)

    return handler_in_flight(act)


@pytest.mark.postgresql
def test_fact_a_check_in_the_statement_that_locks_doubles_the_row_of_a_handler_that_it_waited_for():
    basket = Basket.objects.create()
    with bill_in_flight(basket):
        raw(f"{INSERT} FOR NO KEY UPDATE OF b", values={"key": basket.pk})
    assert Bill.objects.count() == 2


@pytest.mark.postgresql
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_fact_a_check_after_the_lock_doubles_the_row_where_it_reads_an_older_snapshot(level):
    """That of SERIALIZABLE, too, as long as the handler's own transaction is not."""
    basket = Basket.objects.create()
    with bill_in_flight(basket):
        raw(LOCK, INSERT, values={"key": basket.pk}, level=level)
    assert Bill.objects.count() == 2


@pytest.mark.postgresql
def test_a_check_after_the_lock_in_a_statement_of_its_own_sees_the_row_of_a_handler_that_it_waited_for():
    basket = Basket.objects.create()
    with bill_in_flight(basket):
        raw(LOCK, INSERT, values={"key": basket.pk})
    assert Bill.objects.count() == 1


@pytest.mark.server
def test_a_repair_beside_a_handler_that_locks_the_record_writes_no_second_row():
    basket = Basket.objects.create()
    with bill_in_flight(basket):
        result = repaired(BILL)
    again = repaired(BILL)
    assert (result.written.insert, result.error, again.written.insert) == (0, None, 0)
    assert Bill.objects.count() == 1
    assert not Change.objects.exists()


class Unlocked(RepairWork):
    """A repair that takes no locks on records."""

    def lock(self, keys):
        return list(keys)


class Unchecked(Unlocked):
    def verify(self, locked, wrote):
        return set()


def wrongly(kind, rule):
    """A repair of the rule's first drift by another kind of work, which takes no locks on tables either."""
    compiled = rule.compile(using="default", now=timezone.now())
    finder = replace(compiled.finders[0], lock=Lock())
    run = Run.objects.create(kind="repair", now=timezone.now())
    outcome = Outcome.objects.create(run=run, rule=rule.name, position=0, state="repairing")
    work_item = WorkItem.objects.create(outcome=outcome, drift=finder.drift, token=uuid.uuid4())
    return executor_of(rule, finder, rule.remedy(finder.drift), work_item, work=kind)[0]


@pytest.mark.server
def test_fact_a_repair_without_the_record_s_lock_doubles_the_row_of_a_handler_in_flight():
    basket = Basket.objects.create()
    with bill_in_flight(basket):
        assert wrongly(Unlocked, BILL).execute([basket.pk]) == 1
    assert Bill.objects.count() == 2


# Counters

UPDATE = """
    UPDATE zoo_team SET player_count = (SELECT COUNT(*) FROM zoo_player WHERE team_id = zoo_team.id)
    WHERE id = %(key)s
"""


def team_of_two():
    team = Team.objects.create(name="x", player_count=7)
    Player.objects.bulk_create([Player(team=team) for _ in range(2)])
    return team


def player_in_flight(team):
    """A handler that has counted one player more, and written it."""

    def act():
        Team.objects.filter(pk=team.pk).update(player_count=F("player_count") + 1)
        Player.objects.bulk_create([Player(team=team)])

    return handler_in_flight(act)


def counted(team):
    team.refresh_from_db()
    return team.player_count, team.players.count()


@pytest.mark.postgresql
def test_fact_a_count_in_the_statement_that_waits_for_the_row_is_older_than_the_row():
    team = team_of_two()
    with player_in_flight(team):
        raw(UPDATE, values={"key": team.pk})
    assert counted(team) == (2, 3)


@pytest.mark.server
def test_fact_a_count_that_is_read_before_the_row_is_locked_is_older_than_the_row():
    team = team_of_two()
    with player_in_flight(team):
        number = team.players.count()
        Team.objects.filter(pk=team.pk).update(player_count=number)
    assert counted(team) == (2, 3)


@pytest.mark.server
def test_a_count_in_the_statement_after_the_lock_is_right():
    team = team_of_two()
    with player_in_flight(team):
        raw("SELECT id FROM zoo_team WHERE id = %(key)s FOR UPDATE", UPDATE, values={"key": team.pk})
    assert counted(team) == (3, 3)


@pytest.mark.server
def test_a_repair_beside_a_handler_that_counts_leaves_the_right_number():
    team = team_of_two()
    with player_in_flight(team):
        result = repaired(COUNT)
    assert (result.error, result.skipped) == (None, 0)
    assert counted(team) == (3, 3)
    assert repaired(COUNT).written.update == 0


@pytest.mark.postgresql
def test_fact_a_repair_without_the_record_s_lock_and_the_verification_writes_an_old_count():
    team = team_of_two()
    with player_in_flight(team):
        assert wrongly(Unchecked, COUNT).execute([team.pk]) == 1
    assert counted(team) == (2, 3)


@pytest.mark.postgresql
def test_an_old_count_would_be_found_by_the_verification_and_rolled_back():
    team = team_of_two()
    chunks = wrongly(Unlocked, COUNT)
    steps = []
    with player_in_flight(team), listen(steps.append):
        assert chunks.execute([team.pk]) == 1
    # The first try was rolled back, and the second counts anew.
    assert (steps.count(Step.VERIFY), steps.count(Step.COMMIT)) == (2, 1)
    assert counted(team) == (3, 3)


# SQLite


@contextmanager
def writer(path, *, seconds):
    """A program that has the database for a while."""
    begun = threading.Event()

    def write():
        with closing(sqlite3.connect(path, isolation_level=None, timeout=5)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("UPDATE zoo_team SET points = points + 1")
            begun.set()
            time.sleep(seconds)
            other.execute("COMMIT")

    session = Session(write)
    session.start()
    assert begun.wait(30)
    try:
        yield
    finally:
        session.join()


@sqlite_only
def test_fact_a_transaction_that_begins_by_reading_fails_at_once_when_it_writes():
    team = Team.objects.create(name="x")
    path = connection.settings_dict["NAME"]
    assert connection.settings_dict["OPTIONS"]["timeout"] > 5
    with transaction.atomic():
        assert Team.objects.get() == team
        with writer_that_waits_to_commit(path):
            began = time.monotonic()
            with pytest.raises(OperationalError, match="locked"), transaction.atomic():
                Team.objects.update(points=5)
            assert time.monotonic() - began < 1


@contextmanager
def writer_that_waits_to_commit(path):
    """A program that has begun to write; it lets go again, since a reader keeps it from committing."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=5)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE zoo_team SET points = points + 1")
        yield
        other.execute("ROLLBACK")


@sqlite_only
def test_a_chunk_beside_a_writer_waits_for_its_turn():
    team = team_of_two()
    began = time.monotonic()
    with writer(connection.settings_dict["NAME"], seconds=0.7):
        chunks = repaired(COUNT)
        assert time.monotonic() - began > 0.5
    assert (chunks.written.update, chunks.skipped, chunks.left) == (1, 0, 0)
    assert counted(team) == (2, 2)


# A client that was killed


def seconds_until_free(begin, team):
    """How long a row stays locked whose holder is killed while its server still works on a statement of 3 seconds."""
    locked, tell = os.pipe()

    def holder():
        with begin(), connection.cursor() as cursor:
            assert list(Team.objects.select_for_update().filter(pk=team.pk))
            os.write(tell, b"locked")
            cursor.execute("SELECT pg_sleep(3)")

    with forked(holder) as child:
        os.close(tell)
        assert os.read(locked, 10) == b"locked"
        os.close(locked)
        time.sleep(0.2)
        kill(child)
        assert_killed(child)
    began = time.monotonic()
    with transaction.atomic():
        assert list(Team.objects.select_for_update().filter(pk=team.pk))
    return time.monotonic() - began


@pytest.mark.postgresql
def test_fact_a_server_that_works_for_a_killed_client_keeps_its_locks_until_it_is_done():
    assert seconds_until_free(transaction.atomic, Team.objects.create(name="x")) > 2


@pytest.mark.postgresql
def test_the_server_finds_out_within_a_second_that_a_repair_was_killed():
    assert seconds_until_free(dialect_of("default").transaction, Team.objects.create(name="x")) < 1
