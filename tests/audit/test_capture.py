"""What one act did, seen whole and rolled back; and saves that nobody hears of."""

import threading
from decimal import Decimal
from functools import partial

import pytest
from asgiref.sync import async_to_sync
from django.core.mail import EmailMessage
from django.db import connection, transaction
from django.db.models import F
from django.db.models.signals import post_init, post_save

from reconcile.audit.capture import tables
from reconcile.audit.capture.capturing import Statements, capture, counting
from reconcile.audit.capture.tables import read_tables
from reconcile.audit.muting import muted, save_muted
from reconcile.audit.rolling_back import CommittedError
from reconcile.audit.shut import RefusedError
from reconcile.errors import EvaluationError
from sample_project.shop.models import Customer, Invoice, Item, Notification, Order, Subscriber
from tests.audit.test_effects import connected
from tests.helpers import everything
from tests.repair.test_triggers import trigger
from tests.zoo.tasks import greet

pytestmark = pytest.mark.django_db


def write_mail(subject, body, sender, to):
    EmailMessage(subject, body, sender, to).send()


def told(captured):
    """What was done to rows: the table, and the columns that have changed or whether the row is new or gone."""
    return [
        (each.table, "new" if each.before is None else "gone" if each.after is None else each.changed)
        for each in captured.changes
    ]


def test_rows_that_are_new_changed_and_gone_are_told_and_rolled_back():
    kept, changed, gone = (Subscriber.objects.create(email=name) for name in "abc")
    before = everything()

    def act():
        Subscriber.objects.create(email="d")
        Subscriber.objects.filter(pk=changed.pk).update(visits=F("visits") + 1)
        Subscriber.objects.filter(pk=kept.pk).update(visits=F("visits"))
        gone.delete()
        return "done"

    found = capture(act)
    assert sorted(told(found), key=str) == [
        ("shop_subscriber", "gone"),
        ("shop_subscriber", "new"),
        ("shop_subscriber", ("visits",)),
    ]
    assert found.returned == "done"
    assert everything() == before


def test_raw_sql_and_what_receivers_write_are_among_it():
    order = Order.objects.create(customer=Customer.objects.create(name="Ann"))

    def act():
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM shop_notification")
        Item(order=order, price=Decimal(2)).save()

    assert told(capture(act)) == [
        ("shop_invoice", ("amount",)),
        ("shop_item", "new"),
        ("shop_notification", "gone"),
        ("shop_order", ("total", "item_count")),
    ]


@pytest.mark.django_db(transaction=True)
def test_tables_without_a_model_and_what_triggers_write_are_among_it():
    insert = "INSERT INTO spare VALUES (1), (1)"
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE spare (a INTEGER)")
    try:
        with trigger(
            "shop_subscriber",
            postgresql=("AFTER INSERT", f"{insert};"),
            mysql=f"AFTER INSERT ON shop_subscriber FOR EACH ROW {insert}",
            sqlite=f"AFTER INSERT ON shop_subscriber BEGIN {insert}; END",
        ):
            found = capture(lambda: Subscriber.objects.create(email="a"))
        assert told(found) == [("shop_subscriber", "new"), ("spare", "new"), ("spare", "new")]
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE spare")


def test_callbacks_of_a_commit_are_run_with_those_that_they_ask_for():
    def act():
        transaction.on_commit(partial(transaction.on_commit, lambda: Subscriber.objects.create(email="late")))
        transaction.on_commit(lambda: 1 / 0, robust=True)

    found = capture(act)
    assert (told(found), found.callbacks) == ([("shop_subscriber", "new")], 3)
    assert not Subscriber.objects.exists()


def test_callbacks_are_only_counted_where_they_may_not_run():
    found = capture(lambda: transaction.on_commit(lambda: 1 / 0), runs_callbacks=False)
    assert (told(found), found.callbacks) == ([], 1)


def test_a_callback_that_fails_is_told():
    with pytest.raises(ZeroDivisionError):
        capture(lambda: transaction.on_commit(lambda: 1 / 0))


def test_messages_and_mails_are_told_with_what_they_say_and_go_nowhere(mailoutbox):
    keys = [1, 2]

    def act():
        greet.delay(keys, loud=True)
        keys.append(3)
        greet.app.send_task("somewhere.else", args=(4,))
        write_mail("Hello", "text", "a@example.org", ["b@example.org"])

    found = capture(act)
    assert [(each.name, each.args, each.kwargs) for each in found.tasks] == [
        (greet.name, ([1, 2],), {"loud": True}),
        ("somewhere.else", (4,), {}),
    ]
    assert [(each.subject, each.to, each.body) for each in found.mails] == [
        ("Hello", ("b@example.org",), "text")
    ]
    assert mailoutbox == []


