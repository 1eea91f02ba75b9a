"""Two paths to the same: each planted difference is found and named, and what is no difference never is."""

from datetime import timedelta
from decimal import Decimal
from functools import partial
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from django.contrib.contenttypes.models import ContentType
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.db import connection, transaction
from django.db.models import F
from django.db.models.signals import post_save
from django.utils import timezone

from reconcile import receipts
from reconcile.audit.parity.running import compare_paths
from reconcile.audit.shut import RefusedError
from reconcile.errors import UsageError
from reconcile.models import Receipt
from reconcile.testing import assert_batch_safe, assert_parity
from sample_project.shop import services
from sample_project.shop.models import (
    Address,
    Article,
    Category,
    Customer,
    Delivery,
    Item,
    Keyword,
    Note,
    Notification,
    Order,
    PendingCharge,
    Subscriber,
)
from tests.audit.test_effects import connected
from tests.helpers import everything
from tests.zoo.models import Page, Pair, Team
from tests.zoo.tasks import greet

pytestmark = pytest.mark.django_db

LONG_AGO = timezone.now() - timedelta(days=400)


@pytest.fixture(autouse=True)
def old():
    """Records that were there before."""
    customer = Customer.objects.create(name="Old", preferences={"language": "de", "newsletter": True})
    order = Order.objects.create(customer=customer, created_at=LONG_AGO)
    Item.objects.create(order=order, price=Decimal("7.50"), on_sale_since=LONG_AGO)
    note = Note.objects.create(
        content_type=ContentType.objects.get_for_model(Order), object_id=order.pk, text="old"
    )
    return customer, order, note


def write_mail(subject, body, sender, to):
    EmailMessage(subject, body, sender, to).send()


class Made:
    """What a path makes: two orders that differ, two that are alike, and what belongs to them."""

    def __init__(self):
        self.customer = Customer.objects.create(name="Ann", preferences={"language": "en"})
        self.orders = [Order.objects.create(customer=self.customer) for _ in range(4)]
        self.items = [
            Item.objects.create(order=order, name=name, price=price, on_sale_since=LONG_AGO)
            for order, name, price in zip(self.orders, "abcc", (1, 2, 3, 3), strict=True)
        ]
        self.kind = ContentType.objects.get_for_model(Order)
        self.notes = [self.note(order, f"order {order.pk} placed") for order in self.orders[:2]]
        self.article = Article.objects.create(title="New goods", body="#new #goods")
        self.charge = PendingCharge.objects.create(item=self.items[0], amount=1, scheduled_at=LONG_AGO)
        Customer.objects.filter(pk=self.customer.pk).update(
            preferences={"first": self.orders[0].pk, "seen": [1, 2], "language": "en"}
        )
        self.customer.refresh_from_db()
        for order in self.orders:
            transaction.on_commit(partial(greet.delay, order.pk))
        write_mail("Thanks", f"Your order is {self.orders[0].pk}", "shop@example.org", ["ann@example.org"])

    def note(self, target, text):
        kind = ContentType.objects.get_for_model(target)
        return Note.objects.create(content_type=kind, object_id=target.pk, text=text)

    def set(self, row, **values):
        type(row)._base_manager.filter(pk=row.pk).update(**values)


def raw(sql, *params):
    with connection.cursor() as cursor:
        cursor.execute(sql, params)


def old_order():
    return Order.objects.get(created_at=LONG_AGO)


