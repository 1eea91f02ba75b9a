import json
import signal
import subprocess
import time
import uuid
from dataclasses import replace
from datetime import timedelta

import pytest
import structlog
from django.db import connection
from django.db.models import F, Q
from django.utils import timezone
from structlog.testing import capture_logs

from reconcile import (
    EXTRA,
    MISSING,
    STALE,
    AtMost,
    Call,
    Delete,
    HaveRow,
    HaveValues,
    Insert,
    Rule,
    Split,
    runs,
)
from reconcile.core.drift import Guarantee, Status
from reconcile.core.scopes import Keys
from reconcile.errors import (
    EvaluationError,
    LeaseLostError,
    NotRepairedError,
    StoppedError,
    UnknownNameError,
    UsageError,
)
from reconcile.models import Change, Outcome, Run, WorkItem
from reconcile.repair.caps import Caps
from reconcile.repair.pacing import FIRST
from reconcile.rules.registry import valid_rules
from reconcile.rules.unattended import unattended_refusal
from reconcile.runs import written_rows
from reconcile.runs.steering import RunControl
from sample_project.shop import seed
from sample_project.shop.models import Invoice, Notification, Order
from tests.helpers import (
    ROOT,
    an_hour_ago,
    environment,
    everything,
    found_by_the_night,
    nightly,
    reconcile_command,
    repaired,
)
from tests.zoo.models import Basket, Bill, Ghost, Node, Parcel, Team

INVOICE = Rule(
    name="invoice",
    every=Order.objects.exclude(status=Order.Status.DRAFT),
    must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")}),
)


def missing(number):
    Order.objects.bulk_create(
        [Order(total=3, created_at=an_hour_ago()) for _ in range(number)], batch_size=10_000
    )


def previewed(rule, **options):
    caps = Caps(**options)
    return runs.preview({rule.name: rule}, using="default", now=timezone.now(), caps=caps)[0]


@pytest.mark.django_db
def test_a_preview_counts_and_writes_nothing_at_all():
    missing(3)
    before = everything()
    result = previewed(INVOICE)
    assert (result.planned.insert, result.planned.update, result.written.total) == (3, 0, 0)
    assert everything() == before
    assert not Run.objects.exists()


@pytest.mark.django_db
def test_a_repair_leaves_a_run_with_an_outcome_a_rule():
    missing(3)
    run, _ = runs.repair({INVOICE.name: INVOICE}, using="default")
    run.refresh_from_db()
    outcome = run.outcomes.get()
    assert (run.kind, run.state, run.finished_at is not None) == ("repair", "finished", True)
    assert (outcome.rule, outcome.state, outcome.status, outcome.leased) == ("invoice", "done", "pass", None)
    assert (outcome.checked, outcome.missing, written_rows(outcome).insert, outcome.left) == (3, 3, 3, 0)
    assert len(outcome.samples) == 3
    assert {work_item.state for work_item in WorkItem.objects.all()} == {"done"}


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("cap", "stops"), [(20, True), (30, False), ("50%", True), ("100%", False), (0, True)]
)
def test_a_cap_stops_before_the_first_write_and_says_how_to_go_on(cap, stops):
    missing(30)
    for result in (previewed(INVOICE, max_repairs=cap), repaired(INVOICE, max_repairs=cap)):
        assert bool(result.why_stopped) is stops
        assert result.incomplete is stops
    assert Invoice.objects.count() == (0 if stops else 30)
    if stops:
        assert f"30 repairs are planned, and the cap is {cap}" in result.why_stopped
        assert "--max-repairs 30" in result.why_stopped


@pytest.mark.django_db
def test_a_rule_s_own_cap_counts_unless_another_is_given():
    missing(3)
    capped = Rule(name="invoice", every=INVOICE.every, must=INVOICE.must, max_repairs=1)
    assert repaired(capped).why_stopped
    assert repaired(capped, max_repairs=5).written.insert == 3


