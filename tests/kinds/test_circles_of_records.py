"""Records that are computed from each other in a circle: by several keys, by folded text, and over columns of one record."""

from itertools import pairwise

import pytest
from django.db import connection
from django.db.models import F, Sum, Value
from django.db.models.functions import Coalesce, Greatest
from django.utils import timezone

from reconcile import HaveValues, Rule
from reconcile.core.fixes import Heights
from reconcile.repair import levels
from reconcile.rules.order import sort_rules
from tests.helpers import assert_clean, assert_repairs, checked, everything, repaired, statements
from tests.zoo.models import Region, Task

pytestmark = pytest.mark.django_db

RANK = Rule(
    name="rank", every=Task.objects.filter(in_scope=True),
    must=HaveValues(rank=Greatest(Coalesce(F("after__rank"), Value(0)), Coalesce(F("part_of__rank"), Value(0))) + 1),
)  # fmt: skip
DEPTH = Rule(name="depth", every=Region, must=HaveValues(depth=Coalesce(F("inside__depth"), Value(0)) + 1))


def tasks(number, **columns):
    return [Task.objects.create(**columns) for _ in range(number)]


def refer(task, **keys):
    Task.objects.filter(pk=task.pk).update(**keys)


def ranks():
    return list(Task.objects.order_by("pk").values_list("rank", flat=True))


def circles_of(rule, *keys):
    (finder,) = rule.compile(using="default", now=timezone.now()).finders
    return finder.levels.circles(keys, Heights())


def test_a_circle_through_two_keys_is_named_and_nothing_of_it_is_written():
    one, two, three, free = tasks(4)
    refer(one, after=two)
    refer(two, part_of=three)
    refer(three, after=one)
    result = repaired(RANK)
    assert f"{one.pk} → {two.pk} → {three.pk} → {one.pk}, through 'after, part_of'" in result.why_stopped
    assert ranks() == [0, 0, 0, 1]
    assert (result.written.update, result.left) == (1, 3)
    assert free.pk not in circles_of(RANK, free.pk)


def test_each_circle_is_named_also_beside_a_record_that_fails():
    one, two, three, itself = tasks(4)
    refer(one, after=two)
    refer(two, after=one)
    refer(three, after=one)
    refer(itself, part_of=itself)
    result = repaired(RANK)
    named = {each["key"]: each["why"] for each in result.refused}
    assert named.keys() == {str(one.pk), str(two.pk), str(itself.pk)}
    assert all("in a circle" in why for why in named.values())
    assert result.skipped == 3


def test_a_record_of_a_circle_that_does_not_drift_now_is_not_written_later():
    one, two = tasks(2)
    refer(one, after=two, rank=3)
    refer(two, part_of=one, rank=2)
    before = everything()
    assert repaired(RANK).written.total == 0
    assert everything() == before


def test_two_ways_to_the_same_record_are_no_circle():
    top, left, right, end = tasks(4)
    refer(left, after=top)
    refer(right, part_of=top)
    refer(end, after=left, part_of=right)
    assert_repairs(RANK, update=4)
    assert ranks() == [1, 2, 2, 3]


def test_a_record_beyond_a_circle_and_one_between_two_are_in_none():
    one, two, between, three, four, beyond = tasks(6)
    refer(one, after=two)
    refer(two, after=one, part_of=between)
    refer(between, after=three)
    refer(three, after=four)
    refer(four, after=three)
    refer(beyond, after=one)
    keys = [task.pk for task in (one, two, between, three, four, beyond)]
    found = circles_of(RANK, *keys)
    assert found == {
        one.pk: [one.pk, two.pk, one.pk], two.pk: [two.pk, one.pk, two.pk],
        three.pk: [three.pk, four.pk, three.pk], four.pk: [four.pk, three.pk, four.pk],
    }  # fmt: skip


def test_a_circle_that_a_record_breaks_which_the_rule_leaves_out_is_none():
    one, two = tasks(2)
    refer(one, after=two)
    refer(two, part_of=one, rank=7, in_scope=False)
    assert_repairs(RANK, update=1)
    assert ranks() == [8, 7]


