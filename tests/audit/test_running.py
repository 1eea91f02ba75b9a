"""`reconcile signals --run`: existing rows are saved, watched and rolled back, and nothing gets out."""

import atexit
import json
import logging
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import jsonschema
import pytest
from django.core import mail
from django.core.mail import EmailMessage
from django.db import connection, connections, transaction
from django.db.models.signals import post_save, pre_save
from django.test.utils import override_settings

from reconcile.audit.effects import On
from reconcile.audit.harmless import harm_of
from reconcile.audit.listing import audit_signals
from reconcile.audit.running import run_saves
from reconcile.audit.shut import RefusedError, release_threads
from sample_project.shop import services
from sample_project.shop.models import Customer, Group, Invoice, Item, Keyword, Notification, Order
from tests.audit.test_effects import connected
from tests.cli.test_cli import run
from tests.helpers import ROOT

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _release():
    yield
    release_threads()


SCHEMA = json.loads((ROOT / "docs" / "schemas" / "signals-1.json").read_text())
SHOP = override_settings(RECONCILE={"RULES": ["rules"]})


@pytest.fixture
def orders():
    customer = Customer.objects.create(name="Ada")
    return [
        Order.objects.create(customer=customer, status=status)
        for status in (Order.Status.DRAFT, Order.Status.PLACED, Order.Status.PLACED)
    ]


def ran(model=Order):
    (found,) = run_saves(audit_signals({}, [model], follow=True), "default").models
    return found.run


def effect(found, name, on=On.POST_SAVE):
    (each,) = [each for key, each in found.effects.items() if key[0].endswith(name) and key[1] is on]
    return each


def stored():
    return [
        [*model.objects.order_by("pk").values()]
        for model in (Customer, Order, Item, Invoice, Notification, Keyword)
    ]


@pytest.mark.usefixtures("orders")
def test_what_effects_write_is_seen_and_rolled_back():
    Order.objects.update(customer_name="wrong")
    before = stored()
    found = ran()
    assert stored() == before
    assert (found.rows, found.faults, found.why) == (2, {}, "")
    assert {each.model for each in effect(found, "handle_order_saved").writes} == {"shop.Customer"}
    assert {each.model for each in effect(found, "handle_order_created").writes} == {"shop.Invoice"}
    assert found.changed["customer_name"] == 2


@pytest.mark.usefixtures("orders")
def test_what_the_save_itself_writes_is_no_effect():
    found = ran()
    assert "shop.Order" not in {each.model for one in found.effects.values() for each in one.writes}
    assert not found.others


@pytest.mark.usefixtures("orders")
def test_rows_stand_for_every_choice_truth_and_null():
    Order.objects.bulk_create([Order(status=Order.Status.PLACED)] * 3)
    found = ran()
    assert (found.looked_at, found.rows) == (6, 3)


@pytest.mark.usefixtures("orders")
def test_an_effect_of_another_record_is_told_with_those_between():
    def name_customer(instance, **kwargs):
        Customer.objects.get(pk=instance.customer_id).save()

    def greet(instance, **kwargs):
        Keyword.objects.filter(word="x").update(word="y")

    with connected(post_save, name_customer, Order), connected(post_save, greet, Customer):
        found = ran()
    seen = {
        (each.model, [one.rpartition(".")[2] for one in each.through] != [])
        for each in effect(found, "name_customer").writes
    }
    assert seen == {("shop.Customer", False), ("shop.Keyword", True)}


@pytest.mark.usefixtures("orders")
def test_an_awaited_receiver_is_watched_too():
    async def touch(instance, **kwargs):
        await Keyword.objects.filter(word="x").aupdate(word="y")

    with connected(post_save, touch, Order):
        found = ran()
    assert effect(found, "touch").rows == 2
    assert {each.model for each in effect(found, "touch").writes} == {"shop.Keyword"}


def opens_a_socket(instance, **kwargs):
    socket.create_connection(("127.0.0.1", 9), timeout=0.1)


def runs_a_program(instance, **kwargs):
    subprocess.run([sys.executable, "-c", ""], check=True)


def executing(sql):
    def executes(instance, **kwargs):
        with connection.cursor() as cursor:
            cursor.execute(sql)

    return executes


commits = executing("COMMIT")
changes_the_schema = executing("/* now */ CREATE TABLE made_here (n integer)")
sends_bytes = executing(b"COMMIT")
sends_several = executing("SELECT ';'; UPDATE shop_keyword SET word = 'x'; COMMIT")
hides_in_a_comment = executing("/*!TRUNCATE*/ TABLE shop_keyword")
sets_what_is_everybodys = executing("SET GLOBAL max_error_count = 78")


def connects_anew(instance, **kwargs):
    connection.connect()


