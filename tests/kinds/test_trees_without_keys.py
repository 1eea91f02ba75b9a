"""Trees whose parent no foreign key names: an integer column, or the beginning of a path."""

from decimal import Decimal
from math import isfinite

import pytest
from django.db.models import F, OuterRef, Subquery, Sum, Value
from django.db.models.functions import Coalesce, Length, Substr
from django.utils import timezone

from reconcile import HaveValues, Rule
from reconcile.core.fixes import Heights
from reconcile.repair import levels as levels_module
from tests.helpers import assert_clean, assert_finds, checked, repaired
from tests.zoo.models import Bill, Page

pytestmark = pytest.mark.django_db

PARENT = Bill.objects.filter(pk=OuterRef("basket_number")).values("score")[:1]
DEPTH = Rule(name="depth", every=Bill, must=HaveValues(score=Coalesce(Subquery(PARENT), Value(-1)) + 1))

STEP = 2
PREFIX = Substr(OuterRef("code"), 1, Length(OuterRef("code")) - STEP)
ABOVE = Page.objects.filter(code=PREFIX).values("visits")[:1]
LEVEL = Rule(name="level", every=Page, must=HaveValues(visits=Coalesce(Subquery(ABOVE), Value(0)) + 1))


def chain(number, **values):
    made = []
    for _ in range(number):
        made.append(Bill.objects.create(basket_number=made[-1].pk if made else None, **values))
    return made


def depths():
    return [*Bill.objects.order_by("pk").values_list("score", flat=True)]


def test_a_parent_in_an_integer_column():
    bills = chain(5, score=7)
    beside = Bill.objects.create(basket_number=bills[1].pk, score=2)
    assert_finds(DEPTH, stale=[*bills, beside])
    result = repaired(DEPTH)
    assert (result.left, result.why_stopped, result.status) == (0, "", "pass")
    assert depths() == [0, 1, 2, 3, 4, 2]
    assert_clean(DEPTH)
    assert repaired(DEPTH).written.total == 0


def test_many_levels():
    chain(60)
    result = repaired(DEPTH)
    assert (result.left, result.why_stopped) == (0, "")
    assert depths() == [*range(60)]


def test_records_in_a_circle_are_named_and_not_written():
    one, two, three, beside = *chain(3), *chain(1, score=5)
    Bill.objects.filter(pk=one.pk).update(basket_number=two.pk)
    result = repaired(DEPTH)
    assert result.incomplete
    assert (
        f"in a circle: {one.pk} → {two.pk} → {one.pk}, through 'basket_number'"
        in result.why_stopped + str(result.refused)
    )
    assert depths() == [0, 0, 0, 0]
    assert result.written.update == 1
    assert {three.pk, beside.pk}


def test_each_record_is_written_once():
    bills = chain(12)
    Bill.objects.filter(pk__in=[each.pk for each in bills[3:]]).update(score=50)
    plan = checked(DEPTH)
    result = repaired(DEPTH)
    assert (result.written.update, result.left) == (11, 0)
    assert plan.bound == "at least"


def test_the_beginning_of_a_materialised_path():
    for code in ("01", "0101", "0102", "010201", "02"):
        Page.objects.create(code=code)
    print([*map(str, LEVEL.faults())])
    print(LEVEL.sentence, DEPTH.sentence)
    result = repaired(LEVEL)
    assert (result.left, result.why_stopped) == (0, "")
    assert dict(Page.objects.values_list("code", "visits")) == {
        "01": 1,
        "0101": 2,
        "0102": 2,
        "010201": 3,
        "02": 1,
    }
    assert repaired(LEVEL).written.total == 0


def test_the_longest_beginning_that_there_is():
    """The row above is the first of all ancestors, by the length of its path; a record is never its own."""
    above = (
        Page.objects.annotate(size=Length("code"))
        .filter(size__lt=Length(OuterRef("code")), code=Substr(OuterRef("code"), 1, F("size")))
        .order_by("-size")
        .values("visits")[:1]
    )
    for code in ("a", "a/b", "a/b/c/d", "x"):
        Page.objects.create(code=code, visits=9)
    rule = Rule(name="level", every=Page, must=HaveValues(visits=Coalesce(Subquery(above), Value(0)) + 1))
    result = repaired(rule)
    assert (result.written.update, result.left, result.why_stopped) == (4, 0, "")
    assert dict(Page.objects.values_list("code", "visits")) == {"a": 1, "a/b": 2, "a/b/c/d": 3, "x": 1}


