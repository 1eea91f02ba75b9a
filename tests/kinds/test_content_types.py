"""Rows linked by content type: keys that a rule names without a query, and relations from the other side."""

import pytest
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.db.models import CharField, Count, Exists, F, Q
from django.db.models.functions import Cast, Coalesce
from django.utils import timezone

from reconcile import (
    EXTRA,
    MISSING,
    Call,
    ContentTypeOf,
    Delete,
    HaveRow,
    HaveRows,
    HaveSource,
    HaveValues,
    LookedUp,
    PermissionOf,
    Report,
    Rule,
    Satisfy,
    Split,
    runs,
)
from reconcile.detect.checking import check
from tests.helpers import assert_finds, assert_repairs, repaired, statements
from tests.zoo.models import Basket, Binder, Memo, Page, Player, ProxyTeam, Team

pytestmark = pytest.mark.django_db

KEY = Cast("pk", CharField(max_length=64))
NOTED = HaveRow(Memo, link={"content_type": ContentTypeOf(Team), "object_id": KEY})


def kind_of(model):
    return ContentType.objects.get_for_model(model)


def test_a_rule_names_the_content_type_of_a_model():
    ContentType.objects.get_for_model(Team), kind_of(Basket)
    noted, lacking = (Team.objects.create(name=name) for name in "ab")
    Memo.objects.create(target=noted)
    rule = Rule(name="r", every=Team, must=NOTED)
    assert list(rule.faults()) == []
    assert_finds(rule, missing=[lacking])
    assert_repairs(rule, insert=1)
    assert Memo.objects.latest("pk").target == lacking


def test_rows_of_other_content_types_are_none_of_the_rule():
    kind_of(Team)
    basket = Basket.objects.create()
    Memo.objects.create(content_type=kind_of(Basket), object_id=str(basket.pk))
    lost = Memo.objects.create(content_type=kind_of(Team), object_id="77")
    assert_finds(Rule(name="r", every=Team, must=NOTED), extra=[lost])


def test_nothing_is_queried_before_the_rule_runs():
    with statements() as sent:
        must = HaveRow(Memo, link={"content_type": ContentTypeOf("zoo.Team"), "object_id": KEY})
        rule = Rule(name="r", every=Team, must=must)
        assert list(rule.faults()) == []
        assert "content_type = the content type of zoo.Team and object_id = Cast(pk" in rule.sentence
        assert ", if the content type" not in rule.sentence
    assert len(sent) == 0


def test_a_proxy_has_the_content_type_of_its_table_unless_its_own_is_asked_for():
    kind_of(Team)
    ContentType.objects.get_for_model(ProxyTeam, for_concrete_model=False)
    by_table, its_own = ContentTypeOf(ProxyTeam), ContentTypeOf(ProxyTeam, for_concrete_model=False)
    found = Team.objects.create(name="a").__class__.objects.annotate(one=by_table, other=its_own).get()
    assert found.one == kind_of(Team).pk != found.other
    assert found.other == ContentType.objects.get_for_model(ProxyTeam, for_concrete_model=False).pk


def test_a_rule_names_a_permission():
    through = Group.permissions.through
    group, other = (Group.objects.create(name=name) for name in "ab")
    wanted = Permission.objects.get(content_type__app_label="shop", codename="view_order")
    other.permissions.add(wanted, Permission.objects.get(codename="add_order"))
    must = HaveRow(through, link={"group": F("pk"), "permission": PermissionOf("shop.view_order")})
    rule = Rule(name="r", every=Group, must=must)
    assert "permission = the permission shop.view_order" in rule.sentence
    assert_finds(rule, missing=[group])
    assert_repairs(rule, insert=1)
    assert list(group.permissions.all()) == [wanted]
    assert other.permissions.count() == 2


FLY = HaveRow(Group.permissions.through, link={"group": F("pk"), "permission": PermissionOf("shop.fly")})


def errors(**options):
    rule = Rule(name="r", **options)
    _, (repaired,) = runs.repair({"r": rule}, using="default")
    assert (repaired.result, repaired.written.total) == ("error", 0)
    result = check(rule, using="default", now=timezone.now())
    assert result.error in repaired.error
    return result.error


