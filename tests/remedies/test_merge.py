from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.utils import timezone

from reconcile import BeUnique, Merge, Rule, Settle, runs
from reconcile.core.drift import EXTRA
from reconcile.models import Change, WorkItem
from tests.helpers import (
    Session,
    assert_clean,
    assert_repairs,
    everything,
    found_by_the_night,
    repaired,
    statements,
)
from tests.remedies.test_delete import Interrupted, chunks_for
from tests.repair.test_chunk import locked_by_another_session
from tests.zoo.models import (
    Aside,
    Badge,
    Card,
    Contact,
    Coupon,
    Device,
    Letter,
    Locker,
    Loose,
    Member,
    Page,
    Rack,
    Seat,
    Tag,
    Team,
)

pytestmark = pytest.mark.django_db

MERGED = Rule(
    name="merged",
    every=Contact,
    must=BeUnique("email", merge={"visits": "sum", "spent": "sum", "updated_at": "max", "phone": "coalesce"}),
)
MOVED = Rule(name="moved", every=Contact, must=BeUnique("email", merge={}))


def alike(number=2, email="a", **values):
    return [Contact.objects.create(email=email, **values) for _ in range(number)]


def stays(contact, **values):
    contact.refresh_from_db()
    assert {name: getattr(contact, name) for name in values} == values


def test_a_group_becomes_one_row_with_what_all_of_them_had():
    now = timezone.now().replace(microsecond=5)
    first = Contact.objects.create(email="a", visits=3, spent=Decimal("0.10"), updated_at=now)
    Contact.objects.create(
        email="a", visits=None, spent=Decimal("0.20"), phone="2", updated_at=now + timedelta(1)
    )
    Contact.objects.create(email="a", visits=4, spent=Decimal("0.05"), phone="3")
    other = Contact.objects.create(email="b", visits=1)
    before = everything()
    assert_repairs(MERGED, update=1, delete=2)
    stays(first, visits=7, spent=Decimal("0.35"), phone="2", updated_at=now + timedelta(1))
    stays(other, visits=1)
    after = everything()
    assert {label for label in after if after[label] != before[label]} == {"zoo.Contact"}
    assert Contact.objects.count() == 2


def test_a_sum_is_over_all_rows_and_not_their_number():
    first, *_ = alike(5, visits=100)
    assert_repairs(
        Rule(name="s", every=Contact, must=BeUnique("email", merge={"visits": "sum"})), update=1, delete=4
    )
    stays(first, visits=500)


@pytest.mark.parametrize(("how", "expected"), [("sum", 12), ("min", 1), ("max", 9), ("coalesce", 2)], ids=str)
def test_each_way_of_merging_a_column(how, expected):
    made = [Contact.objects.create(email="a", visits=visits) for visits in (None, 2, 9, 1)]
    assert_repairs(
        Rule(name="w", every=Contact, must=BeUnique("email", merge={"visits": how})), update=1, delete=3
    )
    stays(made[0], visits=expected)


def test_what_is_null_everywhere_stays_null_and_writes_nothing():
    first, _ = alike(visits=None)
    for how in ("sum", "coalesce"):
        Contact.objects.create(email="a", visits=None)
        must = BeUnique("email", merge={"visits": how})
        assert repaired(Rule(name="n", every=Contact, must=must)).written.update == 0
    stays(first, visits=None)


@pytest.mark.parametrize(
    ("how", "values", "expected"),
    [
        ("any", [False, True, False], True),
        ("any", [False, False], False),
        ("all", [True, True], True),
        ("all", [True, False, True], False),
    ],
)
def test_a_boolean_is_true_where_any_or_all_of_them_are(how, values, expected):
    first, *_ = [Contact.objects.create(email="a", is_default=each) for each in values]
    rule = Rule(name="flag", every=Contact, must=BeUnique("email", merge={"is_default": how}))
    changed = {"update": 1} if expected != values[0] else {}
    assert_repairs(rule, delete=len(values) - 1, **changed)
    stays(first, is_default=expected)


def test_coalesce_goes_by_the_order_of_keep():
    made = [
        Contact.objects.create(email="a", visits=visits, phone=phone)
        for visits, phone in ((1, "x"), (3, None), (2, "y"))
    ]
    must = BeUnique("email", keep=["-visits"], merge={"phone": "coalesce"})
    assert_repairs(Rule(name="c", every=Contact, must=must), update=1, delete=2)
    stays(made[1], phone="y")


