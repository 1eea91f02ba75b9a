"""The lock that handlers take: what it holds, for how long, and what can't hold it."""

import threading
from contextlib import suppress
from functools import wraps

import pytest
from asgiref.sync import async_to_sync
from django.db import OperationalError, connection, transaction
from django.db.models.signals import post_save
from django.dispatch import Signal, receiver

from reconcile import holding, locks
from reconcile.errors import UsageError
from reconcile.locking import holds
from tests.helpers import Session, statements
from tests.zoo.models import Basket, Bill, Contact, Lorry, NamedTeam, Player, Team, Vehicle

# What is held, and for how long.


def free(rows):
    """Keys of the rows that another session could lock at once."""

    def look():
        with transaction.atomic():
            return sorted(rows.select_for_update(skip_locked=True).values_list("pk", flat=True))

    session = Session(look)
    session.start()
    return session.join()


def baskets(number):
    return [Basket.objects.create() for _ in range(number)]


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_the_records_are_held_until_the_block_ends_and_no_others():
    first, second, third = baskets(3)
    with holding(third, first):
        assert free(Basket.objects) == [second.pk]
    assert free(Basket.objects) == [first.pk, second.pk, third.pk]


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_within_a_transaction_they_are_held_until_that_ends():
    (basket,) = baskets(1)
    with transaction.atomic():
        with holding(basket):
            pass
        assert free(Basket.objects) == []
    assert free(Basket.objects) == [basket.pk]


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_a_row_that_is_spread_over_tables_is_held_in_each():
    lorry = Lorry.objects.create()
    with holding(lorry):
        assert free(Vehicle.objects) == []
        assert free(Lorry.objects) == []


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_a_lock_on_the_parent_is_taken_for_a_record_that_continues_it():
    lorry = Lorry.objects.create()
    seen = []

    @locks(Vehicle)
    def handler(*, instance):
        seen.append(free(Vehicle.objects))

    handler(instance=lorry)
    assert seen == [[]]


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_session_that_inserts_what_refers_to_the_record_does_not_wait_for_it():
    team = Team.objects.create(name="x")
    session = Session(lambda: Player.objects.create(team_id=team.pk))
    with holding(team):
        session.start()
        session.join(timeout=5)
    assert Player.objects.count() == 1


@pytest.mark.django_db
def test_it_costs_one_statement_for_each_model_and_no_savepoint():
    first, second = baskets(2)
    team = Team.objects.create(name="x")
    with statements() as sent, holding(first, team, second):
        pass
    assert len(sent) == 2, [each["sql"] for each in sent]


@pytest.mark.postgresql
@pytest.mark.django_db
def test_it_is_the_lock_of_a_chunk_and_waits():
    (basket,) = baskets(1)
    with statements() as sent, holding(basket):
        pass
    assert sent[0]["sql"].endswith("FOR NO KEY UPDATE")


@pytest.mark.django_db(transaction=True)
def test_a_transaction_is_opened_where_none_is_and_rolled_back_where_the_handler_raises():
    (basket,) = baskets(1)
    with pytest.raises(ValueError, match="no"), holding(basket):
        assert connection.in_atomic_block
        Bill.objects.create(basket_number=basket.pk)
        raise ValueError("no")
    assert not connection.in_atomic_block
    assert not Bill.objects.exists()


@pytest.mark.django_db
def test_what_is_not_saved_is_passed_over():
    with statements() as sent, holding(Basket()), holding():
        pass
    assert len(sent) == 0


@pytest.mark.django_db(transaction=True, databases=["default", "archive"])
def test_the_database_is_the_record_s_own_or_the_one_that_is_named():
    (basket,) = baskets(1)
    other = Basket.objects.using("archive").create()
    archive = transaction.get_connection("archive")
    with holding(other):
        assert (archive.in_atomic_block, connection.in_atomic_block) == (True, False)
    with holding(basket, using="archive"):
        assert (archive.in_atomic_block, connection.in_atomic_block) == (True, False)


@pytest.mark.django_db(transaction=True, databases=["default", "archive"])
def test_records_of_several_databases_are_refused_before_any_is_held():
    (basket,) = baskets(1)
    other = Basket.objects.using("archive").create(pk=basket.pk)
    with (
        statements() as sent,
        pytest.raises(UsageError, match="of 'archive' and 'default', and a lock is of one database"),
        holding(basket, other),
    ):
        raise AssertionError("it ran")
    assert len(sent) == 0


# As a decorator.


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("sent_with", [{}, {"using": "default"}, {"using": None}])
def test_a_receiver_runs_in_the_lock_s_transaction(sent_with):
    seen = []

    @receiver(post_save, sender=Team)
    @locks(Team)
    def handler(*, instance, **_):
        seen.append((instance.pk, connection.in_atomic_block))

    try:
        team = Team.objects.create(name="x")
        post_save.send(Team, instance=team, created=False, **sent_with)
    finally:
        post_save.disconnect(handler, sender=Team)
    assert seen == [(team.pk, True)] * 2


@pytest.mark.django_db(transaction=True)
def test_a_receiver_that_an_async_signal_calls_holds_the_lock_too():
    seen = []

    @locks(Team)
    def handler(*, instance, **_):
        seen.append(connection.in_atomic_block)

    signal = Signal()
    signal.connect(handler)
    async_to_sync(signal.asend)(Team, instance=Team.objects.create(name="x"))
    assert seen == [True]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("by", "given"),
    [
        ("team", lambda player: {"team": player.team}),
        ("team", lambda player: {"team": NamedTeam.objects.get()}),
        ("key", lambda player: {"key": player.team_id}),
        ("player.team", lambda player: {"player": player}),
        ("player.team_id", lambda player: {"player": player}),
    ],
)
def test_the_record_or_its_key_is_any_argument_or_an_attribute_of_one(by, given):
    player = Player.objects.create(team=Team.objects.create(name="x"))

    @locks(Team, by=by)
    def handler(**kwargs):
        return connection.in_atomic_block

    with statements() as sent:
        assert handler(**given(player))
    assert any(str(player.team_id) in each["sql"] or "WHERE 0" in each["sql"] for each in sent)


