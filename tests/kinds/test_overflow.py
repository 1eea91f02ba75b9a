"""Values that are larger than their column: one such record never hides the others, and is never written."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from click.testing import CliRunner
from django.db import connection, models
from django.db.models import Count, ExpressionWrapper, F, Q, Sum, Value
from django.utils import timezone

from reconcile import BeUnique, FromPython, HaveRow, HaveValues, Rule, RunningSum, Satisfy, Within, runs
from reconcile.cli import reconcile
from reconcile.core.drift import Status
from reconcile.detect.inspecting import inspect_record
from sample_project.shop.models import Item, Order
from tests.helpers import checked, raw_rows, repaired, statements
from tests.tables import table_of
from tests.zoo.models import Sheet

pytestmark = pytest.mark.django_db(transaction=True)


def money(digits=8):
    return models.DecimalField(max_digits=digits, decimal_places=2, default=0)


KINDS = {
    "decimal": (money(), Decimal("999999.99"), Decimal("1000000.00")),
    "a decimal that is rounded up": (money(), Decimal("999999.994"), Decimal("999999.995")),
    "a decimal below": (money(), Decimal("-999999.99"), Decimal("-1000000.00")),
    "a decimal of few digits": (
        models.DecimalField(max_digits=3, decimal_places=3, default=0),
        Decimal("0.999"),
        Decimal(1),
    ),
    "small integer": (models.SmallIntegerField(default=0), 32_767, 32_768),
    "a small integer below": (models.SmallIntegerField(default=0), -32_768, -32_769),
    "integer": (models.IntegerField(default=0), 2_147_483_647, 2_147_483_648),
    "positive integer": (models.PositiveIntegerField(default=0), 5, -1),
    "positive small integer": (models.PositiveSmallIntegerField(default=0), 5, -1),
    "positive big integer": (models.PositiveBigIntegerField(default=0), 5, -1),
}
"""A column, the outermost value that it holds, and the next that it doesn't."""

UNLIMITED_ON_SQLITE = {"small integer", "a small integer below", "integer"}


@pytest.fixture(params=KINDS)
def column(request):
    """A table with a column of the kind, and one with what its values are computed from."""
    field, fits, too_large = KINDS[request.param]
    if connection.vendor == "sqlite" and request.param in UNLIMITED_ON_SQLITE:
        pytest.skip("SQLite's integers all have 64 bits")
    fields = {"value": field.clone(), "source": models.DecimalField(max_digits=20, decimal_places=3)}
    with table_of("Ranged", fields) as model:
        yield model, fits, too_large


def owed(value):
    """As an expression of the database's, of another type than the column's."""
    return ExpressionWrapper(
        F("source") * Value(Decimal(1)), output_field=models.DecimalField(max_digits=30, decimal_places=6)
    )


def test_a_record_too_large_is_counted_apart_set_aside_and_keeps_nobody_back(column):
    model, fits, too_large = column
    large = model.objects.create(source=too_large, value=0)
    others = [model.objects.create(source=fits, value=0) for _ in range(5)]
    rule = Rule(name="ranged", every=model, must=HaveValues(value=owed("source")))
    found = checked(rule)
    assert (found.status, found.tally.total) == (Status.FAIL, 6)
    assert found.remarks == ("1 of the stale records can't be repaired: the value is too large for 'value'.",)
    result = repaired(rule)
    assert (result.written.update, result.left, result.incomplete) == (5, 1, True)
    assert f"{large.pk}: It can't be repaired: the value is too large for 'value'." in result.why_stopped
    assert model.objects.get(pk=large.pk).value == 0
    assert model.objects.exclude(pk=large.pk).values("value").distinct().count() == 1
    again = repaired(rule)
    assert (again.written.total, again.left) == (0, 1)
    assert checked(rule).tally.total == 1
    assert len(others) == 5


