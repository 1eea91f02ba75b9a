"""What a block of code, or a test suite, is seen to write past signals and methods, and how that stands beside the source."""

import asyncio
import json
import threading

import jsonschema
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import User
from django.db import connection, connections
from django.db.models import QuerySet
from django.db.models.signals import post_delete

from reconcile.db.django_compat import CursorWrapper
from reconcile.testing import record_bypasses, write_recording
from sample_project.shop import bulk
from sample_project.shop.models import Article, Customer, Group, Invoice, Item, Order
from tests.audit.test_effects import connected
from tests.cli.test_cli import run, run_json
from tests.helpers import ROOT
from tests.zoo.models import Binder, Memo

pytestmark = pytest.mark.django_db

SCHEMA = json.loads((ROOT / "docs" / "schemas" / "bypasses-1.json").read_text())


def seen(recording):
    return {(each.operation, each.model, each.function) for each in recording.calls}


def test_each_entry_point_is_recorded_with_its_call_site_and_model():
    with record_bypasses() as recording:
        bulk.import_orders([Order()], [])
        bulk.reprice_orders([1], 2)
        bulk.delete_orders_raw([Order.objects.get().pk])
    assert seen(recording) == {
        ("bulk_create", "shop.Order", "import_orders"),
        ("bulk_create", "shop.Item", "import_orders"),
        ("update", "shop.Order", "reprice_orders"),
        ("update", "shop.Customer", "delete_orders_raw"),
        ("delete", "shop.Item", "delete_orders_raw"),
        ("_raw_delete", "shop.Invoice", "delete_orders_raw"),
        ("_raw_delete", "shop.Notification", "delete_orders_raw"),
        ("_raw_delete", "shop.Order", "delete_orders_raw"),
    }
    lines = (ROOT / "sample_project/shop/bulk.py").read_text().splitlines()
    for each in recording.calls:
        assert each.operation in lines[each.line - 1], each


def test_what_django_does_for_itself_is_not_recorded():
    group = Group.objects.create()
    user = User.objects.create(username="a")
    order = Order.objects.create()
    with record_bypasses() as recording:
        order.status = "paid"
        order.save()
        group.members.add(user)
        Invoice.objects.filter(order=order).first().delete()
        Order.objects.get_or_create(pk=order.pk)
    # The receivers of the shop write in bulk, too; that is theirs.
    here = [(each.operation, each.model) for each in recording.calls if "sample_project" not in each.path]
    assert here == [("bulk_create", "shop.Group_members")], "which is group.members.add()"


def test_a_related_manager_is_recorded_where_it_is_called():
    customer, order = Customer.objects.create(name="a"), Order.objects.create()
    with record_bypasses() as recording:
        customer.orders.add(order)
    assert seen(recording) == {
        ("update", "shop.Order", "test_a_related_manager_is_recorded_where_it_is_called")
    }


def test_a_statement_of_the_project_is_recorded_and_one_of_the_orm_is_not():
    with record_bypasses() as recording:
        bulk.insert_order_by_sql(3)
        Order.objects.create()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    (each,) = [each for each in recording.calls if each.sql]
    assert (each.operation, each.function, each.model) == ("SQL", "insert_order_by_sql", "")
    assert each.sql.startswith("INSERT INTO shop_order")


def test_a_call_is_counted_as_often_as_it_ran():
    with record_bypasses() as recording:
        for _ in range(3):
            bulk.import_items([])
    assert [*recording.calls.values()] == [3]


def test_nothing_is_recorded_after_the_block_and_nothing_is_changed():
    before = Order.objects.all().update.__func__
    with pytest.raises(KeyError), record_bypasses() as recording:
        raise KeyError
    bulk.import_items([])
    assert not recording.calls
    assert Order.objects.all().update.__func__ is before


def test_what_a_receiver_of_the_project_does_is_recorded_whichever_call_runs_it():
    customer = Customer.objects.create(name="a")
    Order.objects.create(customer=customer)
    writes = lambda **_: bulk.import_items([])  # noqa: E731 - of one line
    with connected(post_delete, writes, Customer), record_bypasses() as recording:
        Customer.objects.filter(pk=customer.pk).delete()
    assert ("bulk_create", "shop.Item", "import_items") in seen(recording)