PLANTS = {
    "a cent": lambda made: made.set(made.orders[0].invoice, amount=Decimal("1.01")),
    "a missing row": lambda made: made.orders[1].invoice.delete(),
    "a row more": lambda made: Notification.objects.create(order=made.orders[1], kind="paid"),
    "a row twice": lambda made: made.note(made.orders[0], f"order {made.orders[0].pk} placed"),
    "the case of a text": lambda made: made.set(made.orders[0].notifications.get(), kind="Created"),
    "a blank": lambda made: made.set(made.items[0], name="a "),
    "a counter": lambda made: made.set(made.customer, order_count=5),
    "a counter of an old row": lambda made: Customer.objects.filter(name="Old").update(order_count=2),
    "a pointer to another new row": lambda made: made.set(made.customer, last_order=made.orders[0]),
    "a pointer to an old row": lambda made: made.set(made.customer, last_order=old_order()),
    "no pointer": lambda made: made.set(made.customer, last_order=None),
    "a row in another table": lambda made: Subscriber.objects.create(email="ann@example.org"),
    "a row in a tree": lambda made: made.orders[0].notifications.get() and Category.objects.create(name="x"),
    "a key of a document": lambda made: made.set(made.customer, preferences={"first": made.orders[0].pk, "seen": [1, 2], "lang": "en"}),
    "a value of a document": lambda made: made.set(made.customer, preferences={"first": made.orders[0].pk, "seen": [1, 2], "language": "fr"}),
    "the order in a document's list": lambda made: made.set(made.customer, preferences={"first": made.orders[0].pk, "seen": [2, 1], "language": "en"}),
    "another row's key in a document": lambda made: made.set(made.customer, preferences={"first": made.orders[1].pk, "seen": [1, 2], "language": "en"}),
    "an empty document": lambda made: made.set(made.customer, preferences={}),
    "a cleared date": lambda made: made.set(made.charge, scheduled_at=None),
    "a date long ago": lambda made: made.set(made.charge, scheduled_at=LONG_AGO - timedelta(days=1)),
    "now in place of long ago": lambda made: made.set(made.charge, scheduled_at=timezone.now()),
    "two values swapped": lambda made: (made.set(made.items[0], price=2), made.set(made.items[1], price=1)),
    "an old row deleted": lambda made: Note.objects.filter(text="old").delete(),
    "an old row changed": lambda made: Item.objects.filter(order=old_order()).update(name="changed"),
    "an old row changed by SQL": lambda made: raw("UPDATE shop_item SET quantity = quantity + 1 WHERE name = %s", "item"),
    "an old row in another's place": lambda made: Item.objects.filter(order=old_order()).update(order=made.orders[0]),
    "a note on another new row": lambda made: made.set(made.notes[0], object_id=made.orders[1].pk),
    "a note on another kind of row": lambda made: made.set(made.notes[0], content_type=ContentType.objects.get_for_model(Item), object_id=made.items[0].pk),
    "a note on an old row": lambda made: made.set(made.notes[0], object_id=old_order().pk),
    "a text that names another row": lambda made: made.set(made.notes[0], text=f"order {made.orders[1].pk} placed"),
    "a text that names an old row": lambda made: made.set(made.notes[0], text=f"order {old_order().pk} placed"),
    "a message for another row": lambda made: transaction.on_commit(partial(greet.delay, made.items[0].pk)),
    "a message more": lambda made: transaction.on_commit(partial(greet.delay, made.orders[0].pk)),
    "a message at once": lambda made: greet.delay(0),
    "another mail": lambda made: write_mail("Thanks", "again", "shop@example.org", ["ann@example.org"]),
    "a mail to somebody else": lambda made: write_mail("Thanks", f"Your order is {made.orders[0].pk}", "shop@example.org", ["bob@example.org"]),
    "an item of another order that is alike": lambda made: Item.objects.filter(pk=made.items[2].pk).update(order=made.orders[3]),
    "a keyword less": lambda made: Keyword.objects.filter(word="new").delete(),
    "an empty text": lambda made: made.set(made.article, slug=""),
    "a boolean": lambda made: made.customer.addresses.create(street="x", is_default=False),
    "a decimal that is a half": lambda made: made.set(made.items[0], price=Decimal("1.50")),
    "a number in place of a key": lambda made: made.set(made.notes[0], text="order 1 placed"),
}  # fmt: skip


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
def test_each_planted_difference_is_found(plant):
    found = compare_paths(Made, lambda: plant(Made()))
    assert not found.is_same
    assert not found.unsteady


def alike(made):
    """Nothing that is left differs."""


def in_another_order(made):
    made.notes[0].delete()
    made.notes[0] = made.note(made.orders[0], f"order {made.orders[0].pk} placed")


def gone_back(made):
    try:
        with transaction.atomic():
            made.note(made.orders[0], "gone")
            raise ZeroDivisionError
    except ZeroDivisionError:
        return


def dropped(made):
    try:
        with transaction.atomic():
            transaction.on_commit(partial(greet.delay, 7))
            raise ZeroDivisionError
    except ZeroDivisionError:
        return


