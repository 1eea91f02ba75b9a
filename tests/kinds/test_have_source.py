import uuid
from dataclasses import replace
from datetime import timedelta

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import connection, models
from django.db.models import F, Max, Q, Value
from django.db.models.functions import Concat
from django.utils import timezone

from reconcile import EXTRA, STALE, Call, Delete, HaveRow, HaveSource, Rule, Settle
from reconcile.core.drift import Guarantee
from reconcile.core.scopes import EVERYTHING, Keys
from reconcile.detect.explaining import explain
from reconcile.rules.order import sort_rules
from sample_project.shop.models import Group, Order
from tests.helpers import assert_clean, assert_finds, checked, everything, repaired, statements
from tests.zoo.models import Basket, Car, Device, Mark, Memo, Page, Pair, Player, ProxyTeam, Shy, Team

pytestmark = pytest.mark.django_db

TARGET = Rule(name="target", every=Memo, must=HaveSource("target"))
BASKET = Rule(name="basket", every=Memo, must=HaveSource("basket"))
PAGE = Rule(name="page", every=Memo, must=HaveSource("page_code", model=Page, to="code"))
GONE = 987_654


def rule(*arguments, every=Memo, **options):
    return Rule(name="source", every=every, must=HaveSource(*arguments, **options))


def note(target=None, **values):
    return Memo.objects.create(target=target, **values)


def lose(target):
    type(target)._base_manager.filter(pk=target.pk)._raw_delete("default")


def a_target(kind):
    if kind is Page:
        return Page.objects.create(code="Main ")
    if kind is Device:
        return Device.objects.create(name="lamp")
    return kind._base_manager.create()


@pytest.mark.parametrize("kind", [Team, Page, Device, Car, Shy], ids=lambda kind: kind.__name__)
def test_a_row_whose_generic_target_is_gone_is_found(kind):
    here, lost = a_target(kind), note(Team.objects.create())
    note(here)
    Memo.objects.filter(pk=lost.pk).update(
        content_type=ContentType.objects.get_for_model(kind),
        object_id=str(uuid.uuid4()) if kind is Device else "-5",
    )
    assert_finds(TARGET, extra=[lost])


@pytest.mark.parametrize("kind", [Team, Page, Device, Car], ids=lambda kind: kind.__name__)
def test_a_row_whose_generic_target_is_there_is_not_found(kind):
    note(a_target(kind))
    assert_clean(TARGET)


def test_a_target_that_the_default_manager_hides_is_there():
    note(Shy._base_manager.create(visible=False))
    assert_clean(TARGET)


def test_targets_of_many_models_are_counted_together_and_listed_in_key_order():
    targets = [a_target(kind) for kind in (Team, Page, Device, Basket) for _ in range(1)]
    notes = [note(target) for _ in range(3) for target in targets]
    lose(targets[1])
    lose(targets[2])
    lost = [each for each in notes if str(each.object_id) in {targets[1].pk, str(targets[2].pk)}]
    assert_finds(TARGET, extra=lost)
    finder, _ = TARGET.compile(using="default", now=timezone.now()).finders
    keys = sorted(each.pk for each in lost)
    assert finder.keys(EVERYTHING) == keys
    assert finder.keys(EVERYTHING, limit=2) == keys[:2]
    assert finder.keys_after(keys[2], limit=2) == keys[3:5]
    assert finder.keys(Keys([each.pk for each in notes])) == keys
    assert finder.keys(Keys([])) == []
    assert finder.find(Keys(keys)).filter(pk=keys[0]).count() == 1


def test_a_target_that_nothing_refers_to_by_is_no_drift():
    note()
    Memo.objects.create(content_type=ContentType.objects.get_for_model(Team))
    Memo.objects.create(object_id="7")
    assert_clean(TARGET)


def test_a_text_that_is_no_key_is_found_and_no_error():
    kind = ContentType.objects.get_for_model(Team)
    number = Team.objects.create().pk
    wrong = ["", "x", f"0{number}", f" {number}", f"{number} ", f"{number}.0", "9" * 19, "9" * 40, "-", "1e3"]
    notes = [Memo.objects.create(content_type=kind, object_id=text) for text in wrong]
    device = Device.objects.create(name="lamp")
    devices = ContentType.objects.get_for_model(Device)
    texts = [device.pk.hex, str(device.pk).upper(), "x"]
    notes += [Memo.objects.create(content_type=devices, object_id=text) for text in texts]
    note(Team.objects.get()), note(device)
    assert_finds(TARGET, extra=notes)
    finder, _ = TARGET.compile(using="default", now=timezone.now()).finders
    assert finder.keys(Keys(list(Memo.objects.values_list("pk", flat=True)))) == [each.pk for each in notes]


