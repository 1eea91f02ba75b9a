"""A live application, in threads: handlers that keep their rows right, writers that go past them, and repairers beside both.

A Trade is what they deal in: records, the one row that each of them owes, and how the application writes either. Every
transaction of every session is counted, and what fails in one is kept, so that a run beside repairs can be
compared with one without.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import ClassVar

from django.db import connection, transaction
from django.db.models import F
from django.db.models.signals import post_delete, post_save

from reconcile import HaveRow, Rule, runs
from reconcile.models import Change
from sample_project.shop import bulk, services
from sample_project.shop.models import Invoice, Item, Notification, Order
from tests.helpers import Session
from tests.zoo.models import Basket, Bill, Match, Team

IN_FLIGHT = 0.006
"""Seconds that a handler's transaction stays open, at most, after it has written."""

LOOKED = 0.002
"""Seconds between looking for a row and inserting it, at most."""


def linger(chance, seconds=IN_FLIGHT):
    time.sleep(chance.uniform(0, seconds))


class Trade:
    """Records and the row that each of them owes.

    link, amount: the row's columns that hold the record's key and the owed value. owed: the record's column with
    that value. receivers: what signals of records call, beside the application's own. shared: whether several handlers
    deal with one record; handlers that take no lock would double its row by themselves. clears: whether rows that
    nobody owes come up, and are to be deleted.
    """

    parent: ClassVar
    child: ClassVar
    link: ClassVar[str]
    amount: ClassVar[str]
    owed: ClassVar[str]
    rule: ClassVar[Rule]
    receivers: ClassVar = ()
    shared: ClassVar[bool] = True
    clears: ClassVar[bool] = False

    def make(self, chance):
        """One record, through signals."""
        raise NotImplementedError

    def change(self, record, chance):
        """Another value for a locked record, through signals."""
        raise NotImplementedError

    def attend(self, key, chance):
        """Look for the row of a record that is not written itself, and insert it where it isn't there.

        Keys of rows that were inserted past the signals.
        """
        raise NotImplementedError

    def load(self, number, chance):
        """`number` new records, past the signals."""
        raise NotImplementedError

    def reprice(self, keys, chance):
        """Another value for each record, past the signals."""
        raise NotImplementedError

    def lose(self, keys):
        """Delete the records' rows past the signals; the keys of the rows."""
        rows = self.child._base_manager.filter(**{f"{self.link}__in": keys})
        lost = list(rows.order_by("pk").select_for_update().values_list("pk", flat=True))
        self.child._base_manager.filter(pk__in=lost)._raw_delete("default")
        return lost

    def double(self, keys):
        """A second row for each record that has one, past the signals, where that happens; the keys of those records."""
        return ()

    def orphan(self, keys):
        """Delete the records past the signals, and leave their rows behind, where that happens."""

    def remove(self, record):
        """Delete a locked record, through signals."""
        record.delete()

    def listed(self):
        return list(self.parent._base_manager.order_by("pk").values_list("pk", flat=True))

    def wrong(self):
        """What each record has instead of its one right row, and rows without a record; empty where all is well."""
        had = defaultdict(list)
        for key, amount in self.child._base_manager.values_list(self.link, self.amount):
            had[key].append(amount)
        owed = dict(self.parent._base_manager.values_list("pk", self.owed))
        return {
            key: had.get(key, [])
            for key in {*owed, *had}
            if key not in owed or had.get(key, []) != [owed[key]]
        }

    def doubled(self):
        """Records that have more than one row."""
        return sorted(key for key, had in self.wrong().items() if len(had) > 1)

    @contextmanager
    def connected(self):
        """While the block runs, signals of the records call the receivers."""
        for signal, receiver in self.receivers:
            signal.connect(receiver, sender=self.parent, weak=False)
        try:
            yield
        finally:
            for signal, receiver in self.receivers:
                signal.disconnect(receiver, sender=self.parent)


class Shop(Trade):
    """Orders and invoices, unique by order; the shop's own receivers and services."""

    parent, child, link, amount, owed = Order, Invoice, "order_id", "amount", "total"
    rule = Rule(
        name="invoice",
        every=Order,
        must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")}),
    )

    def make(self, chance):
        items = [Item(price=Decimal(chance.randint(1, 99)), quantity=chance.randint(1, 3)) for _ in range(2)]
        services.create_order(customer=None, items=items)

    def change(self, record, chance):
        record.total = Decimal(chance.randint(1, 9_999))
        record.save(update_fields=["total"])

    def attend(self, key, chance):
        order = Order.objects.filter(pk=key).select_for_update().first()
        if order is not None:
            services.invoice_order(order)
        return ()

    def load(self, number, chance):
        bulk.import_orders([Order(total=Decimal(chance.randint(1, 9_999))) for _ in range(number)])

    def reprice(self, keys, chance):
        bulk.reprice_orders(keys, Decimal(chance.randint(1, 9_999)))

    def remove(self, record):
        Notification.objects.filter(order=record).delete()
        record.delete()


