"""An expression over numbers of several types, for which Django asks an output_field: the database knows it, and the column, too."""

from decimal import Decimal

import pytest
from django.db.models import Case, F, Sum, When
from django.db.models.functions import Coalesce, Greatest

from reconcile import HaveValues, Rule
from tests.helpers import assert_repairs, unaddressed
from tests.zoo.models import Reply, Thread

pytestmark = pytest.mark.django_db

CASES = [
    ("postage", Coalesce(F("reply_count"), F("weight")), Decimal("3.00")),
    ("postage", Case(When(zip="x", then=F("reply_count")), default=F("weight")), Decimal("1.25")),
    ("postage", Coalesce(F("weight"), F("reply_count")) * F("reply_count"), Decimal("3.75")),
    ("postage", Greatest(F("ratio"), F("weight")), Decimal("1.25")),
    ("reply_count", Case(When(zip="x", then=F("reply_count")), default=F("weight")), 1),
    ("ratio", Coalesce(F("weight"), F("reply_count")), 1.25),
    ("postage", Sum(Coalesce(F("replies__votes"), F("weight"))), Decimal("6.25")),
    (
        "postage",
        Sum(Case(When(replies__hidden=True, then=F("replies__votes")), default=F("weight"))),
        Decimal("2.50"),
    ),
]


@pytest.mark.parametrize(("column", "value", "owed"), CASES, ids=unaddressed)
def test_numbers_of_several_types_need_no_output_field(column, value, owed):
    thread = Thread.objects.create(reply_count=3, weight=Decimal("1.25"), ratio=0.5)
    Reply.objects.create(thread=thread, votes=5)
    Reply.objects.create(thread=thread)
    rule = Rule(name="mixed", every=Thread, must=HaveValues(**{column: value}))
    assert [str(fault) for fault in rule.faults()] == []
    assert_repairs(rule, update=1)
    thread.refresh_from_db()
    assert getattr(thread, column) == owed


def test_dates_mixed_with_texts_ask_for_a_type():
    value = Coalesce(F("zip"), F("last_on"))
    [fault] = Rule(name="mixed", every=Thread, must=HaveValues(last_on=value)).faults()
    assert fault.id == "reconcile.E013"
    assert "output_field=" in fault.hint
