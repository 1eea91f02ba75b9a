"""A repair of another alias reads and writes through that alias, and says so to what it calls."""

import pytest
from django.db import connections, transaction
from django.db.models import F, Q
from django.db.models.signals import post_save, pre_save
from django.db.utils import ConnectionHandler

from reconcile import MISSING, STALE, Call, HaveRow, Insert, Resend, Rule, Satisfy, Split, runs
from tests.zoo.models import Parcel, Stamp

pytestmark = pytest.mark.django_db(transaction=True)

OWED = HaveRow(Stamp, link={"parcel": F("pk")})


@pytest.fixture
def second():
    """Another connection to the test's database, under another alias; the default one must not be used."""
    settings = dict(connections.databases["default"])
    connected = ConnectionHandler({"default": settings, "second": settings})["second"]
    # Django's test case forbids connecting under an alias that it doesn't know; this one has connected before.
    connected.ensure_connection()
    connections.databases["second"] = settings
    connections["second"] = connected
    yield "second"
    connections["second"].close()
    del connections["second"]
    del connections.databases["second"]


def written(rule, using):
    _, results = runs.repair({rule.name: rule}, using=using)
    assert (results[0].left, results[0].error) == (0, None), results[0]
    return results[0].written


def stamp(records):
    assert transaction.get_connection("second").in_atomic_block
    assert not transaction.get_connection("default").in_atomic_block
    assert {each._state.db for each in records} == {"second"}
    Stamp.objects.using("second").bulk_create([Stamp(parcel=each) for each in records])


def test_call_and_split(second):
    Parcel.objects.bulk_create([Parcel(weight=weight) for weight in (1, 10)])
    called = Rule(name="r", every=Parcel, must=OWED, remedies={MISSING: Call(stamp)})
    assert written(called, second).called == 2
    Stamp.objects.all().delete()
    split = Split(when=Q(weight=10), each=Call(stamp), rest=Insert())
    mixed = written(Rule(name="r", every=Parcel, must=OWED, remedies={MISSING: split}), second)
    assert (mixed.called, mixed.insert) == (1, 1)


@pytest.mark.parametrize("signal", [pre_save, post_save])
def test_resend_and_satisfy(second, signal):
    Parcel.objects.create(state="odd")

    def handle(*, instance, using, **_):
        assert using == instance._state.db == "second"
        instance.state = "open"
        if signal is post_save:
            Parcel.objects.using(using).filter(pk=instance.pk).update(state="open")

    signal.connect(handle, sender=Parcel)
    try:
        opened = Rule(name="r", every=Parcel, must=Satisfy(Q(state="open")), remedies={STALE: Resend(handle)})
        assert written(opened, second).total == 1
    finally:
        signal.disconnect(handle, sender=Parcel)
    assert Parcel.objects.get().state == "open"
    Parcel.objects.update(state="odd")
    restored = Rule(name="r", every=Parcel, must=Satisfy(Q(state="open"), values={"state": "open"}))
    assert written(restored, second).update == 1
