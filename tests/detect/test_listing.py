"""`explain --sql`: what is pasted into the shell of the database lists what a check finds, with what is owed."""

from datetime import timedelta
from decimal import Decimal
from enum import Enum
from io import StringIO

import pytest
from django.db import connection
from django.db.models import Count, F, Q, Sum
from django.db.models.functions import MD5
from django.utils import timezone
from rich.console import Console

from reconcile import (
    EXTRA,
    MISSING,
    STALE,
    BeUnique,
    FromPython,
    HaveRow,
    HaveSource,
    HaveValues,
    Rule,
    Satisfy,
)
from reconcile.detect.explaining import explain
from reconcile.detect.listing import listings
from reconcile.reports import text_explain
from tests.helpers import checked
from tests.zoo.models import Basket, Bill, Contact, Device, Memo, Page, Seat, Team

pytestmark = pytest.mark.django_db


def listed(every, must):
    """What each SELECT of the rule yields when it is sent as the text that it is: by drift, names of columns and rows."""
    rule = Rule(name="r", every=every, must=must)
    found = {}
    for each in listings(rule, using="default", now=timezone.now()):
        if each.sql is None:
            assert each.remarks[0] == "No row is in this drift now."
            continue
        with connection.cursor() as cursor:
            # Without parameters the driver takes the text as it is.
            cursor.execute(each.sql, None)
            found[each.drift] = [column[0] for column in cursor.description], cursor.fetchall()
    return found


def keys_of(found):
    return {drift: [str(row[0]) for row in rows] for drift, (_, rows) in found.items()}


def drifted(every, must):
    check = checked(Rule(name="r", every=every, must=must), samples=100)
    return {
        drift: [each.key for each in check.samples if each.drift == drift]
        for drift in (MISSING, STALE, EXTRA)
    }


def test_missing_rows_come_with_what_they_owe():
    lacking = Basket.objects.create(label='it\'s 100% \\ "x"', price="2.50")
    Bill.objects.create(basket_number=Basket.objects.create(price=1).pk, amount=1)
    must = HaveRow(Bill, link={"basket_number": F("pk")}, values={"amount": F("price")}, where=Q(kind="bill"))
    names, rows = listed(Basket, must)[MISSING]
    assert names[0] == "key"
    (row,) = [dict(zip(names, each, strict=True)) for each in rows]
    assert (row["key"], row["owed_basket_number"], Decimal(str(row["owed_amount"]))) == (
        lacking.pk,
        lacking.pk,
        Decimal("2.5"),
    )


def test_stale_rows_come_as_they_are_and_as_they_must_be():
    basket = Basket.objects.create(price=7)
    bill = Bill.objects.create(basket_number=basket.pk, amount=3)
    must = HaveRow(Bill, link={"basket_number": F("pk")}, values={"amount": F("price")})
    names, rows = listed(Basket, must)[STALE]
    assert names == ["key", "there_amount", "owed_amount"]
    assert [(row[0], Decimal(str(row[1])), Decimal(str(row[2]))) for row in rows] == [(bill.pk, 3, 7)]