def test_the_outermost_value_is_stored_and_not_found_again(column):
    model, fits, _ = column
    model.objects.create(source=fits, value=0)
    rule = Rule(name="ranged", every=model, must=HaveValues(value=owed("source")))
    found = checked(rule)
    assert (found.tally.total, found.remarks) == (1, ())
    assert repaired(rule).written.update == 1
    assert checked(rule).tally.total == 0


def test_a_row_that_would_be_inserted_with_such_a_value_is_not(column):
    model, fits, too_large = column
    target = {"number": models.BigIntegerField(), "value": model._meta.get_field("value").clone()}
    with table_of("Reached", target) as reached:
        large = model.objects.create(source=too_large)
        model.objects.create(source=fits)
        rule = Rule(
            name="rows",
            every=model,
            must=HaveRow(reached, link={"number": F("pk")}, values={"value": owed("source")}),
        )
        found = checked(rule)
        assert found.tally.total == 2
        assert found.remarks == (
            "1 of the missing records can't be repaired: the value is too large for 'value'.",
        )
        result = repaired(rule)
        assert (result.written.insert, result.left, result.incomplete) == (1, 1, True)
        assert "the value is too large for 'value'" in result.why_stopped
        assert not reached.objects.filter(number=large.pk).exists()
        row = reached.objects.get()
        reached.objects.create(number=large.pk, value=0)
        reached.objects.filter(pk=row.pk).update(value=0)
        result = repaired(rule)
        assert (result.written.update, result.left) == (1, 1)
        assert reached.objects.get(number=large.pk).value == 0


def order_of(*prices):
    """An order with an item of each price, and a wrong total."""
    made = Order.objects.create(total=0)
    Item.objects.bulk_create([Item(order=made, price=each, quantity=1) for each in prices])
    Order.objects.filter(pk=made.pk).update(total=0)
    return made


HUGE = [Decimal("99999999.99")] * 101
TOTAL = Rule(name="total", every=Order, must=HaveValues(total=Sum("items__price")))


@pytest.mark.parametrize(
    "aggregate",
    [Sum("items__price"), Sum("items__price") * 2, Within(Sum("items__price"), Decimal("0.01"))],
    ids=repr,
)
def test_a_sum_that_does_not_fit_is_told_and_the_others_are_right(aggregate):
    large = order_of(*HUGE)
    small = order_of(Decimal("1.50"))
    rule = Rule(name="total", every=Order, must=HaveValues(total=aggregate))
    found = checked(rule)
    assert found.tally.total == 2
    assert found.remarks == ("1 of the stale records can't be repaired: the value is too large for 'total'.",)
    result = repaired(rule)
    assert (result.written.update, result.left, result.refused[0]["key"]) == (1, 1, str(large.pk))
    small.refresh_from_db()
    assert small.total in {Decimal("1.50"), Decimal("3.00")}
    assert Order.objects.get(pk=large.pk).total == 0


def test_what_fits_or_is_counted_costs_nothing_more():
    order_of(Decimal("1.50"))
    for must in (HaveValues(item_count=Count("items")), HaveValues(total=Decimal("3.00"))):
        (finder,) = (
            Rule(name="r", every=Order, must=must).compile(using="default", now=timezone.now()).finders
        )
        assert finder.overflow is None


def test_the_check_costs_no_statement_more():
    made = order_of(Decimal("1.50"))
    Order.objects.filter(pk=made.pk).update(total=Decimal("1.50"))
    rule = Rule(name="total", every=Order, must=HaveValues(total=Sum("items__price")))
    with statements() as clean:
        checked(rule)
    Order.objects.filter(pk=made.pk).update(total=0)
    with statements() as drifted:
        checked(rule)
    # The samples; the statement that counts the drift counts those that are too large, too.
    assert len(drifted) == len(clean) + 1


def test_inspecting_such_a_record_says_that_it_can_not_be_written():
    large = order_of(*HUGE)
    rule = Rule(name="total", every=Order, must=HaveValues(total=Sum("items__price")))
    inspected = inspect_record(rule, str(large.pk), using="default", now=timezone.now())
    (verdict,) = inspected.subjects[0].verdicts
    assert (verdict.state, verdict.would.total) == ("drifted", 0)
    assert verdict.refusal == "the value is too large for 'total'"


