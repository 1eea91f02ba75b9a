from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.db.models import CharField, Count, F, Q, UniqueConstraint
from django.db.models.functions import Cast, Concat, Length, Lower, Now, Right, Trim
from django.test.utils import isolate_apps
from django.utils import timezone

from reconcile import EXTRA, STALE, BeUnique, Delete, Insert, Merge, Report, Rule, Settle, Update
from reconcile.core.drift import Guarantee
from reconcile.core.scopes import EVERYTHING, Keys, Window
from reconcile.models import Change, WorkItem
from reconcile.rules.order import sort_rules
from reconcile.rules.unattended import unattended_refusal
from tests.helpers import (
    Session,
    assert_clean,
    assert_finds,
    assert_repairs,
    checked,
    everything,
    repaired,
    statements,
)
from tests.repair.test_chunk import locked_by_another_session
from tests.zoo.models import Basket, Car, Contact, Device, Locker, Page, Player, Shy, Team

pytestmark = pytest.mark.django_db

DEFAULTS = Contact.objects.filter(is_default=True)
NEWEST = BeUnique("team", keep=["-updated_at"], others={"is_default": False})


def rule(*columns, every=Contact, settle=None, remedies=None, **options):
    must = BeUnique(*columns, **options)
    return Rule(name="unique", every=every, must=must, settle=settle, remedies=remedies or {})


def team():
    return Team.objects.create(name="team")


def contacts(*emails, **values):
    return [Contact.objects.create(email=email, **values) for email in emails]


def finder_of(rule):
    return rule.compile(using="default", now=timezone.now()).finders[0]


def only_fault(rule):
    found = [str(fault) for fault in rule.faults()]
    assert len(found) == 1, found
    return found[0]


def test_the_second_and_third_record_of_a_group_are_extra():
    _first, second, third, _other = contacts("a", "a", "a", "b")
    assert_finds(rule("email"), extra=[second, third])


def test_records_that_differ_are_not_found():
    contacts("a", "b", "c")
    assert_clean(rule("email"))


def test_a_group_is_alike_in_all_columns():
    one, other = team(), team()
    contacts("a", "b", team=one)
    contacts("a", team=other)
    assert_clean(rule("email", "team"))
    (again,) = contacts("b", team=one)
    assert_finds(rule("email", "team"), extra=[again])


def test_duplicates_are_reported_and_left_unless_the_rule_says_more():
    contacts("a", "a")
    result = repaired(rule("email"))
    assert (result.written.total, result.reported, Contact.objects.count()) == (0, {EXTRA: 1}, 2)


def test_the_others_are_given_other_values():
    group, now = team(), timezone.now()
    old, new, older = (
        Contact.objects.create(team=group, is_default=True, updated_at=now - timedelta(hours=hours))
        for hours in (2, 1, 3)
    )
    Contact.objects.create(team=group)
    defaults = Rule(name="default", every=DEFAULTS, must=NEWEST)
    assert_finds(defaults, stale=[old, older])
    before = everything()
    assert_repairs(defaults, update=2)
    assert [each.pk for each in Contact.objects.filter(is_default=True)] == [new.pk]
    after = everything()
    assert {label for label in after if after[label] != before[label]} == {"zoo.Contact"}
    change = Change.objects.order_by("pk").first()
    assert (change.key, [*change.before], [*change.after]) == (str(old.pk), ["is_default"], ["is_default"])


def test_one_default_for_each_is_not_found():
    for _ in range(3):
        Contact.objects.create(team=team(), is_default=True)
    assert_clean(Rule(name="default", every=DEFAULTS, must=NEWEST))


def test_records_outside_every_are_in_no_group():
    group = team()
    Contact.objects.create(team=group, is_default=True)
    Contact.objects.create(team=group, is_default=False)
    assert_clean(rule("team", every=DEFAULTS))


def test_the_others_may_be_given_an_expression_as_the_column_stores_it():
    contacts("a", "a")
    parted = rule("email", others={"email": Concat("email", Cast("pk", CharField()))})
    assert_repairs(parted, update=1)
    _, second = Contact.objects.order_by("pk")
    assert second.email == f"a{second.pk}"


def test_values_that_leave_a_duplicate_where_it_is_are_said_for_each_record():
    contacts("a", "a")
    result = repaired(rule("email", others={"email": Lower("email")}))
    assert (result.written.total, result.left, result.skipped) == (0, 1, 1)
    assert "is still stale after the repair" in result.why_stopped


