"""`assert_batch_safe`: a function that asks or writes one by one is told, and one that leaves something else for a batch."""

import pytest

from reconcile import ensure
from reconcile.errors import UsageError
from reconcile.testing import assert_batch_safe
from sample_project.shop.models import Customer, Item, Order, Subscriber
from tests.helpers import everything

pytestmark = pytest.mark.django_db


def place(numbers):
    orders = Order.objects.bulk_create([Order(total=number) for number in numbers])
    ensure(orders, new=True)


def test_a_bulk_half_passes_and_leaves_nothing():
    before = everything()
    assert_batch_safe(place, n=(1, 40))
    assert everything() == before


def test_what_is_written_one_by_one_is_told():
    def save(numbers):
        for number in numbers:
            Subscriber.objects.create(email=f"{number}")

    with pytest.raises(
        AssertionError, match="It sends 1 statement for 1 and 60 for 60, where at most 6 would not"
    ):
        assert_batch_safe(save, n=(1, 60))


def test_what_is_asked_one_by_one_is_told():
    def tell(customers):
        Order.objects.bulk_create([Order(customer=each) for each in customers])
        [each.orders.count() for each in customers]

    with pytest.raises(AssertionError, match="something is asked or written one by one"):
        assert_batch_safe(
            tell,
            lambda size: Customer.objects.bulk_create([Customer(name="x") for _ in range(size)]),
            n=(1, 30),
        )


def test_what_a_batch_leaves_out_is_told():
    def place_first(numbers):
        Subscriber.objects.bulk_create(
            [Subscriber(email=f"{each}", visits=each == numbers[0]) for each in numbers]
        )

    with pytest.raises(AssertionError, match=r"(?s)one by one and in a batch differ.*visits: 1 ↔ 0"):
        assert_batch_safe(place_first, n=(1, 3))


def test_what_the_making_costs_is_not_counted():
    def make(size):
        return [Item.objects.create(name=f"{number}") for number in range(size)]

    assert_batch_safe(
        lambda items: Item.objects.filter(pk__in=[each.pk for each in items]).update(price=1), make, n=(1, 30)
    )


@pytest.mark.parametrize("n", [(500, 1), (0, 5), (1, 1), (1,), 3, ("1", "5")])
def test_sizes_that_are_none_are_refused(n):
    with pytest.raises(UsageError, match="no pair of a small and a larger size"):
        assert_batch_safe(place, n=n)
