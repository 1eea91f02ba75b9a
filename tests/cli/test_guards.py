"""What keeps a repair from doing harm, as it is seen from the shell: caps, plan files, two runs, pause, cancel, resume."""

import json
import subprocess
import threading
from datetime import timedelta

import pytest
from django.utils import timezone

from reconcile.models import Outcome, Run, Suspension, WorkItem
from sample_project.shop.models import Category, Invoice, Item, Note, Order
from tests.cli.test_cli import run as said
from tests.helpers import ROOT, an_hour_ago, environment, reconcile_command

pytestmark = [pytest.mark.once, pytest.mark.django_db(transaction=True)]


def flat(text):
    return " ".join(text.split())


def missing(number):
    Order.objects.bulk_create([Order(total=3, created_at=an_hour_ago()) for _ in range(number)])


def orphans(number):
    (order,) = Order.objects.bulk_create([Order(created_at=an_hour_ago())])
    order = Order.objects.get()
    for _ in range(number):
        Note.objects.create(target=order)
    Order.objects.filter(pk=order.pk)._raw_delete("default")


def planned(tmp_path, *rules):
    file = tmp_path / "plan.json"
    code, out, err = said("repair", *rules, "--format", "json", "--output", str(file))
    assert (code, out) == (0, ""), err
    return str(file)


def test_a_plan_that_was_kept_is_applied(tmp_path):
    missing(3)
    plan = planned(tmp_path, "orders.invoice")
    code, out, _ = said("repair", "--plan", plan)
    assert (code, "3 rows would be written. Nothing has been" in out) == (0, True)
    code, out, _ = said("repair", "--plan", plan, "--apply")
    assert (code, "3 rows written" in out, Invoice.objects.count()) == (0, True, 3)


def test_a_rule_that_has_more_to_write_by_another_of_the_plan_is_stopped_and_never_left_out(tmp_path):
    """Its rows were right when the plan was made; the run itself makes them stale, and must not say that all is verified."""
    missing(2)
    Item.objects.bulk_create([Item(order=order, price=5) for order in Order.objects.all()])
    Invoice.objects.bulk_create([Invoice(order=order, amount=3) for order in Order.objects.all()])
    plan = planned(tmp_path, "orders.total", "orders.invoice")
    code, out, _ = said("repair", "--plan", plan, "--apply")
    assert (code, "Verified" in out) == (4, False)
    assert "no longer covers orders.invoice: update 0 planned, 2 now" in flat(out)
    assert {order.total for order in Order.objects.all()} == {5}
    assert {invoice.amount for invoice in Invoice.objects.all()} == {3}
    assert said("repair", "orders.invoice", "--apply")[0] == 0


def test_a_plan_whose_counts_have_grown_writes_nothing_and_exits_with_4(tmp_path):
    missing(3)
    plan = planned(tmp_path, "orders.invoice")
    missing(2)
    code, out, _ = said("repair", "--plan", plan, "--apply")
    assert (code, Invoice.objects.count(), Run.objects.count()) == (4, 0, 0)
    assert "no longer covers orders.invoice: insert 3 planned, 5 now" in flat(out)
    assert "Make a new plan" in out
    assert "Nothing was written." in out
    code, out, _ = said("repair", "--plan", plan, "--apply", "--format", "json")
    report = json.loads(out)
    assert (code, report["run"], report["rules"][0]["written"]["insert"]) == (4, None, 0)
    assert "insert 3 planned, 5 now" in report["rules"][0]["why_stopped"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["orders.total"], "has nothing for rule 'orders.total'"),
        (["--select", "owner:journal"], "has nothing to write for these rules"),
        (["--database", "archive"], "is for database 'default': add --database default"),
    ],
)
def test_a_plan_for_something_else_is_refused_with_2(tmp_path, arguments, words):
    missing(1)
    plan = planned(tmp_path, "orders.invoice")
    code, out, err = said("repair", "--plan", plan, "--apply", *arguments)
    assert (code, out, words in err) == (2, "", True), err
    assert not Invoice.objects.exists()


def test_a_plan_that_names_an_unknown_rule_is_refused_with_2_and_the_nearest_name(tmp_path):
    missing(1)
    file = tmp_path / "plan.json"
    text = (ROOT / planned(tmp_path, "orders.invoice")).read_text()
    file.write_text(text.replace("orders.invoice", "orders.invoise"))
    code, _, err = said("repair", "--plan", str(file), "--apply")
    assert (code, "Did you mean 'orders.invoice'?" in err) == (2, True), err


def test_a_file_that_is_no_plan_is_refused_with_2(tmp_path):
    file = tmp_path / "plan.json"
    file.write_text("{}")
    code, _, err = said("repair", "--plan", str(file))
    assert (code, "isn't of version 2" in err) == (2, True)


