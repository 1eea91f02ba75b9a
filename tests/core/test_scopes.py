import uuid

import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.django import TestCase

from reconcile.core.scopes import Keys, Window, walk
from tests.helpers import examples, statements
from tests.zoo.models import Basket, Device, Page


def windows(model, **options):
    return list(walk(model, using="default", **options))


@pytest.mark.django_db
def test_an_empty_table_has_no_window():
    assert windows(Basket) == []


@pytest.mark.django_db
def test_dense_integer_keys_cost_two_statements_whatever_their_number():
    Basket.objects.bulk_create([Basket() for _ in range(50)])
    with statements() as sent:
        made = windows(Basket, size=10, records=50)
    assert len(made) == 5
    assert len(sent) == 2


@pytest.mark.django_db
def test_sparse_integer_keys_are_not_stepped_through():
    Basket.objects.bulk_create([Basket(pk=key) for key in (1, 2, 10**12, 10**12 + 1)])
    made = windows(Basket, size=2, records=4)
    assert [window.upto for window in made] == [2, 10**12 + 1]


@pytest.mark.django_db
@pytest.mark.parametrize("model", [Device, Page])
def test_keys_of_other_types_are_walked_in_their_own_order(model):
    keys = (
        [uuid.uuid4() for _ in range(25)]
        if model is Device
        else [f"page {number:03}" for number in range(25)]
    )
    model.objects.bulk_create([model(pk=key) for key in keys])
    made = windows(model, size=10)
    assert len(made) == 3
    seen = [
        key for window in made for key in model.objects.filter(window.on("pk")).values_list("pk", flat=True)
    ]
    assert sorted(seen, key=str) == sorted(keys, key=str)


@pytest.mark.django_db
def test_the_upper_bound_is_pinned_at_the_start():
    Basket.objects.bulk_create([Basket(pk=key) for key in range(1, 21)])
    going = walk(Basket, using="default", size=10)
    first = next(going)
    Basket.objects.create(pk=21)
    assert [first.upto, *[window.upto for window in going]] == [10, 20]


@pytest.mark.django_db
def test_a_walk_can_begin_after_a_key():
    Basket.objects.bulk_create([Basket(pk=key) for key in range(1, 31)])
    assert windows(Basket, size=10, after=20) == [Window(20, 30)]
    assert windows(Basket, size=10, after=30) == []


@pytest.mark.django_db
@pytest.mark.parametrize("model", [Device, Page])
def test_a_walk_that_begins_after_any_key_has_the_keys_beyond_it_in_the_database_s_order(model):
    keys = (
        [uuid.uuid4() for _ in range(20)] if model is Device else ["a", "B", "_x", "É2", "c", "D", "1", "Z"]
    )
    model.objects.bulk_create([model(pk=key) for key in keys])
    ordered = list(model.objects.order_by("pk").values_list("pk", flat=True))
    for place, after in enumerate(ordered):
        seen = [
            key
            for window in windows(model, size=3, after=after)
            for key in model.objects.filter(window.on("pk")).order_by("pk").values_list("pk", flat=True)
        ]
        assert seen == ordered[place + 1 :]


@pytest.mark.django_db
def test_no_keys_select_nothing():
    Basket.objects.create()
    assert not Basket.objects.filter(Keys([]).on("pk")).exists()


class EveryKeyIsInExactlyOneWindow(TestCase):
    @settings(max_examples=examples(40), deadline=None)
    @given(
        keys=st.sets(st.integers(-(10**6), 10**6) | st.integers(0, 50), min_size=1, max_size=40),
        size=st.integers(1, 12),
        records=st.integers(0, 100),
    )
    def test_of_a_walk_over_any_integers(self, keys, size, records):
        Basket._base_manager.all().delete()
        Basket.objects.bulk_create([Basket(pk=key) for key in keys if key])
        keys.discard(0)
        seen = []
        for window in windows(Basket, size=size, records=records):
            inside = Basket.objects.filter(window.on("pk")).values_list("pk", flat=True)
            assert len(inside) <= size
            seen += inside
        assert sorted(seen) == sorted(keys)