def test_a_foreign_key_may_be_taken_over():
    team = Team.objects.create(name="x")
    first = Contact.objects.create(email="a")
    Contact.objects.create(email="a", team=team)
    assert_repairs(
        Rule(name="k", every=Contact, must=BeUnique("email", merge={"team": "coalesce"})), update=1, delete=1
    )
    stays(first, team_id=team.pk)


def test_a_value_that_only_one_row_may_have_is_taken_over_when_the_other_is_gone():
    first, _ = Locker.objects.create(room="r"), Locker.objects.create(room="r", number=5)
    must = BeUnique("room", merge={"number": "coalesce"})
    assert_repairs(Rule(name="l", every=Locker, must=must), update=1, delete=1)
    stays(first, number=5)


def test_the_journal_holds_the_row_that_stays_and_those_that_go():
    first, second = alike(visits=2)
    assert_repairs(
        Rule(name="j", every=Contact, must=BeUnique("email", merge={"visits": "sum"})), update=1, delete=1
    )
    gone, kept = Change.objects.order_by("pk")
    assert (gone.verb, gone.key, gone.before["visits"], gone.after) == ("delete", str(second.pk), 2, None)
    assert (kept.verb, kept.key, kept.before, kept.after) == (
        "update",
        str(first.pk),
        {"visits": 2},
        {"visits": 4},
    )


def test_nothing_is_merged_where_nothing_is_alike():
    alike(1)
    alike(1, email="A")
    alike(1, email="a ")
    alike(2, email=None)
    assert_clean(MERGED)
    assert repaired(MERGED).written.total == 0


def test_foreign_keys_are_repointed():
    first, second, third = alike(3)
    other = Contact.objects.create(email="b")
    letters = [
        Letter.objects.create(contact=each, copy_to=copy)
        for each, copy in (
            (second, None),
            (third, other),
            (other, second),
            (third, second),
            (other, None),
            (first, None),
        )
    ]
    assert_repairs(MOVED, update=4, delete=2)
    assert [*Letter.objects.order_by("pk").values_list("contact", "copy_to")] == [
        (first.pk, None),
        (first.pk, other.pk),
        (other.pk, first.pk),
        (first.pk, first.pk),
        (other.pk, None),
        (first.pk, None),
    ]
    change = Change.objects.get(key=str(letters[3].pk), model="zoo.Letter")
    assert change.before == {"contact_id": third.pk, "copy_to_id": second.pk}
    assert change.after == {"contact_id": first.pk, "copy_to_id": first.pk}


def test_one_to_one_by_other_column_loose_and_generic_keys_are_repointed():
    first, second = (Contact.objects.create(email="a", code=code) for code in ("one", "two"))
    card, ticket = Card.objects.create(contact=second), Coupon.objects.create(contact=second)
    loose = Loose.objects.create(contact=second)
    kinds = ContentType.objects.get_for_models(Contact, Team)
    remark, foreign = (
        Aside.objects.create(kind=kinds[each], target_key=str(second.pk)) for each in (Contact, Team)
    )
    assert_repairs(MOVED, update=4, delete=1)
    stays(card, contact_id=first.pk)
    stays(ticket, contact_id="one")
    stays(loose, contact_id=first.pk)
    stays(remark, target_key=str(first.pk))
    stays(foreign, target_key=str(second.pk))


def test_many_to_many_rows_are_repointed_and_those_that_become_the_same_are_deleted():
    first, second, third = alike(3)
    tags = [Tag.objects.create(name=name) for name in "xyz"]
    first.tags.add(tags[0])
    second.tags.add(*tags[:2])
    third.tags.add(*tags[1:])
    assert_repairs(MOVED, update=2, delete=4)
    assert {*first.tags.all()} == {*tags}
    assert Contact.tags.through.objects.count() == 3
    dropped = Change.objects.filter(model="zoo.Contact_tags", verb="delete")
    assert {(each.before["contact_id"], each.before["tag_id"]) for each in dropped} == {
        (second.pk, tags[0].pk),
        (third.pk, tags[1].pk),
    }