def test_deletes_are_noted_first_and_deleted_by_the_next_run():
    orphans(3)
    code, out, _ = said("repair", "notes.target")
    assert (code, "Deletes need two runs that agree" in flat(out)) == (0, True)
    code, out, _ = said("repair", "notes.target", "--apply")
    assert (code, Note.objects.count()) == (4, 3)
    assert "run it again: reconcile repair notes.target --apply" in flat(out)
    code, out, _ = said("repair", "notes.target", "--apply")
    assert (code, Note.objects.count()) == (0, 0)


def test_deletes_above_their_cap_stop_with_4_and_say_how_to_raise_it():
    orphans(12)
    code, out, _ = said("repair", "notes.target", "--apply")
    assert code == 4
    assert "12 deletes are planned, and the cap is 10% of 12 records" in flat(out)
    assert "--max-deletes 12" in out
    assert said("repair", "notes.target", "--max-deletes", "12")[0] == 0
    assert said("repair", "notes.target", "--max-deletes", "3")[0] == 4
    said("repair", "notes.target", "--apply", "--max-deletes", "100%")
    assert Note.objects.count() == 0


def running(**more):
    run = Run.objects.create(kind="repair", now=timezone.now(), **more)
    outcome = Outcome.objects.create(run=run, rule="orders.invoice", position=0, may_repair=True)
    WorkItem.objects.create(outcome=outcome, drift="missing", token=run.pk)
    return run


def test_a_run_is_asked_to_pause_and_resumed():
    missing(2)
    run = running()
    code, out, _ = said("runs", "pause", str(run.pk)[:8])
    assert (code, "pauses before its next chunk. Go on with it: reconcile runs resume" in out) == (0, True)
    run.refresh_from_db()
    assert run.state == "pausing"
    code, out, _ = said("runs", "pause", str(run.pk), "--format", "json")
    assert (code, json.loads(out)["state"]) == (0, "pausing")
    code, _, _ = said("runs", "resume", str(run.pk)[:8])
    run.refresh_from_db()
    assert (code, run.state, Invoice.objects.count()) == (0, "finished", 2)
    code, _, err = said("runs", "pause", str(run.pk))
    assert (code, "is finished; only a run that goes on can be paused" in err) == (2, True)


def test_a_dead_run_is_paused_and_cancelled_at_once():
    long_ago = timezone.now() - timedelta(minutes=10)
    run = running(started_at=long_ago, heartbeat=long_ago)
    WorkItem.objects.update(heartbeat=long_ago)
    code, out, _ = said("runs", "pause", str(run.pk))
    assert (code, "is paused." in out) == (0, True)
    code, out, _ = said("runs", "cancel", str(run.pk))
    assert (code, "is cancelled. What it has written stands" in out) == (0, True)
    code, _, err = said("runs", "cancel", str(run.pk))
    assert (code, "there is nothing to cancel" in err) == (2, True)
    code, _, err = said("runs", "resume", str(run.pk))
    assert (code, "is cancelled; there is nothing to resume" in err) == (2, True)
    code, out, _ = said("runs", str(run.pk))
    assert (code, "cancelled" in out) == (0, True)


