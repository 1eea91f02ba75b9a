"""Traps that other tools fell into: merging, references, inheritance, aggregates, managers. Tested elsewhere in full:

Merging: NULL is no duplicate unless it is said to be -> tests/kinds/test_be_unique.py::test_null_is_like_any_value_where_nulls_are_not_distinct
Merging: NULL among repointed references -> tests/remedies/test_merge.py::test_null_in_a_unique_constraint_collides_with_nothing
Merging: sums and not counts -> tests/remedies/test_merge.py::test_a_sum_is_over_all_rows_and_not_their_number
Merging: repointed references that collide -> tests/remedies/test_merge.py::test_a_group_that_can_t_be_merged_is_refused_whole_and_the_others_are_merged
Merging: text that differs in case -> tests/kinds/test_be_unique.py::test_text_that_differs_only_in_case_or_trailing_space_is_no_duplicate
Merging: text that differs in case is not merged -> tests/remedies/test_merge.py::test_nothing_is_merged_where_nothing_is_alike
Generic foreign keys: the key is text -> tests/kinds/test_have_source.py::test_a_text_that_is_no_key_is_found_and_no_error
Generic foreign keys: unknown content type -> tests/kinds/test_have_source.py::test_a_content_type_without_a_model_is_another_matter_than_a_deleted_row
Inheritance: the child row is missing -> tests/test_models.py::test_a_child_row_that_is_missing_while_its_parent_row_exists_is_inserted
Inheritance: the grandchild row is missing -> tests/test_models.py::test_a_grandchild_row_continues_its_parent_s
Two relations -> tests/kinds/test_have_values.py::test_aggregates_over_two_relations_do_not_multiply_each_other
Two relations in one expression -> tests/kinds/test_have_values.py::test_what_is_computed_from_several_aggregates_multiplies_nothing
Two relations of which one goes deeper -> tests/kinds/test_have_values.py::test_two_aggregates_of_which_one_goes_deeper_do_not_multiply
Managers: records -> tests/kinds/test_have_values.py::test_records_that_the_default_manager_hides_are_checked_too
Managers: targets of a generic key -> tests/kinds/test_have_source.py::test_a_target_that_the_default_manager_hides_is_there
Managers: deleting -> tests/remedies/test_delete.py::test_a_row_that_the_default_manager_hides_is_deleted
Managers: looking up -> tests/kinds/test_looked_up.py::test_rows_that_a_default_manager_hides_count_too
"""

from dataclasses import replace
from decimal import Decimal

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db.models import Avg, Count, Exists, F, Max, Min, OuterRef, Q, Sum

from reconcile import (
    EXTRA,
    BeUnique,
    Call,
    Delete,
    HaveRow,
    HaveRows,
    HaveSource,
    HaveValues,
    Latest,
    LookedUp,
    Rule,
    Satisfy,
)
from reconcile.core.drift import Guarantee
from tests.helpers import ROOT, assert_clean, assert_finds, assert_repairs, checked, everything, repaired
from tests.zoo.models import (
    Basket,
    Contact,
    Letter,
    Lorry,
    Match,
    Memo,
    Node,
    Player,
    Shy,
    Team,
    Trailer,
    Vehicle,
)

pytestmark = pytest.mark.django_db


def unique_letter(**options):
    """(contact, number) is unique in the database; two letters without a number get past that."""
    return Rule(
        name="letter", every=Letter, must=BeUnique("contact", "number", nulls_distinct=False), **options
    )


def test_null_gets_duplicates_past_a_unique_constraint_and_they_are_found():
    contact = Contact.objects.create(email="a")
    _first, second, third = (Letter.objects.create(contact=contact, number=None) for _ in range(3))
    Letter.objects.create(contact=contact, number=1)
    assert_finds(unique_letter(), extra=[second, third])
    assert unique_letter().guarantee("default") != Guarantee.CONSTRAINT
    assert_repairs(unique_letter(remedies={EXTRA: Delete()}), delete=2)


def test_null_in_the_link_of_an_owed_row_is_not_held_to_be_unique():
    contact = Contact.objects.create(email="a")
    owed = HaveRow(Letter, link={"contact": F("pk"), "number": F("visits")})
    rule = Rule(name="letter", every=Contact, must=owed)
    Contact.objects.update(visits=None)
    Letter.objects.create(contact=contact, number=None)
    before = everything()
    for _ in range(2):
        repaired(rule)
    assert everything() == before


def test_a_row_owed_with_null_is_inserted_once_and_a_second_one_is_surplus():
    contact = Contact.objects.create(email="a")
    owed = HaveRow(Letter, link={"contact": F("pk"), "number": None})
    (fault,) = Rule(name="l", every=Contact, must=owed).faults()
    assert "None links with no row. Count rows by where=Q(number__isnull=True)" in str(fault)
    must = HaveRow(
        Letter, link={"contact": F("pk")}, where=Q(number__isnull=True), create_only={"number": None}
    )
    rule = Rule(name="l", every=Contact, must=must)
    assert not list(rule.faults())
    assert rule.guarantee("default") != Guarantee.CONSTRAINT
    Letter.objects.create(contact=contact, number=3)
    assert_repairs(rule, insert=1)
    second = Letter.objects.create(contact=contact, number=None)
    assert_finds(rule, extra=[second])


