from decimal import Decimal

import pytest
from django.db import connection
from django.db.models import Count, F
from django.utils import timezone

from reconcile import MISSING, HaveRow, HaveValues, Rule
from reconcile.core.drift import Guarantee, Status
from reconcile.detect import checking
from reconcile.detect.checking import check
from reconcile.kinds import Effect
from reconcile.rules.registry import valid_rules
from sample_project.shop.models import Invoice, Order
from tests.helpers import an_hour_ago, everything, repaired, statements
from tests.zoo.models import Basket, Bill, Ghost, Team

INVOICE = Rule(
    name="invoice", every=Order, must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")})
)


class Exploding(Effect):
    """An effect whose evaluation fails."""

    def __init__(self, error):
        self.error = error

    def finders(self, source):
        raise self.error

    def guarantee(self, model, using):
        return Guarantee.NONE


def run_check(rule, **options):
    return check(rule, using="default", now=timezone.now(), **options)


def number_of_statements(act):
    with statements() as sent:
        act()
    return len(sent)


@pytest.mark.django_db
def test_counts_are_never_capped_and_samples_are():
    Order.objects.bulk_create([Order() for _ in range(30)])
    result = run_check(INVOICE, samples=3)
    assert (result.tally[MISSING], len(result.samples)) == (30, 3)
    assert [sample.key for sample in result.samples] == [
        str(key) for key in Order.objects.order_by("pk").values_list("pk", flat=True)[:3]
    ]


@pytest.mark.django_db
def test_samples_can_be_off():
    Order.objects.create()
    Invoice.objects.all().delete()
    assert run_check(INVOICE, samples=0).samples == ()


@pytest.mark.django_db
@pytest.mark.parametrize("name", sorted(valid_rules()))
def test_a_check_writes_nothing(name):
    Order.objects.bulk_create([Order(total=3, created_at=an_hour_ago())])
    before = everything()
    with statements() as sent:
        run_check(valid_rules()[name])
    assert everything() == before
    # Many rows are read through a cursor of the server's.
    assert all(query["sql"].lstrip().startswith(("SELECT", "DECLARE", "SHOW")) for query in sent)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "rule",
    [INVOICE, Rule(name="n", every=Order, must=HaveValues(item_count=Count("items")))],
    ids=["row", "values"],
)
def test_the_number_of_statements_does_not_depend_on_the_number_of_records(rule):
    def at(number):
        Order.objects.all().delete()
        Order.objects.bulk_create([Order(item_count=1) for _ in range(number)])
        checks = number_of_statements(lambda: run_check(rule))
        repairs = number_of_statements(lambda: repaired(rule))
        return checks, repairs

    at(1)
    assert at(10) == at(1_000)


@pytest.mark.django_db
def test_a_hundred_thousand_records_cost_the_statements_of_ten_and_a_second_window_one_a_drift():
    def drift_some():
        Invoice.objects.filter(order__in=list(Order.objects.order_by("pk")[:7])).delete()

    def fill(number):
        columns = "customer_name, status, total, item_count, created_at"
        with connection.cursor() as cursor:
            while number:
                there = Order.objects.count()
                # Keys without gaps, which a server's own wouldn't be.
                cursor.execute(
                    f"INSERT INTO shop_order (id, {columns}) SELECT id + {there}, {columns} FROM shop_order "
                    f"ORDER BY id LIMIT {min(number, there)}"
                )
                number -= min(number, there)
            cursor.execute(
                "INSERT INTO shop_invoice (order_id, amount, created_at) SELECT id, total, created_at FROM shop_order o "
                "WHERE NOT EXISTS (SELECT 1 FROM shop_invoice i WHERE i.order_id = o.id)"
            )

    Order.objects.create(total=1)
    fill(9)
    drift_some()
    repaired(INVOICE)  # the first statement of a process brings Django's own probes of the database along
    drift_some()
    few_check = number_of_statements(lambda: run_check(INVOICE))
    few_repair = number_of_statements(lambda: repaired(INVOICE))
    fill(99_990)
    drift_some()
    assert number_of_statements(lambda: run_check(INVOICE)) == few_check
    assert number_of_statements(lambda: repaired(INVOICE)) == few_repair
    fill(10)
    result = run_check(INVOICE)
    assert (result.tally.checked, result.tally.total) == (100_010, 0)
    drift_some()
    drifts = 3
    assert number_of_statements(lambda: run_check(INVOICE)) == few_check + drifts
    assert repaired(INVOICE).written.insert == 7


@pytest.mark.django_db
def test_a_missing_table_is_an_error_that_says_whether_to_migrate():
    with connection.constraint_checks_disabled():
        result = run_check(Rule(name="ghost", every=Ghost, must=HaveValues(value=1)))
    assert result.status is Status.ERROR
    assert "lacks a table" in result.error
    assert "manage.py migrate --database default" in result.error


@pytest.mark.django_db
@pytest.mark.parametrize("error", [ValueError("no good"), KeyError("name")])
def test_a_rule_that_raises_is_an_error_and_never_a_pass(error):
    result = run_check(Rule(name="bad", every=Order, must=Exploding(error)))
    assert result.status is Status.ERROR
    assert type(error).__name__ in result.error


@pytest.mark.server
@pytest.mark.django_db
def test_a_statement_that_fails_is_an_error():
    Team.objects.create(name="x", points=0)
    rule = Rule(
        name="odd", every=Team.objects.extra(where=["points / no_such_column > 1"]), must=HaveValues(points=1)
    )
    result = run_check(rule)
    assert result.status is Status.ERROR
    assert "no_such_column" in result.error


@pytest.mark.django_db
def test_kept_keys_end_where_there_is_no_more_room():
    Basket.objects.bulk_create([Basket() for _ in range(8)])
    rule = Rule(name="bill", every=Basket, must=HaveRow(Bill, link={"basket_number": F("pk")}))
    kept = run_check(rule, keep=8).kept[MISSING]
    assert (len(kept.keys), kept.complete) == (8, True)
    result = run_check(rule, keep=5, samples=2)
    kept = result.kept[MISSING]
    assert (kept.keys, kept.complete, result.tally[MISSING], len(result.samples)) == ((), False, 8, 2)


@pytest.mark.django_db
def test_two_checks_of_the_same_state_say_the_same():
    Order.objects.bulk_create([Order(total=Decimal(3)) for _ in range(4)])
    first, second = run_check(INVOICE), run_check(INVOICE)
    assert (first.tally, first.samples, first.status) == (second.tally, second.samples, second.status)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("pending", "said"),
    [(True, "Run `manage.py migrate"), (False, "would change nothing: it was dropped")],
)
def test_what_is_not_there_is_told_by_whether_migrations_would_make_it(pending, said, monkeypatch):
    monkeypatch.setattr(checking, "has_pending_migrations", lambda _: pending)
    rule = Rule(name="ghost", every=Ghost, must=HaveValues(value=1))
    assert said in check(rule, using="default", now=timezone.now()).error
