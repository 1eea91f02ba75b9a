"""Rules that read, in other records, what they write: one pass leaves drift, and is never called the end."""

from decimal import Decimal

import pytest
from django.db.models import Case, Exists, F, OuterRef, Q, Subquery, Value, When
from django.utils import timezone
from hypothesis import HealthCheck, given, settings, strategies as st

from reconcile import EXTRA, Delete, HaveRow, HaveSource, HaveValues, Report, Rule, Satisfy, runs
from reconcile.core.drift import STALE, Status
from reconcile.detect.checking import check
from reconcile.rules.order import sort_rules
from reconcile.runs import circles
from tests.helpers import assert_clean, examples, found_by_the_night
from tests.zoo.models import Basket, Bill, Lorry, Node, Parcel, Team, Ticket

pytestmark = pytest.mark.django_db

PARENT = Node.objects.filter(pk=OuterRef("parent"))


def repaired(*rules, **options):
    _, results = runs.repair({rule.name: rule for rule in rules}, using="default", **options)
    return results


def chain(length, **first):
    """Nodes each of which has the one before for a parent."""
    node = None
    for number in range(length):
        node = Node.objects.create(parent=node, name=str(number), **(first if number == 0 else {}))
    return Node.objects.order_by("pk")


def by_filter():
    return Rule(name="r", every=Node.objects.filter(parent__depth=9), must=HaveValues(depth=9))


def by_exists():
    every = Node.objects.filter(Exists(PARENT.filter(depth=9)))
    return Rule(name="r", every=every, must=HaveValues(depth=9))


def by_membership():
    hidden = Node.objects.filter(depth=9)
    return Rule(name="r", every=Node.objects.filter(parent__in=hidden), must=HaveValues(depth=9))


def by_condition():
    must = Satisfy(~Q(Exists(PARENT.filter(depth=9))) | Q(depth=9), values={"depth": 9})
    return Rule(name="r", every=Node, must=must)


def by_subquery():
    depth = Case(When(Exists(PARENT.filter(depth=9)), then=Value(9)), default=F("depth"))
    return Rule(name="r", every=Node, must=HaveValues(depth=depth))


def by_looked_up_value():
    return Rule(
        name="r",
        every=Node.objects.exclude(parent=None),
        must=HaveValues(depth=Subquery(PARENT.values("depth")[:1])),
    )


EACH_WAY = [by_filter, by_exists, by_membership, by_condition, by_subquery]


@pytest.mark.parametrize("way", EACH_WAY, ids=lambda way: way.__name__)
def test_a_chain_is_repaired_to_its_end_in_one_run(way):
    nodes, rule = chain(5, depth=9), way()
    (result,) = repaired(rule)
    assert set(nodes.values_list("depth", flat=True)) == {9}
    assert (result.written.update, result.left, result.incomplete) == (4, 0, False)
    assert "4 rounds" in result.warning
    assert_clean(rule)


@pytest.mark.parametrize("way", EACH_WAY, ids=lambda way: way.__name__)
def test_the_plan_says_that_it_counts_the_first_round(way):
    chain(3, depth=9)
    (planned,) = runs.preview({"r": way()}, using="default", now=timezone.now())
    assert planned.planned.update == 1
    assert "goes on in rounds, and this plan is of the first" in planned.warning


def test_a_value_of_one_other_record_goes_level_by_level():
    nodes = chain(5, depth=9)
    (result,) = repaired(by_looked_up_value())
    assert set(nodes.values_list("depth", flat=True)) == {9}
    assert (result.written.update, result.left, result.warning) == (4, 0, "")


@pytest.mark.parametrize("way", [*EACH_WAY, by_looked_up_value], ids=lambda way: way.__name__)
def test_what_is_clean_takes_no_round(way, monkeypatch):
    monkeypatch.setattr(circles, "check", None)
    chain(3)
    (result,) = repaired(way())
    assert (result.written.total, result.left, result.warning) == (0, 0, "")


def test_levels_are_repaired_in_one_pass_where_the_path_says_them():
    chain(30)
    rule = Rule(
        name="r", every=Node.objects.exclude(parent=None), must=HaveValues(depth=F("parent__depth") + 1)
    )
    (result,) = repaired(rule)
    assert (result.written.update, result.left, result.warning) == (29, 0, "")
    assert_clean(rule)


def test_a_chain_that_is_longer_than_the_rounds_is_left_and_said(monkeypatch):
    monkeypatch.setattr(circles, "STEPS", 3)
    chain(10, depth=9)
    (result,) = repaired(by_filter())
    assert (result.written.update, result.left, result.incomplete) == (4, 1, True)
    assert "after 3 rounds there are still such records" in result.why_stopped
    assert repaired(by_filter())[0].written.update == 4


