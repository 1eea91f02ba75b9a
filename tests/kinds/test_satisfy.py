from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import Count, Exists, F, OuterRef, Q, Value, Window
from django.db.models.functions import Concat, Lower, Now, RowNumber
from django.db.models.lookups import Exact, GreaterThan, GreaterThanOrEqual
from django.utils import timezone

from reconcile import STALE, Report, Rule, Satisfy, Settle, Update
from reconcile.core.drift import Guarantee
from reconcile.core.scopes import EVERYTHING
from reconcile.models import Change
from sample_project.shop.models import Order
from tests.helpers import (
    Session,
    assert_clean,
    assert_finds,
    assert_repairs,
    checked,
    everything,
    repaired,
    statements,
    unaddressed,
)
from tests.repair.test_chunk import locked_by_another_session
from tests.zoo.models import Basket, Car, Device, Page, Parcel, ParcelProxy, Player, Shy, Stamp, Team

pytestmark = pytest.mark.django_db

STAMPED = Exists(Stamp.objects.filter(parcel=OuterRef("pk")))


def rule(every, condition, values=None, **options):
    return Rule(name="row", every=every, must=Satisfy(condition, values=values or {}), **options)


def faults(condition, values=None, every=Parcel, **options):
    return [str(fault) for fault in rule(every, condition, values, **options).faults()]


def test_a_record_that_fails_is_found():
    wrong, _right = Parcel.objects.create(weight=-1), Parcel.objects.create(weight=0)
    assert_finds(rule(Parcel, Q(weight__gte=0)), stale=[wrong])


def test_a_record_that_satisfies_is_not_found():
    Parcel.objects.create(weight=3)
    assert_clean(rule(Parcel, Q(weight__gte=0)))


def test_null_is_not_satisfied():
    unknown, _known = Parcel.objects.create(weight=None), Parcel.objects.create(weight=1)
    assert_finds(rule(Parcel, Q(weight__gte=0)), stale=[unknown])
    assert_clean(rule(Parcel, Q(weight__gte=0) | Q(weight__isnull=True)))


CONDITIONS = [
    Q(weight__gte=2),
    ~Q(weight__gte=2),
    ~Q(weight=None),
    Q(weight__isnull=False),
    Q(weight__in=[1, 3]),
    ~Q(weight__in=[1, 3]),
    Q(pk__in=[]),
    ~Q(pk__in=[]),
    Q(weight=2) | Q(team__name="red"),
    Q(weight=2) & ~Q(team__name="red"),
    ~Q(team__name="red"),
    ~(Q(team__name="red") | Q(weight=3)),
    Q(team__alternate__name="blue"),
    ~Q(team__alternate__name="blue"),
    Q(team__alternate__isnull=True),
    Q(STAMPED),
    ~Q(STAMPED),
    STAMPED,
    ~STAMPED,
    STAMPED | Q(weight=3),
    STAMPED | Q(state="open"),
    Q(state="open") | Q(label__in=["a", None]),
    ~Q(state="open") & ~Q(price__gt=5),
    Q(price__gte=F("pk")),
    Q(price__in=[F("weight"), 7]),
    Q(price__gte=F("weight")),
    Q(price__gte=F("team__points")),
    GreaterThan(F("price"), None),
    GreaterThan(F("team__player_count"), -1),
    Q(weight__gt=F("team__points")),
    GreaterThan(F("weight"), F("price")),
    ~Q(GreaterThan(F("weight"), F("price"))),
    GreaterThan(F("weight"), None),
    Exact(Lower("label"), "a"),
    Q(label__startswith="A"),
    Q(weight__range=(1, 2)),
    Q(weight__lt=2) ^ Q(state="open"),
    Exists(Stamp.objects.none()),
    ~Exists(Stamp.objects.none()),
]


