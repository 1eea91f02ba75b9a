"""What sets drifted records apart: planted causes are found, chance is not taken for one, and what rules write is none."""

import random
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from django.db import connection
from django.db.models import Case, F, Q, TextField, When
from django.db.models.functions import Cast
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from reconcile import BeUnique, FromPython, HaveRow, HaveSource, HaveValues, Rule, Satisfy, Settle
from reconcile.core.drift import EXTRA, MISSING, STALE
from reconcile.detect.checking import check
from reconcile.detect.culprit import as_plain, find_culprits, from_plain, sampling, written_columns
from reconcile.detect.culprit.scoring import FEWEST, clues_in
from reconcile.detect.culprit.traits import Observed
from tests.zoo.models import Badge, Basket, Bill, Car, Device, Ghost, Pair, Player, Team

pytestmark = pytest.mark.django_db

BILL = Rule(name="bill", every=Basket, must=HaveRow(Bill, link={"basket_number": F("pk")}))
START = datetime(2026, 11, 2, tzinfo=UTC)
"""A Monday."""
TUESDAY = datetime(2026, 11, 10, 14, 2, tzinfo=UTC)


def culprits_of(rule, *, keep=0, left_out=()):
    now = timezone.now()
    found = check(rule, using="default", now=now, keep=keep)
    assert not found.error
    return find_culprits(rule, found, using="default", now=now, left_out=left_out)


def culprit_of(rule, **options):
    (found,) = culprits_of(rule, **options)
    return found


def said(culprit):
    return [*culprit.sentences]


def make_baskets(number=2_000, seed=1):
    """Baskets of three weeks that differ in all columns, none of which goes along with another."""
    chance = random.Random(seed)
    rows = [
        Basket(
            price=Decimal(chance.randrange(100, 10_000)) / 100,
            quantity=chance.randrange(1, 20),
            label=chance.choice(["web"] * 8 + ["csv", "api"]),
            note=chance.choice([None, "", "gift", "x" * 150]),
            rate=chance.random(),
            changed=chance.random() < 0.3,
            seen_at=START + timedelta(seconds=at * 21 * 86_400 / number) if chance.random() < 0.9 else None,
            day=(START + timedelta(days=chance.randrange(20))).date(),
        )
        for at in range(number)
    ]
    Basket.objects.bulk_create(rows, batch_size=500)
    return list(Basket.objects.order_by("pk"))


def lose_bills(baskets, drifts, *, background=4):
    """A bill for each basket but for those that drift, and a few others."""
    chance = random.Random(2)
    others = [each for each in baskets if not drifts(each)]
    lost = {each.pk for each in chance.sample(others, background)}
    kept = [each for each in others if each.pk not in lost]
    Bill.objects.bulk_create([Bill(basket_number=each.pk) for each in kept], batch_size=500)
    return len(baskets) - len(kept)


def within(first, last):
    return lambda basket: basket.seen_at is not None and first <= basket.seen_at < last


PLANTS = {
    "a value": (lambda each: each.label == "csv", "label = 'csv'"),
    "a number": (lambda each: each.quantity == 7, "quantity = 7"),
    "a flag": (lambda each: each.changed and each.quantity % 3 == 0, "changed = True"),
    "no value": (lambda each: each.note is None, "note NULL"),
    "no time": (lambda each: each.seen_at is None, "seen_at NULL"),
    "a date": (lambda each: each.day == date(2026, 11, 12), "day on Thursday 2026-11-12"),
    "a day": (within(START + timedelta(days=8), START + timedelta(days=9)), "seen_at on Tuesday 2026-11-10"),
    "a burst": (
        within(TUESDAY, TUESDAY + timedelta(minutes=200)),
        "seen_at on Tuesday 2026-11-10 from 14:",
    ),
    "an hour of the day": (
        lambda each: each.seen_at is not None and each.seen_at.hour == 3,
        "seen_at between 03:00 and 04:00",
    ),
    "a day of the week": (
        lambda each: each.seen_at is not None and each.seen_at.weekday() == 6,
        "seen_at on a Sunday",
    ),
    "large amounts": (lambda each: each.price >= 95, "price from 95."),
    "from a day on": (within(START + timedelta(days=17), START + timedelta(days=99)), "seen_at from Thursday 2026-11-19"),
}  # fmt: skip


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_cause_comes_first(plant, settings):
    settings.TIME_ZONE = "UTC"
    drifts, words = PLANTS[plant]
    baskets = make_baskets()
    number = lose_bills(baskets, drifts)
    found = culprit_of(BILL)
    assert (found.drift, found.number, found.drifted) == (MISSING, number, number)
    assert found.others == len(baskets) - number
    assert words in found.clues[0].has, said(found)
    assert all(before.score >= after.score for before, after in pairwise(found.clues))


