"""A text under a foreign key is compared as the database compares it; texts that meet without one, to the character."""

from __future__ import annotations

import pytest
from django.db import connection
from django.db.models import Count, F

from reconcile import Delete, HaveRow, HaveSource, HaveValues, Latest, Rule
from reconcile.core.drift import EXTRA
from tests.helpers import assert_finds, found_by_the_night, repaired
from tests.zoo.models import Contact, Coupon

pytestmark = pytest.mark.django_db

ORPHANS = Rule(
    name="orphans", every=Coupon, must=HaveSource("contact"), remedies={EXTRA: Delete()}, max_deletes="100%"
)
ONE = Rule(name="one", every=Contact, must=HaveRow(Coupon, link={"contact": F("code")}))


@pytest.fixture
def folded():
    """A coupon of `x` that spells it `X`, where the database takes that for the same."""
    contact = Contact.objects.create(email="a", code="x")
    spelt = "X" if connection.vendor == "mysql" else "x"
    return contact, Coupon.objects.create(contact_id=spelt)


def test_a_reference_that_the_database_accepts_is_no_orphan(folded):
    assert_finds(ORPHANS)
    found_by_the_night(ORPHANS)
    assert repaired(ORPHANS).written.delete == 0
    assert Coupon.objects.count() == 1


def test_a_row_by_such_a_reference_is_the_records_row(folded):
    assert_finds(ONE)
    assert repaired(ONE).written.total == 0


def test_two_rows_by_one_reference_are_one_too_many(folded):
    contact, _ = folded
    second = Coupon.objects.create(contact_id=contact.code)
    assert_finds(ONE, extra=[second])


def test_rows_by_such_a_reference_are_counted(folded):
    Contact.objects.update(visits=1)
    assert_finds(Rule(name="n", every=Contact, must=HaveValues(visits=Count("coupon"))))


def test_the_last_row_by_such_a_reference_is_found(folded):
    _, coupon = folded
    Contact.objects.update(visits=coupon.pk)
    assert_finds(
        Rule(name="l", every=Contact, must=HaveValues(visits=Latest("coupon", by=["-pk"], value="pk")))
    )