def test_the_methods_of_generic_relations_are_recorded_where_they_are_called():
    binder, memo = Binder.objects.create(), Memo.objects.create()
    with record_bypasses() as recording:
        binder.memos.add(memo)
        binder.memos.clear()
    name = "test_the_methods_of_generic_relations_are_recorded_where_they_are_called"
    assert seen(recording) == {("update", "zoo.Memo", name), ("delete", "zoo.Memo", name)}


@pytest.mark.django_db(transaction=True)
def test_statements_of_other_threads_are_recorded_whenever_these_connected():
    began, go = threading.Event(), threading.Event()

    def insert():
        Order.objects.exists()
        began.set()
        go.wait(10)
        bulk.insert_order_by_sql(3)
        connection.close()

    thread = threading.Thread(target=insert)
    thread.start()
    began.wait(10)
    with record_bypasses() as recording:
        go.set()
        thread.join()
    assert ("SQL", "", "insert_order_by_sql") in seen(recording)


@pytest.mark.django_db(transaction=True)
def test_an_async_call_hides_no_call_that_its_receivers_make():
    Customer.objects.create(name="a")

    async def delete():
        await Customer.objects.filter(name="a").adelete()
        await sync_to_async(connections.close_all)()

    writes = lambda **_: Item.objects.filter(pk=-1).delete()  # noqa: E731 - of one line
    with connected(post_delete, writes, Customer), record_bypasses() as recording:
        asyncio.run(delete())
    calls = [(each.operation, each.model) for each in recording.calls if each.path == __file__]
    assert sorted(calls) == [("delete", "shop.Customer"), ("delete", "shop.Item")]


@pytest.mark.django_db(transaction=True)
def test_async_calls_and_other_threads_are_recorded_once():
    async def rename():
        await Article.objects.filter(pk=1).aupdate(title="a")
        await sync_to_async(bulk.import_items)([])
        await sync_to_async(connections.close_all)()

    with record_bypasses() as recording:
        asyncio.run(rename())
        thread = threading.Thread(target=lambda: [bulk.import_items([]), connection.close()])
        thread.start()
        thread.join()
    assert {(each.operation, each.model): times for each, times in recording.calls.items()} == {
        ("update", "shop.Article"): 1,
        ("bulk_create", "shop.Item"): 2,
    }


@pytest.fixture
def recorded(tmp_path):
    bulk_only = tmp_path / "seen.json"
    with record_bypasses() as recording:
        bulk.import_items([])
        bulk.insert_order_by_sql(3)
    write_recording(bulk_only, recording.calls)
    return bulk_only


def test_what_ran_is_told_beside_what_is_listed(recorded):
    code, report = run_json("signals", "bypasses", "--seen", str(recorded))
    jsonschema.validate(report, SCHEMA)
    times = {
        (each["function"].rpartition(".")[2], each["model"]): each["seen"] for each in report["findings"]
    }
    assert code == 0
    assert times["import_items", "shop.Item"] == 1
    assert times["insert_order_by_sql", "shop.Order"] == 1
    assert times["import_articles", "shop.Article"] == 0
    assert report["unlisted"] == []
    _, out, _ = run("signals", "bypasses", "--seen", str(recorded), "--show", "covered")
    assert "no test runs it" in out
    assert "tests ran 2; 0 ran that are not listed." in " ".join(out.split())


def test_a_call_of_an_unknown_model_has_the_one_that_it_was_seen_to_write(tmp_path):
    place = ROOT / "sample_project" / "dumping.py"
    line = next(
        number for number, text in enumerate(place.read_text().splitlines(), 1) if "rows.update(" in text
    )
    call = {
        "path": str(place),
        "line": line,
        "function": "f",
        "operation": "update",
        "model": "shop.Order",
        "sql": None,
        "times": 2,
    }
    (tmp_path / "seen.json").write_text(json.dumps({"version": 1, "calls": [call]}))
    _, report = run_json("signals", "bypasses", "--seen", str(tmp_path / "seen.json"))
    (found,) = [each for each in report["findings"] if each["path"].endswith("dumping.py")]
    assert (found["model"], found["seen"], found["state"]) == ("shop.Order", 2, "covered")


