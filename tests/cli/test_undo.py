"""`reconcile undo`, from end to end."""

from datetime import timedelta

import pytest
from django.utils import timezone

from reconcile import runs
from reconcile.errors import StoppedError
from reconcile.models import Change, Outcome, Run, WorkItem
from sample_project.shop.models import Invoice, Order
from tests.cli.test_cli import run, run_json
from tests.helpers import raw_tables

pytestmark = pytest.mark.django_db


@pytest.fixture
def repaired():
    """A run that has given three orders their invoices; its id."""
    Order.objects.bulk_create(
        [Order(status=Order.Status.PLACED, total=3, created_at=timezone.now() - timedelta(hours=1)) for _ in range(3)]
    )  # fmt: skip
    code, report = run_json("repair", "orders.invoice", "--apply")
    assert (code, report["rules"][0]["written"]["insert"]) == (0, 3)
    return report["run"]


def test_without_apply_it_says_what_would_be_taken_back_and_writes_nothing(repaired):
    before = raw_tables()
    code, out, err = run("undo", repaired[:8])
    assert (code, err) == (0, "")
    assert f"3 rows of run {repaired[:8]} would be taken back. Nothing has been: add --apply to write." in out
    assert "orders.invoice" in out
    assert raw_tables() == before
    assert Run.objects.filter(kind="undo").count() == 0


def test_with_apply_it_takes_back_and_says_by_which_run(repaired):
    code, out, err = run("undo", repaired[:8], "--apply")
    by = Run.objects.get(kind="undo")
    assert (code, err) == (0, "")
    assert f"3 rows of run {repaired[:8]} taken back in" in out
    assert f"run {by}." in out
    assert not Invoice.objects.exists()


def test_a_conflict_is_listed_with_its_reason_and_the_code_is_4(repaired):
    changed = Invoice.objects.first()
    Invoice.objects.filter(pk=changed.pk).update(amount=99)
    for arguments in ((), ("--apply",)):
        code, out, _ = run("undo", repaired, *arguments)
        assert code == 4
        assert f"orders.invoice  left: shop.Invoice {changed.pk}. The row has been changed since." in out
        assert "1 change left, since the rows are others' by now." in out
    assert [each.pk for each in Invoice.objects.all()] == [changed.pk]


def test_the_json_says_it_all(repaired):
    changed = Invoice.objects.first()
    Invoice.objects.filter(pk=changed.pk).update(amount=99)
    code, report = run_json("undo", repaired)
    assert (code, report["version"], report["run"], report["by"]) == (4, 2, repaired, None)
    assert (report["applied"], report["status"], report["database"]) == (False, "conflicts", "default")
    code, report = run_json("undo", repaired, "--apply")
    assert (code, report["by"], report["applied"]) == (4, str(Run.objects.get(kind="undo").pk), True)
    assert report["rules"] == [
        {
            "rule": "orders.invoice",
            "planned": {"insert": 0, "update": 0, "delete": 3},
            "written": {"insert": 0, "update": 0, "delete": 2},
            "left": 1,
            "conflicts": [{"key": f"shop.Invoice {changed.pk}", "why": "The row has been changed since."}],
            "not_undoable": {"called": 0, "enqueued": 0},
            "why_stopped": report["rules"][0]["why_stopped"],
            "warning": None,
        }
    ]
    assert "1 change was left" in report["rules"][0]["why_stopped"]


def test_more_conflicts_than_are_shown_are_counted(repaired):
    Order.objects.bulk_create(
        [Order(status=Order.Status.PLACED, created_at=timezone.now() - timedelta(hours=1)) for _ in range(12)]
    )
    _, report = run_json("repair", "orders.invoice", "--apply")
    Invoice.objects.update(amount=99)
    code, out, _ = run("undo", report["run"])
    assert code == 4
    assert "orders.invoice  left: 2 more" in out


def test_the_report_goes_to_a_file(repaired, tmp_path):
    code, out, _ = run("undo", repaired, "--format", "json", "--output", str(tmp_path / "undo.json"))
    assert (code, out) == (0, "")
    assert f'"run": "{repaired}"' in (tmp_path / "undo.json").read_text()


def test_what_cannot_be_undone_is_a_usage_error(repaired):
    assert run("undo", "ffffffff-no")[0] == 2
    assert run("undo", repaired, "--database", "nowhere")[0] == 2
    run("undo", repaired, "--apply")
    code, _, err = run("undo", repaired, "--apply")
    assert code == 2
    assert "was undone by run" in err
    Run.objects.filter(pk=repaired).update(state="running")
    WorkItem.objects.update(heartbeat=timezone.now())
    code, _, err = run("undo", repaired)
    assert (code, "goes on. Pause or cancel it first" in err) == (2, True)


def test_a_run_that_handed_records_to_tasks_says_what_it_cannot_undo(repaired):
    work_item = WorkItem.objects.get(outcome__rule="orders.invoice", drift="missing")
    Change.objects.create(work_item=work_item, chunk=1, verb="enqueued", model="shop.Order", key="1")
    Change.objects.create(work_item=work_item, chunk=1, verb="called", model="shop.Order", key="2")
    _, out, _ = run("undo", repaired)
    assert "orders.invoice  1 record called and 1 record enqueued can't be undone" in out
    _, report = run_json("undo", repaired)
    assert report["rules"][0]["not_undoable"] == {"called": 1, "enqueued": 1}


def test_a_rule_that_another_run_repairs_makes_the_code_75(repaired):
    other = Run.objects.create(kind="repair", now=timezone.now())
    held = Outcome.objects.create(run=other, rule="orders.invoice", position=0, leased="orders.invoice")
    WorkItem.objects.create(outcome=held, drift="missing", token=other.pk)
    code, _, err = run("undo", repaired, "--apply")
    assert (code, "repairs orders.invoice" in err) == (75, True)
    assert Invoice.objects.count() == 3


def test_an_undo_is_a_run_like_any_other(repaired):
    run("undo", repaired, "--apply")
    by = Run.objects.get(kind="undo")
    code, report = run_json("runs", str(by)[:8])
    assert (code, report["kind"], report["state"]) == (0, "undo", "finished")
    assert report["rules"][0]["written"]["delete"] == 3
    assert run("undo", str(by), "--apply")[0] == 0
    assert Invoice.objects.count() == 3


def test_an_undo_that_was_stopped_is_resumed_by_the_command_that_it_names(repaired):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(StoppedError, match="reconcile runs resume"):
        runs.undo(Run.objects.get(pk=repaired), using="default", progress=interrupt)
    by = Run.objects.get(kind="undo")
    assert by.state == "stopped"
    assert run("runs", "resume", str(by))[0] == 0
    by.refresh_from_db()
    assert (by.state, Invoice.objects.count()) == ("finished", 0)
