"""Plans that can't fall over: the rows that a statement passes grow with its keys, whatever the server knows of its tables."""

import json

import pytest
from django.db import connection, transaction
from django.db.models import Count, F, Func, IntegerField, Sum
from django.utils import timezone

from reconcile import BeUnique, HaveRow, HaveSource, HaveValues, Latest, LookedUp, Rule
from reconcile.core.fixes import Correction, Insertion
from reconcile.core.scopes import Keys, Window
from reconcile.db.dialects import postgresql
from reconcile.db.statements import select_sql
from reconcile.detect.checking import check
from sample_project.shop.models import Invoice, Item, Order
from tests.db.test_row_security import tenant
from tests.helpers import checked, repaired
from tests.zoo.models import Basket, Bill, Loose, Reply, Thread, Ticket

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]

NUMBER = 2_000

INVOICE = HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")})
TICKET = HaveRow(Ticket, link={"indexed": F("pk")}, values={"kind": F("label")})

RULES = {
    "a row by a foreign key": Rule(name="r", every=Order, must=INVOICE),
    "a row by a number with an index": Rule(name="r", every=Basket, must=TICKET),
    "a row of a filtered record": Rule(name="r", every=Order.objects.exclude(status="draft"), must=INVOICE),
    "a count": Rule(name="r", every=Order, must=HaveValues(item_count=Count("items"))),
    "a sum": Rule(name="r", every=Order, must=HaveValues(total=Sum(F("items__price") * F("items__quantity")))),
    "a foreign key's value": Rule(name="r", every=Reply, must=HaveValues(text=F("thread__last_text"))),
    "the latest": Rule(name="r", every=Thread, must=HaveValues(last_text=Latest("replies", by=["-pk"], value="text"))),
    "looked up by the key": Rule(
        name="r", every=Basket, must=HaveValues(label=LookedUp(Bill, link={"basket_number": F("pk")}, value="kind", by=["pk"]))
    ),
    "a constant": Rule(name="r", every=Order, must=HaveValues(item_count=3)),
    "an owner": Rule(name="r", every=Loose, must=HaveSource("contact")),
    "unique": Rule(name="r", every=Basket, must=BeUnique("label")),
}  # fmt: skip