def test_a_cap_holds_over_all_rounds():
    chain(10, depth=9)
    rule = Rule(name="r", every=by_filter().every, must=HaveValues(depth=9), max_repairs=3)
    (result,) = repaired(rule)
    assert (result.written.update, result.left, result.incomplete) == (3, 1, True)
    assert "the cap is 3" in result.why_stopped


def test_orphans_of_a_deleted_record_are_found_in_the_same_run():
    """The delete of the second round waits for a run that agrees, as each delete does; it isn't called clean."""
    first = Node.objects.create(name="a")
    middle = Bill.objects.create(basket_number=first.pk + 1_000_000)
    rule = Rule(
        name="r", every=Bill, must=HaveSource(model=Bill, link={"id": F("basket_number")}),
        remedies={EXTRA: Delete()}, max_deletes="100%",
    )  # fmt: skip
    Bill.objects.create(basket_number=middle.pk)
    found_by_the_night(rule)
    (result,) = repaired(rule)
    assert (result.written.delete, result.left, result.incomplete) == (1, 1, True)
    assert "two runs that agree" in result.why_stopped


def test_two_rules_that_write_one_column_and_read_it_in_each_others_records_are_a_circle():
    even = Rule(
        name="even", every=Node.objects.filter(name="even", parent__depth=9), must=HaveValues(depth=9)
    )
    odd = Rule(name="odd", every=Node.objects.filter(name="odd", parent__depth=9), must=HaveValues(depth=9))
    node = Node.objects.create(name="odd", depth=9)
    for number in range(6):
        node = Node.objects.create(name=("even", "odd")[number % 2], parent=node)
    assert [
        set(each)
        for each in sort_rules({"even": even, "odd": odd}, using="default", now=timezone.now()).circles
    ] == [{"even", "odd"}]
    assert [each.left for each in repaired(even, odd)] == [0, 0]
    assert not Node.objects.exclude(depth=9).exists()


def test_two_rules_that_want_another_value_in_one_column_are_never_both_verified():
    Team.objects.create(name="x", points=1)
    three = Rule(name="three", every=Team, must=HaveValues(points=3))
    four = Rule(name="four", every=Team.objects.filter(name="x"), must=HaveValues(points=4))
    results = repaired(three, four)
    assert any(each.incomplete and "write what each other reads" in each.why_stopped for each in results)


def test_rules_whose_rows_a_constant_tells_apart_are_no_circle():
    def rule(name, **more):
        return Rule(name=name, every=Basket, must=HaveRow(Ticket, link={"indexed": F("pk"), **more}))

    def found(*rules):
        return sort_rules({each.name: each for each in rules}, using="default", now=timezone.now()).circles

    assert found(rule("a", kind="a"), rule("b", kind="b")) == []
    assert [set(each) for each in found(rule("a", kind="a"), rule("b"))] == [{"a", "b"}]


def test_a_rule_that_only_reports_is_no_circle():
    rule = by_filter()
    reporting = Rule(name="r", every=rule.every, must=rule.must, remedies={STALE: Report()})
    assert sort_rules({"r": reporting}, using="default", now=timezone.now()).circles == []


def test_the_record_s_own_columns_are_no_circle_those_of_a_parent_s_table_included():
    every = Lorry.objects.filter(wheels__lt=9)
    rule = Rule(name="r", every=every, must=HaveValues(wheels=F("wheels")))
    assert sort_rules({"r": rule}, using="default", now=timezone.now()).circles == []


CHILD = Rule(
    name="child", every=Node, must=HaveRow(Node, link={"parent": F("pk")}, create_only={"name": "child"})
)


def test_a_rule_that_makes_its_own_records_ends_at_a_cap_that_the_plan_foretells(monkeypatch):
    monkeypatch.setattr(circles, "FEW_ROWS", 5)
    for number in range(2):
        Node.objects.create(name=str(number))
    (planned,) = runs.preview({"child": CHILD}, using="default", now=timezone.now())
    assert "It makes its own records" in planned.warning
    (result,) = repaired(CHILD)
    assert Node.objects.count() == 2 + result.written.insert
    assert 0 < result.written.insert <= 5
    assert (result.left, result.incomplete) == (2, True)
    assert "it would insert 2 more" in result.why_stopped