def asks_the_cursor_for_more(instance, **kwargs):
    with connection.cursor() as cursor:
        cursor.executescript("UPDATE shop_keyword SET word = 'x'")


def starts_a_process(instance, **kwargs):
    multiprocessing.get_context("spawn").Process(target=print).start()


def forks(instance, **kwargs):
    os.fork()


def wants_the_end(instance, **kwargs):
    atexit.register(print)


def writes_shared_memory(instance, **kwargs):
    Path("/dev/shm/made_here").write_text("a")


REFUSED = {
    opens_a_socket: "socket.connect 127.0.0.1:9",
    runs_a_program: "subprocess.Popen",
    commits: "the statement COMMIT",
    changes_the_schema: "the statement CREATE TABLE",
    sends_bytes: "the statement COMMIT",
    sends_several: "several statements at once",
    hides_in_a_comment: "a comment that the server executes",
    sets_what_is_everybodys: "the statement SET GLOBAL",
    connects_anew: "a new connection in place of the transaction's",
    asks_the_cursor_for_more: "executescript() of a cursor",
    starts_a_process: "starting a process",
    forks: "os.fork",
    wants_the_end: "a function for the end of the process",
    writes_shared_memory: "writing the file /dev/shm/",
}


@pytest.mark.usefixtures("orders")
@pytest.mark.parametrize(
    ("receiver", "what"), REFUSED.items(), ids=lambda each: getattr(each, "__name__", "")
)
def test_what_no_rollback_undoes_is_refused_and_told(receiver, what):
    before = stored()
    with connected(post_save, receiver, Order):
        found = ran()
    assert stored() == before
    assert [each for each in found.outside.refused if each.startswith(what)]
    assert all("RefusedError" in each for each in found.faults.values())
    assert len(found.faults) == 2


@pytest.mark.usefixtures("orders")
def test_files_are_neither_written_nor_removed(tmp_path):
    kept = tmp_path / "kept.txt"
    kept.write_text("a")

    def writes(instance, **kwargs):
        for act in (
            lambda: (tmp_path / "new.txt").write_text("b"),
            kept.unlink,
            lambda: kept.open("a").close(),
        ):
            with suppress(OSError):  # Whoever swallows it is noted all the same.
                act()

    with connected(post_save, writes, Order):
        found = ran()
    assert [each.name for each in tmp_path.iterdir()] == ["kept.txt"]
    assert kept.read_text() == "a"
    assert (sum(found.outside.refused.values()), found.faults) == (6, {})


@pytest.mark.usefixtures("orders")
def test_mails_messages_and_callbacks_of_commit_are_dropped_and_counted():
    done = []

    def tells(instance, **kwargs):
        EmailMessage("a", "b", "a@example.org", ["b@example.org"]).send()
        services.send_welcome.delay([instance.pk])
        transaction.on_commit(lambda: done.append(instance.pk))

    with connected(post_save, tells, Order):
        found = ran()
    assert (len(found.outside.mails), found.outside.task_names, found.on_commit) == (
        2,
        {"shop.send_welcome": 2},
        2,
    )
    assert (mail.outbox, done) == ([], [])


@pytest.mark.django_db(transaction=True)
def test_a_thread_that_waits_until_the_save_is_over_does_nothing_either(tmp_path):
    Order.objects.create()
    go_on, faults = Event(), []

    def late():
        go_on.wait(10)
        for act in (
            lambda: Keyword.objects.filter(word="x").update(word="y"),
            lambda: (tmp_path / "late.txt").write_text("a"),
        ):
            try:
                act()
            except RefusedError as error:
                faults.append(str(error))
        connections.close_all()

    threads = []

    def starts(instance, **kwargs):
        threads.append(Thread(target=late))
        threads[0].start()

    with connected(post_save, starts, Order):
        ran()
    go_on.set()
    threads[0].join()
    assert len(faults) == 2
    assert not [*tmp_path.iterdir()]


@pytest.mark.django_db(transaction=True)
def test_a_transaction_that_is_gone_is_told_and_ends_the_run():
    Order.objects.create()
    Order.objects.create()

    def commits_by_the_driver(instance, **kwargs):
        connection.connection.commit()

    with connected(pre_save, commits_by_the_driver, Order), SHOP:
        code, out, err = run("signals", "Order", "--run")
    assert code == 3
    assert "has ended the transaction that was to be rolled back" in " ".join(err.split())
    assert "saved and rolled back" not in out
    assert not connection.in_atomic_block