@pytest.mark.parametrize(
    ("keep", "stays"),
    [
        (["pk"], 0),
        (["-pk"], 3),
        (["visits"], 2),
        (["-visits"], 1),
        ([F("visits").desc()], 1),
        (["is_default", "-visits"], 2),
        (["phone"], 3),
        (["-phone"], 3),
        ([Length("phone")], 3),
        ([], 0),
    ],
    ids=str,
)
def test_the_first_in_the_order_stays_null_last_and_the_key_decides(keep, stays):
    made = [
        Contact.objects.create(email="a", visits=visits, is_default=default, phone=phone)
        for visits, default, phone in ((2, True, None), (9, True, None), (1, False, None), (1, True, "x"))
    ]
    assert_finds(rule("email", keep=keep), extra=[each for each in made if each is not made[stays]])


def test_a_record_with_null_is_no_duplicate():
    contacts(None, None)
    assert_clean(rule("email"))
    assert_clean(rule("email", "team"))


def test_null_is_like_any_value_where_nulls_are_not_distinct():
    _, second, *_ = contacts(None, None, "", "a")
    alike = rule("email", nulls_distinct=False)
    assert_finds(alike, extra=[second])
    assert finder_of(alike).keys(Keys([second.pk])) == [second.pk]
    assert_repairs(rule("email", nulls_distinct=False, remedies={EXTRA: Delete()}), delete=1)


def test_null_in_one_of_several_columns():
    group = team()
    contacts(None, None, team=group)
    (first, second), _ = contacts(None, None), contacts("a", team=group)
    assert_clean(rule("email", "team"))
    apart = rule("email", "team", nulls_distinct=False)
    assert second.pk in {int(each.key) for each in checked(apart).samples}
    assert checked(apart).tally[EXTRA] == 2
    assert first.pk not in {int(each.key) for each in checked(apart).samples}


@pytest.mark.parametrize("emails", [("a", "A"), ("a", "a "), ("é", "e"), ("a", "A", "a ", "A ")])
def test_text_that_differs_only_in_case_or_trailing_space_is_no_duplicate(emails):
    contacts(*emails)
    assert_clean(rule("email"))
    again = contacts(*emails)
    assert_finds(rule("email"), extra=again)
    assert sorted(finder_of(rule("email")).keys(Keys([each.pk for each in again]))) == [
        each.pk for each in again
    ]


def test_text_is_told_apart_to_the_character_where_the_column_folds_case():
    for room in ("a", "A"):
        Locker.objects.create(room=room)
    assert_clean(rule("room", every=Locker))
    again = Locker.objects.create(room="A")
    assert_finds(rule("room", every=Locker), extra=[again])
    assert_repairs(rule("room", every=Locker, merge={"number": "max"}), delete=1)


def test_an_expression_tells_what_is_alike():
    _, second, third, _ = contacts("a", "A", " a", "b")
    assert_finds(rule(Lower("email")), extra=[second])
    assert_finds(rule(Trim(Lower("email"))), extra=[second, third])


def test_a_column_of_another_table():
    one, other = Team.objects.create(name="x"), Team.objects.create(name="x")
    _first, second = Contact.objects.create(team=one), Contact.objects.create(team=other)
    named = rule("team__name", keep=["-team__pk", "pk"])
    assert_finds(named, extra=[_first])
    assert_finds(rule("team__name"), extra=[second])
    assert_repairs(rule("team__name", remedies={EXTRA: Delete()}), delete=1)


def test_an_every_that_joins_to_many_rows_counts_each_record_once():
    group = team()
    Player.objects.bulk_create([Player(team=group) for _ in range(3)])
    many = rule("name", every=Team.objects.filter(players__age=20))
    assert_clean(many)
    other = team()
    Player.objects.bulk_create([Player(team=other) for _ in range(2)])
    assert_finds(many, extra=[other])


def test_a_young_record_neither_goes_nor_makes_another_go():
    settle = Settle("updated_at", minutes=15)
    old = timezone.now() - timedelta(hours=1)
    first, _young = contacts("a", updated_at=old) + contacts("a", updated_at=timezone.now())
    for keep in (["pk"], ["-pk"]):
        assert_clean(rule("email", keep=keep, settle=settle))
    (second,) = contacts("a", updated_at=old)
    assert_finds(rule("email", settle=settle), extra=[second])
    assert_finds(rule("email", keep=["-pk"], settle=settle), extra=[first])
    assert checked(rule("email", settle=settle)).tally.settling == 1