HARMLESS = {
    "nothing": alike,
    "a row made anew": in_another_order,
    "a row made and deleted": lambda made: Subscriber.objects.create(email="x").delete(),
    "a row changed and changed back": lambda made: (made.set(made.items[0], price=9), made.set(made.items[0], price=1)),
    "a value written as it is": lambda made: Item.objects.update(price=F("price")),
    "keys that are used up": lambda made: [Subscriber.objects.create(email="x").delete() for _ in range(3)],
    "a later now": lambda made: made.set(made.orders[0].invoice, created_at=timezone.now()),
    "1.0 for 1": lambda made: made.set(made.items[0], price=Decimal("1.0")),
    "a document in another order": lambda made: made.set(made.customer, preferences={"language": "en", "seen": [1, 2], "first": made.orders[0].pk}),
    "a key as a text in a text": lambda made: made.set(made.notes[0], text=f"order {made.orders[0].pk} placed"),
    "reads": lambda made: [*Order.objects.all()],
    "a savepoint that is gone back to": gone_back,
    "a callback that is dropped": dropped,
    "an update of no row": lambda made: Order.objects.filter(pk=-1).update(total=1),
    "the two that are alike made in another order": lambda made: made.orders.reverse(),
    "a moment in another zone": lambda made: made.set(made.charge, scheduled_at=LONG_AGO.astimezone(ZoneInfo("Asia/Tokyo"))),
    "two updates of which the last counts": lambda made: (made.set(made.items[0], price=5), made.set(made.items[0], price=1)),
    "a decimal with an exponent": lambda made: made.set(made.items[0], price=Decimal("1E+0")),
    "a value written by SQL as it is": lambda made: raw("UPDATE shop_item SET price = price"),
    "a row locked": lambda made: [*Order.objects.select_for_update().order_by("pk")],
    "a value by save() with update_fields": lambda made: made.items[0].save(update_fields=["name"]),
    "a value by bulk_update": lambda made: Item.objects.bulk_update(made.items, ["name"]),
    "a pointer written anew": lambda made: made.set(made.customer, last_order=Order.objects.get(pk=made.customer.last_order_id)),
    "a note's key by the way of its target": lambda made: setattr(made.notes[0], "target", made.orders[0]) or made.notes[0].save(),
    "a promise of a message": lambda made: promise("welcome", Customer.objects.filter(pk=made.customer.pk)),
}  # fmt: skip


def promise(name, rows):
    receipts.record(name, rows)
    Receipt.objects.update(state=Receipt.State.SENT)


def deliver(place):
    readers = [Subscriber.objects.create(email="ann@example.org") for _ in range(2)]
    Delivery.objects.create(subscriber=readers[place])


PAIRS = {
    "a batch in place of single messages": (
        lambda made: [greet.delay(each.pk) for each in made.orders],
        lambda made: greet.delay([each.pk for each in reversed(made.orders)]),
    ),
    "a mail to the same in another order": (
        lambda made: write_mail("Hello", "x", "shop@example.org", ["a@example.org", "b@example.org"]),
        lambda made: write_mail("Hello", "x", "shop@example.org", ["b@example.org", "a@example.org"]),
    ),
    "rows one by one and in bulk": (
        lambda made: [Keyword.objects.create(article=made.article, word=word) for word in "xyz"],
        lambda made: Keyword.objects.bulk_create([Keyword(article=made.article, word=word) for word in "zyx"]),
    ),
    "a row by SQL": (
        lambda made: Subscriber.objects.create(email="ann@example.org"),
        lambda made: raw("INSERT INTO shop_subscriber (email, visits) VALUES ('ann@example.org', 0)"),
    ),
    "a token that is another each time": (
        lambda made: made.set(made.notes[0], text=str(uuid4())),
        lambda made: made.set(made.notes[0], text=str(uuid4())),
    ),
    "a number of a document as it is counted": (
        lambda made: made.set(made.customer, preferences={"seen": len(made.orders)}),
        lambda made: made.set(made.customer, preferences={"seen": Order.objects.filter(customer=made.customer).count()}),
    ),
    "what belongs to either of two that are alike": (lambda _: deliver(0), lambda _: deliver(1)),
}  # fmt: skip


@pytest.mark.parametrize(("one", "other"), PAIRS.values(), ids=PAIRS)
def test_two_ways_to_the_same_are_no_difference(one, other):
    assert_parity(lambda: one(Made()), lambda: other(Made()))


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_what_leaves_the_same_is_no_difference(change):
    assert_parity(Made, lambda: change(Made()))


# Paths of the shop.


def by_signals():
    customer = Customer.objects.get(name="Old")
    for _ in range(3):
        services.create_order(customer=customer, items=[Item(price=Decimal(3), on_sale_since=LONG_AGO)])