@pytest.mark.parametrize(
    "options",
    [
        {"every": Group, "must": FLY},
        {"every": Group.objects.filter(permissions=PermissionOf("shop.fly")), "must": HaveValues(name="n")},
        {"every": Group, "must": Satisfy(Q(Exists(Permission.objects.filter(pk=PermissionOf("shop.fly")))))},
        {
            "every": Memo,
            "must": HaveValues(
                number=LookedUp(Basket, link={"quantity": PermissionOf("shop.fly")}, value=Count("pk"))
            ),
        },
        {"every": Memo, "must": HaveValues(number=Coalesce(PermissionOf("shop.fly"), 0))},
    ],
    ids=["link", "every", "condition", "looked up", "value"],
)
def test_a_permission_that_is_not_there_is_an_error_and_no_clean_rule(options):
    Group.objects.create(name="a")
    Memo.objects.create(number=0)
    assert "There isn't the permission shop.fly on 'default'" in errors(**options)
    Permission.objects.create(content_type=kind_of(Team), codename="fly")
    assert "There isn't the permission shop.fly" in errors(**options)


@pytest.mark.parametrize(
    "options",
    [
        {
            "must": HaveValues(number=1),
            "every": Memo.objects.filter(pk__in=Memo.objects.filter(number=PermissionOf("shop.fly"))),
        },
        {
            "must": HaveRow(Memo.objects.filter(number=PermissionOf("shop.fly")), link={"object_id": KEY}),
            "every": Memo,
        },
        {
            "must": HaveSource(
                model=Basket.objects.filter(quantity=PermissionOf("shop.fly")), link={"pk": F("number")}
            ),
            "every": Memo,
        },
        {
            "must": HaveSource("page_code", model=Page, to="code"),
            "every": Memo,
            "remedies": {
                EXTRA: Split(when=Q(number=PermissionOf("shop.fly")), each=Call(len), rest=Delete())
            },
        },
    ],
    ids=["queryset", "rows of a queryset", "owners of a queryset", "remedy"],
)
def test_it_is_found_wherever_it_stands(options):
    Memo.objects.create(number=0, page_code="gone")
    assert "There isn't the permission shop.fly on 'default'" in errors(**options)


def test_a_permission_that_two_models_have_is_an_error():
    Group.objects.create(name="a")
    order, item = (ContentType.objects.get(app_label="shop", model=name) for name in ("order", "item"))
    one = Permission.objects.create(content_type=order, codename="fly")
    assert_finds(Rule(name="r", every=Group, must=FLY), missing=Group.objects.all())
    Permission.objects.create(content_type=item, codename="fly")
    assert "is more than one auth.Permission. Name it by a Subquery" in errors(every=Group, must=FLY)
    one.delete()
    assert_finds(Rule(name="r", every=Group, must=FLY), missing=Group.objects.all())


def test_a_content_type_that_is_not_there_is_an_error():
    ContentType.objects.filter(app_label="zoo", model="team").delete()
    Team.objects.create(name="t")
    assert "There isn't the content type of zoo.Team on 'default'" in errors(every=Team, must=NOTED)


@pytest.mark.parametrize("name", ["view_order", ".view", "shop.", ""])
def test_a_permission_has_an_application_and_a_codename(name):
    with pytest.raises(ValueError, match="give the application and the codename"):
        PermissionOf(name)


# A GenericRelation is the other side of the row's own key.


def test_orphans_go_although_their_owner_has_a_generic_relation():
    assert Binder._meta.get_field("memos").related_model is Memo
    kept = Memo.objects.create(target=Team.objects.create(name="t"))
    lost = Memo.objects.create(content_type=kind_of(Binder), object_id="77")
    rule = Rule(name="r", every=Memo, must=HaveSource("target"), remedies={EXTRA: Delete()})
    assert list(rule.faults()) == []
    assert_finds(rule, extra=[lost])
    assert repaired(rule).written.delete == 1
    assert list(Memo.objects.all()) == [kept]


# Rows that a rule never inserts.


def test_a_row_that_the_rule_does_not_insert_needs_no_value_for_each_column():
    must = HaveRow(Player, link={"age": F("points")})
    assert [fault.id for fault in Rule(name="r", every=Team, must=must).faults()] == ["reconcile.E014"]
    team = Team.objects.create(name="t", points=7)

    def hire(teams):
        Player.objects.bulk_create([Player(team=each, age=each.points) for each in teams])

    for remedy in (Report(), Call(hire)):
        rule = Rule(name="r", every=Team, must=must, remedies={MISSING: remedy})
        assert list(rule.faults()) == []
        assert_finds(rule, missing=[team])
    assert repaired(rule).result == "repaired"
    assert Player.objects.get().age == 7


def test_so_it_is_of_rows_that_a_function_gives():
    def none_of_them(name):
        return []

    must = HaveRows(Memo, link={"number": F("pk")}, rows=none_of_them, reads=["name"], key=["page_code"])
    rule = Rule(name="r", every=Team, must=must, remedies={MISSING: Report()})
    assert list(rule.faults()) == []