def test_many_to_many_rows_of_a_model_with_itself_are_repointed_on_both_sides():
    first, second = alike()
    friend, old = Contact.objects.create(email="f"), Contact.objects.create(email="o")
    second.friends.add(friend, old)
    first.friends.add(old)
    assert_repairs(MOVED, update=2, delete=3)
    assert {*first.friends.all()} == {friend, old}
    assert {*friend.friends.all()} == {first}


def test_friends_who_turn_out_to_be_one_are_refused():
    first, second = alike()
    first.friends.add(second)
    result = repaired(MOVED)
    assert (result.written.total, result.skipped) == (0, 1)
    assert "would connect it with itself" in result.why_stopped


def test_a_reference_to_another_group_is_repointed_with_it():
    _, second = alike()
    first_b, second_b = alike(email="b")
    letter = Letter.objects.create(contact=second, copy_to=second_b)
    assert_repairs(MOVED, update=1, delete=2)
    stays(letter, copy_to_id=first_b.pk)


def test_a_self_reference_from_elsewhere_is_repointed():
    first, second = alike()
    child = Contact.objects.create(email="child", parent=second)
    assert_repairs(MOVED, update=1, delete=1)
    stays(child, parent_id=first.pk)


def test_references_among_those_that_go_go_with_them():
    first, second, third = alike(3)
    Contact.objects.filter(pk=third.pk).update(parent=second)
    Contact.objects.filter(pk=second.pk).update(parent=first)
    assert_repairs(MOVED, update=1, delete=2)
    assert Contact.objects.get().pk == first.pk


def test_a_row_of_a_refused_group_is_repointed_all_the_same():
    first, second = alike()
    _, stuck = alike(email="b")
    Contact.objects.filter(pk=stuck.pk).update(parent=second)
    Member.objects.create(contact=stuck)
    result = repaired(MOVED)
    assert (result.written.update, result.written.delete, result.skipped) == (1, 1, 1)
    stays(stuck, parent_id=first.pk)


def refuse_by_own_reference(first, second):
    Contact.objects.filter(pk=first.pk).update(parent=second)


def refuse_by_one_to_one(first, second):
    for each in (first, second):
        Card.objects.create(contact=each)


def refuse_by_unique_pair(first, second):
    for each in (first, second):
        Letter.objects.create(contact=each, number=7)


def refuse_by_primary_key(first, second):
    Member.objects.create(contact=second)


def refuse_by_missing_code(first, second):
    Contact.objects.filter(pk=second.pk).update(code="x")
    Coupon.objects.create(contact_id="x")


@pytest.mark.parametrize(
    ("refer", "said"),
    [
        (refuse_by_own_reference, "would refer to itself by parent."),
        (refuse_by_one_to_one, "in contact_id, which is unique."),
        (refuse_by_unique_pair, "in contact_id, number, which is unique."),
        (
            refuse_by_primary_key,
            "zoo.Member by contact refers to it, in a primary key, which is never rewritten.",
        ),
        (refuse_by_missing_code, "has no code."),
    ],
)
def test_a_group_that_can_t_be_merged_is_refused_whole_and_the_others_are_merged(refer, said):
    first, second, third = alike(3, visits=1)
    Letter.objects.create(contact=third)
    refer(first, second)
    kept, _ = alike(2, email="b", visits=1)
    before = everything()
    result = repaired(MERGED)
    assert (result.written.update, result.written.delete, result.left, result.skipped) == (1, 1, 2, 2)
    assert said in result.why_stopped
    assert "zoo." in result.why_stopped
    stays(kept, visits=2)
    after = everything()
    assert {label for label in after if after[label] != before[label]} == {"zoo.Contact"}
    assert Contact.objects.filter(email="a", visits=1).count() == 3


def test_null_in_a_unique_constraint_collides_with_nothing():
    first, second = alike()
    for each in (first, second):
        Letter.objects.create(contact=each, number=None)
    assert_repairs(MOVED, update=1, delete=1)


def test_a_constraint_that_is_not_about_a_row_refuses_nothing():
    first, second = alike()
    for each in (first, second):
        Seat.objects.create(contact=each, taken=False)
    assert_repairs(MOVED, update=1, delete=1)
    (again,) = alike(1)
    Seat.objects.create(contact=first, taken=True)
    Seat.objects.create(contact=again, taken=True)
    result = repaired(MOVED)
    if connection.features.supports_partial_indexes:
        assert "in contact_id, which is unique." in result.why_stopped
    else:
        assert result.written.delete == 1


