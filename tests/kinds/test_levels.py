"""Trees: records that are computed from other records of the same rule."""

from itertools import pairwise

import pytest
from django.db.models import Count, F, Q, Sum, Value
from django.db.models.functions import Coalesce, Concat
from django.utils import timezone

from reconcile import FromPython, HaveValues, Latest, LookedUp, Rule, runs
from reconcile.core.fixes import Heights
from reconcile.models import Change, Outcome, WorkItem
from tests.helpers import assert_clean, assert_finds, assert_repairs, everything, repaired, statements
from tests.zoo.models import Node, Staff, Task

pytestmark = pytest.mark.django_db

PATH = Rule(
    name="path", every=Node,
    must=HaveValues(path=Concat(Coalesce(F("parent__path"), Value("")), Value("/"), F("name"))),
)  # fmt: skip
SIZE = Rule(name="size", every=Node, must=HaveValues(size=Sum("children__size") + 1))
DEPTH = Rule(name="depth", every=Node, must=HaveValues(depth=Coalesce(F("parent__depth") + 1, Value(0))))


def chain(length, **values):
    """Nodes, each the parent of the next."""
    made = []
    for number in range(length):
        parent = made[-1] if made else None
        made.append(Node.objects.create(name=str(number), parent=parent, **values))
    return made


def paths():
    return list(Node.objects.order_by("pk").values_list("path", flat=True))


def test_a_path_is_made_from_the_parent_s_level_by_level():
    chain(4)
    assert_repairs(PATH, update=4)
    assert paths() == ["/0", "/0/1", "/0/1/2", "/0/1/2/3"]


def test_a_parent_with_the_larger_key_is_still_the_first():
    nodes = chain(4)
    for node, parent in zip(nodes, [*nodes[1:], None], strict=True):
        Node.objects.filter(pk=node.pk).update(parent=parent)
    assert_repairs(PATH, update=4)
    assert paths() == ["/3/2/1/0", "/3/2/1", "/3/2", "/3"]


def test_each_record_is_written_once_with_its_final_value():
    top, middle, leaf = chain(3)
    repaired(PATH)
    Node.objects.filter(pk=top.pk).update(name="new")
    before = Change.objects.count()
    assert_repairs(PATH, update=3)
    written = Change.objects.order_by("pk")[before:]
    assert [change.after["path"] for change in written] == ["/new", "/new/1", "/new/1/2"]
    assert [int(change.key) for change in written] == [top.pk, middle.pk, leaf.pk]


def test_a_right_child_of_a_wrong_parent_is_not_touched():
    top, child = chain(2)
    repaired(PATH)
    Node.objects.filter(pk=top.pk).update(path="wrong")
    assert_finds(PATH, stale=[top, child])
    assert_repairs(PATH, update=1)
    assert paths() == ["/0", "/0/1"]


def test_a_count_is_made_from_the_children_s():
    chain(3)
    Node.objects.create(name="other")
    assert_repairs(SIZE, update=4)
    assert list(Node.objects.order_by("pk").values_list("size", flat=True)) == [3, 2, 1, 1]


def test_several_columns_of_one_tree_are_written_together():
    chain(3, depth=9)
    both = Rule(name="both", every=Node, must=HaveValues(**PATH.must.columns, **DEPTH.must.columns))
    assert_repairs(both, update=3)
    assert list(Node.objects.order_by("pk").values_list("depth", flat=True)) == [0, 1, 2]


def test_a_parent_is_found_by_a_column_that_is_not_its_key():
    boss = Staff.objects.create(code="B")
    Staff.objects.create(code="a", chief=boss)
    rule = Rule(
        name="chain",
        every=Staff,
        must=HaveValues(chain=Concat(Coalesce(F("chief__chain"), Value("")), F("code"))),
    )
    assert_repairs(rule, update=2)
    assert list(Staff.objects.order_by("pk").values_list("chain", flat=True)) == ["B", "Ba"]


