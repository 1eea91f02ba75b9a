"""`assert_cost`: a change that makes a save dearer is seen, with the statements that came."""

import pytest
from django.db.models.signals import post_save

from reconcile.errors import UsageError
from reconcile.testing import assert_cost
from sample_project.shop.models import Customer, Invoice, Note, Order
from tests.audit.test_effects import connected
from tests.helpers import everything

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann():
    return Customer.objects.create(name="Ann")


def test_a_new_record_costs_so_much_and_nothing_is_left(ann):
    before = everything()
    assert_cost(lambda: Order(customer=ann), at_most=7)
    assert everything() == before
    with pytest.raises(AssertionError) as raised:
        assert_cost(lambda: Order(customer=ann), at_most=6)
    told = str(raised.value)
    assert told.startswith(
        "A save of shop.Order needs 7 statements beyond its own, where at most 6 are allowed:\n"
    )
    assert "sample_project.shop.signals.handle_order_created: INSERT shop_invoice" in told
    assert "sample_project.shop.signals.handle_order_saved: SELECT shop_order (2 times)" in told


def test_a_receiver_that_comes_is_seen(ann):
    def receiver(instance, **_):
        Note.objects.filter(pk=instance.pk).count()

    assert_cost(lambda: Order(customer=ann), at_most=7)
    with (
        connected(post_save, receiver, Order),
        pytest.raises(AssertionError, match=r"receiver: SELECT shop_note"),
    ):
        assert_cost(lambda: Order(customer=ann), at_most=7)


def test_a_saved_record_is_saved_again(ann):
    draft = Order.objects.create(customer=ann, status="draft")
    assert_cost(draft, at_most=3)
    with pytest.raises(AssertionError, match="where at most 2 are allowed"):
        assert_cost(draft, at_most=2)


def test_a_model_stands_for_what_factories_make():
    assert_cost(Order, at_most=7)
    with pytest.raises(AssertionError, match=r"A save of shop\.Order needs 7"):
        assert_cost(Order, at_most=6)


def test_where_there_is_nothing_to_save_it_is_a_mistake():
    with pytest.raises(
        UsageError, match=r"There is no record of shop\.Invoice to save.*lambda: Invoice\(…\)"
    ):
        assert_cost(Invoice, at_most=1)
    with pytest.raises(UsageError, match=r"is not saved.*lambda: Order\(…\)"):
        assert_cost(Order(), at_most=1)
    with pytest.raises(UsageError, match="which is no instance"):
        assert_cost(lambda: None, at_most=1)
    with pytest.raises(UsageError, match="is no model"):
        assert_cost(int, at_most=1)


def test_a_save_that_fails_is_no_pass(ann):
    def receiver(instance, **_):
        raise ValueError("broken")

    with connected(post_save, receiver, Order):
        with pytest.raises(ValueError, match="broken"):
            assert_cost(lambda: Order(customer=ann), at_most=100)
        with pytest.raises(UsageError, match="ValueError: broken"):
            assert_cost(Order, at_most=100)


def test_a_function_that_gives_one_instance_again_and_again_saves_it_as_new_each_time(ann):
    order = Order(customer=ann)
    assert_cost(lambda: order, at_most=7)
    with pytest.raises(AssertionError, match="needs 7 statements"):
        assert_cost(lambda: order, at_most=6)
    assert (order.pk, order._state.adding) == (None, True)
