"""How large a chunk is, told by the chunks before it."""

from itertools import pairwise

import pytest
from django.db.models import F

from reconcile import STALE, Call, HaveValues, Rule
from reconcile.conf import MOST_RECORDS
from reconcile.models import WorkItem
from reconcile.repair.pacing import FEW, FIRST, LEAST, SECONDS, SHORT, Pace
from reconcile.rules import registry
from tests.helpers import repaired
from tests.zoo.models import Parcel

pytestmark = pytest.mark.once


def test_chunks_double_while_they_take_less_than_half_of_their_time_up_to_the_most():
    pace, sizes = Pace(), []
    for _ in range(20):
        sizes.append(pace.size)
        pace.learn(pace.size, 0.001)
    assert sizes[:4] == [FIRST, 2 * FIRST, 4 * FIRST, MOST_RECORDS]
    assert sizes[-1] == MOST_RECORDS


def test_from_half_of_their_time_on_they_grow_by_a_fifth_at_most():
    pace, sizes = Pace(), []
    for _ in range(20):
        sizes.append(pace.size)
        pace.learn(pace.size, SECONDS * 0.6)
    assert all(after <= before * 1.2 + 1 for before, after in pairwise(sizes))
    assert sizes[1] == FIRST * 1.2


def test_a_chunk_is_shorter_while_others_are_at_work_and_is_followed_by_a_rest():
    pace = Pace(rests=7)
    pace.learn(FIRST, 0.25)
    assert (pace.size, pace.rest(0.25)) == (FIRST, 0)
    pace.share(shared=True)
    assert pace.size == pytest.approx(FIRST * SHORT / SECONDS, abs=1)
    assert pace.rest(0.05) == pytest.approx(0.35)
    pace.share(shared=False)
    assert pace.rest(0.05) == 0


def test_a_first_chunk_has_few_records_where_others_are_at_work():
    pace = Pace(rests=7)
    pace.share(shared=True)
    assert pace.size == FEW


def test_a_chunk_that_locks_a_table_is_shorter_still_and_rests_longer():
    row, table = Pace(rests=7), Pace(rests=7, locks_table=True)
    assert (row.size, table.size) == (FIRST, FEW)
    for pace in (row, table):
        pace.share(shared=True)
        pace.learn(pace.size, 0.05)
    assert table.size < row.size
    assert table.rest(0.05) == pytest.approx(5 * row.rest(0.05))


def test_no_rest_is_longer_than_ten_seconds():
    pace = Pace(rests=1_000)
    pace.share(shared=True)
    assert pace.rest(60) == 10


@pytest.mark.parametrize("rests", [-1, 1_001, "10", True, None])
def test_a_setting_that_is_no_rest_is_a_fault(settings, rests):
    settings.RECONCILE = {**settings.RECONCILE, "REST": rests}
    (fault,) = registry.load().faults
    assert fault.id == "reconcile.E001"
    assert f"settings.RECONCILE['REST'] is {rests!r}" in fault.message
    assert "from 0 to 1000" in fault.hint


@pytest.mark.parametrize("rests", [0, 0.5, 1_000])
def test_a_setting_that_is_a_rest_is_none(settings, rests):
    settings.RECONCILE = {**settings.RECONCILE, "REST": rests}
    assert not registry.load().faults
    assert Pace.from_settings().rests == rests


def test_a_slow_chunk_shrinks_the_next_at_once_to_what_takes_a_quarter_of_a_second():
    pace = Pace()
    pace.learn(FIRST, 10)
    assert pace.size == int(FIRST / 10 * SECONDS)


def test_no_chunk_is_smaller_than_the_least():
    pace = Pace()
    pace.learn(FIRST, 100_000)
    assert pace.size == LEAST


def costing(fixed, each, chunks=40, **options):
    """The sizes of the chunks of a repair that costs so many seconds a chunk and a record."""
    pace, sizes = Pace(**options), []
    for _ in range(chunks):
        sizes.append(pace.size)
        pace.learn(pace.size, fixed + each * pace.size)
    return sizes


@pytest.mark.parametrize("each", [0.01, 0.001, 0.0001])
def test_a_chunk_comes_to_take_a_quarter_of_a_second(each):
    *_, last = costing(0, each)
    assert last * each == pytest.approx(0.25, rel=0.05)


def test_the_fixed_costs_of_a_chunk_are_part_of_its_quarter():
    *_, last = costing(0.1, 0.001)
    assert 0.1 + last * 0.001 == pytest.approx(0.25, rel=0.05)


def test_a_chunk_whose_fixed_costs_are_all_of_it_does_not_shrink_for_ever():
    """Such as one that reads a whole table for want of an index: a smaller one would take as long, for fewer records."""
    *_, last = costing(1.0, 0.0005)
    assert last == pytest.approx(1.0 / 0.0005, rel=0.1)
    assert min(costing(1.0, 0.0005)[1:]) >= 100


def test_a_chunk_that_costs_nothing_for_a_record_takes_as_many_as_it_may():
    *_, last = costing(1.0, 0)
    assert last == MOST_RECORDS


def test_one_slow_chunk_does_not_decide_for_long():
    pace = Pace(size=2_000)
    for _ in range(10):
        pace.learn(2_000, 0.1)
    before = pace.size
    pace.learn(before, 1)
    for _ in range(20):
        pace.learn(pace.size, pace.size * 0.1 / 2_000)
    assert pace.size >= before * 0.95


def test_a_first_chunk_of_one_record_says_nothing_of_the_others():
    """Such as the first level of a tree."""
    pace = Pace()
    pace.learn(1, 0.02)
    assert pace.size == FIRST


def test_a_first_chunk_of_one_record_that_takes_long_counts():
    pace = Pace()
    pace.learn(1, 2)
    assert pace.size < FIRST


def test_a_last_small_chunk_does_not_make_the_next_small():
    pace = Pace(size=2_000)
    for size in (1_800, 1_900, 2_000):
        pace.learn(size, size * 0.0001)
    pace.learn(3, 0.02)
    assert pace.size >= 2_000


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
    assert WorkItem.objects.get(drift="stale").chunks == 5


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
    assert WorkItem.objects.get(drift="stale").chunks >= 2