def test_the_largest_key_is_compared():
    if connection.vendor == "mysql":
        pytest.skip("the table would have no further key for the other tests")
    note(Team.objects.create(pk=2**63 - 1))
    assert_clean(TARGET)
    finder, _ = TARGET.compile(using="default", now=timezone.now()).finders
    assert finder.keys(Keys(list(Memo.objects.values_list("pk", flat=True)))) == []


def forget_them(memos):
    Memo.objects.filter(pk__in=[each.pk for each in memos]).update(content_type=None)


def of_unknown_types():
    """Two memos whose content types have no model, beside three that aren't judged, or have what they refer to."""
    gone = ContentType.objects.create(app_label="zoo", model="unicorn")
    team = Team.objects.create()
    note(team)
    Memo.objects.create(content_type=gone)
    kinds = {"content_type": gone}, {"content_type_id": GONE}
    return [Memo.objects.create(object_id=team.pk, **kind) for kind in kinds]


def test_a_content_type_without_a_model_is_another_matter_than_a_deleted_row():
    unknown, lost = of_unknown_types(), note(Team.objects.create())
    lose(lost.target)
    assert_finds(TARGET, stale=unknown, extra=[lost])
    _, finder = TARGET.compile(using="default", now=timezone.now()).finders
    assert finder.keys(Keys(list(Memo.objects.values_list("pk", flat=True)))) == [each.pk for each in unknown]
    assert finder.keys(Keys([])) == []


def test_it_is_explained_what_is_stale_about_a_row_without_a_column():
    parts = {each.drift: each for each in explain(TARGET, using="default", now=timezone.now()).parts}
    assert "has no model in this project" in parts[STALE].advice
    assert parts[EXTRA].advice == ""


def test_what_deletes_rows_without_a_target_leaves_those_of_an_app_that_is_not_installed():
    unknown, lost = of_unknown_types(), note(Team.objects.create())
    lose(lost.target)
    deleting = replace(TARGET, remedies={EXTRA: Delete()}, max_deletes="100%")
    result = repaired(deleting)
    assert (result.written.delete, result.left) == (1, len(unknown))
    assert_finds(deleting, stale=unknown)


def test_content_types_without_a_model_count_as_deleted_where_the_rule_says_so():
    unknown = of_unknown_types()
    strict = Rule(name="target", every=Memo, must=HaveSource("target", unknown=None))
    assert_finds(strict, extra=unknown)
    (finder,) = strict.compile(using="default", now=timezone.now()).finders
    assert finder.keys(Keys(list(Memo.objects.values_list("pk", flat=True)))) == [each.pk for each in unknown]
    deleting = replace(strict, remedies={EXTRA: Delete()}, max_deletes="100%")
    assert repaired(deleting).written.delete == len(unknown)
    assert_clean(strict)


def test_content_types_without_a_model_are_given_to_a_call():
    unknown = of_unknown_types()
    calling = Rule(name="target", every=Memo, must=HaveSource("target", unknown=Call(forget_them)))
    assert repaired(calling).written.called == len(unknown)
    assert_clean(TARGET)


def test_a_key_that_is_a_number_refers_to_numbers_texts_and_uuids():
    team = Team.objects.create()
    page = Page.objects.create(code="12")
    kinds = {kind: ContentType.objects.get_for_model(kind) for kind in (Team, Page, Device)}
    Mark.objects.create(content_type=kinds[Team], object_id=team.pk)
    Mark.objects.create(content_type=kinds[Page], object_id=12)
    lost = [Mark.objects.create(content_type=kind, object_id=GONE) for kind in kinds.values()]
    assert page.pk == "12"
    assert_finds(rule("target", every=Mark), extra=lost)


def test_a_proxy_s_content_type_refers_to_the_same_rows():
    proxy = ProxyTeam.objects.create()
    Mark.objects.create(target=proxy)
    note(proxy)
    assert Mark.objects.get().content_type.model == "proxyteam"
    assert Memo.objects.get().content_type.model == "team"
    assert_clean(TARGET)
    lose(proxy)
    assert_finds(rule("target", every=Mark), extra=Mark.objects.all())
    assert_finds(TARGET, extra=Memo.objects.all())


def test_a_target_whose_key_is_composite_is_an_error_of_the_rule():
    Memo.objects.create(content_type=ContentType.objects.get_for_model(Pair), object_id="1")
    result = repaired(TARGET)
    assert "composite" in result.error