def test_columns_that_are_computed_each_from_another_s_other_column_are_no_circle():
    """rank goes by one key and height by the other: neither comes back to itself."""
    rule = Rule(
        name="apart", every=Task,
        must=HaveValues(
            rank=Coalesce(F("after__rank"), Value(0)) + 1, height=Coalesce(F("part_of__height"), Value(0)) + 1
        ),
    )  # fmt: skip
    one, two = tasks(2)
    refer(one, after=two, rank=2, height=1)
    refer(two, part_of=one, rank=1)
    assert_repairs(rule, update=1)
    assert list(Task.objects.order_by("pk").values_list("rank", "height")) == [(2, 1), (1, 2)]


def test_a_circle_over_two_columns_of_a_record_is_one():
    rule = Rule(
        name="over", every=Task,
        must=HaveValues(rank=Coalesce(F("after__height"), Value(0)) + 1, height=Coalesce(F("part_of__rank"), Value(0)) + 1),
    )  # fmt: skip
    one, two = tasks(2)
    refer(one, after=two)
    refer(two, part_of=one)
    assert repaired(rule).written.total == 0
    assert circles_of(rule, one.pk) == {one.pk: [one.pk, two.pk, one.pk]}


def test_keys_that_lead_both_ways_are_followed_both_ways():
    """rank reads up one key and down the other."""
    rule = Rule(
        name="ways", every=Task,
        must=HaveValues(rank=Coalesce(F("after__rank"), Value(0)) + Coalesce(Sum("parts__rank"), Value(0)) + 1),
    )  # fmt: skip
    one, two, three = tasks(3)
    refer(one, after=two)
    refer(three, part_of=two)
    assert_repairs(rule, update=3)
    assert ranks() == [3, 2, 1]
    refer(three, after=one)
    assert set(circles_of(rule, one.pk, two.pk, three.pk)) == {one.pk, two.pk, three.pk}


def test_text_that_the_database_folds_leads_to_the_same_record():
    """Where it doesn't fold, the reference leads nowhere, and no foreign key would let it in."""
    folded = "a" if connection.vendor == "mysql" else "A"
    Region.objects.create(code="A")
    Region.objects.create(code="B", inside_id=folded)
    Region.objects.filter(code="A").update(inside_id="b" if connection.vendor == "mysql" else "B")
    Region.objects.create(code="c")
    Region.objects.create(code="D", inside_id="C" if connection.vendor == "mysql" else "c")
    result = repaired(DEPTH)
    assert "A → B → A" in result.why_stopped
    assert dict(Region.objects.values_list("code", "depth")) == {"A": 0, "B": 0, "c": 1, "D": 2}
    assert result.written.update == 2


def test_a_long_circle_costs_a_statement_a_record_of_its_and_ends():
    made = tasks(40)
    for task, other in zip(made, [*made[1:], made[0]], strict=True):
        refer(task, after=other)
    with statements() as captured:
        found = circles_of(RANK, *(task.pk for task in made))
    assert len(found) == 40
    assert all(len(way) == 41 for way in found.values())
    assert len(captured) <= 3


def test_a_tree_needs_no_rounds():
    """A path of one step names the way to the other record, so the levels see to the order."""
    top, child = tasks(2)
    refer(child, after=top)

    def circles_of_rules(*rules):
        return sort_rules({each.name: each for each in rules}, using="default", now=timezone.now()).circles

    assert circles_of_rules(RANK, DEPTH) == []
    by_filter = Rule(name="filter", every=Task.objects.filter(after__rank__gt=3), must=RANK.must)
    assert [list(each) for each in circles_of_rules(by_filter)] == [["filter"]]
    assert "rounds" not in repaired(RANK).warning
    assert_clean(RANK)


@pytest.mark.parametrize("beyond", [0, 1, 3])
def test_a_tree_of_more_levels_than_one_repair_goes_down_is_never_called_clean_too_early(beyond, monkeypatch):
    """As many records were repaired as were counted, and another drifts by that: the count alone proves nothing."""
    monkeypatch.setattr(levels, "LEVELS", 6)
    made = tasks(6 + beyond)
    for task, above in pairwise(made[::-1]):
        refer(task, after=above)
    for number, task in enumerate(made):
        # The last ones agree with what their parents have now.
        refer(task, rank=0 if number < 6 else number - 5)
    result = repaired(RANK)
    assert checked(RANK).tally.total == result.left
    assert result.incomplete is bool(result.left)
    while result.left:
        assert "6 levels" in result.why_stopped
        result = repaired(RANK)
    assert ranks() == list(range(1, 7 + beyond))