def test_statements_are_counted_by_verb_and_those_of_savepoints_apart():
    def act():
        with transaction.atomic():
            Subscriber.objects.create(email="a")
        return Subscriber.objects.count()

    found = capture(act).statements
    assert (found.by_verb["INSERT"], found.by_verb["SELECT"], found.savepoints) == (1, 1, 2)
    assert found.total == 2


def test_files_are_written_unless_the_world_is_shut(tmp_path):
    file = tmp_path / "made.txt"
    capture(lambda: file.write_text("x"))
    assert file.read_text() == "x"
    with pytest.raises(RefusedError, match="writing the file"):
        capture(lambda: file.write_text("y"), is_shut=True)
    assert file.read_text() == "x"


def test_what_raises_is_rolled_back_too():
    def act():
        Subscriber.objects.create(email="a")
        raise KeyError

    with pytest.raises(KeyError):
        capture(act)
    assert not Subscriber.objects.exists()


def test_more_rows_than_can_be_read_are_refused(monkeypatch):
    Subscriber.objects.bulk_create([Subscriber(email="a"), Subscriber(email="b")])
    monkeypatch.setattr(tables, "MOST_ROWS", 1)
    with pytest.raises(EvaluationError, match=r"hold more than 1 rows.*Run it on a copy"):
        read_tables("default")


@pytest.mark.django_db(transaction=True)
def test_an_act_that_ends_the_transaction_is_told():
    def act():
        with connection.cursor() as cursor:
            cursor.execute("COMMIT")

    with pytest.raises(CommittedError, match="has ended the transaction"):
        capture(act)


@pytest.mark.django_db(databases=["default", "archive"])
def test_what_is_written_to_another_database_is_refused():
    with pytest.raises(RefusedError, match="writes to the database 'archive'"), transaction.atomic("archive"):
        capture(lambda: Subscriber.objects.using("archive").create(email="a"))
    assert capture(lambda: Subscriber.objects.using("archive").count()).returned == 0


# Muting.


@pytest.fixture
def heard():
    """The keys of orders whose saves were heard."""
    keys = []

    def hear(instance, **_):
        keys.append(instance.pk)

    with connected(post_save, hear, Order):
        yield keys


def test_a_save_that_is_muted_runs_no_receiver(heard):
    with muted():
        order = Order.objects.create()
    assert not heard
    assert not Invoice.objects.filter(order=order).exists()
    order.save()
    assert heard == [order.pk]


def test_only_the_thread_that_mutes_is_muted(heard):
    inside, done = threading.Event(), threading.Event()

    def quiet():
        with muted():
            inside.set()
            done.wait(5)

    thread = threading.Thread(target=quiet)
    thread.start()
    inside.wait(5)
    post_save.send(sender=Order, instance=Order(pk=7), created=True, raw=True, using="default")
    done.set()
    thread.join()
    assert heard == [7]


def test_what_is_awaited_is_muted_as_well(heard):
    async def send():
        with muted():
            return await post_save.asend(sender=Order, instance=Order(pk=7), created=True, raw=True, using="default")  # fmt: skip

    assert async_to_sync(send)() == []
    assert heard == []


def test_muting_ends_with_its_block_though_it_fails(heard):
    with pytest.raises(KeyError), muted():
        raise KeyError
    order = Order.objects.create()
    assert heard == [order.pk]


def test_signals_that_make_an_object_what_it_is_are_sent_all_the_same():
    made = []

    def hear(instance, **_):
        made.append(instance.name)

    with connected(post_init, hear, Customer), muted():
        Customer(name="Ann")
    assert made == ["Ann"]


def test_a_muted_save_goes_past_the_models_own_save(monkeypatch):
    monkeypatch.setattr(Subscriber, "save", lambda self, **_: pytest.fail("its own save"))
    row = Subscriber(email="a")
    save_muted(row)
    assert Subscriber.objects.get().pk == row.pk
    assert not Notification.objects.exists()


def test_counting_counts_the_statements_of_a_block():
    statements = Statements()
    with counting(statements, "default"):
        Order.objects.count()
    Order.objects.count()
    assert statements.by_verb == {"SELECT": 1}
