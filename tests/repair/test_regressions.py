"""Records that drift again although they were repaired: said loudly, and left alone by the nightly job."""

from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
import structlog
from django.db.models import Count, F, Sum, Value
from django.utils import timezone
from structlog.testing import capture_logs

from reconcile import HaveRow, HaveValues, Rule, Settle, Within, runs
from reconcile.models import Chunk, Outcome, Run, Suspension
from reconcile.repair.regressions import MEMORY, resume_rule
from reconcile.tasks import nightly
from tests.helpers import at, repaired
from tests.zoo.models import Basket, Bill, Parcel, Sheet, Team

CLOSED = Rule(name="closed", every=Parcel, must=HaveValues(state="closed"))

pytestmark = pytest.mark.django_db


@pytest.fixture
def parcels(settings):
    settings.RECONCILE = {"RULES": ["tests.recurring_rules"], "ALARM": "never"}
    Parcel.objects.bulk_create([Parcel(state="open") for _ in range(3)])
    return Parcel.objects.order_by("pk")


def reopen(*parcels):
    Parcel.objects.filter(pk__in=[each.pk for each in parcels]).update(state="open")


def test_a_record_that_drifts_again_is_said_loudly_and_repaired_all_the_same(parcels):
    repaired(CLOSED)
    first, *_ = parcels
    reopen(first)
    result = repaired(CLOSED)
    assert (result.written.update, result.again) == (1, 1)
    assert f"1 of these records drifts again although it was repaired before ({first.pk})" in result.warning
    assert Outcome.objects.latest("pk").warning == result.warning


def test_other_records_that_drift_are_no_second_time(parcels):
    repaired(CLOSED)
    Parcel.objects.create(state="open")
    result = repaired(CLOSED)
    assert (result.written.update, result.again, result.warning) == (1, 0, "")


def test_a_preview_says_it_too(parcels):
    repaired(CLOSED)
    reopen(*parcels)
    (result,) = runs.preview({"closed": CLOSED}, using="default", now=timezone.now())
    assert (result.again, "drift again" in result.warning, result.why_stopped) == (3, True, "")


def test_the_nightly_job_leaves_the_rule_alone_until_somebody_resumes_it(parcels):
    assert nightly()["written"] == 3
    reopen(parcels[0])
    structlog.reset_defaults()
    with capture_logs() as events:
        assert nightly()["written"] == 0
    assert [each["event"] for each in events if each["log_level"] == "error"] == ["rule_suspended"]
    outcome = Outcome.objects.filter(rule="closed").latest("pk")
    assert outcome.why_stopped.startswith(
        "The nightly job leaves this rule alone. 1 of its records drift again"
    )
    assert "then: reconcile rules resume closed" in outcome.why_stopped
    Parcel.objects.create(state="open")
    assert nightly()["written"] == 0
    assert Outcome.objects.filter(rule="closed").latest("pk").why_stopped.startswith("Suspended since")
    assert resume_rule("closed", using="default")
    assert nightly()["written"] == 2
    assert not resume_rule("closed", using="default")


def test_a_person_may_still_repair_a_suspended_rule(parcels):
    nightly()
    reopen(*parcels)
    nightly()
    assert Suspension.objects.get().rule == "closed"
    assert repaired(CLOSED).written.update == 3


def test_a_repair_that_is_a_week_old_is_forgotten(parcels):
    with at(timezone.now() - MEMORY - timedelta(hours=1)):
        repaired(CLOSED)
    reopen(*parcels)
    assert repaired(CLOSED).again == 0


def test_a_repair_younger_than_the_settle_time_does_not_count_since_its_effects_may_be_in_flight(parcels):
    for each in parcels:
        Basket.objects.create(seen_at=timezone.now() - timedelta(days=1), score=each.pk)
    settling = Rule(name="seen", every=Basket, must=HaveValues(label="x"), settle=Settle("seen_at", hours=2))
    with at(timezone.now() - timedelta(hours=1)):
        repaired(settling)
    Basket.objects.update(label="")
    assert repaired(settling).again == 0
    Chunk.objects.update(committed_at=timezone.now() - timedelta(hours=3))
    Basket.objects.update(label="")
    assert repaired(settling).again == 3


def test_what_was_undone_was_not_repaired(parcels):
    repaired(CLOSED)
    Run.objects.create(kind="undo", undoes=Run.objects.get(), now=timezone.now())
    reopen(*parcels)
    assert repaired(CLOSED).again == 0


def test_an_edited_rule_finds_records_for_the_first_time(parcels):
    repaired(CLOSED)
    edited = Rule(name="closed", every=Parcel, must=HaveValues(state="done"))
    result = repaired(edited)
    assert (result.written.update, result.again, result.warning) == (3, 0, "")
    reopen(*parcels)
    assert repaired(edited).again == 3


