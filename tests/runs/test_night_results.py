"""What a night says of itself: one result, the same in the task, the list of runs, JSON and the exit code."""

import json
import threading
import time
import uuid
from datetime import timedelta

import pytest
from django.db import connection, models
from django.db.models import Exists, F
from django.utils import timezone

from reconcile import MISSING, Call, HaveRow, Rule, runs, tasks
from reconcile.errors import EvaluationError, LeaseHeldError, NightIncomplete, UsageError
from reconcile.models import Outcome, Run, WorkItem
from reconcile.runs import Alarm, Result, run_result, running, steering
from reconcile.runs.leases import LEASE
from tests.cli.test_cli import rules, run, run_json
from tests.helpers import Session, statements
from tests.tables import table_of
from tests.zoo.models import Basket, Bill, Parcel, Team

__all__ = ["rules"]

NAMES = """
from reconcile import *
from tests.zoo.models import *
from tests.runs import test_night_results as here
"""


def results():
    """By rule, what became of it in the last run."""
    return {each.rule: each for each in run_result(Run.objects.latest("started_at"), using="default").rules}


def night(**options):
    try:
        return tasks.nightly(**options), None
    except NightIncomplete as error:
        return error.result, error


def failing(records):
    raise ValueError("no price")


EACH = f"""{NAMES}
mended = Rule(every=Parcel, must=HaveValues(state="closed"), unattended=True)
clean = Rule(every=Team, must=HaveValues(name=F("name")), unattended=True)
reported = Rule(every=Team, must=HaveValues(points=7))
refused = Rule(every=Basket, must=HaveValues(quantity=3), unattended=True, max_repairs=1)
failed = Rule(every=Basket, must=HaveValues(note="n"), unattended=True, remedies={{STALE: Call(here.failing)}})
held = Rule(every=Team, must=HaveValues(average=2), unattended=True)
suspended = Rule(every=Basket, must=HaveValues(score=4), unattended=True)
error = Rule(every=ContactView, must=HaveValues(visits=1), unattended=True)
"""


@pytest.fixture
def each_result(db, rules):
    """A night with a rule for each result that a night can have."""
    from reconcile.models import Suspension

    rules(EACH)
    Parcel.objects.create(state="open")
    Team.objects.create(name="t", points=1)
    Basket.objects.bulk_create([Basket(quantity=1, score=1) for _ in range(20)])
    other = Run.objects.create(kind="repair", now=timezone.now())
    holder = Outcome.objects.create(
        run=other, rule="own.held", position=0, state="repairing", leased="own.held"
    )
    WorkItem.objects.create(outcome=holder, drift="stale", token=uuid.uuid4())
    Suspension.objects.create(rule="own.suspended", run=other.pk, why="Why.")
    Run.objects.filter(pk=other.pk).update(started_at=timezone.now() - timedelta(days=1))
    return night()


def test_each_rule_has_one_word_for_what_became_of_it(each_result):
    result, _ = each_result
    words = {each["rule"].removeprefix("own."): each["result"] for each in result["rules"]}
    assert words == {
        "mended": "repaired", "clean": "clean", "reported": "reported", "refused": "refused", "failed": "failed",
        "held": "held", "suspended": "suspended", "error": "error",
    }  # fmt: skip
    assert result["result"] == "error"


def test_the_worst_rules_come_first(each_result):
    result, _ = each_result
    ranks = [list(Result).index(each["result"]) for each in result["rules"]]
    assert ranks == sorted(ranks)


def test_what_is_reported_counts_as_left_and_what_nobody_counted_is_not_known(each_result):
    result, _ = each_result
    by_rule = {each["rule"].removeprefix("own."): each for each in result["rules"]}
    assert (by_rule["reported"]["found"], by_rule["reported"]["left"]) == (1, 1)
    assert (by_rule["mended"]["found"], by_rule["mended"]["written"], by_rule["mended"]["left"]) == (1, 1, 0)
    assert (by_rule["refused"]["left"], by_rule["error"]["left"], by_rule["error"]["found"]) == (
        20,
        None,
        None,
    )
    assert (result["left"], result["written"]) == (None, 1)


def test_the_alarm_comes_after_all_rules_had_their_turn_and_names_them(each_result):
    result, error = each_result
    assert Parcel.objects.get().state == "closed"
    assert "own.error: error" in str(error)
    assert "own.mended" not in str(error)
    assert result["run"][:8] in str(error)