def keep_bill(basket):
    """Look for the basket's bill; insert it, or correct it."""
    bill = Bill.objects.filter(basket_number=basket.pk).first()
    if bill is None:
        time.sleep(LOOKED)
        Bill.objects.create(basket_number=basket.pk, amount=basket.total)
    else:
        # Not save(): a bulk writer may have deleted it meanwhile.
        Bill.objects.filter(pk=bill.pk).update(amount=basket.total)


def handle_basket_saved(*, instance, **_):
    instance.refresh_from_db()
    keep_bill(instance)


def attend_basket(*, key):
    basket = Basket.objects.filter(pk=key).first()
    if basket is not None:
        keep_bill(basket)


def handle_basket_deleted(*, instance, **_):
    for bill in Bill.objects.filter(basket_number=instance.pk):
        bill.delete()


class Market(Trade):
    """Baskets and bills: no foreign key, no unique constraint, and handlers that take no lock of their own."""

    parent, child, link, amount, owed = Basket, Bill, "basket_number", "amount", "total"
    rule = Rule(
        name="bill",
        every=Basket,
        must=HaveRow(Bill, link={"basket_number": F("pk")}, values={"amount": F("total")}),
        covers=[handle_basket_saved, attend_basket],
    )
    receivers = ((post_save, handle_basket_saved), (post_delete, handle_basket_deleted))
    shared = False

    def make(self, chance):
        Basket.objects.create(price=Decimal(chance.randint(1, 99)), quantity=chance.randint(1, 9))

    def change(self, record, chance):
        record.quantity = chance.randint(1, 999)
        record.save(update_fields=["quantity"])

    def attend(self, key, chance):
        attend_basket(key=key)
        return ()

    def load(self, number, chance):
        Basket.objects.bulk_create([Basket(quantity=chance.randint(1, 999)) for _ in range(number)])

    def reprice(self, keys, chance):
        Basket.objects.filter(pk__in=keys).update(quantity=chance.randint(1, 999))


class Clearance(Market):
    """Baskets and bills, where bulk paths bill twice, and leave bills behind."""

    clears = True

    def double(self, keys):
        bills = list(Bill.objects.filter(basket_number__in=keys))
        Bill.objects.bulk_create(
            [Bill(basket_number=each.basket_number, amount=each.amount) for each in bills]
        )
        return [each.basket_number for each in bills]

    def orphan(self, keys):
        Basket.objects.filter(pk__in=keys)._raw_delete("default")


def handle_team_saved(*, instance, **_):
    match = Match.objects.filter(team=instance).first()
    if match is None:
        time.sleep(LOOKED)
        Match.objects.create(team=instance, points=instance.points)
    else:
        # Not save(): a bulk writer may have deleted it meanwhile.
        Match.objects.filter(pk=match.pk).update(points=instance.points)


INSERT_MATCH = """
    INSERT INTO zoo_match (team_id, points)
    SELECT t.id, t.points FROM zoo_team t
    WHERE t.id = %s AND NOT EXISTS (SELECT 1 FROM zoo_match m WHERE m.team_id = t.id)
    RETURNING id
"""


class League(Trade):
    """Teams and matches: a foreign key, no unique constraint, and handlers that take no lock of their own."""

    parent, child, link, amount, owed = Team, Match, "team_id", "points", "points"
    rule = Rule(
        name="match",
        every=Team,
        must=HaveRow(Match, link={"team": F("pk")}, values={"points": F("points")}),
        covers=[handle_team_saved],
    )
    receivers = ((post_save, handle_team_saved),)
    shared = False

    def make(self, chance):
        Team.objects.create(points=chance.randint(1, 999))

    def change(self, record, chance):
        record.points = chance.randint(1, 999)
        record.save(update_fields=["points"])

    def attend(self, key, chance):
        """Looking and inserting in one statement, without a lock on the record: covered on PostgreSQL alone."""
        if connection.vendor != "postgresql":
            return ()
        with connection.cursor() as cursor:
            cursor.execute(INSERT_MATCH, [key])
            return [made for (made,) in cursor.fetchall()]

    def load(self, number, chance):
        Team.objects.bulk_create([Team(name="bulk", points=chance.randint(1, 999)) for _ in range(number)])

    def reprice(self, keys, chance):
        Team.objects.filter(pk__in=keys).update(points=chance.randint(1, 999))


@dataclass
class Ledger:
    """What the live application did: keys of the rows that it has inserted and deleted, and what failed.

    repairers: on MariaDB, the server's numbers of the sessions that repaired beside it.
    """

    made: set = field(default_factory=set)
    gone: set = field(default_factory=set)
    failed: list = field(default_factory=list)
    repairers: set = field(default_factory=set)
    handled: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def transacting(self, what):
        """One transaction of the application; the block gets where to note what it inserts and deletes."""
        notes = _Notes()
        _current.notes = notes
        try:
            with transaction.atomic():
                yield notes
        except Exception as error:
            with self.lock:
                self.failed.append(f"{what}: {type(error).__name__}: {error}")
        else:
            with self.lock:
                self.made |= {*notes.made}
                self.gone |= {*notes.gone}
                self.handled += 1
        finally:
            _current.notes = None