def test_a_parent_that_the_rule_does_not_speak_of_is_taken_as_it_is():
    top, _child = chain(2)
    Node.objects.filter(pk=top.pk).update(path="/given")
    some = Rule(name="some", every=Node.objects.filter(parent__isnull=False), must=PATH.must)
    assert_repairs(some, update=1)
    assert paths() == ["/given", "/given/1"]


def test_records_in_a_circle_are_named_and_the_others_are_mended():
    _top, child = chain(2)
    first, second = chain(2)
    Node.objects.filter(pk=first.pk).update(parent=second)
    before = everything()
    result = repaired(PATH)
    assert f"in a circle: {first.pk} → {second.pk} → {first.pk}, through 'parent'" in result.why_stopped
    assert result.incomplete
    assert result.left == 2
    assert result.written.update == 2
    assert Node.objects.get(pk=first.pk).path == ""
    assert everything() != before
    assert Node.objects.get(pk=child.pk).path == "/0/1"


def test_a_record_that_is_its_own_parent_is_a_circle_of_one():
    (node,) = chain(1)
    Node.objects.filter(pk=node.pk).update(parent=node)
    assert f"in a circle: {node.pk} → {node.pk}," in repaired(PATH).why_stopped


def test_the_other_rows_stay_untouched():
    chain(3)
    repaired(PATH)
    assert_clean(PATH)
    before = everything()
    assert repaired(PATH).written.total == 0
    assert everything() == before


def test_a_deep_tree_costs_a_few_statements_a_level_and_not_one_a_record():
    def wide(width):
        Node.objects.all().delete()
        (top,) = chain(1)
        Node.objects.bulk_create(Node(name=str(number), parent=top) for number in range(width))
        with statements() as captured:
            repaired(PATH)
        return len(captured)

    # A slow machine gives a sign of life between, or takes smaller chunks; a statement for each record would be hundreds.
    assert wide(1_000) - wide(10) < 30


def test_a_chunk_calls_the_function_for_its_own_records_and_not_for_all(settings):
    settings.RECONCILE = {**settings.RECONCILE, "CHUNK": 10}
    calls = []

    def path_of(parent, name):
        calls.append(name)
        return f"{parent or ''}/{name}"

    named = HaveValues(path=FromPython(path_of, reads=["parent__path", "name"]))

    def calls_a_record(width):
        Node.objects.all().delete()
        calls.clear()
        (top,) = chain(1)
        Node.objects.bulk_create(Node(name=str(number), parent=top) for number in range(width))
        assert repaired(Rule(name="python", every=Node, must=named)).written.update == width + 1
        return len(calls) / (width + 1)

    assert calls_a_record(400) == pytest.approx(calls_a_record(40), rel=0.2)


def test_a_run_that_was_killed_at_some_level_goes_on_with_the_others():
    nodes = chain(4)
    run, _ = runs.repair({"path": PATH}, using="default")
    Node.objects.filter(pk__gt=nodes[1].pk).update(path="")
    outcome = Outcome.objects.get(run=run)
    type(run).objects.filter(pk=run.pk).update(state="stopped")
    Outcome.objects.filter(pk=outcome.pk).update(state="repairing")
    WorkItem.objects.filter(outcome=outcome).update(state="running", cursor=str(nodes[-1].pk))
    run.refresh_from_db()
    (result,) = runs.resume(run, {"path": PATH}, using="default")
    assert (result.left, result.why_stopped) == (0, "")
    assert paths() == ["/0", "/0/1", "/0/1/2", "/0/1/2/3"]


def test_a_path_of_several_steps_back_to_the_same_column_is_refused():
    rule = Rule(name="far", every=Node, must=HaveValues(path=F("parent__parent__path")))
    (fault,) = rule.faults()
    assert fault.id == "reconcile.E015"
    assert "'parent__parent__path' reads a column that the rule writes in other records" in fault.message