def fill():
    Order.objects.bulk_create([Order(total=1) for _ in range(NUMBER)])
    orders = list(Order.objects.order_by("pk"))
    Invoice.objects.all().delete()
    Item.objects.bulk_create([Item(order=each, price=2) for each in orders for _ in range(2)])
    Invoice.objects.bulk_create([Invoice(order=each, amount=5) for each in orders])
    Basket.objects.bulk_create([Basket(label=str(each // 2)) for each in range(NUMBER)])
    Ticket.objects.bulk_create([Ticket(indexed=each.pk, kind="a") for each in Basket.objects.all()])
    Bill.objects.bulk_create([Bill(basket_number=each.pk, amount=9) for each in Basket.objects.all()])
    Loose.objects.bulk_create([Loose(contact_id=each) for each in range(1, NUMBER)])
    Thread.objects.bulk_create([Thread(last_text="a") for _ in range(NUMBER)])
    Reply.objects.bulk_create([Reply(thread=each, text="b") for each in Thread.objects.all()])


TABLES = [Order, Item, Invoice, Basket, Bill, Ticket, Loose, Thread, Reply]


def each_table(statement):
    with connection.cursor() as cursor:
        for model in TABLES:
            cursor.execute(statement.format(model._meta.db_table))


@pytest.fixture(params=["never", "stale", "true"])
def statistics(request):
    """Tables that the server has never analysed, or when they were empty, or just now."""
    each_table("ALTER TABLE {} SET (autovacuum_enabled = off)")
    # Without the room that deleted rows of other tests have left, which the server takes for an almost empty table's.
    each_table("TRUNCATE {} CASCADE")
    if request.param == "stale":
        each_table("ANALYZE {}")
    fill()
    if request.param == "true":
        each_table("ANALYZE {}")
    yield request.param
    each_table("ALTER TABLE {} RESET (autovacuum_enabled)")
    each_table("TRUNCATE {} CASCADE")


def work(rows):
    """The rows that the statement's nodes have given and thrown away, all loops together."""
    sql, params = select_sql(rows)
    with connection.cursor() as cursor, transaction.atomic():
        cursor.execute("SET LOCAL statement_timeout = '20s'")
        cursor.execute(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql}", params)
        found = cursor.fetchone()[0]
    (plan,) = found if isinstance(found, list) else json.loads(found)
    return sum(_passed(node) for node in _nodes(plan["Plan"]))


def _nodes(node):
    yield node
    for each in node.get("Plans", ()):
        yield from _nodes(each)


def _passed(node):
    rows = (
        node["Actual Rows"]
        + node.get("Rows Removed by Filter", 0)
        + node.get("Rows Removed by Join Filter", 0)
    )
    return rows * node["Actual Loops"]


WITHOUT_INDEX = {"looked up by the key"}
"""A link without an index is warned of by `explain`; without true statistics the server takes any table for a small one."""


def test_the_rows_passed_grow_with_the_keys(statistics):
    passed = {}
    for name in sorted(RULES, key=WITHOUT_INDEX.__contains__):
        if name in WITHOUT_INDEX:
            each_table("ANALYZE {}")
        for finder in RULES[name].compile(using="default", now=timezone.now()).finders:
            passed |= {
                (name, *what): work(rows) for what, rows in selects_of(finder, known=statistics == "true")
            }
    assert len(passed) > len(RULES)
    assert {what: number for what, number in passed.items() if number > 60 * NUMBER} == {}


def selects_of(finder, *, known):
    """What a check and a chunk send for all rows of the finder, by a range and by their keys.

    Of a range the server guesses how many rows it has, and what it guesses of old statistics may be one: so a run has the tables analysed
    of which it has written a considerable part. Keys it counts.
    """
    keys = list(finder.model._base_manager.order_by("pk").values_list("pk", flat=True))
    assert len(keys) >= NUMBER - 1
    for scope in (Keys(keys), *([Window(keys[0] - 1, keys[-1])] if known else [])):
        which = (str(finder.drift), type(scope).__name__)
        yield (*which, "find"), finder.find(scope).values("pk")
        if isinstance(finder.fix, Correction):
            yield (*which, "wanted"), finder.fix.wanted(scope)
        if isinstance(finder.fix, Insertion):
            yield (*which, "owed"), finder.fix.owed(scope)


def known_rows(model):
    with connection.cursor() as cursor:
        cursor.execute("SELECT reltuples FROM pg_class WHERE oid = to_regclass(%s)", [model._meta.db_table])
        return int(cursor.fetchone()[0])


def invoices_missing(number):
    each_table("ALTER TABLE {} SET (autovacuum_enabled = off)")
    each_table("TRUNCATE {} CASCADE")
    Order.objects.bulk_create([Order(total=1) for _ in range(number)])
    Invoice.objects.all().delete()
    return Rule(name="invoice", every=Order, must=INVOICE)


@pytest.fixture
def _vacuumed():
    yield
    each_table("ALTER TABLE {} RESET (autovacuum_enabled)")


@pytest.mark.usefixtures("_vacuumed")
def test_a_table_of_which_a_run_has_written_much_is_analysed():
    assert repaired(invoices_missing(1_500)).written.insert == 1_500
    assert known_rows(Invoice) == 1_500


@pytest.mark.usefixtures("_vacuumed")
def test_one_of_which_it_has_written_little_is_not():
    assert repaired(invoices_missing(50)).written.insert == 50
    assert known_rows(Invoice) <= 0


@pytest.mark.usefixtures("_vacuumed")
def test_a_role_that_may_not_says_so():
    rule = invoices_missing(1_500)
    with tenant():
        result = repaired(rule)
    assert result.written.insert == 1_500
    assert "1,500 rows of shop.Invoice are new to the server's statistics" in result.warning
    assert 'ANALYZE "shop_invoice"' in result.warning


class Loops(Func):
    """1; slowly, where the server may plan nested loops."""

    template = (
        "(CASE WHEN current_setting('enable_nestloop') = 'on' THEN (SELECT 1 FROM pg_sleep(0.6)) ELSE 1 END)"
    )
    output_field = IntegerField()


def settings_of_the_session():
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('statement_timeout'), current_setting('enable_nestloop')")
        return cursor.fetchone()


def slow_rule():
    return Rule(
        name="slow",
        every=Order.objects.filter(item_count__gte=-Loops()),
        must=HaveValues(item_count=Count("items")),
    )


def test_a_window_that_takes_too_long_is_read_by_another_plan(monkeypatch):
    monkeypatch.setattr(postgresql, "READ_TIMEOUT_MS", 200)
    Order.objects.bulk_create([Order() for _ in range(5)])
    Order.objects.update(item_count=7)
    before = settings_of_the_session()
    found = checked(slow_rule())
    assert (found.tally.checked, found.tally.total) == (5, 5)
    assert len(found.samples) == 5
    assert settings_of_the_session() == before


def test_a_limit_that_the_session_has_itself_is_an_error_as_before(monkeypatch):
    monkeypatch.setattr(postgresql, "READ_TIMEOUT_MS", 5_000)
    Order.objects.bulk_create([Order() for _ in range(2)])
    rule = slow_rule()
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 900")
        cursor.execute("SET enable_nestloop = on")
    try:
        with monkeypatch.context() as patched:
            patched.setattr(Loops, "template", Loops.template.replace("0.6", "2"))
            result = check(rule, using="default", now=timezone.now())
        assert "statement timeout" in result.error
        assert settings_of_the_session() == ("900ms", "on")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("RESET statement_timeout; RESET enable_nestloop")


def test_a_session_that_plans_no_nested_loops_goes_on_without():
    Order.objects.bulk_create([Order() for _ in range(2)])
    Order.objects.update(item_count=7)
    with connection.cursor() as cursor:
        cursor.execute("SET enable_nestloop = off")
    try:
        assert checked(slow_rule()).tally.total == 2
        assert settings_of_the_session()[1] == "off"
    finally:
        with connection.cursor() as cursor:
            cursor.execute("RESET enable_nestloop")
