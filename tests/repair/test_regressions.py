"""Records that drift again although they were repaired: said loudly, and left alone by the nightly job."""

from datetime import timedelta

import pytest
import structlog
from django.utils import timezone
from structlog.testing import capture_logs

from reconcile import HaveValues, Rule, Settle, runs
from reconcile.models import Chunk, Outcome, Run, Suspension
from reconcile.repair.regressions import MEMORY, resume_rule
from reconcile.tasks import nightly
from tests.helpers import at, repaired
from tests.zoo.models import Basket, Parcel

CLOSED = Rule(name="closed", every=Parcel, must=HaveValues(state="closed"))

pytestmark = pytest.mark.django_db


@pytest.fixture
def parcels(settings):
    settings.RECONCILE = {"RULES": ["tests.recurring_rules"]}
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
    outcome = Outcome.objects.latest("pk")
    assert outcome.why_stopped.startswith(
        "The nightly job leaves this rule alone. 1 of its records drift again"
    )
    assert "then: reconcile resume closed" in outcome.why_stopped
    Parcel.objects.create(state="open")
    assert nightly()["written"] == 0
    assert Outcome.objects.latest("pk").why_stopped.startswith("Suspended since")
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
