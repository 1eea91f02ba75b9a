"""Times in another time zone than the server's: right, or refused; never NULL."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.db import connection
from django.db.models import F
from django.db.models.functions import TruncDate
from django.utils import timezone

from reconcile import HaveValues, Rule
from reconcile.core.drift import Status
from reconcile.detect.checking import check
from tests.helpers import repaired
from tests.zoo.models import Contact

pytestmark = pytest.mark.django_db

LATE = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)
BY_VALUE = Rule(name="value", every=Contact, must=HaveValues(code=TruncDate("updated_at")))
BY_SOURCE = Rule(
    name="source", every=Contact.objects.filter(updated_at__date="2026-03-02"), must=HaveValues(visits=1)
)


@pytest.fixture(autouse=True)
def rome(settings):
    settings.TIME_ZONE = "Europe/Rome"
    with timezone.override("Europe/Rome"):
        yield


@pytest.mark.mariadb
@pytest.mark.parametrize("rule", [BY_VALUE, BY_SOURCE], ids=["value", "source"])
def test_without_time_zone_tables_a_rule_that_converts_is_refused_with_the_way_out(rule, monkeypatch):
    monkeypatch.setattr(connection.features, "has_zoneinfo_database", False)
    contact = Contact.objects.create(email="a", updated_at=LATE, code="2026-03-02")
    result = check(rule, using="default", now=timezone.now())
    assert result.status is Status.ERROR
    assert "mysql_tzinfo_to_sql" in result.error
    assert "mysql_tzinfo_to_sql" in repaired(rule).error
    contact.refresh_from_db()
    assert (contact.code, contact.visits) == ("2026-03-02", 0)


@pytest.mark.mariadb
def test_without_time_zone_tables_a_rule_that_converts_nothing_is_checked(monkeypatch):
    monkeypatch.setattr(connection.features, "has_zoneinfo_database", False)
    Contact.objects.create(email="a", updated_at=LATE)
    rule = Rule(name="plain", every=Contact.objects.filter(updated_at=LATE), must=HaveValues(visits=1))
    assert repaired(rule).written.update == 1


def test_with_time_zones_the_day_is_the_local_one():
    if not connection.features.has_zoneinfo_database:
        pytest.skip("This server has no time zones.")
    contact = Contact.objects.create(email="a", updated_at=LATE)
    assert repaired(BY_SOURCE).written.update == 1
    contact.refresh_from_db()
    assert contact.visits == 1
    assert Contact.objects.filter(updated_at__date="2026-03-02", visits=1).annotate(day=F("code")).exists()
