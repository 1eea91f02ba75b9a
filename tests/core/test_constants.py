"""What may be given for a column as a constant: what it stores; never what Python prints for an object."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.db.models import F, TextField, Value
from django.utils.functional import lazystr
from django.utils.text import slugify

from reconcile import FromPython, HaveValues, Rule, Satisfy
from tests.zoo.models import Contact, Sheet

pytestmark = pytest.mark.once


def faults(must):
    return [str(fault) for fault in Rule(name="r", every=Contact, must=must).faults()]


@pytest.mark.parametrize(
    "value", [slugify, lambda record: record.email, Contact, Contact.email, ["a"], {"a": 1}, object()]
)
@pytest.mark.parametrize(
    "must", [lambda value: HaveValues(phone=value), lambda value: Satisfy(~_empty(), values={"phone": value})]
)
def test_what_is_no_text_is_refused(value, must):
    (fault,) = faults(must(value))
    assert "can't be stored in 'phone'" in fault


def _empty():
    from django.db.models import Q

    return Q(phone="")


def test_a_function_is_refused_with_the_way_to_call_it():
    (fault,) = faults(HaveValues(phone=slugify))
    assert "FromPython(function, reads=[…])" in fault


@pytest.mark.parametrize("value", ["x", lazystr("x"), 5, Decimal("1.5"), None, Value("email"), F("email")])
def test_texts_and_numbers_are_taken(value):
    assert faults(HaveValues(phone=value)) == []


@pytest.mark.parametrize("value", ["email", "team__name"])
def test_the_name_of_a_column_is_asked_about(value):
    (fault,) = faults(HaveValues(phone=value))
    assert f"Give F({value!r}) for what the column holds, or Value({value!r}) for the text itself." in fault
    assert faults(HaveValues(phone=Value(value, output_field=TextField()))) == []


@pytest.mark.parametrize("value", [10**30, "many", [1], object()])
def test_a_constant_that_no_number_column_holds_is_refused(value):
    (fault,) = faults(HaveValues(visits=value))
    assert "can't be stored in 'visits'" in fault


@pytest.mark.parametrize("value", [Decimal("1e30"), 10**9, "x"])
def test_a_constant_that_has_too_many_digits_is_refused(value):
    (fault,) = faults(HaveValues(spent=value))
    assert "can't be stored in 'spent'" in fault


@pytest.mark.parametrize("value", [Decimal("1.005"), 1.005, 0, None, "2.5"])
def test_a_constant_that_the_column_rounds_is_taken(value):
    assert faults(HaveValues(spent=value)) == []


def test_a_queryset_is_no_value():
    (fault,) = faults(HaveValues(phone=Contact.objects.values("email")))
    assert "a queryset is many rows" in fault
    assert "Subquery" in fault


def test_columns_that_are_read_are_a_list():
    (fault,) = faults(HaveValues(phone=FromPython(slugify, reads=F("email"))))
    assert "reads= is F(email)" in fault


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("span", F("large"), "it is a number, and 'span' is a duration"),
        ("large", F("span"), "it is a duration, and 'large' is a number"),
        ("day", F("number"), "it is a number, and 'day' is a date or time"),
        ("number", F("moment"), "it is a date or time, and 'number' is a number"),
        ("token", F("large"), "it is a number, and 'token' is a UUID"),
        ("span", F("moment"), "it is a date or time, and 'span' is a duration"),
    ],
)
def test_an_expression_of_another_kind_is_refused(column, value, said):
    (fault,) = Rule(name="r", every=Sheet, must=HaveValues(**{column: value})).faults()
    assert said in str(fault)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("money", F("ratio")), ("flag", F("number")), ("number", F("flag")), ("day", F("moment")), ("moment", F("day")),
        ("hour", F("moment")), ("word", F("token")), ("span", F("moment") - F("moment")), ("prose", F("span")),
    ],
)  # fmt: skip
def test_an_expression_of_a_kind_that_the_column_takes_is_none(column, value):
    assert list(Rule(name="r", every=Sheet, must=HaveValues(**{column: value})).faults()) == []
