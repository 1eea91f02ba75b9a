"""Unique values that move from record to record: in one run, in an order in which each is free."""

import random

import pytest
from django.db.models import Case, F, Value, When

from reconcile import FromPython, HaveValues, Rule, runs
from reconcile.models import Change
from tests.helpers import assert_clean, repaired
from tests.zoo.models import Contact, Locker

pytestmark = pytest.mark.django_db


def shifted(by, number=12, every=Locker):
    """Lockers with the numbers 1 to n, of which each is to have the next one `by` further; the rule that says so."""
    Locker.objects.bulk_create([Locker(number=each) for each in range(1, number + 1)])
    lockers = list(Locker.objects.order_by("number"))
    return moved({each.pk: each.number + by for each in lockers})


def moved(numbers):
    cases = [When(pk=key, then=Value(number)) for key, number in numbers.items()]
    return Rule(name="moved", every=Locker, must=HaveValues(number=Case(*cases, default=F("number"))))


@pytest.mark.parametrize("by", [1, -1, 3])
def test_numbers_that_shift_do_so_in_one_run(by):
    rule = shifted(by)
    result = repaired(rule)
    assert (result.written.update, result.left, result.incomplete) == (12, 0, False)
    assert sorted(Locker.objects.values_list("number", flat=True)) == [each + by for each in range(1, 13)]
    assert_clean(rule)
    assert Change.objects.count() == 12


def test_a_shift_in_any_order_does_too():
    numbers = list(range(1, 40))
    random.Random(3).shuffle(numbers)
    Locker.objects.bulk_create([Locker(number=each) for each in numbers])
    rule = moved({each.pk: each.number + 1 for each in Locker.objects.all()})
    assert repaired(rule).written.update == 39
    assert_clean(rule)


def test_an_undo_of_it_takes_all_of_it_back():
    rule = shifted(1)
    before = sorted(Locker.objects.values_list("pk", "number"))
    run, _ = runs.repair({"moved": rule}, using="default")
    _, (undone,) = runs.undo(run, using="default")
    assert (undone.left, sorted(Locker.objects.values_list("pk", "number"))) == (0, before)


def test_a_swap_is_named_as_one_and_the_others_are_mended():
    lockers = [Locker.objects.create(number=each) for each in (1, 2, 5, 6, 9)]
    one, two, five, six, nine = (each.pk for each in lockers)
    result = repaired(moved({one: 2, two: 1, five: 6, six: 7, nine: 9}))
    assert (result.written.update, result.left, result.skipped) == (2, 2, 2)
    assert "a swap" in result.refused[0]["why"]
    assert {each["key"] for each in result.refused} == {str(one), str(two)}
    assert dict(Locker.objects.values_list("pk", "number")) == {one: 1, two: 2, five: 6, six: 7, nine: 9}


def test_a_value_that_a_right_record_has_is_no_swap():
    first, second = Locker.objects.create(number=1), Locker.objects.create(number=2)
    result = repaired(moved({first.pk: 2, second.pk: 2}))
    assert (result.written.update, result.left) == (0, 1)
    assert "a swap" not in result.why_stopped
    assert "could not be repaired" in result.why_stopped


def test_values_that_python_computes_shift_as_well():
    Contact.objects.bulk_create([Contact(email=str(each), code=f"c{each}") for each in range(6)])

    def following(email):
        return f"c{int(email) + 1}"

    rule = Rule(name="codes", every=Contact, must=HaveValues(code=FromPython(following, reads=["email"])))
    assert repaired(rule).written.update == 6
    assert_clean(rule)
