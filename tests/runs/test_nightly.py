"""What the nightly job repairs by itself: at `constraint`, at `lock` with a settle time, and never at `none`."""

import pytest
from django.db import connection

from reconcile.core.drift import GUARANTEE_MEANINGS, Guarantee
from reconcile.models import Outcome
from reconcile.runs import written_rows
from sample_project.shop.models import Invoice, Order
from tests.cli.test_cli import rules
from tests.helpers import an_hour_ago, nightly
from tests.zoo.models import Basket, Bill, Contact, Reply, Thread

__all__ = ["rules"]

pytestmark = pytest.mark.django_db

CONSTRAINT, LOCK, NONE = Guarantee.CONSTRAINT, Guarantee.LOCK, Guarantee.NONE

UNLINKED = NONE if connection.vendor == "mysql" else LOCK
"""PostgreSQL locks the table and SQLite keeps every other writer out; InnoDB has a foreign key's lock alone."""

CALLED = LOCK if connection.vendor == "sqlite" else NONE
"""No table is locked while a function of the project's works."""

IMPORTS = """
from reconcile import EXTRA, MISSING, BeUnique, Call, Settle
from tests.runs.test_nightly import bill, tell_apart
from tests.zoo.models import Contact, Reply, Thread
"""

RULES = {
    "invoice": "every=Order, must=HaveRow(Invoice, link={'order': F('pk')}, values={'amount': F('total')})",
    "reply": "every=Thread, must=HaveRow(Reply, link={'thread': F('pk')})",
    "replies": "every=Thread, must=HaveRow(Reply, link={'thread': F('pk')}, count=2)",
    "bill": "every=Basket, must=HaveRow(Bill, link={'basket_number': F('pk')})",
    "bill by a call": (
        "every=Basket, must=HaveRow(Bill, link={'basket_number': F('pk')}), remedies={MISSING: Call(bill)}"
    ),
    "email by a call": "every=Contact, must=BeUnique('email'), remedies={EXTRA: Call(tell_apart)}",
}

TIMES = {"invoice": "created_at", "reply": "last_at", "replies": "last_at", "email by a call": "updated_at"}


def bill(records):
    Bill.objects.bulk_create([Bill(basket_number=each.pk) for each in records])


def tell_apart(records):
    for each in records:
        Contact.objects.filter(pk=each.pk).update(email=f"{each.pk}@example.com")


@pytest.fixture
def night(rules):
    """Lets the nightly job come upon records of an hour ago that drift, and gives what became of its one rule."""

    def pass_by(name, *, settle=False, unattended=True):
        settled = f", settle=Settle('{TIMES.get(name, 'seen_at')}', minutes=15)" if settle else ""
        rules(f"{IMPORTS}\nr = Rule({RULES[name]}{settled}, unattended={unattended})")
        long_ago = an_hour_ago()
        Order.objects.bulk_create([Order(total=3, created_at=long_ago)])
        Thread.objects.create(last_at=long_ago)
        Basket.objects.create(seen_at=long_ago)
        Contact.objects.bulk_create([Contact(email="a", updated_at=long_ago) for _ in range(2)])
        nightly()
        return Outcome.objects.get()

    return pass_by


def written():
    """Whether anything was repaired."""
    rows = (Invoice.objects, Reply.objects, Bill.objects, Contact.objects.exclude(email="a"))
    return any(each.exists() for each in rows)


@pytest.mark.parametrize("settle", [False, True])
def test_at_constraint_it_repairs(night, settle):
    outcome = night("invoice", settle=settle)
    assert (outcome.guarantee, written_rows(outcome).insert, outcome.left, outcome.why_stopped) == (
        CONSTRAINT,
        1,
        0,
        "",
    )


@pytest.mark.parametrize(("rule", "guarantee"), [("reply", LOCK), ("replies", LOCK), ("bill", UNLINKED)])
def test_at_lock_it_repairs_what_has_settled(night, rule, guarantee):
    outcome = night(rule, settle=True)
    assert outcome.guarantee == guarantee
    assert written() is (guarantee is LOCK)
    assert (outcome.left == 0, outcome.why_stopped == "") == (written(), written())


@pytest.mark.parametrize("rule", ["reply", "replies"])
def test_at_lock_a_rule_without_a_settle_time_is_reported_and_told_what_to_add(night, rule):
    outcome = night(rule)
    assert (outcome.guarantee, outcome.left, written()) == (LOCK, outcome.missing, False)
    expected = (
        "Its guarantee is lock and it has no settle time, so the nightly job only reports. "
        f"{GUARANTEE_MEANINGS[LOCK]} "
        'Add settle=Settle("created_at", minutes=15), with the column of zoo.Thread that says when a record was made.'
    )
    lifted = " A unique constraint on zoo.Reply would lift it to constraint: reconcile explain own.r"
    assert outcome.why_stopped == expected + (lifted if rule == "reply" else "")


@pytest.mark.parametrize("settle", [False, True])
@pytest.mark.parametrize(
    ("rule", "guarantee"), [("email by a call", NONE), ("bill by a call", CALLED), ("bill", UNLINKED)]
)
def test_at_none_it_reports_whether_the_records_have_settled_or_not(night, rule, guarantee, settle):
    outcome = night(rule, settle=settle)
    assert outcome.guarantee == guarantee
    if guarantee is LOCK:
        assert written() is settle
        return
    model = "zoo.Contact" if rule == "email by a call" else "zoo.Bill"
    repeated = (
        "If the function may be called twice for a record, say so: Call(…, idempotent=True). "
        if rule == "bill by a call"
        else ""
    )
    assert (outcome.left, written()) == (1, False)
    assert outcome.why_stopped == (
        f"Its guarantee is none, so the nightly job only reports. {GUARANTEE_MEANINGS[NONE]} "
        f"{repeated}A unique constraint on {model} would lift it to constraint: reconcile explain own.r"
    )


@pytest.mark.parametrize("rule", ["invoice", "reply", "email by a call"])
def test_what_is_not_unattended_is_reported_at_each(night, rule):
    outcome = night(rule, settle=True, unattended=False)
    assert (outcome.left, written()) == (1, False)
    assert outcome.why_stopped == "It is not unattended, so the nightly job only reports."