def test_the_rule_before_it_was_edited_is_remembered_where_the_edit_is_taken_back(parcels):
    repaired(CLOSED)
    repaired(Rule(name="closed", every=Parcel, must=HaveValues(state="done")))
    assert repaired(CLOSED).again == 3


def test_the_nightly_job_does_not_suspend_a_rule_that_was_edited(parcels):
    nightly()
    Outcome.objects.update(fingerprint="of another declaration")
    reopen(*parcels)
    assert nightly()["written"] == 3
    assert not Suspension.objects.exists()


# What is known: whether the record owes what it owed then.


COUNTED = Rule(
    name="counted", every=Team, must=HaveValues(player_count=Count("players"), points=Sum("players__age"))
)
BILLED = Rule(
    name="billed",
    every=Basket,
    must=HaveRow(Bill, link={"basket_number": F("pk")}, values={"amount": F("price"), "kind": F("label")}),
)


def test_a_record_whose_inputs_have_changed_was_written_wrong_by_nobody():
    team = Team.objects.create(name="t", player_count=9)
    repaired(COUNTED)
    team.players.create(age=3)
    result = repaired(COUNTED)
    assert (result.written.update, result.again, result.warning) == (1, 0, "")
    Team.objects.update(player_count=7)
    assert repaired(COUNTED).again == 1


def test_of_several_records_those_alone_are_named_that_owe_what_they_owed():
    teams = [Team.objects.create(name=name, player_count=9) for name in "ab"]
    repaired(COUNTED)
    teams[0].players.create(age=3)
    Team.objects.filter(pk=teams[1].pk).update(points=5)
    result = repaired(COUNTED)
    assert (result.written.update, result.again) == (2, 1)
    assert f"({teams[1].pk})" in result.warning


@pytest.mark.parametrize(("price", "again"), [("2.50", 1), ("3.00", 0)])
def test_rows_of_another_table_are_compared_with_what_the_journal_has_of_them(price, again):
    basket = Basket.objects.create(label="a", price="2.50")
    Bill.objects.create(basket_number=basket.pk, amount=1, kind="x")
    repaired(BILLED)
    Basket.objects.update(price=price)
    Bill.objects.update(amount="9.99")
    result = repaired(BILLED)
    assert (result.written.update, result.again) == (1, again)


BOTH = Rule(name="both", every=Team, must=HaveValues(player_count=Count("players"), name=Value("right")))


def test_a_column_that_is_written_wrong_is_seen_beside_one_whose_inputs_move():
    team = Team.objects.create(name="wrong")
    team.players.create(age=3)
    repaired(BOTH)
    for _ in range(3):
        team.players.create(age=3)
        Team.objects.update(name="wrong")
        result = repaired(BOTH)
        assert (result.written.update, result.again) == (1, 1)


def test_a_column_that_is_right_beside_one_whose_inputs_move_accuses_nobody():
    team = Team.objects.create(name="wrong")
    repaired(BOTH)
    team.players.create(age=3)
    result = repaired(BOTH)
    assert (result.written.update, result.again) == (1, 0)


def test_a_column_within_its_tolerance_accuses_nobody():
    rule = Rule(
        name="near",
        every=Sheet,
        must=HaveValues(ratio=Within(F("number") * 1.0, 0.5), small=F("large") * 1),
    )
    sheet = Sheet.objects.create(number=10, large=3)
    repaired(rule)
    Sheet.objects.update(ratio=10.2, large=7)
    result = repaired(rule)
    assert (result.written.update, result.again) == (1, 0)
    Sheet.objects.update(ratio=99)
    assert repaired(rule).again == 1
    assert sheet.pk


def test_a_rule_whose_inputs_moved_is_not_suspended(settings):
    settings.RECONCILE = {"RULES": ["tests.recurring_rules"], "ALARM": "never"}
    team = Team.objects.create(name="t", player_count=9)
    assert nightly()["written"] == 1
    team.players.create(age=3)
    assert nightly()["written"] == 1
    assert not Suspension.objects.exists()


def test_values_of_each_kind_are_known_to_be_the_same():
    """A comparison of two spellings would take the same value for another, and say nothing of a broken handler."""
    moment = timezone.now()
    given = {
        "flag": True, "small": 3, "number": 2**30, "ratio": 0.1 + 0.2, "money": Decimal("1.5"), "day": moment.date(),
        "moment": moment, "hour": moment.time(), "span": timedelta(hours=3, microseconds=7), "token": uuid4(), "word": "a'\\b", "prose": "p",
    }  # fmt: skip
    rule = Rule(name="kinds", every=Sheet, must=HaveValues(**given))
    sheet = Sheet.objects.create()
    repaired(rule)
    wrong = {"flag": False, "small": 0, "number": 0, "ratio": 0.5, "money": 9, "word": "y", "prose": ""}
    for name in given:
        Sheet.objects.filter(pk=sheet.pk).update(**{name: wrong.get(name)})
        assert repaired(rule).again == 1, name