def test_many_too_large_are_set_aside_in_one_statement():
    for _ in range(30):
        order_of(*HUGE)
    for _ in range(3):
        order_of(Decimal(1))
    rule = Rule(name="total", every=Order, must=HaveValues(total=Sum("items__price")))
    result = repaired(rule)
    assert (result.written.update, result.left, result.skipped) == (3, 30, 30)
    before = raw_rows(Order)
    assert repaired(rule).written.total == 0
    assert raw_rows(Order) == before


def test_the_plan_says_that_it_can_not_write_them_and_counts_them_out():
    order_of(*HUGE)
    order_of(Decimal("1.50"))
    (planned,) = runs.preview({"total": TOTAL}, using="default", now=timezone.now())
    assert (planned.planned.update, planned.planned_records.update, planned.skipped) == (1, 2, 1)
    assert "1 of the stale records can't be repaired" in planned.warning
    said = CliRunner().invoke(
        reconcile, ["repair", "orders.total"], prog_name="reconcile", env={"COLUMNS": "160"}
    )
    assert "1 row would be written." in said.output


@pytest.mark.parametrize("source", [Decimal("1e25"), Decimal("-1e25")], ids=str)
@pytest.mark.parametrize(
    "field", [models.BigIntegerField(default=0), models.IntegerField(default=0)], ids=["big", "usual"]
)
def test_a_fraction_that_is_larger_than_any_integer_is_told(field, source):
    if connection.vendor == "sqlite":
        pytest.skip("SQLite's cast clips it to 64 bits")
    fields = {"value": field.clone(), "source": models.DecimalField(max_digits=40, decimal_places=3)}
    with table_of("Ranged", fields) as model:
        model.objects.create(source=source)
        model.objects.create(source=Decimal("2.4"))
        rule = Rule(name="ranged", every=model, must=HaveValues(value=owed("source")))
        assert checked(rule).remarks == (
            "1 of the stale records can't be repaired: the value is too large for 'value'.",
        )
        assert repaired(rule).written.update == 1
        assert sorted(model.objects.values_list("value", flat=True)) == [0, 2]


@pytest.mark.parametrize(
    "kind",
    [
        lambda given: Satisfy(Q(value__gt=0), values=given),
        lambda given: BeUnique("name", keep=["pk"], others=given),
    ],
    ids=["restored", "of the others"],
)
def test_other_kinds_write_no_such_value_either(kind):
    fields = {
        "value": money(),
        "name": models.CharField(max_length=5),
        "source": models.DecimalField(max_digits=20, decimal_places=3),
    }
    with table_of("Ranged", fields) as model:
        model.objects.create(source=1, value=1, name="a")
        model.objects.create(source=Decimal("1e12"), name="a")
        result = repaired(Rule(name="ranged", every=model, must=kind({"value": owed("source")})))
        assert (result.written.update, result.incomplete) == (0, True)
        assert list(model.objects.order_by("pk").values_list("value", flat=True)) == [1, 0]


def test_a_column_that_has_room_for_all_of_another_is_not_tested_for_it():
    """Of orders' totals each fits into a column of the same size; a statement more a window would be for nothing."""
    fields = {"value": money(), "same": money(), "small": money(6), "large": money(9)}
    fields |= {
        "count": models.SmallIntegerField(default=0),
        "exact": money(8).__class__(max_digits=8, decimal_places=3, default=0),
    }
    with table_of("Roomy", fields) as model:
        rules = {
            name: Rule(name=name, every=model, must=HaveValues(value=F(name)))
            for name in fields
            if name != "value"
        }
        tested = {
            name: [
                finder.overflow is not None
                for finder in rule.compile(using="default", now=timezone.now()).finders
            ]
            for name, rule in rules.items()
        }
    assert tested == {
        "same": [False],
        "small": [False],
        "large": [True],
        "count": [connection.vendor == "sqlite"],
        "exact": [False],
    }