@pytest.mark.mariadb
@pytest.mark.django_db(transaction=True)
def test_the_victim_of_a_deadlock_is_a_row_that_could_not_be_saved():
    one, newest = Order.objects.create(), Order.objects.create()
    meets = Event()
    # Another process' session: what this one's threads write on Django's connections is refused.
    session = connection.get_new_connection(connection.get_connection_params())
    cursor = session.cursor()
    cursor.execute("START TRANSACTION")
    for number in range(200):
        # Who has written more is no victim.
        cursor.execute("UPDATE shop_order SET customer_name = %s WHERE id = %s", [f"b{number}", one.pk])

    def hold():
        meets.wait(20)
        time.sleep(1)
        cursor.execute("UPDATE shop_order SET customer_name = 'b' WHERE id = %s", [newest.pk])

    def meet(instance, **kwargs):
        meets.set()
        Order.objects.filter(pk=one.pk).update(customer_name="c")

    thread = Thread(target=hold)
    thread.start()
    try:
        with connected(post_save, meet, Order):
            found = ran()
    finally:
        meets.set()
        thread.join()
        session.rollback()
        session.close()
    assert ["Deadlock" in each for each in found.faults.values()] == [True]


@pytest.mark.usefixtures("orders")
def test_what_ends_a_process_ends_a_row_alone():
    def leaves(instance, **kwargs):
        sys.exit(0)

    with connected(post_save, leaves, Order), SHOP:
        code, out, _ = run("signals", "Order", "--run")
    assert code == 3
    assert "2 rows could not be saved." in " ".join(out.split())


@pytest.mark.usefixtures("orders")
def test_a_refusal_that_is_swallowed_is_in_the_last_line():
    def hides(instance, **kwargs):
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", 9), timeout=0.1)

    with connected(post_save, hides, Order), SHOP:
        _, out, _ = run("signals", "Order", "--run")
    assert "2 acts refused." in " ".join(out.split())


@pytest.mark.usefixtures("orders")
def test_logging_is_off_and_on_again(caplog):
    def logs(instance, **kwargs):
        logging.getLogger("shop").error("written")

    with connected(post_save, logs, Order):
        ran()
    assert "written" not in caplog.text
    logging.getLogger("shop").error("written")
    assert "written" in caplog.text


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_a_row_that_another_session_holds_is_given_up_after_a_while():
    order = Order.objects.create(customer_name="a")
    held, done = Event(), Event()

    def hold():
        with transaction.atomic():
            Order.objects.filter(pk=order.pk).update(customer_name="b")
            held.set()
            done.wait(60)
        connections.close_all()

    thread = Thread(target=hold)
    thread.start()
    held.wait(10)
    try:
        found = ran()
    finally:
        done.set()
        thread.join()
    assert len(found.faults) == 1


@pytest.mark.once
@pytest.mark.parametrize(
    ("sql", "harm"),
    {
        "SELECT 1": "",
        "  -- a\n/* b */ (SELECT 'a;b')": "",
        "UPDATE a SET b = 'COMMIT; x'": "",
        "INSERT INTO a VALUES ($x$;$x$);": "",
        "SET lock_timeout = 1": "",
        "ROLLBACK TO SAVEPOINT a": "",
        "ROLLBACK": "the statement ROLLBACK",
        "SELECT 1; COMMIT": "several statements at once",
        "SELECT 1 INTO OUTFILE '/tmp/a'": "the statement SELECT 1",
        "INSERT OR ROLLBACK INTO a VALUES (1)": "the statement INSERT OR",
        "SET STATEMENT max_statement_time=1 FOR COMMIT": "the statement SET STATEMENT",
        "SET PASSWORD = 'a'": "the statement SET PASSWORD",
        "SET SESSION autocommit = 1": "the statement SET SESSION",
        "COPY a TO PROGRAM 'x'": "the statement COPY a",
        "PRAGMA writable_schema = 1": "the statement PRAGMA writable_schema",
        "": "the statement ",
    }.items(),
)
def test_a_statement_is_known_to_be_harmless_or_is_not(sql, harm):
    assert harm_of(sql, "postgresql") == harm


@pytest.mark.once
@pytest.mark.parametrize(
    ("sql", "vendor"),
    [
        (r"SELECT 'a\'; COMMIT; SELECT ''", "postgresql"),
        (r"SELECT E'\''; COMMIT; SELECT '\''", "postgresql"),
        (r"SELECT 'a\'; COMMIT; SELECT ''", "sqlite"),
        (r'SELECT "\""; COMMIT; SELECT "\""', "mysql"),
        ("SELECT 1 # '\n; COMMIT; SELECT '", "mysql"),
        ("SELECT $x$; COMMIT; SELECT $x$", "mysql"),
    ],
)
def test_a_statement_hides_in_no_text_that_the_database_takes_otherwise(sql, vendor):
    assert harm_of(sql, vendor) == "several statements at once"