@pytest.mark.parametrize("condition", CONDITIONS, ids=unaddressed)
def test_what_is_found_is_just_what_a_filter_does_not_find(condition):
    blue = Team.objects.create(name="blue")
    red = Team.objects.create(name="red", alternate=blue, points=2)
    for weight in (None, 1, 2, 3):
        for team in (None, red, blue):
            Parcel.objects.create(weight=weight, team=team, price=2, label="a" if team else "A")
    Stamp.objects.bulk_create([Stamp(parcel=each) for each in Parcel.objects.filter(weight=2)] * 2)
    satisfied = Parcel.objects.filter(condition).values("pk")
    assert_finds(rule(Parcel, condition), stale=Parcel.objects.exclude(pk__in=satisfied))


def test_values_restore_the_condition():
    wrong = Parcel.objects.create(state="sent", label="")
    Parcel.objects.create(state="sent", label="L1"), Parcel.objects.create(state="open")
    labelled = rule(Parcel, Q(state="open") | ~Q(label=""), {"state": "open"})
    assert_finds(labelled, stale=[wrong])
    assert_repairs(labelled, update=1)
    wrong.refresh_from_db()
    assert wrong.state == "open"


def test_values_may_be_computed_from_the_record():
    team = Team.objects.create(name="red")
    Parcel.objects.create(team=team, weight=1), Parcel.objects.create(team=team, label="own")
    named = rule(
        Parcel, ~Q(label=""), {"label": Concat(F("team__name"), Value("!")), "weight": F("weight") + 1}
    )
    assert_repairs(named, update=1)
    assert sorted(Parcel.objects.values_list("label", "weight"), key=str) == [("own", None), ("red!", 2)]
    change = Change.objects.get()
    assert (change.before, change.after) == ({"label": "", "weight": 1}, {"label": "red!", "weight": 2})


def test_values_that_do_not_restore_it_leave_the_record_alone():
    lost, mended = Parcel.objects.create(weight=-1), Parcel.objects.create(weight=5, state="odd")
    stated = rule(Parcel, Q(state="open") & Q(weight__gte=0), {"state": "open"})
    result = repaired(stated)
    assert (result.written.update, result.left, result.skipped) == (1, 1, 1)
    assert f"zoo.Parcel {lost.pk} is still stale" in result.why_stopped
    mended.refresh_from_db()
    assert mended.state == "open"


def test_without_values_it_is_only_reported():
    Parcel.objects.create(weight=-1)
    plain = rule(Parcel, Q(weight__gte=0))
    assert plain.remedy(STALE) == Report()
    before = everything()
    assert repaired(plain).written.total == 0
    assert everything() == before
    assert rule(Parcel, Q(weight__gte=0), {"weight": 0}).remedy(STALE) == Update()


def test_other_rows_stay_untouched():
    Parcel.objects.create(weight=-1), Parcel.objects.create(weight=7, label="x")
    Order.objects.create()
    before = everything()
    assert_repairs(rule(Parcel, Q(weight__gte=0), {"weight": 0}), update=1)
    after = everything()
    assert {label for label in after if after[label] != before[label]} == {"zoo.Parcel"}
    assert len({*after["zoo.Parcel"]} & {*before["zoo.Parcel"]}) == 1


def test_young_records_are_left_alone():
    old = Order.objects.create(total=-1, created_at=timezone.now() - timedelta(hours=2))
    Order.objects.create(total=-1)
    positive = rule(Order, Q(total__gte=0), {"total": 0}, settle=Settle("created_at", hours=1))
    assert_finds(positive, stale=[old])
    assert_repairs(positive, update=1)
    assert Order.objects.filter(total=-1).count() == 1


def test_the_clock_is_that_of_the_run():
    Order.objects.create(created_at=timezone.now() + timedelta(days=1)), Order.objects.create()
    past = rule(Order, Q(created_at__lte=Now()), {"created_at": Now()})
    assert_repairs(past, update=1)


def test_an_every_that_joins_to_many_rows_counts_each_record_once():
    parcel = Parcel.objects.create(weight=-1)
    Stamp.objects.bulk_create([Stamp(parcel=parcel), Stamp(parcel=parcel)])
    assert_finds(rule(Parcel.objects.filter(stamps__pk__gt=0), Q(weight__gte=0)), stale=[parcel])


