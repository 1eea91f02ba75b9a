"""How large a chunk is, told by the chunks before it."""

from itertools import pairwise

import pytest
from django.db.models import F

from reconcile import STALE, Call, HaveValues, Rule, registry
from reconcile.models import Shard
from reconcile.pacing import FIRST, LEAST, MOST, SECONDS, Pace
from tests.helpers import repaired
from tests.zoo.models import Parcel


def test_chunks_grow_by_a_fifth_at_most_up_to_the_most():
    pace, sizes = Pace(), []
    for _ in range(20):
        sizes.append(pace.size)
        pace.note(pace.size, 0.001)
    assert sizes[0] == FIRST
    assert all(after <= before * 1.2 + 1 for before, after in pairwise(sizes))
    assert sizes[-1] == MOST


def test_a_slow_chunk_shrinks_the_next_at_once_to_what_takes_a_quarter_of_a_second():
    pace = Pace()
    pace.note(FIRST, 10)
    assert pace.size == int(FIRST / 10 * SECONDS)


def test_no_chunk_is_smaller_than_the_least():
    pace = Pace()
    pace.note(FIRST, 100_000)
    assert pace.size == LEAST


def test_one_slow_chunk_does_not_decide_alone():
    pace = Pace(size=MOST, rate=100_000)
    pace.note(MOST, 1)
    assert pace.size == MOST
    assert MOST < pace.rate < 100_000


def test_a_last_small_chunk_says_nothing_of_the_speed():
    pace = Pace(size=2_000, rate=50_000)
    pace.note(3, 0.01)
    assert (pace.size, pace.rate) == (2_000, 50_000)


def test_a_small_chunk_that_is_slow_all_the_same_counts():
    pace = Pace()
    pace.note(20, 5)
    assert pace.size == LEAST


@pytest.mark.django_db
def test_the_setting_is_the_most_that_a_chunk_takes(settings):
    settings.RECONCILE = {**settings.RECONCILE, "CHUNK": 7}
    Parcel.objects.bulk_create([Parcel(state="open") for _ in range(30)])
    sizes = []

    def close(parcels):
        sizes.append(len(parcels))
        Parcel.objects.filter(pk__in=[each.pk for each in parcels]).update(state="closed")

    rule = Rule(name="closed", every=Parcel, must=HaveValues(state="closed"), remedies={STALE: Call(close)})
    assert repaired(rule).written.called == 30
    assert sizes == [7, 7, 7, 7, 2]
    assert Shard.objects.get(drift="stale").chunks == 5


@pytest.mark.parametrize("most", [0, -1, 5_001, "100", True, None])
def test_a_setting_that_is_no_size_of_a_chunk_is_a_fault(settings, most):
    settings.RECONCILE = {**settings.RECONCILE, "CHUNK": most}
    (fault,) = registry.load().faults
    assert fault.id == "reconcile.E001"
    assert f"settings.RECONCILE['CHUNK'] is {most!r}" in fault.message
    assert "from 1 to 5,000" in fault.hint


@pytest.mark.django_db
def test_chunks_of_a_repair_grow_while_they_are_fast():
    Parcel.objects.bulk_create([Parcel(state="open") for _ in range(FIRST * 3)])
    rule = Rule(name="closed", every=Parcel, must=HaveValues(state=F("label")))
    Parcel.objects.update(label="x")
    assert repaired(rule).written.update == FIRST * 3
    assert Shard.objects.get(drift="stale").chunks >= 2
