"""A text that isn't what it is cast to is no value on any database: its record is told apart."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from django.db import connection
from django.db.models import (
    BigIntegerField,
    DateField,
    DateTimeField,
    DecimalField,
    F,
    FloatField,
    IntegerField,
)
from django.db.models.functions import Cast

from reconcile import HaveRow, HaveValues, Rule
from tests.helpers import assert_clean, checked, raw_rows, repaired
from tests.zoo.models import Bill, Sheet

pytestmark = pytest.mark.django_db(transaction=True)

CASTS = {
    "number": (IntegerField(), {"7": 7, " 12 ": 12, "-3": -3, "+5": 5, "007": 7}, ["abc", "12abc", "", "1.5", "x-30"]),
    "large": (BigIntegerField(), {"9223372036854775": 9223372036854775}, ["9" * 12 + "x", "1e5", "--1"]),
    "money": (DecimalField(max_digits=8, decimal_places=2), {"1.5": Decimal("1.50"), ".5": Decimal("0.50"), "-2": Decimal(-2)}, ["1,5", "one", "."]),
    "ratio": (FloatField(), {"1.5": 1.5, "1e3": 1000.0}, ["e3", "1.5.2"]),
    "day": (DateField(), {"2026-02-28": date(2026, 2, 28)}, ["2026-02-30", "3", "2026", "abc", "2026-13-01"]),
    "moment": (DateTimeField(), {"2026-02-28 10:30:00": datetime(2026, 2, 28, 10, 30, tzinfo=UTC)}, ["2026-02-30", "12", "now then"]),
}  # fmt: skip


@pytest.mark.parametrize("column", CASTS)
def test_texts_that_are_none_are_told_apart_and_the_others_are_written(column):
    kind, right, wrong = CASTS[column]
    Sheet.objects.bulk_create([Sheet(prose=text) for text in (*right, *wrong, *right)])
    rule = Rule(name="casts", every=Sheet, must=HaveValues(**{column: Cast("prose", kind)}))
    before = {row[0]: row for row in raw_rows(Sheet)}
    found = checked(rule)
    bad = {str(pk) for pk in Sheet.objects.filter(prose__in=wrong).values_list("pk", flat=True)}
    assert found.unrepairable == len(wrong)
    assert bad <= {each.key for each in found.samples}
    result = repaired(rule)
    assert (result.left, result.error) == (len(wrong), None)
    assert "can't be evaluated" in result.why_stopped
    for text, value in right.items():
        assert {getattr(each, column) for each in Sheet.objects.filter(prose=text)} == {value}
    after = {row[0]: row for row in raw_rows(Sheet)}
    assert all(after[pk] == before[pk] for pk in before if str(pk) in bad)
    assert repaired(rule).written.total == 0


def test_the_text_is_named():
    Sheet.objects.bulk_create([Sheet(prose="abc"), Sheet(prose="1")])
    (note,) = checked(
        Rule(name="casts", every=Sheet, must=HaveValues(number=Cast("prose", IntegerField())))
    ).notes
    said = {"postgresql": '"abc"', "sqlite": ": no integer: abc.", "mysql": ": the text is no integer."}
    assert said[connection.vendor] in note


def test_null_stays_null_and_numbers_are_cast_as_ever():
    Sheet.objects.bulk_create(
        [Sheet(word_too=None, number_too=4), Sheet(word_too="8", ratio=2.6, number_too=8)]
    )
    repaired(Rule(name="b", every=Sheet, must=HaveValues(number_too=Cast("word_too", IntegerField()))))
    assert list(Sheet.objects.order_by("pk").values_list("number_too", flat=True)) == [None, 8]
    repaired(
        Rule(
            name="c",
            every=Sheet,
            must=HaveValues(money=Cast("ratio", DecimalField(max_digits=8, decimal_places=2))),
        )
    )
    assert Sheet.objects.get(word_too="8").money == Decimal("2.60")


def test_in_the_values_of_a_row_and_in_every():
    Sheet.objects.bulk_create([Sheet(prose="7"), Sheet(prose="abc"), Sheet(prose="9")])
    rule = Rule(
        name="rows",
        every=Sheet,
        must=HaveRow(Bill, link={"basket_number": F("pk")}, values={"score": Cast("prose", IntegerField())}),
    )
    result = repaired(rule)
    assert (result.written.insert, result.left) == (2, 1)
    assert sorted(Bill.objects.values_list("score", flat=True)) == [7, 9]


@pytest.mark.parametrize("pair", [(7, 2), (-7, 2), (1, 3), (6, 3)])
def test_a_quotient_of_integers_is_repaired_at_once(pair):
    Sheet.objects.create(number=pair[0], small=pair[1], large=99)
    rule = Rule(name="quotient", every=Sheet, must=HaveValues(large=F("number") / F("small")))
    assert repaired(rule).left == 0
    assert_clean(rule)
    assert repaired(rule).written.total == 0