def test_uuid_and_text_keys():
    for _ in range(3):
        Device.objects.create(name="x")
    first, second, _ = Device.objects.order_by("pk")
    badge = Badge.objects.create(device=second, name="x")
    remark = Aside.objects.create(kind=ContentType.objects.get_for_model(Device), target_key=str(second.pk))
    assert_repairs(Rule(name="d", every=Device, must=BeUnique("name", merge={})), update=2, delete=2)
    stays(badge, device_id=first.pk)
    stays(remark, target_key=str(first.pk))
    for code in ("b", "a"):
        Page.objects.create(code=code, visits=4)
    note = Aside.objects.create(kind=ContentType.objects.get_for_model(Page), target_key="b")
    assert_repairs(
        Rule(name="p", every=Page, must=BeUnique("visits", merge={"visits": "min"})), update=1, delete=1
    )
    stays(note, target_key="a")


def test_a_group_of_five_hundred():
    first, *rest = Contact.objects.bulk_create([Contact(email="a", visits=2) for _ in range(500)])
    first, *rest = Contact.objects.order_by("pk")
    Letter.objects.bulk_create([Letter(contact=each) for each in rest])
    assert_repairs(replace(MERGED, max_deletes="100%"), update=1 + 499, delete=499)
    stays(first, visits=1000)
    assert Letter.objects.filter(contact=first).count() == 499


class SmallMerge(Merge):
    chunk = 3


def test_a_chunk_border_within_a_group_changes_nothing():
    made = [
        Contact.objects.create(email="ab"[number % 2], visits=number, phone=phone)
        for number, phone in enumerate([None, None, "x", "y", None, "z", None, None, "u", "v"])
    ]
    must = BeUnique("email", keep=["-visits"], merge={"visits": "sum", "phone": "coalesce"})
    assert_repairs(
        Rule(name="b", every=Contact, must=must, remedies={EXTRA: SmallMerge()}), update=2, delete=8
    )
    assert WorkItem.objects.filter(chunks=3).exists()
    assert [*Contact.objects.order_by("email").values_list("pk", "visits", "phone")] == [
        (made[8].pk, 20, "u"),
        (made[9].pk, 25, "v"),
    ]


def test_young_rows_are_not_added_up():
    now = timezone.now()
    first, _ = alike(visits=1, updated_at=now - timedelta(hours=1))
    young = Contact.objects.create(email="a", visits=10, updated_at=now)
    must = BeUnique("email", merge={"visits": "sum"})
    rule = Rule(name="y", every=Contact, must=must, settle=Settle("updated_at", minutes=15))
    assert_repairs(rule, update=1, delete=1)
    stays(first, visits=2)
    stays(young, visits=10)


def test_the_statements_are_as_many_for_10_as_for_1000_duplicates():
    def sent(number):
        Contact.objects.all().delete()
        for _ in range(2):
            Contact.objects.bulk_create([Contact(email=str(each), visits=1) for each in range(number)])
        Letter.objects.bulk_create([Letter(contact=each) for each in Contact.objects.all()])
        with statements() as captured:
            result = repaired(MERGED, max_deletes="100%")
        assert (result.written.update, result.written.delete) == (2 * number, number)
        return len(captured)

    # A slow machine gives a sign of life between, or takes smaller chunks; a statement for each record would be hundreds.
    # The many come first: a repair has PostgreSQL learn what the table holds, and for ten rows it would plan a loop within a loop.
    many = sent(1000)
    assert many - sent(10) < 30


def test_more_rows_than_one_update_repoints():
    first, second = alike()
    Letter.objects.bulk_create([Letter(contact=second) for _ in range(2_500)])
    assert_repairs(MOVED, update=2_500, delete=1)
    assert Letter.objects.filter(contact=first).count() == 2_500


def test_what_is_not_to_be_merged_is_a_programming_error():
    rule = Rule(name="r", every=Contact, must=BeUnique("email"))
    finder = rule.compile(using="default", now=timezone.now()).finders[0]
    with pytest.raises(TypeError, match="has nothing to merge"):
        Merge().write(finder, None, None)
    (fault,) = Merge().faults(EXTRA, None)
    assert fault.id == "reconcile.E012"


