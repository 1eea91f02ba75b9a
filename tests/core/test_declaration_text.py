"""Text for a column of another type: each database reads it in its own way, so a rule says how."""

import pytest
from django.db.models import DecimalField, F, IntegerField, Value
from django.db.models.functions import Cast, Concat

from reconcile import FromPython, HaveRow, HaveValues, LookedUp, Rule
from tests.helpers import assert_repairs
from tests.zoo.models import Basket, Bill, Sheet

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "column", ["flag", "small", "number", "ratio", "money", "day", "moment", "hour", "span", "token"]
)
def test_text_for_another_type_is_a_fault(column):
    (fault,) = Rule(name="r", every=Sheet, must=HaveValues(**{column: F("word_too")})).faults()
    assert (fault.id, "Cast(" in fault.hint) == ("reconcile.E015", True)
    assert list(
        Rule(name="r", every=Sheet, must=HaveValues(**{column: Concat(F("word"), Value(""))})).faults()
    )


@pytest.mark.parametrize(
    "must",
    [
        HaveRow(Bill, link={"basket_number": F("label")}),
        HaveRow(Bill, link={"basket_number": F("pk")}, values={"score": F("label")}),
        HaveRow(Bill, link={"basket_number": F("pk")}, create_only={"made_at": F("label")}),
        HaveValues(quantity=LookedUp(Bill, link={"kind": F("label")}, value="kind", by=["pk"])),
    ],
    ids=["link", "values", "create_only", "looked up"],
)
def test_so_it_is_in_the_other_places(must):
    assert [fault.id for fault in Rule(name="r", every=Basket, must=must).faults()] == ["reconcile.E015"]


def test_a_number_as_text_and_what_is_cast_is_none():
    for must in (
        HaveValues(word=F("number")), HaveValues(prose=F("token")), HaveValues(number=Cast(F("word"), IntegerField())),
        HaveValues(money=Cast(F("word"), DecimalField(max_digits=8, decimal_places=2))),
        HaveValues(number=FromPython(len, reads=["word"])), HaveValues(number="5"),
    ):  # fmt: skip
        assert not list(Rule(name="r", every=Sheet, must=must).faults()), must


def test_what_is_cast_is_repaired():
    Sheet.objects.create(word="12")
    assert_repairs(
        Rule(name="r", every=Sheet, must=HaveValues(number=Cast(F("word"), IntegerField()))), update=1
    )
    assert Sheet.objects.get().number == 12