@pytest.mark.django_db
def test_extra_rows_are_reported_and_do_not_make_the_repair_incomplete():
    Bill.objects.create(basket_number=404)
    result = repaired(Rule(name="bill", every=Basket, must=HaveRow(Bill, link={"basket_number": F("pk")})))
    assert (result.found[EXTRA], result.left, result.incomplete, result.status) == (1, 1, False, Status.FAIL)


@pytest.mark.django_db
def test_a_rule_that_cannot_be_evaluated_keeps_no_other_from_being_repaired():
    missing(2)
    ghost = Rule(name="ghost", every=Ghost, must=HaveValues(value=1))
    if connection.vendor == "postgresql":
        pytest.skip("a failed statement ends the test's own transaction; the next test does it without one")
    _, results = runs.repair({"ghost": ghost, "invoice": INVOICE}, using="default")
    by_rule = {result.rule: result for result in results}
    assert by_rule["ghost"].status is Status.ERROR
    assert by_rule["invoice"].written.insert == 2


@pytest.mark.django_db(transaction=True)
def test_a_rule_that_cannot_be_evaluated_is_an_error_of_its_outcome():
    missing(2)
    ghost = Rule(name="ghost", every=Ghost, must=HaveValues(value=1))
    run, results = runs.repair({"ghost": ghost, "invoice": INVOICE}, using="default")
    assert [result.status for result in results] == [Status.ERROR, Status.PASS]
    assert "manage.py migrate" in run.outcomes.get(rule="ghost").error


@pytest.mark.django_db
def test_the_nightly_job_repairs_what_is_unattended_and_reports_the_rest():
    seed.fill(200)
    result = nightly()
    run = Run.objects.get()
    assert (run.kind, run.state, str(run.pk)) == ("nightly", "finished", result["run"])
    assert set(run.outcomes.values_list("rule", flat=True)) == set(valid_rules())
    charges = run.outcomes.get(rule="items.archived_charges")
    assert charges.stale > 0
    assert (written_rows(charges).update, charges.left) == (0, charges.stale)
    assert charges.why_stopped == "It is not unattended, so the nightly job only reports."
    unattended = [name for name, rule in valid_rules().items() if rule.unattended]
    assert {outcome.left for outcome in run.outcomes.filter(rule__in=unattended)} == {0}
    assert not run.outcomes.exclude(rule__in=unattended).filter(work_items__counts__rows__gt=0).exists()
    assert result["written"] == Change.objects.count() > 200
    assert nightly()["written"] == 0


@pytest.mark.django_db
def test_the_whole_shop_is_clean_after_a_repair_and_a_second_one_writes_nothing():
    seed.fill(200)
    rules = valid_rules()
    found_by_the_night(*rules.values())
    _, first = runs.repair(rules, using="default")
    assert all(result.written.total for result in first), first
    assert {(result.status, result.left) for result in first} == {(Status.PASS, 0)}
    right = everything()
    _, second = runs.repair(rules, using="default")
    assert sum(result.written.total for result in second) == 0
    assert everything() == right
    assert (
        Notification.objects.filter(kind="created").count() == Order.objects.exclude(status="draft").count()
    )
    assert not Order.objects.exclude(status="draft").exclude(invoice__amount=F("total")).exists()


@pytest.mark.django_db(transaction=True)
def test_a_rule_that_another_run_holds_is_left_alone():
    missing(2)
    other = Run.objects.create(kind="repair", now=timezone.now())
    holder = Outcome.objects.create(
        run=other, rule="invoice", position=0, state="repairing", leased="invoice"
    )
    WorkItem.objects.create(outcome=holder, drift="missing", token=other.pk)
    result = repaired(INVOICE)
    assert (result.lease_held, result.written.total, result.left) == (True, 0, 2)
    assert f"Run {str(other.pk)[:8]} repairs invoice" in result.why_stopped
    assert f"reconcile runs resume {str(other.pk)[:8]}" in result.why_stopped
    holder.refresh_from_db()
    assert holder.leased == "invoice"