def test_text_that_differs_only_in_case_is_compared_as_the_database_does():
    Device.objects.create(name="LAMP")
    lower = rule(Device, Q(name=Lower("name")), {"name": Lower("name")})
    folded = connection.vendor == "mysql"
    assert checked(lower).tally[STALE] == (0 if folded else 1)
    exact = rule(
        Device, Q(name__regex="^[a-z]*$") if not folded else Q(name__contains="lamp"), {"name": "lamp"}
    )
    assert_repairs(exact, update=1)


def test_records_that_the_default_manager_hides_are_checked_too():
    hidden = Shy._base_manager.create(visible=False, value=-1)
    positive = rule(Shy, Q(value__gte=0), {"value": 0})
    assert_finds(positive, stale=[hidden])
    assert_repairs(positive, update=1)


def test_a_text_key_and_a_uuid_key():
    Page.objects.create(code="a", visits=-1), Page.objects.create(code="b")
    assert_finds(rule(Page, Q(visits__gte=0)), stale=["a"])
    assert_repairs(rule(Page, Q(visits__gte=0), {"visits": 0}), update=1)
    device = Device.objects.create(name="")
    assert_finds(rule(Device, ~Q(name="")), stale=[device])
    assert_repairs(rule(Device, ~Q(name=""), {"name": "x"}), update=1)


def test_a_proxy_and_a_record_in_two_tables():
    Parcel.objects.create(weight=-1), Car.objects.create(wheels=3, doors=0)
    assert_repairs(rule(ParcelProxy, Q(weight__gte=0), {"weight": 0}), update=1)
    assert_repairs(rule(Car, Q(wheels=4) | Q(doors__gt=0), {"doors": 1}), update=1)


def test_a_condition_that_is_never_null_is_negated_plainly():
    def sql(condition, every=Parcel):
        finder = rule(every, condition).compile(using="default", now=timezone.now()).finders[0]
        return str(finder.find(EVERYTHING).query)

    for known in (Q(state="open"), STAMPED | ~Q(state="open"), Q(weight__isnull=True), Q(price__gte=F("pk"))):
        assert "IS NOT TRUE" not in sql(known)
    for unknown in (Q(weight=1), STAMPED | Q(weight=1), Q(team__name="x"), GreaterThan(F("price"), None)):
        assert "IS NOT TRUE" in sql(unknown)
    assert "IS NOT TRUE" not in sql(Q(team__name="x"), Player)


def test_the_records_are_read_in_one_statement():
    Parcel.objects.bulk_create([Parcel(weight=number - 20) for number in range(40)])
    with statements() as few:
        assert checked(rule(Parcel, Q(weight__gte=0)), samples=0).tally[STALE] == 20
    assert sum("IS NOT TRUE" in each["sql"] for each in few) == 1


@pytest.mark.parametrize("number", [10, 1_000])
def test_a_chunk_costs_the_same_number_of_statements(number):
    Parcel.objects.bulk_create([Parcel(weight=-1) for _ in range(number)])
    positive = rule(Parcel, Q(weight__gte=0), {"weight": 0})
    with statements() as sent:
        assert repaired(positive).written.update == number
    writes = [
        each["sql"]
        for each in sent
        if each["sql"].startswith(("UPDATE", "INSERT"))
        and ("zoo_parcel" in each["sql"] or "reconcile_change" in each["sql"])
    ]
    assert len(writes) == 3


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_a_record_that_another_session_holds_is_left_alone():
    held, free = Parcel.objects.create(weight=-1), Parcel.objects.create(weight=-1)
    positive = rule(Parcel, Q(weight__gte=0), {"weight": 0})
    with locked_by_another_session(Parcel.objects.filter(pk=held.pk)):
        session = Session(lambda: repaired(positive))
        session.start()
        result = session.join()
    assert (result.written.update, result.left) == (1, 1)
    free.refresh_from_db()
    assert free.weight == 0
    assert_repairs(positive, update=1)