def test_a_key_that_may_be_null_makes_no_set_of_rows_unique():
    link = {"contact": F("pk")}
    must = HaveRows(Letter, link=link, rows=lambda visits: [visits], reads=["visits"], key=["number"])
    rule = Rule(name="rows", every=Contact, must=must)
    assert rule.guarantee("default") != Guarantee.CONSTRAINT
    contact = Contact.objects.create(email="a", visits=None)
    assert_repairs(rule, insert=1)
    second = Letter.objects.create(contact=contact, number=None)
    assert_finds(rule, extra=[second])


def test_rows_with_null_are_merged_with_their_sums_where_null_is_one_value():
    first = Contact.objects.create(email=None, visits=30, spent=Decimal("0.10"))
    Contact.objects.create(email=None, visits=None, spent=Decimal("0.20"))
    third = Contact.objects.create(email=None, visits=5)
    letter = Letter.objects.create(contact=third, number=7)
    merge = {"visits": "sum", "spent": "sum"}
    assert_clean(Rule(name="m", every=Contact, must=BeUnique("email", merge=merge)))
    must = BeUnique("email", merge=merge, nulls_distinct=False)
    assert_repairs(Rule(name="m", every=Contact, must=must), update=2, delete=2)
    first.refresh_from_db()
    letter.refresh_from_db()
    assert (first.visits, first.spent, letter.contact_id) == (35, Decimal("0.30"), first.pk)


def test_references_that_collide_when_they_are_repointed_lose_nothing():
    """Two of the duplicates have a letter of the same number: all three stay, and so do the letters."""
    contacts = [Contact.objects.create(email="a", visits=1) for _ in range(3)]
    for each in contacts[1:]:
        Letter.objects.create(contact=each, number=7)
    before = everything()
    result = repaired(Rule(name="m", every=Contact, must=BeUnique("email", merge={"visits": "sum"})))
    assert (result.written.total, result.left, result.skipped) == (0, 2, 2)
    assert "which is unique" in result.why_stopped
    assert everything() == before


def test_an_unknown_content_type_crashes_neither_check_nor_plan_nor_repair():
    gone = ContentType.objects.create(app_label="zoo", model="unicorn")
    team = Team.objects.create()
    Memo.objects.create(target=team)
    lost = Memo.objects.create(content_type=gone, object_id=str(team.pk))
    also = Memo.objects.create(content_type_id=987_654, object_id="no number")
    rule = Rule(name="target", every=Memo, must=HaveSource("target"), remedies={EXTRA: Delete()})
    assert_finds(rule, stale=[lost, also])
    assert repaired(rule).written.total == 0
    rule = replace(rule, must=HaveSource("target", unknown=None))
    assert_finds(rule, extra=[lost, also])
    assert_repairs(rule, delete=2)
    assert Memo.objects.count() == 1


def test_only_the_child_row_that_is_missing_is_inserted_and_the_parent_s_is_left_as_it_is():
    both, alone = Lorry.objects.create(wheels=8, load=3), Vehicle.objects.create(wheels=6)
    Trailer(lorry_ptr_id=both.pk).save_base(raw=True)
    rule = Rule(
        name="child",
        every=Vehicle,
        must=HaveRow(Lorry, link={"vehicle_ptr": F("pk")}, create_only={"load": 9}),
    )
    before = everything()
    assert_finds(rule, missing=[alone])
    assert_repairs(rule, insert=1)
    after = everything()
    assert {label for label in after if after[label] != before[label]} == {"zoo.Lorry"}
    assert {*Lorry.objects.values_list("wheels", "load")} == {(8, 3), (6, 9)}


def test_a_deleted_key_that_is_used_again_makes_an_orphan_look_alive_and_the_page_says_so():
    gone = Team.objects.create(name="old")
    orphan = Memo.objects.create(target=gone)
    rule = Rule(name="target", every=Memo, must=HaveSource("target"))
    key = gone.pk
    gone.delete()
    assert_finds(rule, extra=[orphan])
    Team.objects.create(pk=key, name="new")
    assert_clean(rule)
    for page in ("limits.md", "have-source.md"):
        assert "**A deleted key that is used again" in (ROOT / "docs" / page).read_text()