def test_now_in_a_column_or_an_order_is_the_run_s_clock():
    contacts("a", "a")
    late = rule(
        "email", every=Contact.objects.filter(Q(updated_at=None) | Q(updated_at__lt=Now())), keep=[Now()]
    )
    assert checked(late).tally[EXTRA] == 1


def test_records_that_the_default_manager_hides_are_duplicates_too():
    Shy._base_manager.create(visible=True, value=1)
    hidden = Shy._base_manager.create(visible=False, value=1)
    assert_finds(rule("value", every=Shy), extra=[hidden])
    assert_repairs(rule("value", every=Shy, others={"value": F("pk") + 1000}), update=1)


def test_a_text_key_and_a_uuid_key():
    pages = [Page.objects.create(code=code, visits=3) for code in ("b", "a", "c")]
    assert_finds(rule("visits", every=Page), extra=[pages[0], pages[2]])
    assert_repairs(rule("visits", every=Page, keep=["-code"], remedies={EXTRA: Delete()}), delete=2)
    assert Page.objects.get().code == "c"
    for _ in range(3):
        Device.objects.create(name="x")
    parted = rule("name", every=Device, others={"name": Concat("name", Right(Cast("pk", CharField()), 12))})
    assert checked(parted).tally[STALE] == 2
    assert_repairs(parted, update=2)


def test_a_group_is_ranked_whole_whatever_part_of_it_is_asked_for():
    made = contacts("a", "a", "a", "b", "b")
    finder = finder_of(rule("email", keep=["-pk"]))
    keys = [each.pk for each in made]
    assert finder.keys(Keys([keys[1]])) == [keys[1]]
    assert finder.keys(Keys([keys[2], keys[4]])) == []
    assert finder.keys(Window(keys[0], keys[3])) == [keys[1], keys[3]]
    assert finder.keys_after(keys[0], limit=10) == [keys[1], keys[3]]
    assert finder.keys_after(keys[1], limit=10) == [keys[3]]
    assert finder.count(EVERYTHING) == finder.find(EVERYTHING).count() == 3
    assert finder.count(Keys(keys[:2])) == 2


class SmallUpdate(Update):
    chunk = 3


def test_a_chunk_border_within_a_group_changes_nothing():
    group = team()
    for _ in range(11):
        Contact.objects.create(team=group, is_default=True)
    small = Rule(name="default", every=DEFAULTS, must=NEWEST, remedies={STALE: SmallUpdate()})
    assert_repairs(small, update=10)
    assert WorkItem.objects.filter(chunks=4).exists()
    assert Contact.objects.filter(is_default=True).count() == 1


