"""A check and a chunk inside a transaction of the caller's: a test's, or a request's."""

from __future__ import annotations

import pytest
from django.db import connection
from django.db.models import F, IntegerField
from django.db.models.functions import Cast
from django.utils import timezone

from reconcile import HaveValues, Rule
from reconcile.core.drift import Status
from reconcile.detect.checking import check
from tests.helpers import repaired
from tests.zoo.models import Contact

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]

UNEVALUABLE = Rule(
    name="bad", every=Contact, must=HaveValues(visits=Cast(F("email"), output_field=IntegerField()))
)
PLAIN = Rule(name="plain", every=Contact, must=HaveValues(visits=1))


def contacts():
    """Both can't be evaluated, so neither is told apart."""
    Contact.objects.bulk_create([Contact(email="no number"), Contact(email="no number")])


def test_a_record_that_fails_leaves_the_others_their_transaction():
    Contact.objects.bulk_create([Contact(email="7"), Contact(email="no number"), Contact(email="8")])
    found = check(UNEVALUABLE, using="default", now=timezone.now())
    assert (found.tally.total, found.unrepairable) == (3, 1)
    assert check(PLAIN, using="default", now=timezone.now()).tally.total == 3


def test_a_rule_that_fails_leaves_the_others_their_transaction():
    contacts()
    failed = check(UNEVALUABLE, using="default", now=timezone.now())
    assert failed.status is Status.ERROR
    assert "no number" in failed.error
    assert check(PLAIN, using="default", now=timezone.now()).tally.total == 2


def test_the_repair_of_a_rule_that_fails_says_why():
    contacts()
    assert "no number" in repaired(UNEVALUABLE).error


def test_a_chunks_time_outs_end_with_it():
    Contact.objects.create(email="a", visits=0)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = '7min'")
    assert repaired(PLAIN).written.update == 1
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('statement_timeout'), current_setting('lock_timeout')")
        assert cursor.fetchone() == ("7min", "0")
