"""What InnoDB does beside other sessions, as a fact, and what a repair makes of it. Real sessions throughout."""

import threading
import time
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest
from django.db import DataError, IntegrityError, OperationalError, connection, transaction
from django.db.models import Count, F, Q
from django.db.models.functions import Repeat

from reconcile import HaveRow, HaveValues, Rule
from reconcile.db.dialects import dialect_of
from reconcile.db.statements import KEY, WANTED, update_from
from reconcile.models import Change
from reconcile.repair.fault_injection import Step, listen
from tests.helpers import Session, repaired
from tests.protocol.traffic import Ledger, in_the_last_deadlock, lost_to_each_other, session_number
from tests.zoo.models import Badge, Basket, Bill, Device, Match, Player, Team

pytestmark = [pytest.mark.mariadb, pytest.mark.django_db(transaction=True)]

LOCK_WAIT, DEADLOCK = 1205, 1213

COUNT = Rule(name="count", every=Team, must=HaveValues(player_count=Count("players")))
ADULTS = Rule(
    name="adults", every=Team, must=HaveValues(player_count=Count("players", filter=Q(players__age__gt=17)))
)
MATCH = Rule(name="match", every=Team, must=HaveRow(Match, link={"team": F("pk")}))

BILL = Rule(name="bill", every=Basket, must=HaveRow(Bill, link={"basket_number": F("pk")}))

FROM_A_SELECT = """
    UPDATE zoo_team JOIN (
        SELECT DISTINCT * FROM (
            SELECT team_id AS k, COUNT(*) AS n FROM zoo_player WHERE team_id = %s GROUP BY team_id
        ) AS inner_e
    ) AS e ON zoo_team.id = e.k SET zoo_team.player_count = e.n
"""


def test_a_deadlock_between_two_handlers_is_told_from_one_with_a_repairer():
    """What the tests of live traffic go by."""
    first, second = Team.objects.create(), Team.objects.create()
    both, ledger = threading.Barrier(2), Ledger()

    def handler(*teams):
        number = session_number()
        with ledger.transacting("rename"):
            for team in teams:
                Team.objects.filter(pk=team.pk).update(name="theirs")
                if team is teams[0]:
                    both.wait(20)
        return number

    sessions = [Session(lambda: handler(first, second)), Session(lambda: handler(second, first))]
    for session in sessions:
        session.start()
    numbers = {session.join() for session in sessions}
    assert len(ledger.failed) == 1
    assert in_the_last_deadlock() == numbers
    assert lost_to_each_other(ledger)
    assert not lost_to_each_other(replace(ledger, repairers={min(numbers)}))
    assert not lost_to_each_other(replace(ledger, failed=["change: OperationalError: (1205, 'Lock wait')"]))


@contextmanager
def another_session(*, waits=0):
    """A function that runs a statement in a transaction of another session, which is rolled back in the end."""
    other = connection.copy()
    with closing(other):
        with other.cursor() as cursor:
            cursor.execute("SET SESSION innodb_lock_wait_timeout = %s", [waits])
        other.set_autocommit(False)

        def run(sql, *values):
            with other.cursor() as cursor:
                cursor.execute(sql, values)
                return cursor.fetchall() or cursor.rowcount

        yield run
        other.rollback()


@contextmanager
def lock_waits_of(seconds):
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION innodb_lock_wait_timeout = %s", [seconds])
    try:
        yield
    finally:
        connection.close()


def team(players=0, **values):
    made = Team.objects.create(name="team", **values)
    Player.objects.bulk_create([Player(team=made) for _ in range(players)])
    return made


def counted(teams):
    """The SELECT of a correction: the teams that are off, and their true number of players."""
    rows = teams.annotate(**{KEY: F("pk"), WANTED.format("player_count"): Count("players")})
    return rows.exclude(player_count=F(WANTED.format("player_count"))).values_list(
        KEY, WANTED.format("player_count")
    )


def code(error):
    return error.args[0]


# What an UPDATE locks


def test_fact_an_update_from_a_select_locks_the_rows_that_the_select_reads():
    made = team(players=2)
    with another_session() as other, transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(FROM_A_SELECT, [made.pk])
        with pytest.raises(OperationalError) as caught:
            other("UPDATE zoo_player SET age = 30 WHERE team_id = %s", made.pk)
    assert code(caught.value) == LOCK_WAIT


def test_fact_an_insert_from_a_select_locks_nothing_that_it_reads():
    made = team(players=2)
    with another_session() as other, transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO zoo_match (team_id, points) SELECT team_id, age FROM zoo_player")
        assert other("UPDATE zoo_player SET age = 30 WHERE team_id = %s", made.pk) == 2