def test_one_whose_records_come_to_an_end_is_repaired_to_it():
    every = Node.objects.filter(depth__lt=3)
    must = HaveRow(Node, link={"parent": F("pk")}, create_only={"name": "child", "depth": F("depth") + 1})
    rule = Rule(name="r", every=every, must=must)
    Node.objects.create(name="root")
    (result,) = repaired(rule)
    assert (result.written.insert, result.left, result.incomplete) == (3, 0, False)
    assert_clean(rule)


SOURCES = st.sampled_from(["all", "filter", "exists", "membership"])
VALUES = st.sampled_from(["constant", "path", "subquery", "child", "other table", "own"])
COLUMNS = st.sampled_from(["depth", "size"])


def random_rule(name, source, value, written, read):
    shown = Node.objects.filter(pk=OuterRef("parent"), **{f"{read}__gte": 3})
    every = {
        "all": Node.objects.all(),
        "filter": Node.objects.filter(**{f"parent__{read}__gte": 3}),
        "exists": Node.objects.filter(Exists(shown)),
        "membership": Node.objects.filter(parent__in=Node.objects.filter(**{f"{read}__gte": 3})),
    }[source]
    owed = {
        "constant": 3,
        "path": Case(
            When(**{f"parent__{read}__gte": 3}, then=Value(3)),
            default=F("size" if written == "depth" else "depth"),
        ),
        "subquery": Case(When(Exists(shown), then=Value(3)), default=F(written)),
        "child": Case(
            When(Exists(Node.objects.filter(parent=OuterRef("pk"), **{f"{read}__gte": 3})), then=Value(3)),
            default=F(written),
        ),
        "other table": Case(
            When(Exists(Team.objects.filter(points=OuterRef(read))), then=Value(3)), default=F(written)
        ),
        "own": F("size" if written == "depth" else "depth"),
    }[value]
    return Rule(name=name, every=every, must=HaveValues(**{written: owed}))


@settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_says_that_nothing_is_left_is_clean_in_the_check_right_after_it(data):
    Node.objects.all().delete()
    Team.objects.all().delete()
    Team.objects.create(name="x", points=data.draw(st.integers(0, 3)))
    made = []
    for number in range(6):
        parent = data.draw(st.sampled_from([None, *made]))
        node = Node.objects.create(
            name=str(number),
            parent=parent,
            depth=data.draw(st.integers(0, 3)),
            size=data.draw(st.integers(0, 3)),
        )
        made.append(node)
    rules = []
    for name in data.draw(st.sampled_from([["a"], ["a", "b"]])):
        drawn = [data.draw(each) for each in (SOURCES, VALUES, COLUMNS, COLUMNS)]
        rules.append(random_rule(name, *drawn))
    rules = [rule for rule in rules if not list(rule.faults())]
    results = {each.rule: each for each in repaired(*rules)} if rules else {}
    for rule in rules:
        found = check(rule, using="default", now=timezone.now(), samples=0)
        assert found.status is not Status.ERROR, found.error
        said = results[rule.name]
        assert said.incomplete or found.tally.total == 0, (rule, said, found.tally)
        assert said.left == found.tally.total


@pytest.mark.parametrize(
    ("column", "one", "two", "circle"),
    [
        ("kind", "a", "b", False),
        ("kind", "a", "A", True),
        ("kind", "a", "a ", True),
        ("kind", "e", "é", True),
        ("score", 1, "1", True),
        ("score", 1, "2", False),
        ("amount", "1.50", Decimal("1.5"), True),
        ("amount", 1.5, Decimal("1.504"), True),
        ("amount", 1, 2, False),
        ("basket_number", None, 1, True),
    ],
)
def test_constants_tell_rows_apart_as_the_column_and_the_widest_collation_hold_them(column, one, two, circle):
    def rule(name, value):
        return Rule(
            name=name,
            every=Basket,
            must=HaveRow(Bill, link={"basket_number": F("pk")}, where=Q(**{column: value})),
        )

    rules = [rule("one", one), rule("two", two)]
    found = sort_rules({each.name: each for each in rules}, using="default", now=timezone.now()).circles
    assert [set(each) for each in found] == ([{"one", "two"}] if circle else [])


def test_an_instance_is_the_key_that_it_stands_for():
    team, other = Team.objects.create(name="x"), Team.objects.create(name="y")

    def circles_of(one, two):
        rules = [
            Rule(name=name, every=Basket, must=HaveRow(Parcel, link={"weight": F("pk")}, where=Q(team=value)))
            for name, value in (("one", one), ("two", two))
        ]
        return sort_rules({each.name: each for each in rules}, using="default", now=timezone.now()).circles

    assert [set(each) for each in circles_of(team, team.pk)] == [{"one", "two"}]
    assert circles_of(team, other.pk) == []