def test_keys_of_one_load_are_told_where_no_time_tells_them():
    baskets = make_baskets()
    Basket.objects.update(seen_at=None)
    first = baskets[700].pk
    lose_bills(baskets, lambda each: first <= each.pk < first + 90)
    (clue,) = culprit_of(BILL).clues
    assert clue.column == "id"
    assert clue.has.startswith(f"id from {first:,} to ")


def test_two_causes_are_both_told_with_their_shares():
    baskets = make_baskets()
    lose_bills(baskets, lambda each: each.label == "csv" or each.quantity == 7)
    found = culprit_of(BILL)
    assert {clue.column for clue in found.clues} == {"label", "quantity"}
    assert all(0.3 < clue.share < 0.8 and clue.of_others == 0 for clue in found.clues)


def test_what_only_follows_from_a_clue_is_not_told():
    baskets = make_baskets()
    # Nine of ten that came by csv are gifts, as few others are: gifts don't drift more often, csv does.
    Basket.objects.filter(label="csv").exclude(quantity__lt=3).update(note="gift")
    lose_bills(baskets, lambda each: each.label == "csv" and each.pk % 2 == 0)
    found = culprit_of(BILL)
    assert [clue.column for clue in found.clues] == ["label"]


@pytest.mark.parametrize("number", [5, 6, 9, 20, 80, 400])
def test_random_drift_has_no_culprit(number):
    baskets = make_baskets()
    for seed in range(3):
        drifting = {each.pk for each in random.Random(seed).sample(baskets, number)}
        Bill.objects.all().delete()
        lose_bills(baskets, lambda each, drifting=drifting: each.pk in drifting, background=0)
        found = culprit_of(BILL)
        assert said(found) == [
            f"Nothing stands out among {number:,} missing, compared with {2_000 - number:,} that are as it must be."
        ]


def test_few_drifted_records_tell_nothing():
    baskets = make_baskets(100)
    lose_bills(baskets, lambda each: each.pk == baskets[3].pk, background=3)
    assert said(culprit_of(BILL)) == ["Too few to tell what sets them apart: 4 missing, and 5 are needed."]


def test_where_all_drift_nothing_can_set_them_apart():
    make_baskets(50)
    assert said(culprit_of(BILL)) == ["Nothing can set the 50 missing apart: all of them drift."]


def test_a_clean_rule_and_one_that_fails_have_no_culprit():
    assert culprits_of(BILL) == ()
    rule = Rule(name="ghost", every=Ghost, must=HaveValues(value=1))
    now = timezone.now()
    assert find_culprits(rule, check(rule, using="default", now=now), using="default", now=now) == ()


def test_what_rules_and_receivers_write_is_no_culprit():
    baskets = make_baskets()
    drifting = {each.pk for each in baskets if each.label == "csv"}
    Basket.objects.filter(pk__in=drifting).update(score=0)
    lose_bills(baskets, lambda each: each.pk in drifting)
    assert "score" in {clue.column for clue in culprit_of(BILL).clues}
    score = Rule(name="score", every=Basket, must=HaveValues(score=7))
    assert {clue.column for clue in culprit_of(BILL, left_out=written_columns([BILL, score])).clues} == {
        "label"
    }