@pytest.mark.once
def test_many_comments_are_looked_at_in_no_time():
    assert harm_of("/* a */ " * 5_000 + "COMMIT", "postgresql") == "the statement COMMIT"


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_a_thread_with_a_connection_of_its_own_writes_nothing():
    Order.objects.create()
    faults = []

    def elsewhere():
        try:
            Keyword.objects.filter(word="x").update(word="y")
        except RefusedError as error:
            faults.append(error)
        finally:
            connections.close_all()

    def starts(instance, **kwargs):
        thread = Thread(target=elsewhere)
        thread.start()
        thread.join()

    with connected(pre_save, starts, Order):
        found = ran()
    assert len(faults) == 1
    assert found.outside.refused == {"a statement on another connection, to default": 1}


@pytest.mark.django_db(transaction=True)
def test_outside_of_any_transaction_nothing_stays_either():
    Order.objects.create(customer=Customer.objects.create(name="Ada"), status=Order.Status.PLACED)
    Order.objects.update(customer_name="wrong")
    Invoice.objects.all().delete()
    before = stored()
    found = ran()
    assert stored() == before
    assert {(each.model, each.how) for each in effect(found, "handle_order_created").writes} >= {
        ("shop.Invoice", "INSERT")
    }


@pytest.mark.usefixtures("orders")
def test_a_row_that_cannot_be_saved_is_told_and_the_others_are_saved():
    def objects(instance, **kwargs):
        if instance.status == Order.Status.DRAFT:
            raise ValueError("not this one")

    with connected(pre_save, objects, Order), SHOP:
        found = ran()
        code, out, _ = run("signals", "Order", "--run")
    assert (found.rows, [*found.faults.values()]) == (1, ["ValueError: not this one"])
    assert code == 3
    assert "could not be saved: ValueError: not this one" in out
    assert "1 row could not be saved." in " ".join(out.split()[-12:])


@pytest.mark.usefixtures("orders")
@SHOP
def test_the_report_says_what_was_seen_beside_what_the_source_says():
    def hides(instance, **kwargs):
        vars(sys.modules[__name__])["Keyword"].objects.filter(word="x").update(word="y")

    with connected(post_save, hides, Order):
        code, out, _ = run("signals", "Order", "--run", "--format", "json")
        _, text, _ = run("signals", "Order", "--run")
    report = json.loads(out)
    jsonschema.validate(report, SCHEMA)
    (model,) = report["models"]
    effects = {each["effect"].rpartition(".")[2]: each["run"] for each in model["effects"]}
    assert (code, model["run"]["rows"]) == (0, 2)
    assert effects["handle_order_created"]["not_seen"] == ["shop.Notification"]
    assert effects["hides"]["unexpected"] == ["shop.Keyword"]
    assert effects["handle_order_deleted"] is None
    assert "not seen to write shop.Notification" in text
    assert "the source doesn't show that it writes shop.Keyword" in text
    assert "not run: only saves are" in text
    assert "Of deletes and many-to-many, 2 effects are never run." in " ".join(text.split())
    assert (
        "Run: 2 rows of 1 model saved and rolled back; 2 of 3 writes seen, 1 that the source doesn't show; 0 effects did not run."
        in " ".join(text.split())
    )


@SHOP
def test_without_rows_nothing_is_said_to_be_seen():
    _, out, _ = run("signals", "Order", "--run")
    assert "It has no rows to save." in out
    assert "Of 1 model no row was saved." in " ".join(out.split())


@SHOP
def test_a_model_that_a_save_sets_nothing_off_for_is_not_run():
    code, out, _ = run("signals", "shop.Group", "--run")
    assert code == 0
    assert "Run: 0 rows of 0 models saved and rolled back" in " ".join(out.split())
    assert Group.objects.count() == 0


@SHOP
def test_rows_of_another_database_are_not_looked_for():
    with override_settings(DATABASE_ROUTERS=["tests.audit.test_running.Elsewhere"]):
        code, out, _ = run("signals", "Order", "--run")
    assert code == 0
    assert "No row was saved: its rows are in the database other: --database other" in out


class Elsewhere:
    def db_for_write(self, model, **hints):
        return "other"


def test_a_table_that_is_not_there_is_told(shelf):
    with SHOP:
        code, out, _ = run("signals", "shelf.Book", "--run")
    assert code == 3
    assert "No row was saved: " in out
    assert "shelf_book" in out


@SHOP
def test_a_database_that_the_settings_lack_is_told():
    code, _, err = run("signals", "Order", "--run", "--database", "nowhere")
    assert (code, "nowhere" in err) == (2, True)


@pytest.mark.mariadb
@pytest.mark.django_db(transaction=True)
@SHOP
def test_a_table_without_transactions_is_refused_before_anything_is_saved():
    Order.objects.create()
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE no_transactions (n integer) ENGINE=MyISAM")
        try:
            code, _, err = run("signals", "Order", "--run")
        finally:
            cursor.execute("DROP TABLE no_transactions")
    assert code == 3
    assert "it has tables without transactions: no_transactions" in " ".join(err.split())