def test_the_list_and_the_page_of_a_run_say_the_same(each_result):
    result, _ = each_result
    code, out, _ = run("runs")
    (line,) = [each for each in out.splitlines() if each.startswith(result["run"][:8])]
    assert "1 error, 1 failed, 1 held, 1 suspended, 1 refused, 1 reported" in line
    assert line.split()[-2:] == ["1", "?"]
    assert "+00:00" in line
    _, report = run_json("runs", result["run"])
    assert [each["result"] for each in report["rules"]] == [each["result"] for each in result["rules"]]
    assert (report["result"], report["left"], code) == ("error", None, 0)
    _, listed = run_json("runs")
    assert listed["runs"][0]["results"]["held"] == 1
    _, out, _ = run("runs", result["run"])
    assert out.index("own.error") < out.index("own.failed") < out.index("own.mended")


def test_what_is_said_of_several_rules_is_said_once(db, rules):
    several = "\n".join(f"r{n} = Rule(every=Team, must=HaveValues(points={n}))" for n in range(7, 19))
    rules(f"{NAMES}{several}")
    Team.objects.create(name="t", points=1)
    result, _ = night()
    _, out, _ = run("runs", result["run"])
    assert out.count("It is not unattended, so the nightly job only reports.") == 1
    assert "12 rules" in out
    assert "and 2 more" in out


ALARMS = {
    "never": (), "error": ("error", "failed", "held"), "fail": ("error", "failed", "held", "suspended", "refused", "reported"),
    "warn": ("error", "failed", "held", "suspended", "refused", "reported"),
}  # fmt: skip


@pytest.mark.parametrize("level", ALARMS)
def test_the_setting_says_from_what_on_a_night_is_incomplete(each_result, level, settings):
    alarming = run_result(Run.objects.latest("started_at"), using="default").alarming(Alarm(level))
    assert {each.rule.removeprefix("own.") for each in alarming} == set(ALARMS[level])
    settings.RECONCILE = {**settings.RECONCILE, "ALARM": level}
    Run.objects.all().delete()
    _, error = night()
    assert (error is None) is (level == "never")


@pytest.mark.parametrize(
    ("tolerated", "warn", "fail"),
    [("error_if=9", True, False), ("warn_if=9", False, False), ("", True, True)],
)
@pytest.mark.django_db
def test_drift_that_a_rule_tolerates_alarms_nobody(rules, tolerated, warn, fail):
    rules(f"{NAMES}r = Rule(every=Team, must=HaveValues(points=7), {tolerated})")
    Team.objects.create(name="t", points=1)
    result, error = night()
    assert (result["result"], result["left"]) == ("reported", 1)
    assert (error is not None) is fail
    assert bool(run_result(Run.objects.get(), using="default").alarming(Alarm.WARN)) is warn


@pytest.mark.django_db
def test_an_alarm_that_is_none_is_a_fault_of_the_settings(rules, settings):
    settings.RECONCILE = {"RULES": [], "ALARM": "always"}
    code, _, err = run("check")
    assert (code, "settings.RECONCILE['ALARM'] is 'always'." in err) == (2, True)


@pytest.mark.parametrize(
    ("must", "code"),
    [("HaveValues(points=1)", 0), ("HaveValues(points=7)", 1), ("HaveValues(points=7), unattended=True", 0)],
)
@pytest.mark.django_db
def test_the_night_without_celery_exits_by_its_result(rules, must, code):
    rules(f"{NAMES}r = Rule(every=Team, must={must})")
    Team.objects.create(name="t", points=1)
    exited, out, _ = run("nightly")
    assert exited == code
    assert f"Run {Run.objects.get().pk}, nightly, finished: 1 " in out
    assert run_json("nightly")[1]["kind"] == "nightly"


def test_the_night_exits_by_the_gravest(each_result):
    Run.objects.filter(kind="nightly").delete()
    assert run("nightly")[0] == 3


# One night at a time.


@pytest.fixture
def sister(db, rules):
    """A nightly run of another worker, at work."""
    rules(f"{NAMES}r = Rule(every=Parcel, must=HaveValues(state='closed'), unattended=True)")
    Parcel.objects.create(state="open")
    begun = Run.objects.create(kind="nightly", now=timezone.now(), night="nightly")
    Outcome.objects.create(run=begun, rule="own.r", position=0, may_repair=True)
    return begun


def test_a_second_delivery_returns_the_first_run_and_its_state(sister):
    result, error = night()
    assert (result["run"], result["state"], error) == (str(sister.pk), "running", None)
    assert [each["result"] for each in result["rules"]] == ["waiting"]
    assert (Run.objects.count(), Parcel.objects.get().state) == (1, "open")
    assert run("nightly")[0] == 75