@dataclass
class _Notes:
    made: list = field(default_factory=list)
    gone: list = field(default_factory=list)


_current = threading.local()


def _row_saved(*, instance, created, **_):
    if created and getattr(_current, "notes", None):
        _current.notes.made.append(instance.pk)


def _row_deleted(*, instance, **_):
    if getattr(_current, "notes", None):
        _current.notes.gone.append(instance.pk)


@contextmanager
def watched(trade):
    """While the block runs, the ledger's transactions learn which rows signals tell of. A repair sends none."""
    post_save.connect(_row_saved, sender=trade.child)
    post_delete.connect(_row_deleted, sender=trade.child)
    try:
        yield
    finally:
        post_save.disconnect(_row_saved, sender=trade.child)
        post_delete.disconnect(_row_deleted, sender=trade.child)


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """The application at work: how many handlers and bulk writers, and how many transactions each of them has."""

    trade: Trade
    ledger: Ledger
    handlers: int = 8
    operations: int = 40
    writers: int = 2
    batches: int = 12
    seed: int = 1

    def handle(self, number):
        """What one handler does."""
        chance = random.Random(f"handler {self.seed} {number}")
        for done in range(self.operations):
            if done % 10 == 0:
                keys = [
                    key for key in self.trade.listed() if self.trade.shared or key % self.handlers == number
                ]
            (act,) = chance.choices(["make", "change", "remove", "attend"], [2, 4, 1, 3])
            with self.ledger.transacting(f"{act} by handler {number}") as notes:
                self._act(act, chance.choice(keys), chance, notes)
                linger(chance)

    def _act(self, act, key, chance, notes):
        if act == "make":
            self.trade.make(chance)
        elif act == "attend":
            notes.made += self.trade.attend(key, chance)
        else:
            records = self.trade.parent._base_manager.filter(pk=key)
            # Whoever deletes a record has to keep others from adding rows to it, repair or not.
            record = (
                records.select_for_update() if self.trade.shared or act == "remove" else records
            ).first()
            if record is not None and act == "change":
                self.trade.change(record, chance)
            elif record is not None:
                self.trade.remove(record)

    def write(self, number):
        """What one bulk writer does: batches of records of its own, in key order, so that writers don't deadlock."""
        chance = random.Random(f"writer {self.seed} {number}")
        for _ in range(self.batches):
            keys = [key for key in self.trade.listed() if key % self.writers == number]
            some = sorted(chance.sample(keys, min(40, len(keys))))
            (act,) = chance.choices(["load", "reprice", "lose"], [1, 2, 2])
            with self.ledger.transacting(f"{act} by writer {number}") as notes:
                if act == "load":
                    self.trade.load(20, chance)
                elif act == "reprice":
                    self.trade.reprice(some, chance)
                else:
                    notes.gone += self.trade.lose(some)
            linger(chance, 0.1)

    def sessions(self):
        acts = [lambda number=number: self.handle(number) for number in range(self.handlers)]
        acts += [lambda number=number: self.write(number) for number in range(self.writers)]
        return [Session(act) for act in acts]

    def run(self, repairers=0):
        """Until all is handled and written; what the repairs that went on beside it came to."""
        over, results, working = threading.Event(), [], self.sessions()

        def repairing():
            self.ledger.repairers.add(session_number())
            while not over.is_set():
                results.append(runs.repair({self.trade.rule.name: self.trade.rule}, using="default")[1][0])

        repairing_too = [Session(repairing) for _ in range(repairers)]
        with self.trade.connected(), watched(self.trade):
            for session in [*working, *repairing_too]:
                session.start()
            for session in working:
                session.join()
            over.set()
            for session in repairing_too:
                session.join()
        return results


def session_number():
    """By which MariaDB calls this session in its reports; None elsewhere."""
    if connection.vendor != "mysql":
        return None
    with connection.cursor() as cursor:
        cursor.execute("SELECT CONNECTION_ID()")
        return cursor.fetchone()[0]


def in_the_last_deadlock():
    """Numbers of the sessions that MariaDB has last seen deadlock; empty elsewhere, and where none has."""
    if connection.vendor != "mysql":
        return set()
    with connection.cursor() as cursor:
        cursor.execute("SHOW ENGINE INNODB STATUS")
        report = cursor.fetchone()[2]
    _, _, deadlock = report.partition("LATEST DETECTED DEADLOCK")
    deadlock, _, _ = deadlock.partition("\nTRANSACTIONS\n")
    return {int(number) for number in re.findall(r"thread id (\d+)", deadlock)}


def lost_to_each_other(ledger):
    """Whether the application's transactions have failed by deadlocks of their own alone, as far as the server tells: the last.

    It has them without a repair, too, once in a while.
    """
    sessions = in_the_last_deadlock()
    deadlocks = all("(1213," in failure for failure in ledger.failed)
    return deadlocks and bool(sessions) and not sessions & ledger.repairers


def journalled(model, verb):
    """Keys in the journal, as text, each as often as it stands there."""
    return list(Change.objects.filter(model=model._meta.label, verb=verb).values_list("key", flat=True))