def test_what_ran_and_is_not_in_the_source_is_told(tmp_path):
    place = ROOT / "sample_project" / "shop" / "bulk.py"
    call = {
        "path": str(place),
        "line": 1,
        "function": "f",
        "operation": "update",
        "model": "shop.Order",
        "sql": None,
        "times": 2,
    }
    (tmp_path / "seen.json").write_text(json.dumps({"version": 1, "calls": [call]}))
    code, report = run_json("signals", "bypasses", "--seen", str(tmp_path / "seen.json"))
    (found,) = report["unlisted"]
    assert (found["model"], found["line"]) == ("shop.Order", 1)
    assert code == 0, "the rules cover it"
    _, out, _ = run("signals", "bypasses", "--seen", str(tmp_path / "seen.json"))
    assert "These ran, and the source doesn't show them." in out


def test_what_ran_without_a_rule_fails_though_the_source_does_not_show_it(tmp_path, settings):
    settings.RECONCILE = {"RULES": []}
    place = ROOT / "sample_project" / "shop" / "apps.py"
    call = {
        "path": str(place),
        "line": 1,
        "function": "f",
        "operation": "update",
        "model": "shop.Order",
        "sql": None,
        "times": 2,
    }
    (tmp_path / "seen.json").write_text(json.dumps({"version": 1, "calls": [call]}))
    code, out, _ = run("signals", "bypasses", str(place), "--seen", str(tmp_path / "seen.json"))
    assert code == 1
    assert "1 call skips 3 effects that no rule covers." in " ".join(out.split())


@pytest.mark.parametrize("text", ["", "[]", '{"version": 2, "calls": []}', '{"version": 1, "calls": [{}]}'])
def test_a_file_that_is_no_recording_is_refused(tmp_path, text):
    (tmp_path / "seen.json").write_text(text)
    code, _, err = run("signals", "bypasses", "--seen", str(tmp_path / "seen.json"))
    assert code == 2
    assert "is nothing that pytest --reconcile-bypasses wrote" in err


def test_a_missing_recording_says_how_it_is_made(tmp_path):
    code, _, err = run("signals", "bypasses", "--seen", str(tmp_path / "none.json"))
    assert code == 2
    assert "Write it with: pytest --reconcile-bypasses" in err


def test_a_recording_within_another_is_in_both():
    with record_bypasses() as outer:
        Order.objects.update(status="a")
        with record_bypasses() as inner:
            Order.objects.update(status="b")
        Order.objects.update(status="c")
    assert (sum(outer.calls.values()), sum(inner.calls.values())) == (3, 1)


def test_recordings_that_overlap_leave_the_methods_as_they_were():
    before = QuerySet.update, CursorWrapper.execute
    one, other = record_bypasses(), record_bypasses()
    first, second = one.__enter__(), other.__enter__()
    one.__exit__(None, None, None)
    Order.objects.update(status="a")
    other.__exit__(None, None, None)
    assert (sum(first.calls.values()), sum(second.calls.values())) == (0, 1)
    assert (QuerySet.update, CursorWrapper.execute) == before


def test_what_a_loop_awaits_is_recorded_where_it_was_called():
    async def many():
        await asyncio.gather(
            Order.objects.filter(pk=1).aupdate(status="a"), Order.objects.filter(pk=2).aupdate(status="b")
        )

    with record_bypasses() as recording:
        async_to_sync(many)()
    assert {(each.path, each.function.rpartition(".")[2]) for each in recording.calls} == {(__file__, "many")}


@pytest.mark.parametrize(
    "change", [{"operation": "upsert"}, {"times": float("inf")}, {"model": None, "operation": 3}]
)
def test_a_recording_of_something_else_is_refused(tmp_path, change):
    with record_bypasses() as recording:
        Order.objects.update(status="a")
    file = tmp_path / "seen.json"
    write_recording(file, recording.calls)
    found = json.loads(file.read_text())
    found["calls"][0].update(change)
    file.write_text(json.dumps(found))
    code, _, err = run("signals", "bypasses", "--seen", str(file))
    assert (code, "is nothing that pytest --reconcile-bypasses wrote" in " ".join(err.split())) == (2, True)


def test_a_recording_that_is_older_than_the_name_of_a_model_can_be_told(tmp_path):
    with record_bypasses() as recording:
        Order.objects.update(status="a")
    file = tmp_path / "seen.json"
    write_recording(file, recording.calls)
    file.write_text(file.read_text().replace("shop.Order", "shop.Purchase"))
    assert run("signals", "bypasses", str(ROOT / "tests" / "testing"), "--seen", str(file))[0] in {0, 1}
