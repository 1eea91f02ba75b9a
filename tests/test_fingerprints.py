"""A rule's fingerprint: the same for the same rule, another once anything changes that decides what is written."""

import functools

import pytest
from django.db.models import Count, Exists, F, OuterRef, Q, Sum, Value
from django.db.models.functions import Coalesce, Now

from reconcile import (
    EXTRA,
    MISSING,
    STALE,
    BeUnique,
    Call,
    Delete,
    Enqueue,
    FromPython,
    HaveRow,
    HaveRows,
    HaveValues,
    Insert,
    Latest,
    Report,
    Rule,
    Satisfy,
    Settle,
    Split,
    Update,
)
from reconcile.fingerprints import fingerprint
from reconcile.registry import load
from sample_project.shop import services
from sample_project.shop.models import Article, Customer, Invoice, Item, Keyword, Order


def slug(title):
    return title.lower()


def other_slug(title):
    return title.upper()


def of(**options):
    return fingerprint(
        Rule(**{"name": "r", "every": Order, "must": HaveValues(item_count=1), **options}), "default"
    )


def invoice(**options):
    given = {"link": {"order": F("pk")}, "values": {"amount": F("total")}, **options}
    return HaveRow(Invoice, **given)


RULES = [
    lambda: {"must": HaveValues(item_count=Count("items"))},
    lambda: {"must": HaveValues(item_count=Count("items", filter=Q(items__price__gt=1)))},
    lambda: {"must": HaveValues(total=Sum(F("items__price") * F("items__quantity")))},
    lambda: {"must": HaveValues(total=Sum(F("items__price") + F("items__quantity")))},
    lambda: {"must": HaveValues(customer_name=Coalesce(F("customer__name"), Value("")))},
    lambda: {"must": HaveValues(customer_name=Coalesce(F("customer__name"), Value("?")))},
    lambda: {"must": invoice()},
    lambda: {"must": invoice(values={"amount": F("total") + 1})},
    lambda: {"must": invoice(where=Q(amount__gt=0))},
    lambda: {"must": invoice(), "settle": Settle("created_at", minutes=15)},
    lambda: {"must": invoice(), "settle": Settle("created_at", minutes=16)},
    lambda: {"must": invoice(), "remedies": {MISSING: Report()}},
    lambda: {"must": invoice(), "remedies": {MISSING: Call(services.create_order)}},
    lambda: {"must": invoice(), "remedies": {MISSING: Call(functools.partial(services.create_order, 1))}},
    lambda: {"must": invoice(), "remedies": {MISSING: Enqueue("reconcile.nightly", batch=7)}},
    lambda: {"every": Order.objects.filter(status="paid"), "must": invoice()},
    lambda: {"every": Order.objects.filter(status="draft"), "must": invoice()},
    lambda: {"every": Order.objects.filter(created_at__lt=Now()), "must": invoice()},
    lambda: {"every": Order.objects.filter(Exists(Item.objects.filter(order=OuterRef("pk")))), "must": invoice()},
    lambda: {"every": Article, "must": HaveValues(slug=FromPython(slug, reads=["title"]))},
    lambda: {"every": Article, "must": HaveValues(slug=FromPython(other_slug, reads=["title"]))},
    lambda: {"every": Article, "must": HaveValues(slug=FromPython(slug, reads=["body"]))},
    lambda: {
        "every": Article,
        "must": HaveRows(Keyword, link={"article": F("pk")}, rows=slug, reads=["body"], key=["word"]),
        "remedies": {EXTRA: Delete()},
    },
    lambda: {"every": Customer, "must": HaveValues(last_order=Latest("orders", by=["-created_at", "-pk"]))},
    lambda: {"every": Customer, "must": HaveValues(last_order=Latest("orders", by=["created_at"]))},
    lambda: {"every": Customer, "must": BeUnique("email", keep=["-pk"], others={"email": ""})},
    lambda: {"every": Item, "must": Satisfy(Q(quantity__gte=1), values={"quantity": 1})},
    lambda: {"every": Item, "must": Satisfy(Q(quantity__gte=2), values={"quantity": 1})},
    lambda: {
        "every": Item,
        "must": HaveValues(quantity=1),
        "remedies": {STALE: Split(when=Q(price__gte=5), each=Call(services.archive_items), rest=Update())},
    },
]  # fmt: skip


@pytest.mark.parametrize("options", RULES, ids=range(len(RULES)))
def test_the_same_declaration_built_again_has_the_same_fingerprint(options):
    assert of(**options()) == of(**options())


def test_no_two_of_these_rules_have_the_same():
    assert len({of(**options()) for options in RULES}) == len(RULES)


def test_what_does_not_decide_what_is_written_does_not_count():
    assert of() == of(owner="me", tags=["a"], reason="why", max_repairs=3, unattended=True, warn_if=1)


def test_the_name_counts():
    assert of() != of(name="s")


def test_the_default_remedy_that_is_named_is_another_declaration():
    assert of(must=invoice()) != of(must=invoice(), remedies={MISSING: Insert()})


def test_an_edited_function_changes_the_fingerprint():
    def made(body):
        space = {}
        exec(f"def slug(title):\n    return {body}", space)
        return of(every=Article, must=HaveValues(slug=FromPython(space["slug"], reads=["title"])))

    assert made("title.lower()") == made("title.lower()")
    assert made("title.lower()") != made("title.upper()")


def test_it_is_the_same_in_another_process():
    import subprocess
    import sys

    from tests.helpers import ROOT, environment

    code = (
        "import django; django.setup(); from reconcile.registry import load; from reconcile.fingerprints import fingerprint; "
        "print({name: fingerprint(rule, 'default') for name, rule in load().rules.items()})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(
        {name: fingerprint(rule, "default") for name, rule in load().rules.items()}
    )