@pytest.mark.process
def test_a_run_that_is_cancelled_while_it_repairs_ends_with_4_and_says_what_stands(tmp_path):
    """In a process of its own, held back by a throttle until it was cancelled."""
    missing(5)
    (tmp_path / "held.py").write_text("def held(using):\n    return 0.05\n")
    (tmp_path / "held_settings.py").write_text(
        "from tests.settings import *\nRECONCILE = {'RULES': ['rules'], 'THROTTLES': ['held.held']}\n"
    )
    settings = environment(DJANGO_SETTINGS_MODULE="held_settings", PYTHONPATH=f"{tmp_path}:{ROOT}")
    process = subprocess.Popen(
        reconcile_command("repair", "orders.invoice", "--apply"), env=settings, cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    waited = threading.Event()
    while not WorkItem.objects.exists():
        assert process.poll() is None, process.communicate()
        waited.wait(0.05)
    run = Run.objects.get()
    assert said("runs", "cancel", str(run.pk))[0] == 0
    _, err = process.communicate(timeout=60)
    run.refresh_from_db()
    assert (process.returncode, run.state, Invoice.objects.count()) == (4, "cancelled", 0)
    assert f"Run {run} was cancelled. What it had written stands; see: reconcile runs {run}" in err


def test_a_suspended_rule_is_resumed_by_its_name():
    Suspension.objects.create(rule="orders.invoice", run="00000000-0000-0000-0000-000000000000", why="broken")
    code, out, _ = said("rules", "resume", "orders.invoice")
    assert (code, out.strip(), Suspension.objects.count()) == (
        0,
        "The nightly job repairs orders.invoice again.",
        0,
    )
    code, _, err = said("rules", "resume", "orders.invoice")
    assert (code, "isn't suspended" in err) == (2, True)


def test_records_that_drift_again_are_said_in_the_report():
    category = Category.objects.create(name="a")
    for _ in range(2):
        Category.objects.update(path="wrong")
        code, out, _ = said("repair", "categories.path", "--apply")
        assert code == 0
    assert f"1 of these records drifts again although it was repaired before ({category.pk})" in flat(out)
    Category.objects.update(path="wrong")
    code, out, _ = said("repair", "categories.path", "--format", "json")
    assert (json.loads(out)["rules"][0]["again"], code) == (1, 0)


def test_what_a_repair_would_execute_is_written_for_people_to_read(tmp_path):
    orphans(1)
    missing(2)
    file = tmp_path / "repair.sql"
    code, out, err = said(
        "repair", "orders.invoice", "articles.slug", "notes.target", "--sql", str(file), "--max-deletes", "0"
    )
    assert (code, "would be written. Nothing has been" in out) == (4, True), err
    sql = file.read_text()
    assert sql.startswith("-- What a repair would execute on the database 'default' (")
    invoice, notes = sql.index("-- orders.invoice: Every order"), sql.index("-- notes.target: ")
    assert "-- Insert 2 rows." in sql
    assert "-- missing: Insert for 2 of 2 records of shop.Order" in sql
    assert 'INSERT INTO "shop_invoice"' in sql[invoice:]
    assert sql.count("ROLLBACK;") == 1
    assert "COMMIT;" not in sql
    assert "-- But it would stop before its first write: " in sql[notes:]
    assert "-- Nothing to repair: articles.slug." in sql
    assert not Invoice.objects.exists()


def test_as_many_records_as_are_shown_stand_in_the_sql(tmp_path):
    missing(12)
    file = tmp_path / "repair.sql"
    assert said("repair", "orders.invoice", "--sql", str(file), "--show", "11")[0] == 0
    assert "Insert for 11 of 12 records of shop.Order" in file.read_text()


def test_the_sql_of_a_repair_is_for_reading_before_it(tmp_path):
    missing(1)
    code, _, err = said("repair", "orders.invoice", "--apply", "--sql", str(tmp_path / "repair.sql"))
    assert (code, "Leave --apply out, and read it first" in flat(err)) == (2, True)
    code, _, err = said("repair", "orders.invoice", "--sql", str(tmp_path / "no" / "repair.sql"))
    assert (code, "The SQL can't be written to" in flat(err)) == (2, True)
    assert not Invoice.objects.exists()
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("option", ["--output", "--plan"])
def test_the_sql_has_a_file_of_its_own(tmp_path, option):
    missing(1)
    plan = planned(tmp_path, "orders.invoice")
    kept = (tmp_path / "plan.json").read_bytes()
    code, _, err = said("repair", "orders.invoice", option, plan, "--sql", plan)
    assert (code, f"--sql and {option} name the same file" in flat(err)) == (2, True)
    assert (tmp_path / "plan.json").read_bytes() == kept


@pytest.mark.parametrize("number", ["0", "501"])
def test_the_sql_has_some_records_and_not_any_number(tmp_path, number):
    code, _, err = said("repair", "--sql", str(tmp_path / "repair.sql"), "--show", number)
    assert (code, f"--show is {number}" in flat(err)) == (2, True)


def test_values_are_for_json_alone():
    code, _, err = said("repair", "--values")
    assert (code, "--values is for --format json" in flat(err)) == (2, True)


def test_a_plan_says_in_its_last_line_what_it_leaves():
    for _ in range(2):
        draft = Order.objects.create(status=Order.Status.DRAFT, created_at=an_hour_ago())
        Invoice.objects.create(order=draft, amount=0)
    code, out, _ = said("repair", "orders.invoice", "--show", "0")
    assert (code, out.splitlines()[-1]) == (0, "Nothing to repair; 2 drifted rows are left as they are.")


def test_of_a_tree_the_records_that_were_named_are_shown_and_spelled(tmp_path):
    """Others are ready to be repaired, too, and none of this repair's business."""
    first, second = (Category.objects.create(name=name) for name in "ab")
    Category.objects.update(path="wrong")
    file = tmp_path / "repair.sql"
    code, out, err = said(
        "repair", "categories.path", "--keys", str(second.pk), "--show", "3", "--sql", str(file)
    )
    assert code == 0, err
    assert f"shop.Category {second.pk}  path: 'wrong' → '/b'" in out
    assert f"shop.Category {first.pk} " not in out
    assert "Update for 1 of 1 record of shop.Category" in file.read_text()
    assert f"{second.pk}" in file.read_text().partition("Lock the records")[2].partition("ORDER BY")[0]