@pytest.mark.django_db(transaction=True)
def test_an_argument_is_found_by_its_place_or_its_default():
    team = Team.objects.create(name="x")

    @locks(Team, by="key")
    def handler(other, key=None):
        return connection.in_atomic_block

    assert handler(1, team.pk)
    assert handler(1, key=team.pk)
    assert not handler(1)


@pytest.mark.django_db(transaction=True)
def test_where_there_is_no_record_the_handler_just_runs():
    @locks(Team, by="instance.team")
    def handler(*, instance):
        return connection.in_atomic_block

    assert handler(instance=Contact()) is False
    assert handler(instance=None) is False


@pytest.mark.django_db
def test_a_record_of_another_model_is_refused_when_it_comes():
    @locks(Team)
    def handler(*, instance, **_):
        raise AssertionError("it ran")

    with pytest.raises(UsageError, match=r"'instance' is a zoo.Basket, not a zoo.Team. Name the argument"):
        handler(instance=Basket.objects.create())


def test_what_can_not_hold_the_lock_is_refused_at_once():
    async def slow(*, instance):
        pass

    async def many(*, instance):
        yield

    def lazy(*, instance):
        yield

    for function, said in ((slow, "is async"), (many, "is async"), (lazy, "is a generator")):
        with pytest.raises(UsageError, match=said):
            locks(Team)(function)


def test_an_argument_that_is_not_there_is_refused_at_once():
    def handler(*, record):
        pass

    with pytest.raises(UsageError, match=r"has no argument 'instance'; it has record"):
        locks(Team)(handler)
    locks(Team, by="record")(handler)


@pytest.mark.parametrize("model", ["zoo.Team", None, Team(name="x"), lambda: None])
def test_what_is_no_model_is_refused_at_once(model):
    with pytest.raises(UsageError, match="Name the model whose records are locked"):
        locks(model)


@pytest.mark.parametrize("weak", [True, False])
def test_a_function_that_is_connected_without_the_lock_is_refused(weak):
    def handler(*, instance, **_):
        pass

    post_save.connect(handler, sender=Team, weak=weak, dispatch_uid="some id")
    try:
        with pytest.raises(UsageError, match=r"Write @locks\(…\) below @receiver\(…\)"):
            locks(Team)(handler)
    finally:
        post_save.disconnect(sender=Team, dispatch_uid="some id")


def test_a_handler_is_known_by_its_record_s_model():
    @locks(NamedTeam)
    def handler(*, instance, **_):
        pass

    @wraps(handler)
    def around(**kwargs):
        return handler(**kwargs)

    class Service:
        @locks(Team, by="team")
        def act(self, team):
            pass

    assert all(holds(each, Team) for each in (handler, around, Service().act, Service.act))
    assert not holds(handler, Basket)
    assert not holds(lambda: None, Team)


@pytest.mark.django_db(transaction=True)
def test_a_handler_that_takes_several_locks_is_known_by_each_of_them():
    def around(function):
        @wraps(function)
        def outer(**kwargs):
            return function(**kwargs)

        return outer

    @locks(Basket, by="basket")
    @around
    @locks(Team, by="team")
    def handler(*, basket, team):
        return connection.in_atomic_block

    for each in (handler, around(handler)):
        assert (holds(each, Team), holds(each, Basket), holds(each, Contact)) == (True, True, False)
    (basket,), team = baskets(1), Team.objects.create(name="x")
    with statements() as sent:
        assert handler(basket=basket, team=team)
    assert [sum(table in each["sql"] for each in sent) for table in ("zoo_basket", "zoo_team")] == [1, 1]


# Two handlers at once.


def unlocked(basket, meet):
    if not Bill.objects.filter(basket_number=basket.pk).exists():
        meet()
        Bill.objects.create(basket_number=basket.pk)


def two_at_once(handler, basket):
    """Run the handler in two sessions, each in a transaction, which both have looked, if they can, when they insert."""
    barrier = threading.Barrier(2)

    def meet():
        # One that waits for the other's lock never comes.
        with suppress(threading.BrokenBarrierError):
            barrier.wait(0.5)

    def act():
        with transaction.atomic():
            handler(basket, meet)

    sessions = [Session(act) for _ in range(2)]
    for each in sessions:
        each.start()
    errors = []
    for each in sessions:
        try:
            each.join()
        except OperationalError as error:
            errors.append(error)
    return errors


@pytest.mark.django_db(transaction=True)
def test_two_handlers_that_hold_the_record_insert_one_row_and_neither_fails():
    (basket,) = baskets(1)
    assert two_at_once(locks(Basket, by="basket")(unlocked), basket) == []
    assert Bill.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_handlers_without_the_lock_insert_two_or_one_of_them_fails():
    """The fact behind the lock: on SQLite a transaction that begins by reading fails when it comes to write."""
    (basket,) = baskets(1)
    errors = two_at_once(unlocked, basket)
    assert (len(errors), Bill.objects.count()) == ((1, 1) if connection.vendor == "sqlite" else (0, 2))
