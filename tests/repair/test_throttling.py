"""Throttles: the project holds a repair back while the database has other worries."""

import pytest
from django.db.models import F

from reconcile import HaveRow, Rule
from reconcile.errors import GivenUpError
from reconcile.models import Run
from reconcile.repair import pacing as throttling
from reconcile.repair.pacing import MOST_WAIT, WAIT, wait_for_throttles
from reconcile.rules import registry
from sample_project.shop.models import Invoice, Order
from tests.helpers import repaired

pytestmark = pytest.mark.once

INVOICE = Rule(
    name="invoice", every=Order, must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")})
)


def busy_for(*answers):
    said = [*answers]
    return lambda using: said.pop(0) if said else False


def held_back(*throttles):
    paused, ticks = [], []
    waited = wait_for_throttles(throttles, "default", tick=lambda: ticks.append(1), pause=paused.append)
    assert sum(paused) == pytest.approx(waited)
    assert all(each <= 1 for each in paused)
    assert len(ticks) == len(paused)
    return waited


@pytest.mark.parametrize("answer", [False, None, 0, 0.0])
def test_a_throttle_that_says_no_holds_nothing_back(answer):
    assert held_back(lambda using: answer) == 0


@pytest.mark.parametrize(("answer", "seconds"), [(True, WAIT), (2.5, 2.5), (1, 1)])
def test_a_throttle_says_for_how_long(answer, seconds):
    assert held_back(busy_for(answer)) == seconds


def test_it_is_asked_again_until_it_says_no():
    assert held_back(busy_for(2, 3, False)) == 5


def test_the_longest_wait_of_several_counts():
    assert held_back(busy_for(1), busy_for(4)) == 4


def test_a_throttle_that_raises_throttles():
    answers = [1]

    def broken(using):
        if answers:
            answers.pop()
            raise OSError("the monitoring is down")
        return False

    assert held_back(broken) == WAIT


def test_it_is_told_the_database():
    asked = []
    wait_for_throttles([asked.append], "archive", tick=lambda: None, pause=lambda _: None)
    assert asked == ["archive"]


def test_a_repair_that_is_held_back_for_ever_is_given_up_and_names_the_throttle():
    def replicas_lag(using):
        return True

    with pytest.raises(
        GivenUpError, match=r"replicas_lag has held the repair back for 600 s\. Resume the run"
    ):
        held_back(replicas_lag)
    assert MOST_WAIT == 600


asked_by_repair = []


def note(using):
    asked_by_repair.append(using)
    return False


@pytest.mark.django_db
@pytest.mark.parametrize("throttle", [note, "tests.repair.test_throttling.note"], ids=["function", "path"])
def test_a_repair_asks_before_each_chunk(settings, throttle):
    settings.RECONCILE = {**settings.RECONCILE, "THROTTLES": [throttle], "CHUNK": 10}
    Order.objects.bulk_create([Order(total=3) for _ in range(25)])
    del asked_by_repair[:]
    assert repaired(INVOICE).written.insert == 25
    assert asked_by_repair == ["default"] * 3


def always(using):
    return 0.01


@pytest.mark.django_db
def test_a_repair_that_is_given_up_stays_open_and_is_resumed_later(settings, monkeypatch):
    settings.RECONCILE = {**settings.RECONCILE, "THROTTLES": [always]}
    monkeypatch.setattr(throttling, "MOST_WAIT", 0.03)
    Order.objects.bulk_create([Order(total=3) for _ in range(5)])
    result = repaired(INVOICE)
    assert "always has held the repair back" in result.why_stopped
    assert (Invoice.objects.count(), Run.objects.get().state) == (0, "stopped")


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        (
            "tests.repair.test_throttling.note",
            "settings.RECONCILE['THROTTLES'] is 'tests.repair.test_throttling.note'",
        ),
        (7, "settings.RECONCILE['THROTTLES'] is 7"),
        (
            ["tests.repair.test_throttling.nothing"],
            "Throttle 'tests.repair.test_throttling.nothing' can't be imported",
        ),
        ([7], "Throttle 7 can't be called"),
    ],
)
def test_what_is_no_throttle_is_a_fault(settings, listed, said):
    settings.RECONCILE = {**settings.RECONCILE, "THROTTLES": listed}
    (fault,) = registry.load().faults
    assert (fault.id, said in fault.message) == ("reconcile.E001", True), fault