def delivered(message):
    """The night that a broker delivers under this id of a message."""
    return tasks.nightly.apply(task_id=message, throw=True).get()


def silence(sister, since=LEASE):
    Run.objects.filter(pk=sister.pk).update(
        heartbeat=timezone.now() - since, started_at=timezone.now() - since
    )


def test_a_silent_night_that_is_delivered_again_is_resumed_after_its_lease(sister):
    Run.objects.update(delivery="message")
    silence(sister)
    result = delivered("message")
    assert (result["run"], result["state"]) == (str(sister.pk), "finished")
    assert (Run.objects.count(), Parcel.objects.get().state) == (1, "closed")
    result, _ = night()
    assert result["run"] != str(sister.pk)


@pytest.mark.parametrize(
    ("message", "since"), [("another", LEASE), ("message", timedelta(days=1))], ids=["another", "long ago"]
)
def test_what_a_dead_night_has_seen_is_never_told_as_that_of_the_next(sister, message, since):
    """Its first rule was clean then, and has drifted since."""
    Run.objects.update(delivery="message")
    Outcome.objects.update(state="done", status="pass", checked=1)
    silence(sister, since)
    result = delivered(message)
    assert (result["run"] != str(sister.pk), result["found"], result["written"]) == (True, 1, 1)
    sister.refresh_from_db()
    assert (sister.state, sister.night) == ("stopped", None)
    assert "no sign of life" in sister.why_stopped
    assert Parcel.objects.get().state == "closed"


@pytest.mark.parametrize(
    ("asked", "state", "message"),
    [
        ("cancel", "cancelled", ""),
        ("cancel", "cancelled", "message"),
        ("pause", "paused", ""),
        ("pause", "paused", "message"),
    ],
)
def test_a_night_that_dies_before_it_has_done_what_was_asked_ends_as_was_asked(sister, asked, state, message):
    Run.objects.update(delivery="message")
    getattr(runs, asked)(sister, using="default")
    silence(sister)
    delivered(message or "another")
    sister.refresh_from_db()
    assert (sister.state, sister.why_stopped) == (state, f"Somebody has {state} it.")
    assert Run.objects.exclude(pk=sister.pk).get().state == "finished"


@pytest.mark.django_db
@pytest.mark.parametrize(("failures", "begins"), [(1, True), (1000, False)])
def test_a_night_that_another_has_come_before_and_that_has_ended_since_begins(
    rules, monkeypatch, failures, begins
):
    rules(f"{NAMES}r = Rule(every=Parcel, must=HaveValues(state='closed'), unattended=True)")
    begin, others = running._begin, iter(range(failures))

    def late(*given, **options):
        if next(others, None) is not None:
            raise LeaseHeldError("Another nightly run has begun at this moment.")
        return begin(*given, **options)

    monkeypatch.setattr(running, "_begin", late)
    if begins:
        assert night()[0]["state"] == "finished"
    else:
        with pytest.raises(
            EvaluationError, match="No nightly run could begin, and none goes on: Another nightly"
        ):
            night()


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="one session writes at a time")
def test_a_worker_in_a_long_statement_gives_signs_of_life(monkeypatch):
    monkeypatch.setattr(steering, "BEAT", 0.1)
    begun = Run.objects.create(kind="nightly", now=timezone.now(), night="nightly")
    first = begun.heartbeat
    with steering.beats(begun, using="default"), connection.cursor() as cursor:
        cursor.execute(f"SELECT {'pg_sleep' if connection.vendor == 'postgresql' else 'SLEEP'}(1)")
        begun.refresh_from_db()
        assert begun.heartbeat > first
    last = Run.objects.get().heartbeat
    time.sleep(0.5)
    assert Run.objects.get().heartbeat == last


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="one session writes at a time")
def test_a_worker_that_gives_signs_itself_has_no_second_session_beside_it(monkeypatch):
    """A repair rests while others are at work, and the thread's session is another."""
    monkeypatch.setattr(steering, "BEAT", 0.1)
    begun = Run.objects.create(kind="nightly", now=timezone.now(), night="nightly")
    first = begun.heartbeat
    control = steering.RunControl(begun, using="default")
    monkeypatch.setattr(control, "beat", control)
    with steering.beats(begun, using="default"):
        for _ in range(20):
            control()
            time.sleep(0.05)
    assert Run.objects.get().heartbeat == first