def test_rules_that_delete_rows_write_none_of_their_columns():
    orphans = Rule(name="orphans", every=Bill, must=HaveSource("basket_number", model=Basket, to="id"))
    score = Rule(name="score", every=Basket, must=HaveValues(score=7))
    assert written_columns([orphans, score]) == {(Basket, "score")}


def test_a_condition_s_own_columns_are_no_culprit():
    make_baskets()
    Basket.objects.filter(label="csv").update(quantity=0)
    rule = Rule(name="some", every=Basket, must=Satisfy(Q(quantity__gt=0)))
    found = culprit_of(rule)
    assert found.drift is STALE
    assert [clue.has for clue in found.clues] == ["label = 'csv'"]


def test_extra_rows_are_compared_with_the_rows_beside_them():
    baskets = make_baskets(600)
    bills = [Bill(basket_number=each.pk, kind="bill", score=each.pk % 5) for each in baskets]
    gone = [Bill(basket_number=10**9 + at, kind="loose", score=at % 5) for at in range(40)]
    Bill.objects.bulk_create([*bills, *gone])
    rule = Rule(name="orphans", every=Bill, must=HaveSource("basket_number", model=Basket, to="id"))
    found = culprit_of(rule)
    assert (found.drift, found.drifted, found.others) == (EXTRA, 40, 600)
    assert "kind = 'loose'" in {clue.has for clue in found.clues}
    assert "basket_number" not in {clue.column for clue in found.clues}
    assert said(found)[0].startswith("All the extra rows have ")


def test_duplicates_are_compared_with_what_is_unique():
    teams = Team.objects.bulk_create([Team(name=f"t{at}", points=at % 3) for at in range(400)])
    Team.objects.bulk_create([Team(name=each.name, points=77) for each in teams[:30]])
    rule = Rule(name="names", every=Team, must=BeUnique("name"))
    found = next(each for each in culprits_of(rule) if each.drift is EXTRA)
    assert found.clues[0].has == "points = 77"


def test_values_that_python_tells_are_compared_too():
    make_baskets(1_200)
    rule = Rule(
        name="score", every=Basket, must=HaveValues(score=FromPython(lambda label: 9 if label == "csv" else 7, reads=["label"]))
    )  # fmt: skip
    assert culprit_of(rule).clues[0].has == "label = 'csv'"


def lost_condition():
    Basket.objects.filter(label="csv").update(quantity=0)
    return Rule(name="some", every=Basket, must=Satisfy(Q(quantity__gt=0)))


def lost_owner():
    baskets = Basket.objects.values_list("pk", flat=True)
    Bill.objects.bulk_create([Bill(basket_number=each, kind="bill") for each in baskets])
    Bill.objects.bulk_create([Bill(basket_number=10**9 + at, kind="csv") for at in range(40)])
    return Rule(name="orphans", every=Bill, must=HaveSource("basket_number", model=Basket, to="id"))


def lost_uniqueness():
    Basket.objects.update(note=Cast(F("pk"), TextField()))
    double = [Basket(note=str(each.pk), label="csv") for each in Basket.objects.exclude(label="csv")[:30]]
    Basket.objects.filter(label="csv").update(label="web")
    Basket.objects.bulk_create(double)
    return Rule(name="notes", every=Basket, must=BeUnique("note"))


def surplus():
    baskets = [*Basket.objects.values_list("pk", flat=True)]
    Bill.objects.bulk_create([Bill(basket_number=each, kind="bill", score=3) for each in baskets])
    Bill.objects.bulk_create([Bill(basket_number=each, kind="bill", score=77) for each in baskets[:60]])
    return BILL


