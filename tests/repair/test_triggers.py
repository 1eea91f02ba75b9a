"""Triggers that change what a repair writes: told as that, record by record; the others are repaired."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import pytest
from django.db import connection
from django.db.models import Case, F, Value, When

from reconcile import HaveRow, HaveValues, Rule, runs
from reconcile.repair.chunk import ChunkExecutor
from sample_project.shop.models import Invoice, Order
from tests.helpers import repaired, statements
from tests.zoo.models import Basket

pytestmark = pytest.mark.django_db(transaction=True)

INVOICE = Rule(
    name="invoice", every=Order, must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")})
)


@contextmanager
def trigger(table, *, postgresql, mysql, sqlite):
    """A trigger of the table, while this lasts. postgresql: when it fires, and the body of its function; else what follows its name."""
    vendor = connection.vendor
    with connection.cursor() as cursor:
        if vendor == "postgresql":
            when, body = postgresql
            cursor.execute(
                f"CREATE FUNCTION zoo_moves() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$"
            )
            cursor.execute(
                f"CREATE TRIGGER zoo_moves {when} ON {table} FOR EACH ROW EXECUTE FUNCTION zoo_moves()"
            )
        else:
            cursor.execute(f"CREATE TRIGGER zoo_moves {mysql if vendor == 'mysql' else sqlite}")
        try:
            yield
        finally:
            cursor.execute("DROP TRIGGER zoo_moves" + (f" ON {table}" if vendor == "postgresql" else ""))
            if vendor == "postgresql":
                cursor.execute("DROP FUNCTION zoo_moves")


def rounding():
    """While this lasts, an invoice of 13 becomes one of 14, whoever writes it."""
    return trigger(
        "shop_invoice",
        postgresql=("BEFORE INSERT OR UPDATE", "IF NEW.amount = 13 THEN NEW.amount := 14; END IF;"),
        mysql="BEFORE INSERT ON shop_invoice FOR EACH ROW IF NEW.amount = 13 THEN SET NEW.amount = 14; END IF",
        sqlite="AFTER INSERT ON shop_invoice WHEN NEW.amount = 13 BEGIN "
        "UPDATE shop_invoice SET amount = 14 WHERE id = NEW.id; END",
    )


def orders(*totals):
    Order.objects.bulk_create([Order(total=each) for each in totals])
    Invoice.objects.all().delete()


def test_an_insert_that_a_trigger_changes_is_rolled_back_and_told_as_that():
    orders(*range(20))
    with rounding():
        result = repaired(INVOICE)
    assert (result.written.insert, result.left) == (19, 1)
    assert "Something in the database, such as a trigger, changes what is written" in result.why_stopped
    assert not Invoice.objects.filter(amount=14, order__total=13).exists()


def test_a_trigger_that_changes_nothing_keeps_nobody_from_a_repair():
    orders(1, 2, 3)
    with rounding():
        result = repaired(INVOICE)
    assert (result.written.insert, result.left, result.why_stopped) == (3, 0, "")


def stamping():
    """While this lasts, whoever changes a basket's label has its note stamped as well."""
    return trigger(
        "zoo_basket",
        postgresql=("BEFORE UPDATE", "NEW.note := 'by ' || NEW.tag;"),
        mysql="BEFORE UPDATE ON zoo_basket FOR EACH ROW SET NEW.note = CONCAT('by ', NEW.tag)",
        sqlite="AFTER UPDATE OF tag ON zoo_basket BEGIN UPDATE zoo_basket SET note = 'by ' || NEW.tag WHERE id = NEW.id; END",
    )


LABEL = Rule(name="label", every=Basket, must=HaveValues(label="x"))


def test_other_columns_that_a_trigger_moves_are_named_by_the_repair_and_by_its_undo():
    Basket.objects.create(label="a", note="mine")
    with stamping():
        run, (result,) = runs.repair({"label": LABEL}, using="default")
        assert (result.written.update, result.left) == (1, 0)
        assert "has changed other columns of these rows as well: zoo.Basket.note." in result.warning
        assert "restores what the rule wrote" in result.warning
        _, (undone,) = runs.undo(run, using="default")
    assert (undone.written.update, undone.left) == (1, 0)
    assert "zoo.Basket.note" in undone.warning
    basket = Basket.objects.get()
    assert (basket.label, basket.note) == ("a", "by a")


def test_what_a_trigger_moved_in_the_first_round_of_a_circle_is_still_told_after_the_second():
    copied = Rule(name="label", every=Basket, must=HaveValues(label="x", rate=F("score")))
    nine = Case(When(label="x", then=Value(9)), default=F("score"))
    scored = Rule(name="score", every=Basket, must=HaveValues(score=nine))
    Basket.objects.create(label="a", note="mine", score=7)
    with stamping():
        _, results = runs.repair({"label": copied, "score": scored}, using="default")
    assert (results[0].written.update, results[0].left) == (2, 0)
    assert results[0].warning.count("zoo.Basket.note") == 1
    assert Basket.objects.get().rate == 9


def test_a_table_without_triggers_is_not_looked_at_for_it():
    Basket.objects.create(label="a")
    with statements() as plain:
        result = repaired(LABEL)
    assert result.warning == ""
    Basket.objects.update(label="a")
    with stamping(), statements() as watched:
        repaired(LABEL)
    # Two for the trigger; three for what the record owed when it was repaired before, owes now, and has.
    assert len(watched) == len(plain) + 2 + 3


def test_a_record_that_a_trigger_changes_is_not_tried_again_at_once(monkeypatch):
    """Each would cost about a second of waiting for what no waiting mends; all of them are tried once more at the end."""
    tried, attempt = Counter(), ChunkExecutor._attempt

    def counted(self, keys):
        tried.update(keys if len(keys) == 1 else ())
        return attempt(self, keys)

    monkeypatch.setattr(ChunkExecutor, "_attempt", counted)
    orders(*[13] * 12, 1, 2)
    with rounding():
        result = repaired(INVOICE)
    assert (result.written.insert, result.left, result.skipped) == (2, 12, 12)
    assert max(tried.values()) <= 2
