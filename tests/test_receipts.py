import threading
import uuid

import pytest
from django.db import connection, transaction
from django.db.models import F

from reconcile import receipts
from reconcile.db.clock import database_now
from reconcile.errors import UsageError
from reconcile.models import Receipt
from tests.helpers import Session, statements
from tests.zoo.models import Basket, Car, Device, Page, Pair, Player, ProxyTeam, Shy, Team, Vehicle

pytestmark = pytest.mark.django_db


def baskets(number):
    Basket.objects.bulk_create([Basket() for _ in range(number)])
    return list(Basket.objects.order_by("pk"))


def noted(name="mail"):
    return set(Receipt.objects.filter(name=name).values_list("model", "key", "state"))


def done(*records):
    return {(record._meta.label, str(record.pk), "done") for record in records}


def test_one_record():
    basket, _other = baskets(2)
    assert receipts.record("mail", basket) == 1
    assert noted() == done(basket)


def test_recording_again_is_no_news_and_changes_nothing():
    made = baskets(2)
    assert receipts.record("mail", made[:1]) == 1
    before = list(Receipt.objects.values())
    assert receipts.record("mail", made) == 1
    assert receipts.record("mail", made) == 0
    assert list(Receipt.objects.values())[:1] == before


def test_records_of_several_models_and_all_types_of_keys():
    made = [
        *baskets(2), Device.objects.create(name="x"), Page.objects.create(code="Ä 'x'"), Team.objects.create(),
        Car.objects.create(), Shy._base_manager.create(visible=False),
    ]  # fmt: skip
    assert receipts.record("mail", iter([*made, made[0]])) == 7
    assert noted() == done(*made)


def test_a_queryset():
    made = baskets(3)
    assert receipts.record("mail", Basket.objects.filter(pk__gt=made[0].pk)) == 2
    assert noted() == done(*made[1:])
    assert receipts.record("mail", Basket.objects.all()) == 1
    assert receipts.record("mail", Basket.objects.none()) == 0


@pytest.mark.parametrize(
    "cut",
    [
        lambda rows: rows.order_by("-name")[:2],
        lambda rows: rows.filter(name="a").union(rows.filter(name="b")),
        lambda rows: rows.filter(players__age__gte=1, name__in="ab"),
        lambda rows: rows.filter(name__in="ab").distinct(),
        lambda rows: rows.filter(name__in="ab").values("name"),
        lambda rows: rows.filter(name__in="ab").select_related("alternate").order_by("name"),
        lambda rows: rows.exclude(name="c").annotate(two=F("pk") * 2).filter(two__gt=0),
    ],
    ids=["sliced", "union", "to many", "distinct", "values", "ordered", "annotated"],
)
def test_a_queryset_of_any_shape(cut):
    made = {name: Team.objects.create(name=name) for name in "abc"}
    for team in made.values():
        Player.objects.create(team=team)
        Player.objects.create(team=team)
    names = "cb" if cut(Team.objects.all()).query.is_sliced else "ab"
    assert receipts.record("mail", cut(Team.objects.all())) == 2
    assert noted() == done(*(made[name] for name in names))
    assert receipts.forget("mail", cut(Team.objects.all())) == 2


def test_a_model_with_keys():
    made, device = baskets(3), Device.objects.create(name="x")
    assert receipts.record("mail", Basket, keys=[made[0].pk, str(made[1].pk), 987_654]) == 2
    assert receipts.record("mail", Device, keys=[str(device.pk), device.pk, uuid.uuid4()]) == 1
    assert noted() == done(*made[:2], device)


def test_a_proxy_s_records_are_those_of_its_table():
    team = ProxyTeam.objects.create()
    assert receipts.record("mail", team) == 1
    assert receipts.record("mail", Team.objects.all()) == 0
    assert noted() == {("zoo.Team", str(team.pk), "done")}


def test_a_child_and_its_parent_are_two_records():
    car = Car.objects.create()
    assert receipts.record("mail", [car, Vehicle.objects.get()]) == 2
    assert noted() == {("zoo.Car", str(car.pk), "done"), ("zoo.Vehicle", str(car.pk), "done")}


def test_names_and_keys_are_told_apart_exactly():
    made = baskets(1)
    for name in ("mail", "Mail", "MAIL"):
        assert receipts.record(name, made) == 1
    assert receipts.forget("Mail", made) == 1
    assert (len(noted("mail")), len(noted("Mail"))) == (1, 0)
    Receipt.objects.bulk_create([Receipt(name="x", model="m", key=key) for key in ("a", "A")])


