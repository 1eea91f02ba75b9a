"""`ensure(journal=True)`: what it wrote is a run, in the caller's transaction, and an undo takes it back."""

import json
from decimal import Decimal

import pytest
from django.db import transaction

from reconcile import ensure
from reconcile.audit.capture.capturing import Statements, counting
from reconcile.errors import EnsureError
from reconcile.models import Change, Chunk, Outcome, Run, WorkItem
from sample_project.shop.models import Category, Customer, Invoice, Item, Order
from tests.cli.test_cli import run
from tests.helpers import everything

pytestmark = pytest.mark.django_db


@pytest.fixture
def orders():
    return in_bulk(3)


def in_bulk(number):
    customer = Customer.objects.create(name="Ann")
    made = Order.objects.bulk_create([Order(customer=customer) for _ in range(number)])
    Item.objects.bulk_create([Item(order=each, price=Decimal(3)) for each in made])
    return made


def test_it_leaves_a_run_that_an_undo_takes_back(orders):
    before = everything()
    found = ensure(orders, new=True, journal=True)
    written = everything()
    assert written != before
    stored = Run.objects.get()
    assert (stored.pk, stored.kind, stored.state) == (found.run, "ensure", "finished")
    code, out, err = run("undo", str(found.run), "--apply")
    assert (code, err) == (0, ""), out
    assert everything() == before
    # What was undone is owed again.
    assert ensure(orders, new=True).written == found.written


def test_what_was_changed_since_is_left(orders):
    found = ensure(orders, new=True, journal=True)
    Order.objects.filter(pk=orders[0].pk).update(total=99)
    code, out, _ = run("undo", str(found.run), "--apply")
    assert code == 4, out
    assert f"shop.Order {orders[0].pk}" in out
    assert "1 change left, since the rows are others' by now." in " ".join(out.split())
    assert Order.objects.get(pk=orders[0].pk).total == 99
    assert Order.objects.get(pk=orders[1].pk).total == 0


def test_each_row_has_its_image_and_each_rule_its_numbers(orders):
    found = ensure(orders, new=True, journal=True)
    outcomes = {each.rule: each for each in Outcome.objects.all()}
    assert outcomes.keys() == found.written.keys()
    assert {each.state for each in outcomes.values()} == {"done"}
    assert set(WorkItem.objects.values_list("state", flat=True)) == {"done"}
    changes = Change.objects.filter(work_item__outcome=outcomes["orders.total"])
    assert sorted((int(each.key), Decimal(each.before["total"]), Decimal(each.after["total"])) for each in changes) == [
        (each.pk, 0, 3) for each in orders
    ]  # fmt: skip
    assert sorted(outcomes["orders.total"].only) == [each.pk for each in orders]
    code, out, _ = run("runs", str(found.run), "--format", "json")
    report = json.loads(out)
    assert (code, report["kind"], report["result"]) == (0, "ensure", "repaired")
    assert {each["rule"]: each["written"].get("insert", 0) for each in report["rules"]}["orders.invoice"] == 3
    assert report["written"] == found.total


def test_where_nothing_is_owed_there_is_no_run(orders):
    ensure(orders, new=True)
    found = ensure(orders, new=True, journal=True)
    assert (found.run, found.total, Run.objects.count()) == (None, 0, 0)


def test_without_a_journal_there_is_none(orders):
    assert ensure(orders, new=True).run is None
    assert not Run.objects.exists()


def test_it_goes_with_the_callers_transaction():
    made = in_bulk(2)
    with transaction.atomic():
        found = ensure(made, new=True, journal=True)
        assert Run.objects.filter(pk=found.run).exists()
        transaction.set_rollback(True)
    assert not Run.objects.exists()
    assert not Change.objects.exists()
    assert not Invoice.objects.exists()


def test_a_tree_is_taken_back_from_below():
    root = Category.objects.create(name="a")
    middle = Category.objects.create(name="b", parent=root)
    Category.objects.create(name="c", parent=middle)
    Category.objects.filter(pk=root.pk).update(name="z")
    before = everything()
    found = ensure([root], journal=True)
    assert found.total >= 3
    assert run("undo", str(found.run), "--apply")[0] == 0
    assert everything() == before


def test_it_doesn_t_count_as_a_repair_that_came_back(orders):
    """What drifts again after a repair stops the night; what code ensured was its own write."""
    ensure(orders, new=True, journal=True)
    assert not Chunk.objects.exists()


def test_the_number_of_statements_does_not_depend_on_the_number_of_records():
    ensure(in_bulk(1), new=True, journal=True)
    numbers = []
    for number in (1, 10, 200):
        made = in_bulk(number)
        statements = Statements()
        with counting(statements, "default"):
            ensure(made, new=True, journal=True)
        numbers.append(statements.total)
    assert numbers[0] == numbers[1] == numbers[2]


def test_where_it_fails_there_is_no_run(orders):
    with pytest.raises(EnsureError, match="max_repairs=4"):
        ensure(orders, new=True, journal=True, max_repairs=4)
    assert not Run.objects.exists()
    assert not Change.objects.exists()