@pytest.mark.django_db(transaction=True)
def test_a_rule_whose_holder_has_died_is_taken_over_and_the_dead_is_fenced_out():
    missing(2)
    other = Run.objects.create(kind="repair", now=timezone.now())
    holder = Outcome.objects.create(
        run=other, rule="invoice", position=0, state="repairing", leased="invoice"
    )
    long_ago = timezone.now() - timedelta(minutes=10)
    work_item = WorkItem.objects.create(outcome=holder, drift="missing", token=other.pk, heartbeat=long_ago)
    assert repaired(INVOICE).written.insert == 2
    for row in (other, holder, work_item):
        row.refresh_from_db()
    assert (other.state, holder.leased) == ("stopped", None)
    assert "gave no sign of life" in other.why_stopped
    assert work_item.token != other.pk


@pytest.mark.django_db
def test_a_run_is_found_by_the_beginning_of_its_id():
    run = Run.objects.create(kind="repair", now=timezone.now())
    assert runs.find_run(str(run.pk)[:8], using="default") == run
    with pytest.raises(UnknownNameError, match="`reconcile runs` lists them"):
        runs.find_run("zzz", using="default")
    twin = uuid.UUID(str(run.pk)[:8] + str(uuid.uuid4())[8:])
    Run.objects.create(pk=twin, kind="repair", now=timezone.now())
    prefix = str(run.pk)[:8]
    with pytest.raises(UnknownNameError, match="Several begin so"):
        runs.find_run(prefix, using="default")


@pytest.mark.django_db
def test_a_finished_run_cannot_be_resumed_and_stays_as_it_was():
    missing(2)
    run, _ = runs.repair({INVOICE.name: INVOICE}, using="default")
    run.refresh_from_db()
    ended = run.finished_at
    with pytest.raises(UsageError, match="is finished; there is nothing to resume"):
        runs.resume(run, {INVOICE.name: INVOICE}, using="default")
    run.refresh_from_db()
    assert (run.finished_at, run.state) == (ended, "finished")


@pytest.mark.django_db
def test_a_run_whose_rule_is_gone_cannot_be_resumed():
    run = Run.objects.create(kind="repair", now=timezone.now())
    Outcome.objects.create(run=run, rule="invoise", position=0)
    with pytest.raises(UnknownNameError, match="Did you mean 'invoice'"):
        runs.resume(run, {"invoice": INVOICE}, using="default")


@pytest.mark.django_db
def test_an_interrupted_run_is_stopped_and_can_be_resumed_where_it_was():
    missing(3)

    class Interrupting(type(INVOICE.must)):
        def finders(self, source):
            raise KeyboardInterrupt

    broken = Rule(name="invoice", every=INVOICE.every, must=Interrupting(Invoice, link={"order": F("pk")}))
    first = Rule(name="a", every=Team, must=HaveValues(points=1))
    Team.objects.create(name="x")
    begun = runs.running._begin(
        "repair", {"a": first, "invoice": INVOICE}, using="default", may_repair={"a", "invoice"}
    )
    with pytest.raises(StoppedError, match=f"Go on with: reconcile runs resume {str(begun.pk)[:8]}"):
        runs.running._advance(begun, {"a": first, "invoice": broken}, using="default")
    begun.refresh_from_db()
    assert not begun.outcomes.exclude(leased=None).exists()
    assert (begun.state, begun.why_stopped) == ("stopped", "Somebody interrupted it.")
    results = runs.resume(begun, {"a": first, "invoice": INVOICE}, using="default")
    begun.refresh_from_db()
    assert begun.state == "finished"
    assert [(result.rule, result.written.total) for result in results] == [("a", 1), ("invoice", 3)]