def test_a_foreign_key_without_a_constraint():
    note(basket=Basket.objects.create())
    note()
    lost = note(basket_id=GONE)
    assert_finds(BASKET, extra=[lost])


def test_a_text_column():
    Page.objects.create(code="a")
    note(page_code="a")
    note()
    lost = [note(page_code=code) for code in ("b", "A", "a ", "")]
    assert_finds(PAGE, extra=lost)


def test_a_text_column_that_refers_to_a_number():
    basket = Basket.objects.create()
    note(page_code=str(basket.pk))
    lost = [note(page_code=str(GONE)), note(page_code="x")]
    assert_finds(rule("page_code", model=Basket), extra=lost)


def test_a_number_that_refers_to_a_text():
    Page.objects.create(code="12")
    note(number=12)
    lost = note(number=13)
    assert_finds(rule("number", model=Page), extra=[lost])


def test_a_link_by_an_expression_with_a_condition_on_the_owner():
    Page.objects.create(code="p-1", visits=5)
    Page.objects.create(code="p-2", visits=0)
    note(page_code="1")
    note()
    lost = [note(page_code="2"), note(page_code="3")]
    linked = rule(
        model=Page, link={"code": Concat(Value("p-"), F("page_code"))}, where=Q(visits__gt=0),
        every=Memo.objects.filter(page_code__isnull=False),
    )  # fmt: skip
    assert_finds(linked, extra=lost)


def test_a_link_over_several_columns_needs_all_of_them():
    Basket.objects.create(score=1, quantity=2)
    note(number=1, page_code="2")
    note(number=1)
    lost = note(number=1, page_code="3")
    assert_finds(
        rule(model=Basket, link={"score": F("number"), "label": F("page_code")}),
        extra=Memo.objects.exclude(page_code=None),
    )
    linked = rule(model=Basket, link={"score": F("number"), "quantity": F("page_code")})
    assert_finds(linked, extra=[lost])


def test_a_link_over_a_foreign_key():
    team = Team.objects.create(name="a", player_count=1)
    Player.objects.create(team=team, age=1)
    lost = Player.objects.create(team=Team.objects.create(name="b", player_count=2), age=2)
    Page.objects.create(code="a")
    assert_finds(rule(model=Page, link={"code": F("team__name")}, every=Player), extra=[lost])


def test_young_records_are_left_alone():
    note(basket_id=GONE)
    old = note(basket_id=GONE, written_at=timezone.now() - timedelta(hours=1))
    team = Team.objects.create()
    for made in (old, Memo.objects.exclude(pk=old.pk).get()):
        Memo.objects.filter(pk=made.pk).update(
            content_type=ContentType.objects.get_for_model(team), object_id="-1"
        )
    for effect in ("basket", "target"):
        young = Rule(
            name="young", every=Memo, must=HaveSource(effect), settle=Settle("written_at", minutes=15)
        )
        assert_finds(young, extra=[old])


def test_only_the_records_of_the_rule_are_judged():
    lost = note(basket_id=GONE, number=1)
    note(basket_id=GONE, number=2)
    assert_finds(rule("basket", every=Memo.objects.filter(number=1)), extra=[lost])


def test_a_repair_reports_and_writes_nothing():
    note(basket_id=GONE)
    before = everything()
    result = repaired(BASKET)
    assert (result.written.total, result.left, result.reported) == (0, 1, {EXTRA: 1})
    assert everything() == before


def test_records_with_a_text_key_and_with_a_uuid_key():
    Page.objects.create(code="b", visits=GONE)
    Page.objects.create(code="A", visits=GONE)
    device = Device.objects.create(name="x")
    assert_finds(rule("visits", model=Team, every=Page), extra=["A", "b"])
    assert_finds(rule("name", model=Page, every=Device), extra=[device])


@pytest.mark.parametrize("effect", [TARGET, BASKET, PAGE], ids=lambda rule: rule.name)
def test_the_number_of_statements_does_not_grow(effect):
    kind = ContentType.objects.get_for_model(Team)
    numbers = []
    for number in (10, 990):
        Memo.objects.bulk_create(
            [Memo(content_type=kind, object_id="-1", basket_id=GONE, page_code="gone") for _ in range(number)]
        )
        with statements() as sent:
            assert checked(effect).tally[EXTRA] == Memo.objects.count()
        numbers.append(len(sent))
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize(
    ("must", "sentence"),
    [
        (HaveSource("target"), "Every memo must have the target that it refers to."),
        (HaveSource("basket"), "Every memo must have the basket that it refers to."),
        (
            HaveSource("page_code", model=Page, to="code"),
            "Every memo must have the Page that it refers to, with code = page_code.",
        ),
        (
            HaveSource(model=Order, link={"id": F("number")}, where=Q(status="paid")),
            "Every memo must have the Order that it refers to, with id = number, counting those with status = 'paid'.",
        ),
    ],
)
def test_the_sentence(must, sentence):
    made = Rule(name="said", every=Memo, must=must)
    assert [str(fault) for fault in made.faults()] == []
    assert made.sentence == sentence