def test_two_columns_of_two_rows():
    """The one follows from the parent, the other from the record that was made before it."""
    before = Bill.objects.filter(pk__lt=OuterRef("pk")).order_by("-pk").values("amount")[:1]
    must = HaveValues(
        score=Coalesce(Subquery(PARENT), Value(-1)) + 1,
        amount=Coalesce(Subquery(before), Value(Decimal(0))) + 1,
    )
    chain(6)
    rule = Rule(name="two", every=Bill, must=must)
    result = repaired(rule)
    assert (result.left, result.why_stopped) == (0, "")
    assert [*Bill.objects.order_by("pk").values_list("score", "amount")] == [
        (each, each + 1) for each in range(6)
    ]
    assert repaired(rule).written.total == 0


@pytest.mark.parametrize(
    "rows",
    [
        Bill.objects.filter(basket_number=OuterRef("pk"))
        .values("basket_number")
        .annotate(all=Sum("score"))
        .values("all"),
        Bill.objects.filter(score=OuterRef("basket_number")).values("score")[:1],
        Bill.objects.filter(pk=OuterRef("basket_number")).values("score")[:2],
    ],
    ids=["an aggregate", "a row that is found by what is written", "two rows"],
)
def test_what_has_no_order_is_repaired_in_rounds(rows):
    must = HaveValues(score=Coalesce(Subquery(rows), Value(-1)) + 1)
    finder, *_ = Rule(name="r", every=Bill, must=must).compile(using="default", now=timezone.now()).finders
    assert finder.levels is None
    assert must.reads_of_others(Bill.objects.all()) >= {(Bill, "score")}


def test_a_tree_by_subquery_needs_no_rounds():
    assert (Bill, "score") not in DEPTH.must.reads_of_others(Bill.objects.all())


def levels_of(**columns):
    rule = Rule(name="r", every=Bill, must=HaveValues(**columns))
    (finder,) = rule.compile(using="default", now=timezone.now()).finders
    return finder.levels


BY_PARENT = Bill.objects.filter(pk=OuterRef("basket_number"))
BEFORE = Bill.objects.filter(pk__lt=OuterRef("pk")).order_by("-pk")


@pytest.mark.parametrize(
    ("other", "known"), [(BY_PARENT, True), (BEFORE, False)], ids=["the same", "another"]
)
def test_two_subqueries_that_find_one_record_are_one_step(other, known):
    """So that the height of each record is known, and a repair looks for circles once."""
    bills = chain(4)
    levels = levels_of(
        score=Coalesce(Subquery(BY_PARENT.values("score")[:1]), Value(-1)) + 1,
        amount=Coalesce(Subquery(other.values("amount")[:1]), Value(Decimal(0))) + 1,
    )
    heights = Heights()
    assert not levels.circles([each.pk for each in bills], heights)
    assert heights.of
    assert all(isfinite(height) for height in heights.of.values()) is known
    heights.forget_unlimited()
    assert bool(heights.of) is known


def test_a_circle_that_another_session_closes_meanwhile_is_not_written_for_ever(monkeypatch):
    """By two steps no height tells of it; it is looked for anew every few levels."""
    bills = chain(4, score=50)
    before = Subquery(BEFORE.values("amount")[:1])
    must = HaveValues(
        score=Coalesce(Subquery(BY_PARENT.values("score")[:1]), Value(-1)) + 1,
        amount=Coalesce(before, Value(Decimal(0))) + 1,
    )
    close, rounds = levels_module.work_through, []

    def closing(*arguments):
        done = close(*arguments)
        rounds.append(done)
        if len(rounds) == 2:
            Bill.objects.filter(pk=bills[0].pk).update(basket_number=bills[1].pk)
        return done

    monkeypatch.setattr(levels_module, "work_through", closing)
    result = repaired(Rule(name="r", every=Bill, must=must))
    assert result.incomplete
    assert "in a circle" in result.why_stopped + str(result.refused)
    assert len(rounds) < 4 * levels_module.FORGET