def test_the_statements_are_as_many_for_10_as_for_1000_records():
    def sent(number):
        Contact.objects.all().delete()
        for half in range(2):
            Contact.objects.bulk_create(
                [Contact(email=f"{each}", is_default=not half) for each in range(number // 2)]
            )
        with statements() as checking:
            checked(rule("email"), samples=5)
        with statements() as repairing:
            assert (
                repaired(
                    rule("email", others={"email": Concat("email", Cast("pk", CharField()))})
                ).written.update
                == number // 2
            )
        return len(checking), len(repairing)

    (checking, repairing), (checking_many, repairing_many) = sent(10), sent(1000)
    assert checking == checking_many
    # A slow machine gives a sign of life between, or takes smaller chunks; a statement for each record would be hundreds.
    assert repairing_many - repairing < 30
    Contact.objects.all().delete()
    with statements() as few:
        checked(rule("email"))
    assert len(few) == 2


def test_a_count_is_one_grouped_statement():
    contacts("a", "a")
    with statements() as sent:
        assert finder_of(rule("email")).count(EVERYTHING) == 1
    (statement,) = sent
    assert "GROUP BY" in statement["sql"]
    assert "OVER" not in statement["sql"]


@pytest.mark.parametrize(
    ("must", "sentence"),
    [
        (
            NEWEST,
            "be unique by team: the first by updated_at descending, pk stays, the others get is_default = False.",
        ),
        (BeUnique(Lower("email"), "team"), "be unique by Lower(email) and team: the first by pk stays."),
        (
            BeUnique("email", keep=[F("visits").desc()], merge={"visits": "sum", "phone": "coalesce"}),
            (
                "be unique by email: the first by visits descending (NULL where the database puts it), pk stays, the others are merged into it "
                "(sum of visits, coalesce of phone)."
            ),
        ),
        (
            BeUnique("email", merge={}, nulls_distinct=False),
            "be unique by email, NULL like any value: the first by pk stays, the others are merged into it.",
        ),
    ],
)
def test_it_reads_as_a_sentence(must, sentence):
    assert Rule(every=Contact, must=must).sentence == f"Every contact must {sentence}"


@pytest.mark.parametrize(
    ("must", "said"),
    [
        (BeUnique(), "BeUnique() names no column."),
        (BeUnique("emial"), "BeUnique: Cannot resolve keyword 'emial' into field. Did you mean 'email'?"),
        (BeUnique(5), "BeUnique: 5 is no column. Give names of columns"),
        (BeUnique("details"), "BeUnique: 'details' is a JSON column."),
        (BeUnique("tags"), "BeUnique: the path leads to many rows."),
        (BeUnique(Count("tags")), "BeUnique: an aggregate is not served here."),
        (BeUnique("email", keep="-updated_at"), "keep= is '-updated_at'. Give a list"),
        (BeUnique("email", keep=["-updatd_at"]), "BeUnique(keep=…): Cannot resolve keyword 'updatd_at' into field. Did you mean 'updated_at'?"),
        (BeUnique("email", keep=["?"]), "keep= has '?'."),
        (BeUnique("email", keep=[3]), "keep= has 3."),
        (BeUnique("email", keep=["tags__name"]), "BeUnique(keep=…): the path leads to many rows."),
        (BeUnique("email", keep=[Count("tags")]), "BeUnique(keep=…): an aggregate is not served here."),
        (BeUnique("email", nulls_distinct=None), "nulls_distinct= is None."),
        (BeUnique("email", others={}), "others= is {}."),
        (BeUnique("email", others=["is_default"]), "others= is ['is_default']."),
        (BeUnique("email", others={"emial": ""}), "BeUnique(others=…): zoo.Contact has no column 'emial'. Did you mean 'email'?"),
        (BeUnique("email", others={"id": 3}), "BeUnique(others={'id': …}): it is the primary key."),
        (BeUnique("email", others={"email": str}), "a function can't be called in SQL."),
        (BeUnique("email", others={"email": F("emial")}), "Did you mean 'email'?"),
        (BeUnique("email", others={"email": Count("tags")}), "an aggregate is not served here."),
        (BeUnique("email", others={"email": 1}, merge={}), "others= and merge= can't go together."),
        (BeUnique("email", others={"visits": 0}), "BeUnique(others=…): 'visits' leaves the duplicates what they are. Set a column that every= filters by"),
        (BeUnique("email", merge=["visits"]), "merge= is ['visits']."),
        (BeUnique("email", merge={"vists": "sum"}), "zoo.Contact has no column 'vists'. Did you mean 'visits'?"),
        (BeUnique("email", merge={"visits": "sun"}), "BeUnique(merge={'visits': 'sun'}): there is no such way. Did you mean 'sum'?"),
        (BeUnique("email", merge={"visits": ["sum"]}), "there is no such way."),
        (BeUnique("email", merge={"visits": 1}), "Give one of 'sum', 'min', 'max', 'any', 'all', 'coalesce'."),
        (BeUnique("email", merge={"phone": "sum"}), "the column is no number."),
        (BeUnique("email", merge={"team": "sum"}), "the column is no number."),
        (BeUnique("email", merge={"is_default": "max"}), "the column is a boolean. Give 'any' or 'all'"),
        (BeUnique("email", merge={"visits": "any"}), "the column is no boolean."),
        (BeUnique("email", merge={"details": "coalesce"}), "it is a JSON column."),
        (BeUnique("email", merge={"id": "min"}), "other rows refer to this column."),
        (BeUnique("email", merge={"code": "min"}), "other rows refer to this column."),
        (BeUnique("email", merge={"parent": "coalesce"}), "the column refers to the records themselves."),
        (BeUnique("team__name", merge={}), "merge= with a column or an order of another table is not served."),
        (BeUnique("email", merge={}, keep=["team__name"]), "merge= with a column or an order of another table"),
    ],
    ids=lambda value: value[:50] if isinstance(value, str) else "",
)  # fmt: skip
def test_a_bad_declaration_says_what_is_wrong_and_the_way_out(must, said):
    assert said in only_fault(Rule(name="r", every=Contact, must=must))


@pytest.mark.parametrize(
    ("must", "every", "remedies", "said"),
    [
        (BeUnique("doors", merge={}), Car, {}, "Merge(): zoo.Car inherits from another table."),
        (BeUnique("doors"), Car, {EXTRA: Delete()}, "Delete(): zoo.Car inherits from another table."),
        (BeUnique("email"), Contact, {EXTRA: Merge()}, "Merge() does not mend this extra drift. Say how in BeUnique(…, merge={…})"),
        (BeUnique("email"), Contact, {EXTRA: Update()}, "Update() does not mend extra drift."),
        (BeUnique("email"), Contact, {EXTRA: Insert()}, "Insert() does not mend extra drift."),
        (BeUnique("email"), Contact, {STALE: Report()}, "remedies= has STALE. This rule finds EXTRA alone."),
        (NEWEST, DEFAULTS, {STALE: Delete()}, "Delete() does not mend stale drift."),
        (NEWEST, DEFAULTS, {STALE: Merge()}, "Merge() does not mend this stale drift."),
        (NEWEST, Contact, {}, "'is_default' leaves the duplicates what they are."),
    ],
    ids=lambda value: value[:50] if isinstance(value, str) else "",
)  # fmt: skip
def test_a_remedy_that_can_do_nothing_is_a_fault(must, every, remedies, said):
    assert said in only_fault(Rule(name="r", every=every, must=must, remedies=remedies))


@pytest.mark.parametrize(
    "rule",
    [
        Rule(every=DEFAULTS, must=NEWEST),
        Rule(every=DEFAULTS, must=BeUnique("team", others={"team": None})),
        Rule(every=Contact.objects.filter(team__name="x"), must=BeUnique("email", others={"team": None})),
        Rule(
            every=Contact,
            must=BeUnique(Lower("email"), others={"email": Concat("email", Cast("pk", CharField()))}),
        ),
        Rule(
            every=Contact, must=BeUnique("email", merge={"visits": "sum", "team": "coalesce", "phone": "max"})
        ),
        Rule(every=Contact, must=BeUnique("email"), remedies={EXTRA: Delete()}),
        Rule(every=Basket, must=BeUnique("total")),
        Rule(every=Car, must=BeUnique("wheels")),
    ],
    ids=lambda rule: rule.sentence,
)
def test_a_good_declaration_has_no_fault(rule):
    assert [str(fault) for fault in rule.faults()] == []


def test_a_fault_costs_no_statement():
    with statements() as sent:
        list(Rule(name="r", every=Contact, must=BeUnique("email", merge={"visits": "sum"})).faults())
        list(Rule(name="r", every=Contact, must=BeUnique("email"), remedies={EXTRA: Delete()}).faults())
    assert len(sent) == 0


def test_it_is_a_frozen_value():
    with pytest.raises(AttributeError):
        NEWEST.keep = []
    assert BeUnique("email") == BeUnique("email") != BeUnique("team")
    assert "email" in repr(BeUnique("email"))


def test_the_guarantee_follows_from_what_is_locked():
    def level(must, every=Contact):
        return Rule(every=every, must=must).guarantee("default")

    assert level(NEWEST, DEFAULTS) == Guarantee.CONSTRAINT
    assert level(BeUnique("team__name", others={"team": None})) == Guarantee.LOCK
    assert (
        level(BeUnique("email", others={"team": None}), Contact.objects.filter(team__name="x"))
        == Guarantee.LOCK
    )
    assert level(BeUnique("email")) == level(BeUnique("email", merge={})) == Guarantee.NONE
    assert level(BeUnique("code")) == level(BeUnique("pk", "email")) == Guarantee.CONSTRAINT
    assert level(BeUnique("code", nulls_distinct=False)) == Guarantee.NONE
    assert BeUnique("code").guarantee(Contact, "default") == Guarantee.CONSTRAINT


@isolate_apps("tests.zoo")
def test_a_unique_constraint_covers_the_records_that_it_is_about():
    from django.db import models

    class Covered(models.Model):
        left = models.IntegerField()
        right = models.IntegerField(null=True)
        text = models.CharField(max_length=10)
        active = models.BooleanField()

        class Meta:
            app_label = "zoo"
            unique_together = (("left", "text"),)
            constraints = (
                UniqueConstraint(fields=["left"], condition=Q(active=True), name="c1"),
                UniqueConstraint(Lower("text"), name="c2"),
                UniqueConstraint(fields=["right", "active"], nulls_distinct=False, name="c3"),
                UniqueConstraint(fields=["left", "right"], name="c4"),
            )

    def covered(*columns, every=Covered, **options):
        return (
            Rule(every=every, must=BeUnique(*columns, **options)).guarantee("default") == Guarantee.CONSTRAINT
        )

    features = connection.features
    assert covered("left", "text")
    assert covered("left", "text", "active", nulls_distinct=False)
    assert covered("left", "right")
    assert not covered("left", "right", nulls_distinct=False)
    assert not covered("left")
    assert (
        covered("left", every=Covered._base_manager.filter(active=True)) is features.supports_partial_indexes
    )
    assert not covered("left", every=Covered._base_manager.filter(active=False))
    assert covered(Lower("text"), "active") is features.supports_expression_indexes
    strict = features.supports_nulls_distinct_unique_constraints
    assert covered("right", "active", nulls_distinct=False) is strict
    assert covered("right", "active") is strict


def test_the_nightly_job_leaves_deleting_and_merging_to_people():
    for must, remedies in ((BeUnique("email"), {EXTRA: Delete()}), (BeUnique("email", merge={}), {})):
        said = str(unattended_refusal(Rule(name="r", every=Contact, must=must, remedies=remedies), "default"))
        assert "Its remedy deletes rows" in said
    assert "reconcile repair r --apply" in said
    merging = Rule(name="r", every=Contact, must=BeUnique("pk", merge={}))
    assert "Its remedy deletes" in str(unattended_refusal(merging, "default"))
    assert unattended_refusal(Rule(name="r", every=DEFAULTS, must=NEWEST), "default") is None


def test_a_rule_that_reads_what_goes_runs_afterwards():
    from reconcile import HaveValues

    counted = Rule(name="count", every=Team, must=HaveValues(player_count=Count("contacts")))
    defaults = Rule(
        name="defaults",
        every=Team,
        must=HaveValues(points=Count("contacts", filter=Q(contacts__is_default=True))),
    )
    merged = rule("email", merge={})
    chosen = Rule(name="chosen", every=DEFAULTS, must=NEWEST)
    order = sort_rules(
        {each.name: each for each in (counted, defaults, merged, chosen)}, using="default", now=timezone.now()
    ).rules
    names = [each.name for each in order]
    assert names.index("unique") < names.index("count")
    assert names.index("chosen") < names.index("defaults")


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_a_group_whose_survivor_another_session_holds_is_left_and_the_others_are_repaired():
    one, other = team(), team()
    made = [Contact.objects.create(team=each, is_default=True) for each in (one, one, other, other)]
    defaults = Rule(name="default", every=DEFAULTS, must=BeUnique("team", others={"is_default": False}))
    with locked_by_another_session(Contact.objects.filter(pk=made[0].pk)):
        result = repaired(defaults)
    assert (result.written.update, result.left, result.skipped) == (1, 1, 1)
    assert set(DEFAULTS.all().values_list("pk", flat=True)) == {made[0].pk, made[1].pk, made[2].pk}
    assert_repairs(defaults, update=1)


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_a_group_does_not_lose_its_survivor_and_the_others_at_once():
    """Sessions take the survivor out of its group while a repair takes the others; one is left in each, always."""
    groups = [team() for _ in range(30)]
    Contact.objects.bulk_create([Contact(team=each, is_default=True) for each in groups for _ in range(2)])
    firsts = [Contact.objects.filter(team=each).order_by("pk").first().pk for each in groups]
    defaults = Rule(name="default", every=DEFAULTS, must=BeUnique("team", others={"is_default": False}))

    def handler():
        for key, each in zip(firsts, groups, strict=True):
            with transaction.atomic():
                alike = Contact.objects.filter(team=each, is_default=True).order_by("pk").select_for_update()
                if len(alike) > 1:
                    Contact.objects.filter(pk=key).update(is_default=False)

    sessions = [Session(handler), Session(lambda: repaired(defaults))]
    for session in sessions:
        session.start()
    for session in sessions:
        session.join()
    assert repaired(defaults).left == 0
    assert all(Contact.objects.filter(team=each, is_default=True).count() == 1 for each in groups)