def test_values_from_the_parent_and_from_the_children_are_not_served_by_one_rule():
    both = Rule(name="both", every=Node, must=HaveValues(**PATH.must.columns, **SIZE.must.columns))
    (fault,) = both.faults()
    assert fault.id == "reconcile.E015"
    assert "through 'children' and back through 'parent', so no record can be first" in fault.message
    assert fault.hint == "Write two rules, one for each direction."
    chain(3)
    assert_repairs(PATH, update=3)
    assert_repairs(SIZE, update=3)


def test_a_path_to_a_column_that_the_rule_does_not_write_is_none_of_levels():
    rule = Rule(name="far", every=Node, must=HaveValues(name=F("parent__parent__path")))
    assert list(rule.faults()) == []
    compiled = rule.compile(using="default", now=timezone.now())
    assert compiled.finders[0].levels is None


def test_a_count_of_rows_that_reads_no_written_column_has_no_levels():
    rule = Rule(name="children", every=Node, must=HaveValues(size=Count("children")))
    assert rule.compile(using="default", now=timezone.now()).finders[0].levels is None
    chain(3)
    assert_repairs(rule, update=2)


@pytest.mark.parametrize(
    "value",
    [
        LookedUp(Node, link={"pk": F("parent_id")}, value=Concat("path", Value("/"), "name"), by=["pk"]),
        LookedUp(Node, link={"path": F("name")}, value="name", by=["pk"]),
        LookedUp(Node, link={"pk": F("parent_id")}, value="name", by=["-path"]),
        Latest("children", value="path", by=["pk"]),
        Latest("children", value="name", by=["pk"], filter=Q(path="x")),
    ],
    ids=str,
)
def test_rows_of_the_same_model_that_are_asked_for_what_the_rule_writes_are_refused(value):
    (fault,) = Rule(name="own", every=Node, must=HaveValues(path=value)).faults()
    assert fault.id == "reconcile.E015"
    assert "reads 'path', which the rule writes in other records" in fault.message


def test_rows_of_the_same_model_may_be_asked_for_what_the_rule_does_not_write():
    chain(2)
    rule = Rule(
        name="name", every=Node, must=HaveValues(path=Latest("children", value="name", by=["pk"]), depth=0)
    )
    assert [str(fault) for fault in rule.faults()] == []


def rightly(*depths):
    """A circle of nodes with these depths: each but the first is right, and the first would make the second wrong."""
    nodes = [Node.objects.create(name=str(number), depth=depth) for number, depth in enumerate(depths)]
    for node, parent in zip(nodes, [nodes[-1], *nodes], strict=False):
        Node.objects.filter(pk=node.pk).update(parent=parent)
    return nodes


@pytest.mark.parametrize("depths", [(3, 4), (3, 4, 5), (7,)], ids=["two", "three", "one"])
def test_a_circle_of_which_only_some_have_drifted_is_named_and_none_of_it_is_written(depths):
    nodes = rightly(*depths)
    below = Node.objects.create(name="below", parent=nodes[0], depth=9)
    other = Node.objects.create(name="other", depth=9)
    result = repaired(DEPTH)
    assert list(
        Node.objects.filter(pk__in=[each.pk for each in nodes]).order_by("pk").values_list("depth", flat=True)
    ) == [*depths]
    assert (result.written.update, result.left, result.incomplete) == (1, 2, True)
    other.refresh_from_db()
    below.refresh_from_db()
    assert (other.depth, below.depth) == (0, 9)
    first = nodes[0].pk
    assert f"in a circle: {first} → " in result.why_stopped
    assert "Break the circle." in result.why_stopped
    assert Change.objects.filter(key__in=[str(each.pk) for each in nodes]).count() == 0


def test_a_circle_is_found_where_values_come_from_the_rows_that_refer():
    for node in rightly(0, 0, 0):
        Node.objects.filter(pk=node.pk).update(size=3)
    Node.objects.filter(name="0").update(size=5)
    result = repaired(SIZE)
    assert result.incomplete
    assert "in a circle" in result.why_stopped
    assert result.written.update == 0