def test_inside_of_a_transaction_nobody_beats(sister):
    before = threading.active_count()
    with steering.beats(sister, using="default"):
        assert threading.active_count() == before


def test_a_silent_night_whose_rule_is_gone_is_ended_and_a_new_one_begins(sister):
    Outcome.objects.update(rule="own.gone")
    Run.objects.update(delivery="message")
    silence(sister)
    result = delivered("message")
    sister.refresh_from_db()
    assert (sister.state, "own.gone" in sister.why_stopped, sister.night) == ("stopped", True, None)
    assert (result["run"] != str(sister.pk), result["state"]) == (True, "finished")


@pytest.mark.parametrize("state", ["finished", "stopped", "paused", "cancelled"])
def test_a_night_that_has_ended_is_in_nobodys_way(sister, state):
    from reconcile.models import transition

    if state == "cancelled":
        assert runs.cancel(sister, using="default").state == "cancelling"
        Run.objects.update(heartbeat=timezone.now() - LEASE, started_at=timezone.now() - LEASE)
    else:
        transition(Run.objects.filter(pk=sister.pk), Run.State(state))
    assert night()[0]["run"] != str(sister.pk)


def test_a_stopped_night_is_not_resumed_beside_another(sister):
    stopped = Run.objects.create(kind="nightly", now=timezone.now(), state="stopped")
    with pytest.raises(UsageError, match="Another nightly run goes on"):
        runs.resume(stopped, {}, using="default")


@pytest.mark.django_db(transaction=True)
@pytest.mark.server
def test_nights_that_begin_at_once_are_one(rules):
    rules(f"{NAMES}r = Rule(every=Parcel, must=HaveValues(state='closed'), unattended=True)")
    Parcel.objects.bulk_create([Parcel(state="open") for _ in range(500)])
    together = threading.Barrier(4, timeout=30)

    def job():
        together.wait()
        return tasks.nightly()

    sessions = [Session(job) for _ in range(4)]
    for session in sessions:
        session.start()
    told = [session.join() for session in sessions]
    assert len({each["run"] for each in told}) == Run.objects.count() == 1
    assert not Parcel.objects.exclude(state="closed").exists()


# Nothing was there to look at.


@pytest.fixture
def nothing(db, rules):
    """A rule over an empty table."""
    rules(f"{NAMES}r = Rule(every=Parcel, must=HaveValues(state='closed'), unattended=True)")


def test_a_night_that_looks_at_nothing_is_not_clean(nothing):
    result, error = night()
    assert (result["result"], result["rules"][0]["result"]) == ("skipped", "skipped")
    assert "allow_empty=True" in str(error)
    assert night(allow_empty=True)[1] is None
    code, out, _ = run("nightly")
    assert (code, "1 skipped" in out, "If there may be none: --allow-empty." in out) == (1, True, True)
    assert run("nightly", "--allow-empty")[0] == 0


def test_the_alarm_may_be_off_for_that_too(nothing, settings):
    settings.RECONCILE = {**settings.RECONCILE, "ALARM": "never"}
    assert night()[1] is None


def test_a_table_that_is_empty_beside_others_is_nobody_s_alarm(db, rules):
    rules(
        f"{NAMES}r = Rule(every=Parcel, must=HaveValues(state='closed'), unattended=True)\n"
        "s = Rule(every=Team, must=HaveValues(name=F('name')), unattended=True)"
    )
    Team.objects.create()
    result, error = night()
    assert (result["result"], error) == ("clean", None)
    assert [each["result"] for each in result["rules"]] == ["clean", "skipped"]


def test_a_repair_that_looks_at_nothing_verifies_nothing(nothing):
    code, out, _ = run("repair", "--apply")
    assert (code, "Verified" in out, "0 records checked, so nothing is known." in out) == (1, False, True)
    code, out, _ = run("repair", "--apply", "--allow-empty")
    assert (code, "Verified" in out) == (0, False)
    assert "If there may be none: --allow-empty." not in out
    assert "If there may be none: --allow-empty." in run("repair", "--apply")[1]
    assert run_json("repair", "--apply")[1]["status"] == "empty"
    assert run("repair")[0] == 0
    assert [each["result"] for each in run_json("repair")[1]["rules"]] == ["skipped"]
    stopped = Run.objects.latest("started_at")
    Outcome.objects.filter(run=stopped).update(state="waiting")
    Run.objects.filter(pk=stopped.pk).update(state="stopped", finished_at=None)
    assert run("runs", "resume", str(stopped.pk))[0] == 1
    Outcome.objects.filter(run=stopped).update(state="waiting")
    Run.objects.filter(pk=stopped.pk).update(state="stopped", finished_at=None)
    assert run("runs", "resume", str(stopped.pk), "--allow-empty")[0] == 0


