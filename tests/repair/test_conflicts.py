"""Unique values that move from record to record: in one run, in an order in which each is free."""

import random

import pytest
from django.db import connection
from django.db.models import Case, CharField, F, Value, When
from django.utils import timezone

from reconcile import FromPython, HaveRow, HaveValues, Rule, runs
from reconcile.models import Change
from reconcile.repair.conflicts import name_holder
from tests.helpers import assert_clean, repaired
from tests.zoo.models import Contact, Desk, Locker, Seat, Team

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


OF_TEAM = HaveRow(Contact, link={"team": F("pk")}, values={"code": F("name")})


def teams_with_contacts(*names, codes):
    teams = [Team.objects.create(name=name) for name in names]
    Contact.objects.bulk_create(
        [Contact(team=team, code=code) for team, code in zip(teams, codes, strict=True)]
    )
    return teams


@pytest.mark.parametrize("order", [1, -1])
def test_values_of_rows_in_another_table_shift_in_one_run(order):
    names = [f"c{number:02}" for number in range(1, 13)][::order]
    teams_with_contacts(*names, codes=[f"c{int(name[1:]) - 1:02}" for name in names])
    rule = Rule(name="code", every=Team, must=OF_TEAM)
    result = repaired(rule)
    assert (result.written.update, result.left, result.incomplete) == (12, 0, False)
    assert_clean(rule)
    assert repaired(rule).written.total == 0


def test_a_swap_of_rows_in_another_table_is_named():
    one, two, free = teams_with_contacts("a", "b", "x", codes=["b", "a", "y"])
    result = repaired(Rule(name="code", every=Team, must=OF_TEAM))
    assert (result.written.update, result.left) == (1, 2)
    assert "a swap" in result.refused[0]["why"]
    assert {each["key"] for each in result.refused} == {str(one.pk), str(two.pk)}
    assert Contact.objects.get(team=free).code == "x"


def test_a_swap_that_the_collation_folds_is_named():
    """On MariaDB "B" is taken where "b" is; elsewhere both are free, and nothing is in the way."""
    teams_with_contacts("A", "B", codes=["b", "a"])
    result = repaired(Rule(name="code", every=Team, must=OF_TEAM))
    if connection.vendor == "mysql":
        assert "a swap" in result.refused[0]["why"]
    else:
        assert (result.written.update, result.left) == (2, 0)


def test_the_row_that_has_the_value_is_named():
    first, second = Locker.objects.create(number=1), Locker.objects.create(number=2)
    result = repaired(moved({first.pk: 2, second.pk: 2}))
    (refused,) = result.refused
    assert refused["why"].endswith(f". zoo.Locker {second.pk} has the same number.")


def test_the_row_that_keeps_a_new_one_out_is_named():
    """PostgreSQL and SQLite pass over it, so that the database says nothing at all."""
    team, holder = Team.objects.create(name="a"), Contact.objects.create(code="x")
    must = HaveRow(Contact, link={"team": F("pk")}, values={"code": Value("x")})
    result = repaired(Rule(name="r", every=Team, must=must))
    (refused,) = result.refused
    assert refused["key"] == str(team.pk)
    assert refused["why"].endswith(f". zoo.Contact {holder.pk} has the same code.")


def test_a_constraint_with_a_condition_counts_where_the_row_meets_it():
    contact = Contact.objects.create()
    taken, free = Seat.objects.create(contact=contact), Seat.objects.create(contact=contact, taken=False)
    finder, *_ = (
        Rule(name="r", every=Seat, must=HaveValues(taken=True))
        .compile(using="default", now=timezone.now())
        .finders
    )
    says = connection.features.supports_partial_indexes
    assert name_holder(finder, free.pk) == (f"zoo.Seat {taken.pk} has the same contact." if says else "")
    finder, *_ = (
        Rule(name="r", every=Seat, must=HaveValues(taken=False))
        .compile(using="default", now=timezone.now())
        .finders
    )
    assert name_holder(finder, taken.pk) == ""


def test_nobody_is_named_where_no_row_has_the_value():
    team = Team.objects.create(name="a")
    Contact.objects.create(code=None)
    must = HaveRow(Contact, link={"team": F("pk")}, values={"code": Value(None, output_field=CharField())})
    finder, *_ = Rule(name="r", every=Team, must=must).compile(using="default", now=timezone.now()).finders
    assert name_holder(finder, team.pk) == ""


PARTIAL = pytest.mark.skipif(
    not connection.features.supports_partial_indexes, reason="the database has no partial indexes"
)


@PARTIAL
def test_a_condition_on_a_column_that_is_given_no_value_sets_the_record_aside_alone():
    """NULL is what the new row will have there; the others are repaired."""
    first, second, third = (Contact.objects.create(visits=visits) for visits in (5, 5, 6))
    holder = Desk.objects.create(contact=first, number=5)
    must = HaveRow(Desk, link={"contact": F("pk")}, values={"number": F("visits")})
    result = repaired(Rule(name="r", every=Contact, must=must))
    assert (result.error, result.written.insert, result.left) == (None, 1, 1)
    (refused,) = result.refused
    assert refused["key"] == str(second.pk)
    assert refused["why"].endswith(f"zoo.Desk {holder.pk} has the same number.")
    assert Desk.objects.filter(contact=third).exists()


@PARTIAL
def test_so_does_one_on_a_column_that_is_null():
    contact = Contact.objects.create(visits=5)
    holder, other = (Desk.objects.create(contact=contact, number=number) for number in (5, 6))
    result = repaired(Rule(name="r", every=Desk, must=HaveValues(number=F("contact__visits"))))
    assert (result.error, result.left) == (None, 1)
    (refused,) = result.refused
    assert refused["key"] == str(other.pk)
    assert refused["why"].endswith(f"zoo.Desk {holder.pk} has the same number.")


def test_a_name_that_can_not_be_found_is_left_out_and_ends_nothing(monkeypatch):
    def fail(*_):
        raise ValueError("no name")

    monkeypatch.setattr("reconcile.repair.repairing.name_holder", fail)
    first, second = Locker.objects.create(number=1), Locker.objects.create(number=2)
    result = repaired(moved({first.pk: 2, second.pk: 2}))
    assert (result.error, result.left, len(result.refused)) == (None, 1, 1)