@pytest.mark.parametrize("state", ["promised", "sent"])
def test_what_was_on_its_way_becomes_done(state):
    basket, _ = baskets(2)
    Receipt.objects.create(name="mail", model="zoo.Basket", key=str(basket.pk), state=state)
    old = database_now("default")
    assert receipts.record("mail", Basket.objects.all()) == 2
    assert noted() == done(*Basket.objects.all())
    assert Receipt.objects.filter(recorded_at__gte=old).count() == 2


def test_forgotten_receipts_are_gone_and_others_are_not():
    made = baskets(3)
    receipts.record("mail", made)
    receipts.record("other", made)
    assert receipts.forget("mail", made[:2]) == 2
    assert receipts.forget("mail", made[:2]) == 0
    assert (noted(), len(noted("other"))) == (done(made[2]), 3)
    assert receipts.forget("other", Basket, keys=[made[0].pk]) == 1
    assert receipts.forget("other", Basket.objects.all()) == 2


def test_a_record_that_does_not_exist_gets_no_receipt():
    (gone,) = baskets(1)
    Basket.objects.filter(pk=gone.pk).delete()
    assert receipts.record("mail", gone) == 0
    assert not noted()


def test_inside_a_transaction_that_is_rolled_back_nothing_is_noted():
    made = baskets(1)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        assert receipts.record("mail", made) == 1
        raise ZeroDivisionError
    assert not noted()


def test_an_explicit_alias():
    assert receipts.record("mail", baskets(1), using="default") == 1
    assert receipts.record("mail", Basket.objects.all(), using="default") == 0
    assert receipts.forget("mail", Basket, keys=[Basket.objects.get().pk], using="default") == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("mail", Basket), "Give keys="),
        (("mail", 7), "7 is no record"),
        (("mail", "text"), "is no record"),
        (("mail", [7]), "7 is no saved record"),
        (("mail", Basket()), "is no saved record"),
        (("", []), "has no name"),
        ((None, []), "has no name"),
        (("x" * 101, []), "has no name"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_record_is_refused(given, said):
    for act in (receipts.record, receipts.forget):
        with pytest.raises(UsageError, match=said):
            act(*given)


def test_keys_that_are_none_or_go_with_no_model_are_refused():
    with pytest.raises(UsageError, match="A key can't be one"):
        receipts.record("mail", Basket, keys=["x"])
    with pytest.raises(UsageError, match="goes with a model"):
        receipts.record("mail", Basket.objects.all(), keys=[1])
    with pytest.raises(UsageError, match="composite"):
        receipts.record("mail", Pair(left=1, right=2))


def test_the_number_of_statements_does_not_grow():
    numbers = []
    for number in (10, 990):
        made = baskets(number)
        with statements() as sent:
            receipts.record("a", made)
            receipts.record("b", Basket.objects.all())
            receipts.forget("b", Basket.objects.all())
        numbers.append(len(sent))
    assert numbers[0] == numbers[1] == (6 if connection.vendor == "mysql" else 4)


@pytest.mark.django_db(transaction=True)
def test_two_callers_at_once_note_each_record_once():
    made = baskets(2_000)
    Receipt.objects.bulk_create(
        [Receipt(name="mail", model="zoo.Basket", key=str(each.pk), state="promised") for each in made[::3]]
    )
    together = threading.Barrier(4, timeout=30)

    def caller(rows):
        def act():
            together.wait()
            return receipts.record("mail", rows)

        return act

    sessions = [Session(caller(rows)) for rows in (made, made[::-1], Basket.objects.all(), made[500:])]
    for session in sessions:
        session.start()
    assert sum(session.join() for session in sessions) == 2_000
    assert noted() == done(*made)


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_a_caller_inside_a_transaction_waits_for_the_other():
    made = baskets(50)
    recorded, may_commit = threading.Event(), threading.Event()

    def first():
        with transaction.atomic():
            new = receipts.record("mail", made)
            recorded.set()
            assert may_commit.wait(30)
            return new

    def second():
        assert recorded.wait(30)
        with transaction.atomic():
            return receipts.record("mail", made)

    sessions = [Session(first), Session(second)]
    for session in sessions:
        session.start()
    assert recorded.wait(30)
    may_commit.set()
    assert [session.join() for session in sessions] == [50, 0]
    assert noted() == done(*made)