RULES = {
    "row": (Basket, HaveRow(Bill, link={"basket_number": F("pk")}, values={"score": F("quantity")})),
    "values": (Basket.objects.exclude(label="b'c"), HaveValues(note=F("label"), quantity=3)),
    "aggregate": (Team, HaveValues(player_count=Count("players"), points=Sum("players__age"))),
    "condition": (Basket, Satisfy(Q(quantity__gte=1))),
    "restored": (Basket, Satisfy(Q(quantity__gte=1), values={"quantity": 1})),
    "unique": (Contact, BeUnique("email", keep=["-visits"])),
    "others": (Contact.objects.filter(is_default=True), BeUnique("email", others={"is_default": False})),
    "orphans": (Memo, HaveSource("page_code", model=Page, to="code")),
    "generic": (Memo, HaveSource("target")),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_the_pasted_statements_list_what_a_check_finds(name):
    from django.contrib.contenttypes.models import ContentType

    baskets = [
        Basket.objects.create(label=label, quantity=n) for n, label in enumerate(["a", "b'c", "100%", "\\n"])
    ]
    Bill.objects.create(basket_number=baskets[0].pk, score=9)
    Bill.objects.create(basket_number=77_777)
    team = Team.objects.create(name="t", player_count=4)
    team.players.create(age=3)
    for visits in range(3):
        Contact.objects.create(email="x@y", is_default=True, visits=visits, code=f"c{visits}")
    kind = ContentType.objects.get_for_model(Basket)
    Memo.objects.create(content_type=kind, object_id="123456", page_code="gone")
    every, must = RULES[name]
    found = keys_of(listed(every, must))
    wanted = drifted(every, must)
    if name == "row":
        # A stale row is listed by its own key, since it is the one that is written.
        assert found.pop(STALE) == [str(Bill.objects.get(score=9).pk)]
        assert wanted.pop(STALE) == [str(baskets[0].pk)]
    assert any(wanted.values())
    assert {drift: found.get(drift, []) for drift in wanted} == wanted


class Label(str, Enum):  # noqa: UP042 - its text isn't its value
    A = "a"


TEXTS = [
    "a  b",
    "a b",
    "a\u00a0b",
    "a\tb",
    "a\nb",
    "back\\",
    "'",
    "%s",
    "a",
    "Label.A",
    "\u3000",
    "\x1b[31m",
    "é",
    "🎈 \u200d",
]


@pytest.mark.parametrize("text", [*TEXTS, Label.A], ids=ascii)
@pytest.mark.parametrize("before", ["", "b"])
def test_a_text_is_pasted_as_it_is_compared(text, before, capsys):
    """Beside a condition with ESCAPE, as SQLite spells it, and on the screen, where no character may be another one."""
    Basket.objects.bulk_create([Basket(label=each) for each in TEXTS])
    every = Basket.objects.exclude(label__startswith="zz").filter(label__contains=before).exclude(label=text)
    rule = Rule(name="r", every=every, must=HaveValues(note="n"))
    (only,) = listings(rule, using="default", now=timezone.now())
    output = StringIO()
    Console(file=output, width=80).print(text_explain.listing(rule, [only]), crop=False)
    shown = output.getvalue().split(f"{STALE}, of zoo.Basket\n", 1)[1]
    pasted = "\n".join(line for line in shown.splitlines() if not line.startswith("-- "))
    assert all(line.isprintable() for line in pasted.splitlines())
    with connection.cursor() as cursor:
        cursor.execute(pasted.rstrip().rstrip(";"), None)
        found = sorted(row[0] for row in cursor.fetchall())
    assert found == sorted(every.values_list("pk", flat=True))


def test_what_only_python_tells_is_said_and_not_listed():
    rule = Rule(name="r", every=Device, must=HaveValues(name=FromPython(str.upper, reads=["name"])))
    (only,) = listings(rule, using="default", now=timezone.now())
    assert only.sql is None
    assert "Only Python" in only.remarks[0]


def test_rows_whose_values_do_not_fit_are_said_to_be_left_out():
    rule = Rule(name="r", every=Team, must=HaveValues(points=Sum("players__age")))
    (only,) = listings(rule, using="default", now=timezone.now())
    assert any("don't fit" in remark for remark in only.remarks)


def test_explain_shows_no_order_that_a_check_does_not_ask_for(monkeypatch):
    """A model's own ordering may join another table, and costs a sort of all rows."""
    monkeypatch.setattr(Seat._meta, "ordering", ["contact__email"])
    rule = Rule(name="r", every=Contact, must=HaveRow(Seat, link={"contact": F("pk")}, count=1))
    parts = {
        each.drift: each for each in explain(rule, using="default", now=timezone.now() + timedelta(1)).parts
    }
    assert "email" not in parts[EXTRA].sql


def test_functions_that_the_databases_own_shell_lacks_are_named():
    every = Basket.objects.annotate(hashed=MD5("label")).filter(hashed="x")
    (listing,) = listings(
        Rule(name="r", every=every, must=HaveValues(score=0)), using="default", now=timezone.now()
    )
    lacking = "It calls MD5, which Django adds to its connections, and SQLite's own shell lacks."
    assert (lacking in listing.remarks) is (connection.vendor == "sqlite")
    (plain,) = listings(
        Rule(name="r", every=Basket, must=HaveValues(score=0)), using="default", now=timezone.now()
    )
    assert not plain.remarks