def test_looking_for_circles_costs_a_statement_a_level():
    nodes = chain(6)
    levels = DEPTH.compile(using="default", now=timezone.now()).finders[0].levels
    with statements() as sent:
        assert levels.circles([nodes[-1].pk], Heights()) == {}
    assert len(sent) == 6
    with statements() as sent:
        assert levels.circles([each.pk for each in nodes], Heights()) == {}
    assert len(sent) == 1


@pytest.mark.parametrize("rule", [PATH, SIZE], ids=["down", "up"])
def test_a_deep_chain_costs_a_statement_a_level_for_it_and_not_one_for_each_above(rule):
    sent = []
    for depth in (20, 40):
        Node.objects.all().delete()
        chain(depth)
        with statements() as found:
            assert repaired(rule).written.update == depth
        sent.append(len(found))
    few, many = sent
    assert many < 2.2 * few


def spoil(node, column, settings):
    """Another session that writes the column of the node before each chunk. Returns the list that it notes its writes in."""
    writes = []

    def throttle(_):
        writes.append(1)
        Node.objects.filter(pk=node.pk).update(**{column: 1_000 + len(writes)})
        return False

    settings.RECONCILE = {**settings.RECONCILE, "THROTTLES": [throttle]}
    return writes


@pytest.mark.parametrize("place", [0, 1, 4])
@pytest.mark.parametrize("rule", [DEPTH, SIZE], ids=["depth", "size"])
def test_a_writer_that_goes_on_does_not_keep_a_repair_for_ever(rule, place, settings):
    nodes = chain(5, depth=9, size=9)
    column = rule.name
    writes = spoil(nodes[place], column, settings)
    result = repaired(rule)
    assert len(writes) < 40
    # The writer writes before a chunk, so what the last chunk repairs stays right.
    assert bool(result.left) is ("other sessions" in result.why_stopped)
    assert (result.left > 0) is (place != {"depth": 4, "size": 0}[rule.name])
    settings.RECONCILE = {**settings.RECONCILE, "THROTTLES": []}
    assert repaired(rule).left == 0
    assert_clean(rule)


@pytest.mark.parametrize("rule", [DEPTH, SIZE], ids=["depth", "size"])
def test_branches_of_different_heights_are_repaired_in_one_run(rule):
    """What drifts only by the repair of what it is computed from is no other session's write."""
    made = [chain(length) for length in (1, 4, 7, 2)]
    for shorter, longer in pairwise(made):
        Node.objects.filter(pk=shorter[0].pk).update(parent=longer[-1])
    assert repaired(rule).left == 0
    assert_clean(rule)
    # Right by themselves but for one, from which all others follow.
    Node.objects.filter(pk__in=[made[3][0].pk, made[0][0].pk]).update(depth=50, size=50)
    assert repaired(rule).left == 0
    assert_clean(rule)


def test_columns_of_two_trees_are_repaired_in_one_run():
    """A record waits for all that it is computed from, in whichever tree."""
    rule = Rule(
        name="both", every=Task,
        must=HaveValues(rank=Coalesce(F("after__rank"), 0) + 1, height=Coalesce(F("part_of__height"), 0) + 1),
    )  # fmt: skip
    made = [Task.objects.create(rank=9, height=9)]
    for number in range(11):
        made.append(Task.objects.create(rank=9, height=9, **{"after" if number % 2 else "part_of": made[-1]}))
    assert repaired(rule).left == 0
    assert_clean(rule)


def test_a_rule_that_reads_up_and_down_is_refused():
    rule = Rule(
        name="both", every=Task,
        must=HaveValues(rank=Coalesce(F("after__rank"), 0) + 1, height=Sum("parts__height", default=0) + 1),
    )  # fmt: skip
    (fault,) = rule.faults()
    assert fault.id == "reconcile.E015"
    assert "up and down, through 'after' and 'parts'" in fault.message