@pytest.mark.parametrize("keep", [0, 1_000])
@pytest.mark.parametrize(
    ("made", "drift", "has"),
    [
        (lost_condition, STALE, "label = 'csv'"),
        (lost_owner, EXTRA, "kind = 'csv'"),
        (lost_uniqueness, EXTRA, "label = 'csv'"),
        (surplus, EXTRA, "score = 77"),
    ],
)
def test_what_a_rule_only_reports_is_explained_as_well(made, drift, has, keep):
    """A check keeps no keys of what no remedy repairs."""
    make_baskets(600)
    rule = made()
    found = next(each for each in culprits_of(rule, keep=keep) if each.drift is drift)
    assert has in {clue.has for clue in found.clues}, said(found)
    assert found.others > 500


def test_keys_in_steps_are_sampled_like_any(monkeypatch):
    """A server with several masters gives each key another step; pairs of rows have every second."""
    monkeypatch.setattr(sampling, "DRIFTED", 300)
    monkeypatch.setattr(sampling, "OTHERS", 300)
    Basket.objects.bulk_create(
        [Basket(pk=2 * at + 1, label="odd", quantity=at % 2 * 3) for at in range(1_500)]
    )
    found = culprit_of(Rule(name="some", every=Basket, must=Satisfy(Q(quantity__gt=0))))
    assert (found.number, found.clues) == (750, ())
    assert 200 < found.drifted < 400
    assert 200 < found.others < 400
    Basket.objects.all().delete()
    Basket.objects.bulk_create(
        [Basket(pk=10_000 + at, label=["debit", "credit"][at % 2], quantity=at % 3) for at in range(3_000)]
    )
    assert said(culprit_of(Rule(name="some", every=Basket, must=Satisfy(Q(quantity__gt=0)))))[0].startswith("Nothing stands out")  # fmt: skip


def test_negative_keys_are_sampled_like_any(monkeypatch):
    monkeypatch.setattr(sampling, "OTHERS", 100)
    Basket.objects.bulk_create([Basket(pk=-at, label="a" if at % 9 else "csv") for at in range(1, 900)])
    found = culprit_of(Rule(name="label", every=Basket, must=HaveValues(score=Case(When(label="csv", then=1), default=7))))  # fmt: skip
    assert 50 < found.others < 200


def test_documents_are_never_read(monkeypatch):
    baskets = make_baskets(300)
    Bill.objects.bulk_create([Bill(basket_number=each.pk, details={"long": "x" * 100}) for each in baskets])
    Bill.objects.bulk_create([Bill(basket_number=10**9 + at, kind="loose") for at in range(20)])
    rule = Rule(name="orphans", every=Bill, must=HaveSource("basket_number", model=Basket, to="id"))
    found = check(rule, using="default", now=timezone.now())
    with CaptureQueriesContext(connection) as sent:
        assert find_culprits(rule, found, using="default", now=timezone.now())[0].clues
    read = [each["sql"] for each in sent.captured_queries if "details" in each["sql"]]
    assert read
    assert all("details" in each and "IS NOT NULL" in each for each in read)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
def test_times_at_the_ends_of_the_calendar_are_no_fault(zone, settings):
    settings.TIME_ZONE = zone
    baskets = make_baskets(300)
    lose_bills(baskets, lambda each: each.label == "csv")
    Basket.objects.filter(pk=baskets[0].pk).update(
        seen_at=datetime(9999, 12, 31, 23, 30, tzinfo=UTC), day=date(9999, 12, 31)
    )
    Basket.objects.filter(pk=baskets[1].pk).update(
        seen_at=datetime(1000, 1, 1, 0, 30, tzinfo=UTC), day=date(1000, 1, 1)
    )
    assert culprit_of(BILL).clues[0].has == "label = 'csv'"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), Decimal("NaN"), Decimal("Infinity")])
def test_what_is_no_number_is_there_and_no_more(value):
    plain = [Observed(name="rate", field=Basket._meta.get_field("rate"))]
    assert repr(plain[0].read(value)) == "filled"
    rows = [[plain[0].read(value)] for _ in range(20)]
    assert clues_in(plain, rows, [[1.0]] * 100, "stale") == ()