@pytest.mark.process
@pytest.mark.django_db(transaction=True)
def test_a_repair_that_is_killed_goes_on_where_it_was_when_it_is_resumed(tmp_path):
    orders = 30_000
    missing(orders)
    log = (tmp_path / "killed.log").open("w")
    with (
        log,
        subprocess.Popen(
            reconcile_command("repair", "orders.invoice", "--apply"),
            env=environment(),
            cwd=ROOT,
            stdout=log,
            stderr=log,
        ) as process,
    ):
        deadline = time.monotonic() + 60
        while not WorkItem.objects.filter(drift="missing", chunks__gte=3).exists():
            assert time.monotonic() < deadline, (tmp_path / "killed.log").read_text()
            assert process.poll() is None, (tmp_path / "killed.log").read_text()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    run = Run.objects.get()
    work_item = WorkItem.objects.get(drift="missing")
    done = Invoice.objects.count()
    assert 0 < done < orders
    assert run.state == "running"
    assert (written_rows(work_item.outcome).total, Change.objects.count()) == (done, done)
    assert int(work_item.cursor) == Order.objects.order_by("pk")[done - 1].pk

    resumed = subprocess.run(
        reconcile_command("runs", "resume", str(run.pk)[:8], "--format", "json"),
        env=environment(), cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert resumed.returncode == 0, resumed.stderr
    report = json.loads(resumed.stdout)
    assert report["rules"][0]["written"]["insert"] == orders
    assert Invoice.objects.count() == Invoice.objects.values("order").distinct().count() == orders
    journalled = Change.objects.values_list("key", flat=True)
    assert sorted(map(int, journalled)) == sorted(Invoice.objects.values_list("pk", flat=True))
    run.refresh_from_db()
    assert run.state == "finished"


@pytest.mark.django_db
def test_a_worker_that_is_taken_over_between_two_chunks_leaves_the_run_to_the_other():
    missing(FIRST + 1)

    def another_takes_over(*_):
        WorkItem.objects.update(token=uuid.uuid4())

    with pytest.raises(LeaseLostError):
        runs.repair({"invoice": INVOICE}, using="default", progress=another_takes_over)
    run = Run.objects.get()
    assert (run.state, run.why_stopped) == ("running", "")
    assert Invoice.objects.count() == Change.objects.count() == FIRST


@pytest.mark.django_db(transaction=True)
def test_a_rule_that_is_given_up_stays_open_and_says_so():
    missing(120)

    class Hopeless(Insert):
        def write(self, finder, keys, journal):
            raise NotRepairedError("no way")

    hopeless = Rule(name="invoice", every=INVOICE.every, must=INVOICE.must, remedies={MISSING: Hopeless()})
    run, (result,) = runs.repair({"invoice": hopeless}, using="default")
    run.refresh_from_db()
    assert (result.left, result.skipped, result.incomplete) == (120, 60, True)
    assert "50 records failed" in result.why_stopped
    assert (run.state, run.why_stopped) == (
        "stopped",
        "Not finished: invoice. Resuming the run goes on with that.",
    )
    (result,) = runs.resume(run, {"invoice": INVOICE}, using="default")
    run.refresh_from_db()
    assert (result.written.insert, result.left, result.why_stopped, run.state) == (120, 0, "", "finished")


@pytest.mark.django_db
@pytest.mark.parametrize("bad", [60, 130])
def test_bad_records_in_front_do_not_keep_the_others_from_being_repaired(bad):
    """Those that failed may just have the smallest keys: a few of the others are tried before the rule is given up."""
    missing(bad + 200)
    keys = list(Order.objects.order_by("pk").values_list("pk", flat=True))
    refused = {*keys[:bad]}

    class Choosy(Insert):
        def write(self, finder, keys, journal):
            wrote = super().write(finder, Keys([key for key in keys.values if key not in refused]), journal)
            return replace(wrote, refused={key: "not this one" for key in keys.values if key in refused})

    rule = Rule(name="invoice", every=INVOICE.every, must=INVOICE.must, remedies={MISSING: Choosy()})
    _, (result,) = runs.repair({"invoice": rule}, using="default")
    assert (result.written.insert, result.left, result.skipped) == (200, bad, bad)
    assert {each["key"] for each in result.refused} <= {str(key) for key in refused}
    assert Invoice.objects.exclude(order__in=refused).count() == 200


class Cut(Insert):
    """A remedy during which the server ends the session."""

    def write(self, finder, keys, journal):
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            else:
                cursor.execute("SELECT CONNECTION_ID()")
                cursor.execute(f"KILL {cursor.fetchone()[0]}")


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_a_session_that_the_server_ends_stops_the_rule_and_resuming_goes_on():
    missing(3)
    cut = Rule(name="invoice", every=INVOICE.every, must=INVOICE.must, remedies={MISSING: Cut()})
    run, (result,) = runs.repair({"invoice": cut}, using="default")
    run.refresh_from_db()
    assert (result.left, result.incomplete, run.state) == (3, True, "stopped"), result
    assert result.why_stopped
    assert not Invoice.objects.exists()
    (result,) = runs.resume(run, {"invoice": INVOICE}, using="default")
    assert (result.written.insert, result.left) == (3, 0)


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_a_server_that_is_gone_ends_the_run_with_a_clear_error():
    missing(3)
    port = connection.settings_dict["PORT"]

    class Gone(Cut):
        def write(self, finder, keys, journal):
            connection.settings_dict["PORT"] = 1
            super().write(finder, keys, journal)

    gone = Rule(name="invoice", every=INVOICE.every, must=INVOICE.must, remedies={MISSING: Gone()})
    try:
        with pytest.raises(EvaluationError, match="can't be reached"):
            runs.repair({"invoice": gone}, using="default")
    finally:
        connection.settings_dict["PORT"] = port
        connection.close()
    assert not Invoice.objects.exists()
    (result,) = runs.resume(Run.objects.get(), {"invoice": INVOICE}, using="default")
    assert (result.written.insert, result.left) == (3, 0)


@pytest.mark.django_db
@pytest.mark.parametrize("count", [3, 1])
def test_a_cap_holds_for_rows_also_where_a_record_owes_several(count):
    Basket.objects.bulk_create([Basket() for _ in range(4)])
    rule = Rule(
        name="bill",
        every=Basket,
        must=HaveRow(Bill, link={"basket_number": F("pk")}, count=count),
        max_repairs=4,
    )
    result = repaired(rule)
    assert result.written.insert == Bill.objects.count() == (0 if count == 3 else 4)
    assert ("The cap on repairs is reached" in result.why_stopped) is (count == 3)


@pytest.mark.django_db
def test_what_was_rolled_back_counts_for_no_cap():
    light, heavy = Parcel.objects.create(weight=1), Parcel.objects.create(weight=2)

    def close(records):
        Parcel.objects.filter(pk__in=[each.pk for each in records], weight=1).update(state="closed")

    rule = Rule(
        name="closed", every=Parcel, must=HaveValues(state="closed"), remedies={STALE: Call(close)}, max_repairs=2
    )  # fmt: skip
    result = repaired(rule)
    assert (result.written.called, result.left, result.skipped) == (1, 1, 1)
    assert result.why_stopped.startswith(f"1 record could not be repaired, {heavy.pk}")
    assert light.pk != heavy.pk


def test_a_split_of_which_a_part_deletes_is_for_a_person_to_start():
    split = Split(when=Q(amount=0), each=Call(print), rest=Delete())
    rule = Rule(name="surplus", every=Order, must=INVOICE.must, remedies={EXTRA: split}, unattended=True)
    assert list(rule.faults()) == []
    assert rule.guarantee("default") == Guarantee.CONSTRAINT
    assert "Its remedy deletes rows" in str(unattended_refusal(rule, "default"))


@pytest.mark.django_db
def test_a_worker_that_was_superseded_neither_releases_the_rule_nor_closes_its_outcome():
    missing(2)

    def another_takes_over(*_):
        WorkItem.objects.update(token=uuid.uuid4())

    with pytest.raises(LeaseLostError):
        runs.repair({"invoice": INVOICE}, using="default", progress=another_takes_over)
    outcome = Outcome.objects.get()
    assert (outcome.leased, outcome.state) == ("invoice", "repairing")


@pytest.mark.django_db
def test_each_step_of_a_run_leaves_an_event():
    missing(2)
    structlog.reset_defaults()
    with capture_logs() as events:
        runs.repair({"invoice": INVOICE}, using="default")
    names = [event["event"] for event in events]
    assert names == [
        "run_started",
        "rule_checked",
        "rule_planned",
        "chunk_repaired",
        "rule_checked",
        "rule_verified",
        "rule_done",
        "run_finished",
    ]
    chunk = events[3]
    assert (chunk["rule"], chunk["written"], chunk["skipped"]) == ("invoice", 2, 0)
    assert {"run", "after", "upto", "drift"} <= chunk.keys()


@pytest.mark.django_db
def test_resuming_looks_again_at_records_that_had_failed_before_the_cursor():
    missing(4)
    first = Order.objects.order_by("pk").first().pk

    class FirstFails(Insert):
        def write(self, finder, keys, journal):
            if first in keys.values:
                raise NotRepairedError("not this one")
            return super().write(finder, keys, journal)

    def interrupt(*_):
        raise KeyboardInterrupt

    failing = Rule(name="invoice", every=INVOICE.every, must=INVOICE.must, remedies={MISSING: FirstFails()})
    with pytest.raises(StoppedError):
        runs.repair({"invoice": failing}, using="default", progress=interrupt)
    assert Invoice.objects.count() == 3
    (result,) = runs.resume(Run.objects.get(), {"invoice": INVOICE}, using="default")
    assert (result.written.insert, result.left) == (4, 0)


def doubled(**options):
    """The rule of half a repair, edited: it owes twice the amount."""
    must = HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total") * 2})
    return Rule(name="invoice", every=Order, must=must, **options)


def half_repaired(settings):
    """A run that was interrupted after its first chunk of five."""
    settings.RECONCILE = {**settings.RECONCILE, "CHUNK": 5}
    missing(12)

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(StoppedError):
        runs.repair({"invoice": INVOICE}, using="default", progress=interrupt)
    assert Invoice.objects.count() == 5
    return Run.objects.get()


@pytest.mark.django_db
def test_a_rule_that_was_edited_is_begun_anew_and_says_so_when_its_run_is_resumed(settings):
    run = half_repaired(settings)
    (result,) = runs.resume(run, {"invoice": doubled()}, using="default")
    assert (result.written.insert, result.written.update, result.left) == (12, 5, 0)
    assert (
        "It was edited since the run began with it, and is begun anew; 5 rows had been written"
        in result.warning
    )
    run.refresh_from_db()
    assert run.state == "finished"


@pytest.mark.django_db
def test_a_rule_that_was_edited_passes_its_guards_again_with_what_it_has_written(settings):
    run = half_repaired(settings)
    # Twelve to write and five written.
    (result,) = runs.resume(run, {"invoice": doubled(max_repairs=16)}, using="default")
    assert (result.written.insert, result.written.update, result.left) == (5, 0, 12)
    assert "12 repairs are planned after 5 that were done, and the cap is 16" in result.why_stopped
    assert not Outcome.objects.filter(leased__isnull=False).exists()


@pytest.mark.django_db(transaction=True)
def test_a_rule_that_was_edited_into_one_that_cannot_be_evaluated_stays_open(settings):
    run = half_repaired(settings)
    broken = Rule(name="invoice", every=Order.objects.extra(where=["no_column = 1"]), must=INVOICE.must)
    (result,) = runs.resume(run, {"invoice": broken}, using="default")
    assert "no_column" in result.error
    run.refresh_from_db()
    assert run.state == "stopped"
    (result,) = runs.resume(run, {"invoice": INVOICE}, using="default")
    assert (result.written.insert, result.warning, result.left) == (12, "", 0)


@pytest.mark.django_db
def test_a_rule_that_is_as_it_was_goes_on_at_its_cursor(settings):
    run = half_repaired(settings)
    (result,) = runs.resume(run, {"invoice": INVOICE}, using="default")
    assert (result.written.insert, result.warning, result.left) == (12, "", 0)


@pytest.mark.django_db
def test_resuming_finds_extra_rows_of_the_records_own_model_before_the_cursor():
    top = Node.objects.create(name="top")
    children = [Node.objects.create(parent=top) for _ in range(4)]
    must = HaveRow(Node, link={"parent": F("pk")}, count=AtMost(1))
    rule = Rule(name="only", every=Node, must=must, remedies={EXTRA: Delete()})
    found_by_the_night(rule)
    run = Run.objects.create(kind="repair", now=timezone.now(), state="stopped")
    outcome = Outcome.objects.create(
        run=run, rule="only", position=0, state="repairing", may_repair=True, checked=5, extra=3
    )
    # As it was when the first of them had been deleted; the others are linked with a record of a smaller key.
    children[1].delete()
    WorkItem.objects.create(
        outcome=outcome, drift="extra", token=uuid.uuid4(), cursor=str(children[2].pk - 1)
    )
    (resumed,) = runs.resume(run, {"only": rule}, using="default")
    assert (resumed.written.delete, resumed.left, resumed.why_stopped) == (2, 0, "")


@pytest.mark.django_db(databases=["default", "archive"])
def test_a_router_that_reads_elsewhere_is_in_no_run_s_way(settings):
    settings.RECONCILE = {**settings.RECONCILE, "CHUNK": 10}
    settings.DATABASE_ROUTERS = ["tests.routers.ReadElsewhere"]
    Order.objects.using("default").bulk_create([Order(total=3, created_at=an_hour_ago()) for _ in range(40)])
    rules = {"invoice": INVOICE}

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(StoppedError):
        runs.repair(rules, using="default", progress=interrupt)
    (result,) = runs.resume(Run.objects.using("default").get(), rules, using="default")
    assert (result.written.insert, result.left, result.why_stopped) == (40, 0, "")


@pytest.mark.django_db
def test_each_record_that_failed_is_counted_once_though_the_rule_is_given_up_for_another_kind_of_drift():
    def fails(rows):
        raise ValueError("no")

    broken = replace(INVOICE, remedies={MISSING: Call(fails), STALE: Call(fails)})
    missing(60)
    orders = list(Order.objects.order_by("pk"))
    Invoice.objects.bulk_create([Invoice(order=order, amount=99) for order in orders[:55]])
    _, (result,) = runs.repair({"invoice": broken}, using="default")
    assert (result.skipped, len(result.refused)) == (5 + 55, 5 + 55)
    assert (
        "50 records failed and 0 were mended; so did 5 that stand apart among the next 5"
        in result.why_stopped
    )


@pytest.mark.django_db
@pytest.mark.parametrize("emptied", [Run, Outcome, WorkItem])
def test_a_table_that_is_emptied_under_a_run_is_named(emptied):
    missing(FIRST + 1)

    def empty(*_):
        emptied.objects.all().delete()

    with pytest.raises(LeaseLostError, match=r"is gone from reconcile_(run|workitem): somebody has deleted"):
        runs.repair({"invoice": INVOICE}, using="default", progress=empty)
    assert Invoice.objects.count() == FIRST


@pytest.mark.django_db
def test_a_run_whose_row_is_gone_is_named_where_it_is_asked_how_it_goes_on():
    run = Run.objects.create(kind="repair", now=timezone.now())
    control = RunControl(run, using="default")
    control()
    Run.objects.all().delete()
    with pytest.raises(LeaseLostError, match="is gone from reconcile_run"):
        control()