def test_rows_that_a_repair_reads_stay_free_while_its_chunk_is_open():
    made = team(players=2)
    field = Team._meta.get_field("player_count")
    with another_session() as other, dialect_of("default").transaction():
        assert update_from(Team, [field], counted(Team.objects.all())) == 1
        assert other("UPDATE zoo_player SET age = 30 WHERE team_id = %s", made.pk) == 2
        with pytest.raises(OperationalError) as caught:
            other("UPDATE zoo_team SET points = 1 WHERE id = %s", made.pk)
    assert code(caught.value) == LOCK_WAIT
    assert Team.objects.get().player_count == 2


@pytest.mark.parametrize("number", [2, 3, 30])
def test_an_update_of_nearly_a_whole_table_passes_no_row_that_a_live_session_holds(number):
    teams = [team(players=1) for _ in range(number)]
    field = Team._meta.get_field("player_count")
    held = teams[number // 2].pk
    free = Team.objects.exclude(pk=held)
    with another_session() as other:
        other("UPDATE zoo_team SET points = 1 WHERE id = %s", held)
        with dialect_of("default").transaction():
            assert update_from(Team, [field], counted(free)) == number - 1
            assert other("UPDATE zoo_team SET points = 2 WHERE id = %s", held) == 1


# Who waits, and who dies


def test_fact_a_deadlock_with_a_heavier_session_kills_the_handler():
    made = team(players=1)
    held, over = threading.Event(), []

    def handler():
        with transaction.atomic():
            Player.objects.filter(team=made).update(age=30)
            held.set()
            time.sleep(0.3)
            Team.objects.filter(pk=made.pk).update(points=1)

    def handles():
        try:
            handler()
        except OperationalError as error:
            over.append(code(error))

    with transaction.atomic():
        Match.objects.bulk_create([Match(team=made) for _ in range(50)])
        assert Team.objects.select_for_update().get(pk=made.pk)
        session = Session(handles)
        session.start()
        assert held.wait(30)
        with connection.cursor() as cursor:
            cursor.execute(FROM_A_SELECT, [made.pk])
    session.join()
    assert over == [DEADLOCK]


def test_a_handler_that_writes_a_child_and_then_its_parent_outlives_every_repair():
    teams = [team(players=3).pk for _ in range(6)]
    over, handled = threading.Event(), []

    def handler(first):
        def handle():
            number = 0
            while not over.is_set():
                key = teams[(first + number) % len(teams)]
                with transaction.atomic():
                    Player.objects.filter(team=key).update(age=F("age") + 1)
                    # This handler forgets what it should count, so that there is always something to repair.
                    Team.objects.filter(pk=key).update(player_count=F("player_count") + 1)
                number += 1
            handled.append(number)

        return handle

    sessions = [Session(handler(first)) for first in (0, 3)]
    for session in sessions:
        session.start()
    results, until = [], time.monotonic() + 2.5
    while time.monotonic() < until:
        results.append(repaired(ADULTS))
    over.set()
    for session in sessions:
        session.join()
    assert min(handled) > 5
    assert sum(result.written.update for result in results) > 5
    assert {result.error for result in results} == {None}
    Team.objects.update(player_count=0)
    assert repaired(ADULTS).written.update == len(teams)


def test_a_chunk_doesn_t_wait_for_a_row_that_another_session_holds():
    made = team()
    with another_session() as other:
        other("UPDATE zoo_team SET points = 1 WHERE id = %s", made.pk)
        began = time.monotonic()
        with pytest.raises(OperationalError) as caught, dialect_of("default").transaction():
            Team.objects.update(points=2)
        assert time.monotonic() - began < 0.5
    assert code(caught.value) == LOCK_WAIT
    assert dialect_of("default").is_transient(caught.value)


def test_a_chunk_still_skips_locked_rows():
    free, held = team(), team()
    with another_session() as other:
        other("UPDATE zoo_team SET points = 1 WHERE id = %s", held.pk)
        with dialect_of("default").transaction():
            rows = Team.objects.filter(points=0).order_by("pk").select_for_update(skip_locked=True)
            assert [row.pk for row in rows] == [free.pk]


@pytest.mark.parametrize("seconds", [0, 7, 50])
def test_the_lock_wait_is_none_in_a_chunk_and_what_it_was_afterwards(seconds):
    def lock_wait():
        with connection.cursor() as cursor:
            cursor.execute("SELECT @@session.innodb_lock_wait_timeout")
            return cursor.fetchone()[0]

    with lock_waits_of(seconds):
        with dialect_of("default").transaction():
            assert lock_wait() == 0
        assert lock_wait() == seconds
        with pytest.raises(ValueError, match="a remedy"), dialect_of("default").transaction():
            raise ValueError("a remedy fails")
        assert lock_wait() == seconds


# Half a transaction


def test_fact_a_commit_after_a_lock_wait_keeps_the_half_that_was_done():
    made = team()
    with another_session() as other, lock_waits_of(1):
        other("UPDATE zoo_team SET points = 1 WHERE id = %s", made.pk)
        with connection.cursor() as cursor:
            cursor.execute("START TRANSACTION")
            cursor.execute("INSERT INTO zoo_page (code, visits) VALUES ('half', 0)")
            with pytest.raises(OperationalError) as caught:
                cursor.execute("UPDATE zoo_team SET points = 2 WHERE id = %s", [made.pk])
            cursor.execute("COMMIT")
            cursor.execute("SELECT code FROM zoo_page")
            assert cursor.fetchall() == (("half",),)
    assert code(caught.value) == LOCK_WAIT


def test_a_chunk_that_meets_a_held_row_is_rolled_back_whole():
    made = team()
    with another_session() as other:
        other("UPDATE zoo_team SET points = 1 WHERE id = %s", made.pk)
        with pytest.raises(OperationalError), dialect_of("default").transaction():
            Basket.objects.create(label="half")
            Team.objects.filter(pk=made.pk).update(points=2)
    assert not Basket.objects.exists()


# The parent's lock


def test_fact_a_handler_in_flight_that_has_inserted_a_child_holds_its_parent():
    free, parent = team(), team()
    with another_session() as other:
        other("INSERT INTO zoo_match (team_id, points) VALUES (%s, 0)", parent.pk)
        with transaction.atomic():
            rows = Team.objects.order_by("pk").select_for_update(skip_locked=True)
            assert [row.pk for row in rows] == [free.pk]


def test_a_row_that_a_handler_in_flight_inserts_is_not_doubled_without_a_unique_constraint():
    teams = [team() for _ in range(3)]
    inserted, go_on = threading.Event(), threading.Event()

    def handler():
        with transaction.atomic():
            Match.objects.create(team=teams[1])
            inserted.set()
            assert go_on.wait(30)

    session = Session(handler)
    session.start()
    assert inserted.wait(30)
    beside = repaired(MATCH)
    go_on.set()
    session.join()
    assert (beside.written.insert, beside.skipped) == (2, 1)
    assert repaired(MATCH).written.insert == 0
    assert sorted(Match.objects.values_list("team", flat=True)) == [each.pk for each in teams]


# INSERT IGNORE


def test_fact_ignoring_conflicts_hides_a_broken_reference_and_cuts_a_text():
    Player.objects.bulk_create([Player(team_id=404)], ignore_conflicts=True)
    Team.objects.bulk_create([Team(name="x" * 60)], ignore_conflicts=True)
    assert not Player.objects.exists()
    assert Team.objects.get().name == "x" * 40


def test_a_broken_reference_is_reported_and_nothing_is_written():
    baskets = [Basket.objects.create(quantity=team().pk), Basket.objects.create(quantity=404)]
    result = repaired(Rule(name="m", every=Basket, must=HaveRow(Match, link={"team": F("quantity")})))
    assert (result.written.insert, result.left) == (1, 1)
    assert "foreign key constraint fails" in result.why_stopped
    assert Match.objects.get().team_id == baskets[0].quantity
    assert Change.objects.count() == 1


def test_a_text_that_is_too_long_is_reported_and_not_cut():
    Device.objects.bulk_create([Device(name="short"), Device(name="x" * 30)])
    rule = Rule(
        name="badge", every=Device,
        must=HaveRow(Badge, link={"device": F("pk")}, values={"name": Repeat("name", 2)}),
    )  # fmt: skip
    result = repaired(rule)
    assert (result.written.insert, result.left) == (1, 1)
    assert "too long" in result.why_stopped
    assert Badge.objects.get().name == "shortshort"


def test_a_raw_insert_through_a_chunk_raises_where_ignoring_would_hide_it():
    with pytest.raises(IntegrityError), dialect_of("default").transaction():
        Player.objects.bulk_create([Player(team_id=404)])
    with pytest.raises(DataError), dialect_of("default").transaction():
        Team.objects.bulk_create([Team(name="x" * 60)])


def test_a_row_that_another_session_inserts_between_insert_and_journal_is_not_taken_for_the_chunk_s():
    """Nothing keeps it out where there is no constraint; then more rows are found by the link than were inserted."""
    basket = Basket.objects.create()
    theirs = []

    def insert_theirs(step):
        if step is Step.JOURNAL and not theirs:
            session = Session(lambda: Bill.objects.create(basket_number=basket.pk))
            session.start()
            theirs.append(session.join())

    with listen(insert_theirs):
        result = repaired(BILL)
    assert (result.error, result.left, result.written.total) == (None, 0, 0)
    assert [*Bill.objects.all()] == theirs
    assert not Change.objects.exists()