def test_a_column_that_can_t_be_read_is_named_and_the_others_are_compared(monkeypatch):
    baskets = make_baskets(300)
    lose_bills(baskets, lambda each: each.label == "csv")

    def fails(self, value, expression, connection):
        raise ValueError("no good")

    monkeypatch.setattr(type(Basket._meta.get_field("changed")), "from_db_value", fails, raising=False)
    found = culprit_of(BILL)
    assert found.clues[0].has == "label = 'csv'"
    assert found.unread == ("changed",)
    assert said(found)[-1] == "Not compared, since what stands in them can't be read: changed."
    assert from_plain(as_plain(found)).unread == ("changed",)


@pytest.mark.parametrize("keep", [0, 1_000])
@pytest.mark.parametrize("python", [False, True])
def test_of_many_a_sample_is_compared_in_as_many_statements(monkeypatch, keep, python):
    monkeypatch.setattr(sampling, "DRIFTED", 60)
    monkeypatch.setattr(sampling, "OTHERS", 80)
    baskets = make_baskets()
    lose_bills(baskets, lambda each: each.label == "csv")
    if python:
        Basket.objects.filter(label="csv").update(score=1)
    score = FromPython(lambda note: 7, reads=["note"])
    rule = Rule(name="score", every=Basket, must=HaveValues(score=score)) if python else BILL
    found = culprit_of(rule, keep=keep)
    assert 30 <= found.drifted <= 90
    assert found.drifted < found.number
    assert 30 <= found.others <= 200
    assert found.clues[0].has == "label = 'csv'"
    assert found.clues[0].of_others == 0
    assert said(found)[-1].startswith(f"A sample: {found.drifted:,} of the {found.number:,} ")


def test_keys_that_are_no_numbers_are_sampled_too(monkeypatch):
    monkeypatch.setattr(sampling, "DRIFTED", 50)
    monkeypatch.setattr(sampling, "OTHERS", 50)
    devices = [Device(id=uuid.UUID(int=random.Random(at).getrandbits(128), version=4), name="old" if at % 5 else "new") for at in range(1_000)]  # fmt: skip
    Device.objects.bulk_create(devices)
    Badge.objects.bulk_create([Badge(device=each) for each in devices if each.name == "old"])
    rule = Rule(name="badge", every=Device, must=HaveRow(Badge, link={"device": F("pk")}))
    found = culprit_of(rule)
    assert (found.number, found.drifted < 120, found.others < 120) == (200, True, True)
    (clue,) = found.clues
    assert (clue.has, clue.share, clue.of_others) == ("name = 'new'", 1, 0)


def test_a_sample_holds_each_drifted_record_that_the_others_might(monkeypatch):
    monkeypatch.setattr(sampling, "DRIFTED", 20)
    monkeypatch.setattr(sampling, "OTHERS", 300)
    baskets = make_baskets()
    lose_bills(baskets, lambda each: each.quantity < 10)
    read = []
    real = sampling._read
    monkeypatch.setattr(
        sampling, "_read", lambda rows, columns: read.append([*real(rows, columns)]) or read[-1]
    )
    found = culprit_of(BILL)
    drifted, others = ({key for key, _ in rows} for rows in read)
    lacking = {each.pk for each in baskets} - set(Bill.objects.values_list("basket_number", flat=True))
    assert others & lacking <= drifted
    assert found.others == len(others - lacking)


def test_two_statements_however_many_records_there_are():
    counted = []
    for number in (500, 1_500):
        lose_bills(make_baskets(number), lambda each: each.label == "csv")
        found = check(BILL, using="default", now=timezone.now(), keep=1_000)
        with CaptureQueriesContext(connection) as sent:
            find_culprits(BILL, found, using="default", now=timezone.now())
        counted.append(sum("zoo_basket" in each["sql"] for each in sent.captured_queries))
        Bill.objects.all().delete()
        Basket.objects.all().delete()
    assert counted == [2, 2]