@pytest.mark.parametrize(
    ("condition", "values", "said"),
    [
        (None, {}, "Satisfy: None is no condition. Give a Q, an Exists or a lookup, such as Q(total__gte=0)."),
        (Q(), {}, "is no condition."),
        ("weight > 0", {}, "Satisfy: 'weight > 0' is no condition."),
        (F("weight"), {}, "is no condition."),
        (Q, {}, "is no condition."),
        (Q(wieght=1), {}, "Satisfy: Cannot resolve keyword 'wieght' into field. Did you mean 'weight'?"),
        (Q(weight__gtee=1), {}, "perhaps you meant gte"),
        (Q(weight__gte="heavy"), {}, "Compare a column with a value of its type."),
        (Q(team__nme="x"), {}, "Unsupported lookup 'nme' for ForeignKey or join on the field not permitted. Name a lookup that the column has, such as __gte or __in, or a column behind it, if it is a key"),
        (Q(stamps__pk=1), {}, "Satisfy: a path leads to many rows. Say whether one exists: Exists("),
        (~Q(stamps__pk=1), {}, "a path leads to many rows."),
        (Q(badges__name="x"), {}, "a path leads to many rows."),
        (GreaterThan(Count("stamps"), 1), {}, "an aggregate or a window is not served here."),
        (GreaterThan(Window(RowNumber()), 1), {}, "an aggregate or a window is not served here."),
        (Q(weight=1), 5, "Satisfy: values= is 5. Give a dictionary of column names."),
        (Q(weight=1), {"wieght": 1}, "Satisfy(values=…): zoo.Parcel has no column 'wieght'. Did you mean 'weight'?"),
        (Q(weight=1), {"id": 1}, "'id' is the primary key. A key is never repaired."),
        (Q(weight=1), {"weight": "heavy"}, "'heavy' can't be stored in 'weight'."),
        (Q(weight=1), {"weight": Count("stamps")}, "an aggregate is not served here."),
        (Q(weight=1), {"weight": F("stamps__pk")}, "the path leads to many rows."),
        (Q(weight=1), {"extra": {}}, "'extra' is a JSON column."),
    ],
    ids=str,
)  # fmt: skip
def test_each_fault_says_what_and_the_way_out(condition, values, said):
    found = [
        str(fault)
        for fault in Rule(name="row", every=Parcel, must=Satisfy(condition, values=values)).faults()
    ]
    assert len(found) == 1, found
    assert said in found[0]


def test_update_without_values_is_refused():
    assert "Update() does not mend stale drift" in faults(Q(weight=1), remedies={STALE: Update()})[0]
    assert faults(Q(weight=1), {"weight": 1}, remedies={STALE: Update()}) == []


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        (Q(weight__gte=0), "weight ≥ 0"),
        (Q(state="open") | Q(weight__isnull=False), "state = 'open' or weight is there"),
        (
            Q(weight=1) & (Q(state="open") | Q(state="sent")),
            "weight = 1 and (state = 'open' or state = 'sent')",
        ),
        (~Q(team__name="red"), "not (team.name = 'red')"),
        (STAMPED, "there is some stamp with parcel = the record's pk"),
        (~STAMPED, "not (there is some stamp with parcel = the record's pk)"),
        (GreaterThanOrEqual(F("weight"), F("price")), "weight ≥ price"),
    ],
    ids=unaddressed,
)
def test_the_sentence(condition, said):
    assert rule(Parcel, condition).sentence == f"Every parcel must satisfy {said}."


def test_the_sentence_says_what_restores_it():
    restored = rule(Parcel, Q(weight__gte=0), {"weight": 0})
    assert restored.sentence == "Every parcel must satisfy weight ≥ 0, restored by weight = 0."


def test_the_guarantee_is_constraint():
    assert rule(Parcel, Q(weight__gte=0)).guarantee("default") == Guarantee.CONSTRAINT


def test_the_columns_that_it_writes_are_its_own_alone():
    assert rule(ParcelProxy, Q(weight=1), {"state": "x", "weight": 1}).must.writes(ParcelProxy) == {
        (Parcel, "state"),
        (Parcel, "weight"),
    }
    assert rule(Parcel, Q(weight=1)).must.writes(Parcel) == frozenset()


def test_a_generated_column_can_be_part_of_the_condition():
    wrong = Basket.objects.create(price=1, quantity=0)
    assert_finds(rule(Basket, Q(total__gt=0)), stale=[wrong])
    assert_repairs(rule(Basket, Q(total__gt=0), {"quantity": 1}), update=1)