@pytest.mark.parametrize(
    ("must", "fault_id", "said"),
    [
        (HaveSource(), "E012", "neither a column nor link="),
        (HaveSource("basket", link={"id": F("pk")}), "E012", "both a column and link="),
        (HaveSource(7), "E012", "7 is no name"),
        (HaveSource(model=Page, link="code"), "E012", "link= is 'code'"),
        (HaveSource("baskett"), "E013", "Did you mean 'basket'?"),
        (HaveSource("basket", unknown=None), "E012", "'basket' is no generic foreign key"),
        (HaveSource("target", unknown=Delete()), "E012", "unknown=None"),
        (HaveSource("target", unknown=EXTRA), "E012", "unknown="),
        (HaveSource("targett"), "E013", "Did you mean 'target'?"),
        (HaveSource("page_code"), "E012", "Say what it refers to"),
        (HaveSource("page_code", model="Page"), "E012", "model= is 'Page'"),
        (HaveSource("page_code", model=Page, to="cod"), "E013", "Did you mean 'code'?"),
        (HaveSource("page_code", model=Page, to=1), "E012", "to= is 1"),
        (HaveSource("page_code", model=Page, where={"a": 1}), "E012", "where= is"),
        (HaveSource("page_code", model=Page, where=Q(visit=1)), "E013", "Did you mean 'visits'?"),
        (HaveSource("page_code", model=Pair), "E015", "composite"),
        (HaveSource("page_code", model=models.Model), "E012", "is no model with a table"),
        (HaveSource("basket", model=Page), "E012", "is a foreign key"),
        (HaveSource("target", model=Page), "E012", "generic foreign key"),
        (HaveSource(link={"code": F("page_code")}), "E012", "needs model="),
        (HaveSource(model=Page, link={"code": F("page_code")}, to="code"), "E012", "both link= and to="),
        (HaveSource(model=Page, link={"code": F("page_cod")}), "E013", "Did you mean 'page_code'?"),
        (HaveSource(model=Page, link={"code": Max("page_code")}), "E015", "aggregate"),
        (HaveSource(model=Page, link={"code": str}), "E012", "function"),
        (HaveSource(model=Basket, link={"seen_at": F("number")}), "E015", "it is a number"),
        (HaveSource(model=Basket, link={"id": "basket"}), "E012", "Did you mean F('basket')?"),
        (HaveSource(model=Team, link={"id": F("number")}, where=Q(players__age=1)), "E013", "many rows"),
    ],
    ids=str,
)  # fmt: skip
def test_each_fault_says_the_way_out(must, fault_id, said):
    faults = [*Rule(name="faulty", every=Memo, must=must).faults()]
    assert [fault.id for fault in faults] == [f"reconcile.{fault_id}"], [str(fault) for fault in faults]
    assert said in str(faults[0])
    assert faults[0].hint


@pytest.mark.parametrize(
    ("every", "column", "said"), [(Group, "members", "many"), (Team, "players", "leads to many rows")]
)
def test_a_relation_to_many_rows_is_refused(every, column, said):
    (fault,) = rule(column, every=every).faults()
    assert (fault.id, said in str(fault)) == ("reconcile.E013", True), str(fault)


def test_the_guarantee_is_that_of_no_lock():
    level = Guarantee.LOCK if connection.vendor == "sqlite" else Guarantee.NONE
    assert {each.guarantee("default") for each in (TARGET, BASKET)} == {level}


def test_nothing_is_asked_of_the_database_when_the_rule_is_built_and_examined():
    with statements() as sent:
        assert not [*TARGET.faults()]
        assert TARGET.compile(using="default", now=timezone.now()).finders[0].using == "default"
    assert not sent


def test_the_order_of_rules_knows_the_owners_and_asks_nothing():
    made = Rule(name="pages", every=Team, must=HaveRow(Page, link={"code": F("name")}))
    rules = {each.name: each for each in (PAGE, TARGET, made)}
    with statements() as sent:
        assert [each.name for each in sort_rules(rules, using="default", now=timezone.now()).rules] == [
            "target", "pages", "page",
        ]  # fmt: skip
    assert not sent