def test_a_value_for_the_creation_alone_that_is_too_large_is_counted_apart():
    parents = {"total": models.DecimalField(max_digits=20, decimal_places=2, default=0)}
    with table_of("Payer", parents) as payer:
        children = {"payer_number": models.BigIntegerField(), "first": money(), "second": money()}
        with table_of("Receipted", children) as child:
            payer.objects.create(total=5)
            payer.objects.create(total=Decimal("1000000.00"))
            must = HaveRow(
                child, link={"payer_number": F("pk")}, values={"first": 1}, create_only={"second": F("total")}
            )
            rule = Rule(name="receipt", every=payer, must=must)
            found = checked(rule)
            assert found.tally.total == 2
            assert found.remarks == (
                "1 of the missing records can't be repaired: the value is too large for 'second'.",
            )
            result = repaired(rule)
            assert (result.written.insert, result.left, result.incomplete) == (1, 1, True)


@pytest.mark.parametrize("large", [1e25, -1e25, 9.3e18])
def test_a_float_beyond_any_integer_is_not_stored_as_the_largest(large):
    """SQLite's cast gives the largest integer, and would find it clean."""
    beyond, other = Sheet.objects.create(ratio=large), Sheet.objects.create(ratio=5.0)
    rule = Rule(name="large", every=Sheet, must=HaveValues(large=F("ratio")))
    assert checked(rule).remarks == (
        "1 of the stale records can't be repaired: the value is too large for 'large'.",
    )
    result = repaired(rule)
    assert (result.written.update, result.left) == (1, 1)
    assert dict(Sheet.objects.values_list("pk", "large")) == {beyond.pk: 0, other.pk: 5}


@pytest.mark.postgresql
@pytest.mark.parametrize(("column", "source"), [("day", "moment"), ("moment", "day")])
def test_a_date_that_python_has_no_year_for_is_not_stored(column, source):
    last = Sheet.objects.create(**{source: datetime(9999, 12, 31, tzinfo=UTC)})
    other = Sheet.objects.create(**{source: datetime(2020, 1, 1, tzinfo=UTC)})
    rule = Rule(name="date", every=Sheet, must=HaveValues(**{column: F(source) + timedelta(days=3)}))
    assert checked(rule).remarks == (
        f"1 of the stale records can't be repaired: the value is too large for {column!r}.",
    )
    result = repaired(rule)
    assert (result.written.update, result.left) == (1, 1)
    assert set(Sheet.objects.values_list("pk", flat=True)) == {last.pk, other.pk}
    plain = Rule(name="plain", every=Sheet, must=HaveValues(moment=F("day")))
    (finder,) = plain.compile(using="default", now=timezone.now()).finders
    assert finder.overflow is None


@pytest.mark.parametrize(
    "value",
    [RunningSum("money", by=["pk"]), FromPython(lambda money: money, reads=["money"])],
    ids=["sum", "beside"],
)
def test_what_no_expression_of_the_orm_gives_is_told_as_well(value):
    """A sum along an order, and what the database computes beside a column of Python's."""
    Sheet.objects.bulk_create([Sheet(money=100_000), Sheet(money=100_000)])
    beside = {} if isinstance(value, RunningSum) else {"fine": F("money") * 1}
    target = {"fine": value} if isinstance(value, RunningSum) else {"ratio": value}
    rule = Rule(name="sum", every=Sheet, must=HaveValues(**target, **beside))
    assert not list(rule.faults())
    found = checked(rule)
    assert found.tally.total == 2
    assert found.remarks
    assert "2 of the stale records can't be repaired" in found.remarks[0]
    result = repaired(rule)
    assert (result.written.total, result.left) == (0, 2)
    assert list(Sheet.objects.values_list("fine", flat=True)) == [None, None]