def test_a_constraint_that_only_the_database_knows_sets_the_record_aside():
    first, second = alike()
    for each, name in ((first, "x"), (second, "X")):
        Rack.objects.create(contact=each, name=name)
    result = repaired(MOVED)
    if not connection.features.supports_expression_indexes:
        assert result.written.delete == 1
        return
    assert (result.written.total, result.left, result.skipped) == (0, 1, 1)
    assert Contact.objects.count() == 2
    assert not Change.objects.exists()


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_group_of_which_another_session_holds_a_row_is_left_whole(which):
    made = alike(3, visits=1)
    kept, _ = alike(2, email="b", visits=1)
    with locked_by_another_session(Contact.objects.filter(pk=made[which].pk)):
        result = repaired(MERGED)
    assert (result.written.update, result.written.delete, result.left, result.skipped) == (1, 1, 2, 2)
    stays(kept, visits=2)
    assert_repairs(MERGED, update=1, delete=2)
    stays(made[0], visits=3)


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_a_group_whose_references_another_session_holds_is_left_whole():
    first, second = alike(visits=1)
    letter = Letter.objects.create(contact=second)
    kept, _ = alike(2, email="b", visits=1)
    with locked_by_another_session(Letter.objects.filter(pk=letter.pk)):
        result = repaired(MERGED)
    assert (result.written.update, result.written.delete, result.left, result.skipped) == (1, 1, 1, 1)
    stays(kept, visits=2)
    assert_repairs(MERGED, update=2, delete=1)
    stays(letter, contact_id=first.pk)


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_two_merges_at_once_add_up_each_row_once():
    Contact.objects.bulk_create([Contact(email=f"{number % 50}", visits=1) for number in range(300)])
    found_by_the_night(MERGED)
    rules = {MERGED.name: replace(MERGED, max_deletes=None)}
    sessions = [Session(lambda: runs.repair(rules, using="default")[1][0]) for _ in range(2)]
    for session in sessions:
        session.start()
    results = [session.join() for session in sessions]
    assert sum(result.written.delete for result in results) == 250
    assert {*Contact.objects.values_list("visits", flat=True)} == {6}
    assert Contact.objects.count() == 50


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_a_row_that_comes_into_the_group_meanwhile_is_not_added_up_before_it_is_merged():
    first, second = alike(visits=1)

    class Meddled(Interrupted):
        done = False

        def meanwhile(self):
            if not Meddled.done:
                Meddled.done = True
                session = Session(lambda: Contact.objects.create(email="a", visits=10))
                session.start()
                session.join()

    chunks, _ = chunks_for(MERGED, Meddled)
    assert chunks.execute([second.pk]) == 2
    stays(first, visits=2)
    assert_repairs(MERGED, update=1, delete=1)
    stays(first, visits=12)


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_reference_that_is_committed_between_lock_and_delete_is_repointed_at_the_next_try():
    first, second = alike(visits=1)

    class Meddled(Interrupted):
        done = False

        def meanwhile(self):
            if not Meddled.done:
                Meddled.done = True
                session = Session(lambda: Letter.objects.create(contact_id=second.pk))
                session.start()
                session.join()

    chunks, paused = chunks_for(MERGED, Meddled)
    assert chunks.execute([second.pk]) == 3
    assert len(paused) == 1
    assert Letter.objects.get().contact_id == first.pk
    assert Contact.objects.get().visits == 2
    assert Change.objects.count() == 3


def test_a_merged_value_that_its_column_has_no_room_for_leaves_the_group_as_it_is():
    """SQLite would keep it, and Django could not read it again; the rest of the group would be deleted."""
    for spent in (Decimal("999999.99"), Decimal("0.01")):
        Contact.objects.create(email="a", spent=spent)
        Contact.objects.create(email="b", spent=1)
    rule = Rule(
        name="sum", every=Contact, must=BeUnique("email", merge={"spent": "sum"}), remedies={EXTRA: Merge()}
    )
    result = repaired(rule)
    assert "The merged value is too large for 'spent'." in result.why_stopped
    assert (result.written.delete, result.written.update, result.left) == (1, 1, 1)
    assert sorted(Contact.objects.values_list("email", "spent")) == [
        ("a", Decimal("0.01")), ("a", Decimal("999999.99")), ("b", Decimal(2)),
    ]  # fmt: skip