def test_aggregates_over_three_relations_multiply_nothing_in_check_plan_and_repair():
    team = Team.objects.create(name="x", player_count=-1, points=-1)
    Player.objects.bulk_create([Player(team=team, age=age) for age in (20, 21, 23)])
    Match.objects.bulk_create([Match(team=team, points=5) for _ in range(4)])
    Contact.objects.bulk_create([Contact(team=team) for _ in range(2)])
    must = HaveValues(
        player_count=Count("players") + Count("contacts"),
        points=Sum("matches__points"),
        average=Avg("players__age"),
    )
    assert_repairs(Rule(name="three", every=Team, must=must), update=1)
    team.refresh_from_db()
    assert (team.player_count, team.points, team.average) == (5, 20, Decimal("21.3"))


@pytest.mark.parametrize("column", ["points", "player_count"], ids=["nullable", "never null"])
@pytest.mark.parametrize("aggregate", [Count, Sum, Max, Min, Avg], ids=lambda each: each.__name__)
@pytest.mark.parametrize("empty", ["no rows", "none let through", "looked up"])
def test_check_and_repair_agree_on_the_aggregate_of_nothing(column, aggregate, empty):
    lone = Team.objects.create(name="lone", points=7, player_count=7)
    if empty == "none let through":
        Match.objects.create(team=lone, points=70)
    value = aggregate(
        "matches__points", filter=Q(matches__points__lt=0) if empty == "none let through" else None
    )
    if empty == "looked up":
        value = LookedUp(Match, link={"team": F("pk")}, value=aggregate("points"))
    rule = Rule(name="empty", every=Team, must=HaveValues(**{column: value}))
    assert_finds(rule, stale=[lone])
    result = repaired(rule)
    nothing = 0 if aggregate is Count or (aggregate is Sum and column == "player_count") else None
    lone.refresh_from_db()
    if nothing is None and column == "player_count":
        # The smallest of nothing is no number, and the column takes nothing else: that is said, nothing is made up.
        assert getattr(lone, column) in {0, 7}
        assert bool(result.left) is bool(getattr(lone, column))
        return
    assert (result.written.update, result.left, getattr(lone, column)) == (1, 0, nothing)
    assert_clean(rule)


def own_table_rules():
    """Rules whose remedies write the table that their own subqueries read."""
    eldest = Exists(Node.objects.filter(name=OuterRef("name"), pk__lt=OuterRef("pk")))
    younger = Q(Exists(Node.objects.filter(parent=OuterRef("pk"))))
    return {
        "aggregate": (Node, HaveValues(size=Count("children")), {}),
        "latest": (
            Node.objects.filter(parent=None),
            HaveValues(depth=Latest("children", by=["-pk"], value="size")),
            {},
        ),
        "looked up": (Node, HaveValues(size=LookedUp(Node, link={"name": F("name")}, value=Count("pk"))), {}),
        "filter": (Node.objects.filter(eldest), HaveValues(path="later"), {}),
        "condition": (Node, Satisfy(younger | Q(path="leaf"), values={"path": "leaf"}), {}),
        "delete": (Node.objects.filter(children=None), BeUnique("name"), {EXTRA: Delete()}),
        "others": (Node, BeUnique("name", others={"name": F("path")}), {}),
        "merge": (Node, BeUnique("name", merge={"depth": "sum"}), {}),
    }


@pytest.mark.parametrize("kind", own_table_rules())
def test_a_table_is_written_that_the_rule_s_own_subquery_reads(kind):
    top = Node.objects.create(name="top", path="0", depth=1)
    for number in range(3):
        Node.objects.create(name="same", path=f"{number}", parent=top, depth=1, size=5)
    every, must, remedies = own_table_rules()[kind]
    rule = Rule(name=kind, every=every, must=must, remedies=remedies)
    assert checked(rule).tally.total > 0
    result = repaired(rule)
    assert (result.error, result.left, result.why_stopped) == (None, 0, "")
    assert result.written.total > 0
    assert repaired(rule).written.total == 0


def test_an_owed_row_that_a_default_manager_hides_is_there():
    basket, lacking = Basket.objects.create(pk=41), Basket.objects.create(pk=42)
    hidden = Shy._base_manager.create(visible=False, value=basket.pk)
    extra = Shy._base_manager.create(visible=False, value=-4)
    rule = Rule(
        name="shy", every=Basket, must=HaveRow(Shy, link={"value": F("pk")}), remedies={EXTRA: Delete()}
    )
    assert_finds(rule, missing=[lacking], extra=[extra])
    assert_repairs(rule, insert=1, delete=1)
    assert Shy._base_manager.filter(pk=hidden.pk).exists()


def test_hidden_records_are_handed_to_a_function_and_said_to_be_duplicates():
    first, second = (Shy._base_manager.create(visible=False, value=3) for _ in range(2))
    assert_finds(Rule(name="u", every=Shy, must=BeUnique("value")), extra=[second])

    def mend(records):
        Shy._base_manager.filter(pk__in=[each.pk for each in records]).update(value=4)

    rule = Rule(name="c", every=Shy, must=HaveValues(value=4), remedies={"stale": Call(mend)})
    assert repaired(rule).left == 0
    first.refresh_from_db()
    assert first.value == 4