def in_bulk():
    customer = Customer.objects.get(name="Old")
    orders = [Order(customer=customer) for _ in range(3)]
    items = [Item(order=each, price=Decimal(3), on_sale_since=LONG_AGO) for each in orders]
    services.create_orders_bulk(orders, items)


def test_the_shops_service_layer_leaves_the_same_by_signals_and_in_bulk():
    assert_parity(by_signals, in_bulk)


def hear(does, signal, model):
    """A receiver more, which the bulk half knows nothing of."""
    return connected(signal, lambda instance, **_: does(instance), model, weak=False)


@pytest.mark.parametrize(
    "does",
    [
        lambda order: Subscriber.objects.create(email=f"{order.pk}"),
        lambda order: Notification.objects.filter(order=order).update(kind="Created"),
        lambda order: greet.delay(order.pk),
        lambda order: write_mail("New", "order", "a@example.org", ["b@example.org"]),
        lambda order: Customer.objects.filter(pk=order.customer_id).update(preferences={"seen": order.pk}),
    ],
    ids=["a row", "a value", "a message", "a mail", "a document"],
)
def test_a_receiver_more_is_found_though_nothing_else_is_different(does):
    with hear(does, post_save, Order), pytest.raises(AssertionError, match="one and two differ in"):
        assert_parity(by_signals, in_bulk)


def test_a_message_that_is_dropped_is_found():
    def one():
        for each in Order.objects.all():
            greet.delay(each.pk)

    assert_parity(one, lambda: greet.delay([*Order.objects.values_list("pk", flat=True)]))
    with pytest.raises(AssertionError, match=r"message tests.zoo.tasks.greet: only one"):
        assert_parity(one, lambda: greet.delay([]))


def test_what_differs_between_two_runs_of_one_path_is_compared_by_its_shape():
    def one():
        Subscriber.objects.create(email="a", phone=uuid4().hex[:20])

    assert_parity(one, one)
    with pytest.raises(AssertionError) as raised:
        assert_parity(one, lambda: Subscriber.objects.create(email="a", phone=""))
    assert "phone: a value ↔ empty" in str(raised.value)
    assert "only the shape was compared" in str(raised.value)


def test_a_column_is_told_to_be_volatile():
    def make(visits):
        return lambda: Subscriber.objects.create(email="a", visits=visits)

    assert_parity(make(1), make(2), volatile=["shop.Subscriber.visits"])
    assert_parity(make(1), make(2), volatile=["shop_subscriber.visits"])
    with pytest.raises(AssertionError, match="visits: a value ↔ empty"):
        assert_parity(make(1), make(0), volatile=["shop.Subscriber.visits"])


@pytest.mark.parametrize(
    ("name", "message"),
    [("visits", "names no column"), ("shop.Subscriber.vists", "has no column 'vists'; it has email")],
)
def test_a_volatile_that_names_nothing_is_a_mistake(name, message):
    with pytest.raises(UsageError, match=message):
        assert_parity(dict, dict, volatile=[name])


def test_a_path_that_does_not_do_the_same_twice_says_nothing_of_the_other():
    made = []

    def one():
        made.append(1)
        for _ in made:
            Subscriber.objects.create(email="a")

    found = compare_paths(one, dict)
    assert (found.is_same, found.differences, [*found.unsteady]) == (False, [], ["one"])
    with pytest.raises(AssertionError, match="one does not do the same twice"):
        assert_parity(one, dict)


def test_new_rows_that_are_alike_are_told_apart_by_what_refers_to_them():
    def make(*owners):
        customers = [Customer.objects.create(name="twin") for _ in range(2)]
        for owner in owners:
            Address.objects.create(customer=customers[owner], street="a")

    assert_parity(partial(make, 0, 1), partial(make, 1, 0))
    with pytest.raises(AssertionError, match="which other rows refer to"):
        assert_parity(partial(make, 0, 1), partial(make, 1, 1))


def test_a_key_that_is_given_is_itself_and_no_number_is_taken_for_it():
    def make(key, number):
        Customer.objects.bulk_create([Customer(pk=key, name=f"Ann {number}")])

    assert_parity(partial(make, 7, 7), partial(make, 7, 7))
    with pytest.raises(AssertionError, match=r"(?s)key: \(7,\) ↔ \(8,\)"):
        assert_parity(partial(make, 7, 7), partial(make, 8, 7))
    with pytest.raises(AssertionError, match="'Ann 7' ↔ 'Ann 8'"):
        assert_parity(partial(make, 7, 7), partial(make, 7, 8))


