"""A prefix that is another column's value: by a range beside the pattern, which finds what the pattern alone finds."""

from collections import Counter

import pytest
from django.db import connection
from django.db.models import CharField, Count, Exists, F, IntegerField, OuterRef, Q, Subquery, Value
from django.db.models.functions import Cast, Coalesce
from django.utils import timezone

from reconcile import HaveValues, LookedUp, Rule
from reconcile.core.scopes import EVERYTHING
from reconcile.db.begins import Begins
from tests.helpers import assert_finds, checked, repaired
from tests.zoo.models import Node, Page

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(connection.vendor == "mysql", reason="there no range is put beside the pattern"),
]

CODES = [
    "", "a", "A", "ab", "Ab", "aB", "abc", "b", "%", "%a", "_", "_a", "a_", "a%b", "\\", "\\a", "0001", "00010002", "00010003",
    "0002", "Z", "ZZ", "[", "z", "zz", "{", "é", "éa", "É", "É1", "ü", "日", "日本", "\ud7ff1", "\ue000", "\U0001f600", "\U0001f600x",
    "a\U0010ffff", "a\U0010ffff\U0010ffffz", "~", "\x7f", "a\tb", "a ", "a  b",
]  # fmt: skip


def pages():
    Page.objects.bulk_create([Page(code=code) for code in CODES])


def pairs(condition):
    return {
        (page, other)
        for page in CODES
        for other in Page.objects.filter(condition(Value(page))).values_list("code", flat=True)
    }


def test_a_range_leaves_none_out():
    pages()
    with_range = pairs(lambda value: Begins(F("code"), value))
    plain = pairs(lambda value: Q(code__startswith=value))
    assert with_range == plain
    assert ("a", "a\U0010ffff\U0010ffffz") in plain
    assert ("\\", "\\a") in plain


RULES = {
    "looked up": LookedUp(Page, link={"code__startswith": F("code")}, value=Count("pk")),
    "subquery": Coalesce(
        Subquery(
            Page.objects.filter(code__startswith=OuterRef("code"))
            .order_by()
            .annotate(_all=Value(1))
            .values("_all")
            .annotate(_n=Count("pk"))
            .values("_n"),
            output_field=IntegerField(),
        ),
        0,
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_a_tree_of_texts_is_counted(name):
    pages()
    expected = Counter(one for one, _ in pairs(lambda value: Q(code__startswith=value)))
    rule = Rule(name="pages", every=Page, must=HaveValues(visits=RULES[name]))
    assert checked(rule).tally.total == len(CODES)
    assert repaired(rule).written.update == len(CODES)
    assert dict(Page.objects.values_list("code", "visits")) == expected


def test_a_filter_of_the_records_and_one_within_an_exists():
    pages()
    above = Exists(Page.objects.filter(code__startswith=OuterRef("code")).exclude(code=OuterRef("code")))
    expected = {one for one, other in pairs(lambda value: Q(code__startswith=value)) if one != other}
    rule = Rule(name="parents", every=Page.objects.filter(above), must=HaveValues(visits=1))
    assert_finds(rule, stale=expected)


def test_a_prefix_of_a_number_and_one_that_is_a_number_or_constant():
    Node.objects.create(name="n", path="12", depth=1, size=11)
    number = Cast(F("depth"), CharField(max_length=9))
    for every in (Node.objects.filter(path__startswith=number), Node.objects.filter(size__startswith=number)):
        rule = Rule(name="nodes", every=every, must=HaveValues(size=5))
        assert checked(rule).tally.total == 1
    constant = Rule(name="nodes", every=Node.objects.filter(path__startswith="1"), must=HaveValues(size=5))
    assert checked(constant).tally.total == 1


@pytest.mark.postgresql
def test_postgresql_uses_the_index_that_django_makes_for_patterns():
    Page.objects.bulk_create([Page(code=f"{number:06}") for number in range(3_000)])
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE zoo_page")
    rule = Rule(name="pages", every=Page, must=HaveValues(visits=RULES["looked up"]))
    plan = rule.compile(using="default", now=timezone.now()).finders[0].find(EVERYTHING).explain()
    assert "Index Cond" in plan or "Bitmap Index Scan" in plan, plan
    assert "~>=~" in plan