# What stands half done, and what nobody has come to.


def test_a_guard_that_stops_a_rule_after_it_has_written_makes_it_failed(rules, db):
    """In the second round of a circle there is more to write than its cap allows."""
    rules(
        f"{NAMES}a = Rule(every=Basket, must=HaveValues(score=F('quantity')), unattended=True, max_repairs=1, error_if=50)\n"
        "b = Rule(every=Basket, must=HaveValues(quantity=F('score') * 0 + 3), unattended=True)"
    )
    Basket.objects.create(quantity=3, score=0)
    Basket.objects.bulk_create([Basket(quantity=n, score=n) for n in (5, 6, 7)])
    _, error = night()
    each = results()["own.a"]
    assert (each.result, each.written) == (Result.FAILED, 1)
    assert "own.a: failed" in str(error)


def test_a_rule_that_nobody_has_come_to_has_found_nothing_that_is_known(sister):
    assert runs.cancel(sister, using="default").state == "cancelling"
    silence(sister)
    night(), sister.refresh_from_db()
    (each,) = run_result(sister, using="default").rules
    assert (each.result, each.found) == (Result.OPEN, None)


@pytest.mark.parametrize("words", [("nightly",), ("runs",), ("runs", "show")], ids=" ".join)
def test_what_is_said_of_a_run_takes_as_many_statements_for_twenty_rules_as_for_one(sister, words):
    Outcome.objects.update(state="done", status="pass", checked=1)
    words = (*words, str(sister.pk)) if "show" in words else words
    numbers = []
    for more in range(2):
        Outcome.objects.bulk_create(
            [
                Outcome(run=sister, rule=f"own.{more}{each}", position=each + 1, status="pass", state="done")
                for each in range(19 * more)
            ]
        )
        with statements() as sent:
            run(*words)
        numbers.append(len(sent))
    assert numbers[0] == numbers[1]


def test_a_rule_at_work_is_not_open(sister):
    Outcome.objects.update(state="repairing", status="fail", stale=4)
    (each,) = run_result(sister, using="default").rules
    assert (each.result, each.found) == (Result.WAITING, 4)
    silence(sister)
    (each,) = run_result(sister, using="default").rules
    assert (each.result, each.found) == (Result.OPEN, 4)


# Written, not verified.


@pytest.mark.django_db(transaction=True)
def test_a_repair_whose_check_afterwards_can_not_run_is_written_and_not_verified():
    with table_of("Wanted", {"basket_number": models.BigIntegerField()}) as wanted:
        basket = Basket.objects.create()
        wanted.objects.create(basket_number=basket.pk)

        def mend(records):
            Bill.objects.bulk_create([Bill(basket_number=each.pk, amount=1) for each in records])
            # After the chunk, whose own verification has seen the rows.
            from django.db import transaction

            transaction.on_commit(lambda: _rename(wanted, "zoo_wanted_away"))

        every = Basket.objects.filter(Exists(wanted.objects.filter(basket_number=models.OuterRef("pk"))))
        must = HaveRow(Bill, link={"basket_number": F("pk")}, values={"amount": 1})
        rule = Rule(name="r", every=every, must=must, remedies={MISSING: Call(mend)})
        try:
            stored, (repaired,) = runs.repair({"r": rule}, using="default")
        finally:
            _rename(wanted, wanted._meta.db_table, back="zoo_wanted_away")
        assert (repaired.result, repaired.written.total, repaired.left) == (Result.UNVERIFIED, 1, None)
        assert "Its rows are written, and not verified" in repaired.why_stopped
        assert repaired.incomplete
        stored.refresh_from_db()
        assert stored.state == "stopped"
        (resumed,) = runs.resume(stored, {"r": rule}, using="default")
        assert (resumed.result, resumed.left) == (Result.REPAIRED, 0)


def _rename(model, name, back=None):
    quote = connection.ops.quote_name
    old = back or model._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {quote(old)} RENAME TO {quote(name)}")


def test_a_run_without_rules_is_clean():
    assert (
        runs.RunResult(run="r", kind="nightly", state="finished", database="default", rules=()).result
        is Result.CLEAN
    )


def test_the_result_is_plain_values(each_result):
    assert json.loads(json.dumps(each_result[0])) == each_result[0]