def test_nothing_is_left_of_any_run():
    before = everything()
    compare_paths(by_signals, in_bulk)
    assert everything() == before


def test_on_a_copy_files_are_refused_after_the_commit_too(tmp_path):
    def write():
        (tmp_path / "x").mkdir()

    for each in (write, partial(transaction.on_commit, write)):
        with pytest.raises(RefusedError):
            compare_paths(each, write, is_shut=True)
    assert not (tmp_path / "x").exists()


def test_what_only_follows_from_a_difference_is_counted_and_not_listed():
    def two():
        made = Made()
        made.set(made.customer, email="ann@example.org")

    with pytest.raises(AssertionError) as raised:
        assert_parity(Made, two)
    head, *lines = str(raised.value).splitlines()
    assert "places" in head
    assert lines[:2] == ["  new row of shop_customer", "    email: '' ↔ 'ann@example.org'"]
    assert "more refer to other rows, which may be no more than what follows from these." in lines[-1]
    assert not any("shop_invoice" in each for each in lines)


async def awaited():
    """Nothing of it runs unless somebody awaits it."""
    await Customer.objects.acreate(name="Ann")


def yielding():
    yield Customer.objects.create(name="Ann")


async def yielding_later():
    yield await Customer.objects.acreate(name="Ann")


@pytest.mark.parametrize("act", [awaited, yielding, yielding_later])
def test_what_has_not_run_is_no_path(act):
    with pytest.raises(UsageError, match="nothing of it has run"):
        assert_parity(act, lambda: None)
    with pytest.raises(UsageError, match="nothing of it has run"):
        assert_batch_safe(lambda _: act(), n=(1, 2))


def test_a_key_that_is_given_is_itself():
    with pytest.raises(AssertionError, match="new row of zoo_page"):
        assert_parity(lambda: Page.objects.create(code="DE"), lambda: Page.objects.create(code="FR"))
    with pytest.raises(AssertionError, match="new row of zoo_pair"):
        assert_parity(
            lambda: Pair.objects.create(left=1, right=2), lambda: Pair.objects.create(left=3, right=4)
        )


def test_small_numbers_beside_given_keys_are_numbers():
    def path(count):
        def write():
            Pair.objects.create(left=1, right=2)
            Team.objects.create(name="a", player_count=count)

        return write

    with pytest.raises(AssertionError, match="player_count: 1 ↔ 2"):
        assert_parity(path(1), path(2))


@pytest.mark.parametrize("depth", [1, 4, 9])
def test_rows_are_told_apart_by_rows_far_away(depth):
    """Two chains of categories that are alike, and a note at the end of the one or the other."""

    def path(place):
        def write():
            ends = []
            for name in "xy":
                last = Category.objects.create(name=name)
                for _ in range(depth):
                    last = Category.objects.create(name="same", path="", parent=last)
                ends.append(last)
            Category.objects.all().update(path="")
            Category.objects.create(name="leaf", parent=ends[place])
            Category.objects.all().update(path="")

        return write

    assert_parity(path(0), path(0))
    with pytest.raises(AssertionError):
        assert_parity(path(0), path(1))


MAILS = {
    "what it says in HTML": lambda mail: mail.attach_alternative("<b>500</b>", "text/html"),
    "what is attached": lambda mail: mail.attach("a.txt", b"500", "text/plain"),
    "who sends it": lambda mail: setattr(mail, "from_email", "other@example.com"),
    "by which heading": lambda mail: (setattr(mail, "to", []), setattr(mail, "bcc", ["ann@example.com"])),
}


@pytest.mark.parametrize("change", MAILS.values(), ids=MAILS)
def test_all_of_a_mail_is_compared(change):
    def path(changed):
        def send():
            made = EmailMultiAlternatives("Hello", "5", "shop@example.com", ["ann@example.com"])
            made.attach_alternative("<b>5</b>", "text/html")
            if changed:
                change(made)
            made.send()

        return send

    assert_parity(path(changed=False), path(changed=False))
    with pytest.raises(AssertionError, match="mail"):
        assert_parity(path(changed=False), path(changed=True))


def test_a_volatile_column_of_no_model_is_a_mistake():
    with pytest.raises(UsageError, match=r"There is no model 'zoo\.Nope'"):
        assert_parity(lambda: None, lambda: None, volatile=["zoo.Nope.x"])