def test_young_records_are_neither_drifted_nor_compared():
    baskets = make_baskets(400)
    lose_bills(baskets, lambda each: each.label == "csv")
    Basket.objects.filter(label="api").update(seen_at=timezone.now())
    Basket.objects.exclude(label="api").update(seen_at=START)
    rule = Rule(name="bill", every=Basket, must=BILL.must, settle=Settle("seen_at", minutes=15))
    found = culprit_of(rule)
    assert found.drifted + found.others == Basket.objects.exclude(label="api").count()


def test_an_inherited_key_and_every_with_a_join_are_read():
    team = Team.objects.create(name="a")
    Player.objects.bulk_create([Player(team=team, age=at % 7, active=at % 7 != 3) for at in range(70)])
    joined = Rule(name="age", every=Player.objects.filter(team__name="a"), must=Satisfy(~Q(age=3)))
    found = culprit_of(joined)
    assert (found.drifted, found.others, found.clues[0].has) == (10, 60, "active = False")
    for at in range(70):
        Car.objects.create(wheels=3 if at % 7 == 3 else 4, doors=at % 7)
    found = culprit_of(Rule(name="doors", every=Car, must=Satisfy(~Q(doors=3))))
    assert (found.drifted, found.others, found.clues[0].has) == (10, 60, "wheels = 3")


def test_a_composite_key_is_named():
    Pair.objects.bulk_create([Pair(left=at, right=at % 7) for at in range(70)])
    rule = Rule(name="pairs", every=Pair, must=Satisfy(~Q(right=3)))
    found = check(rule, using="default", now=timezone.now())
    (culprit,) = find_culprits(rule, found, using="default", now=timezone.now())
    assert found.tally[STALE] == 10
    assert said(culprit) == ["What sets them apart is not looked for: zoo.Pair has a composite primary key."]


def test_an_error_of_the_database_is_said_and_is_no_error_of_the_check(monkeypatch):
    lose_bills(make_baskets(100), lambda each: each.label == "csv")
    found = check(BILL, using="default", now=timezone.now())

    def fails(*_):
        with connection.cursor() as cursor:
            cursor.execute("SELECT * FROM there_is_none")

    monkeypatch.setattr("reconcile.detect.culprit.read_samples", fails)
    (culprit,) = find_culprits(BILL, found, using="default", now=timezone.now())
    assert said(culprit)[0].startswith("What sets them apart could not be looked for: ")
    assert Basket.objects.count() == 100


def test_it_comes_back_from_json_as_it_was():
    lose_bills(make_baskets(400), lambda each: each.label == "csv")
    found = culprit_of(BILL)
    assert found.clues
    again = from_plain(as_plain(found))
    assert (said(again), again.clues[0].column) == (said(found), "label")


def test_shares_are_never_rounded_to_all_or_nothing():
    plain = [Observed(name="kind", field=Basket._meta.get_field("label"))]
    (clue,) = clues_in(plain, [["a"]] * 999 + [["b"]], [["b"]] * 1_999 + [["a"]], "missing")
    assert str(clue) == "99.9 % of the missing have kind = 'a' (0.1 % of the others)"
    (clue,) = clues_in(plain, [["a"]] * 50, [["b"]] * 50, "missing")
    assert str(clue) == "All the missing have kind = 'a' (none of the others)"


def test_what_is_hardly_likelier_is_not_worth_saying():
    plain = [Observed(name="kind", field=Basket._meta.get_field("label"))]
    drifted, others = [["a"]] * 5_500 + [["b"]] * 4_500, [["a"]] * 5_000 + [["b"]] * 5_000
    assert clues_in(plain, drifted, others, "missing") == ()


@pytest.mark.parametrize(("number", "found"), [(FEWEST - 1, 0), (FEWEST, 1)])
def test_five_records_with_a_trait_are_needed(number, found):
    plain = [Observed(name="kind", field=Basket._meta.get_field("label"))]
    assert len(clues_in(plain, [["a"]] * number, [["b"]] * 900, "missing")) == found
