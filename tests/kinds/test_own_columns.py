"""A value that reads what the rule writes in the same record: one statement writes both, so it would follow the old one."""

import pytest
from django.db.models import Case, F, Q, Sum, Value, When
from django.db.models.functions import Greatest

from reconcile import FromPython, HaveValues, Rule, runs
from sample_project.shop.models import Item, Order
from tests.helpers import assert_clean
from tests.zoo.models import Sheet

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "columns",
    [
        {"number": F("small"), "large": F("number") * 2},
        {"number": F("small"), "word": FromPython(str, reads=["number"])},
        {"number": F("small"), "word": Case(When(Q(number=1), then=Value("one")), default=Value("more"))},
    ],
    ids=["expression", "python", "condition"],
)
def test_it_is_a_fault_with_the_way_out(columns):
    (fault,) = Rule(name="r", every=Sheet, must=HaveValues(**columns)).faults()
    assert (fault.id, "a rule of its own" in fault.hint) == ("reconcile.E015", True)


def test_the_column_s_own_value_and_what_nobody_writes_are_none():
    rule = Rule(name="r", every=Sheet, must=HaveValues(number=Greatest(F("number"), 0), large=F("small")))
    assert not list(rule.faults())


def test_the_way_out_works_in_one_run():
    order = Order.objects.create()
    Item.objects.bulk_create([Item(order=order, price=5)])
    Order.objects.update(total=0, item_count=0)
    rules = {
        "count": Rule(name="count", every=Order, must=HaveValues(item_count=F("total") * 2)),
        "total": Rule(name="total", every=Order, must=HaveValues(total=Sum("items__price"))),
    }
    _, results = runs.repair(rules, using="default")
    assert [(each.rule, each.left) for each in results] == [("total", 0), ("count", 0)]
    for rule in rules.values():
        assert_clean(rule)
