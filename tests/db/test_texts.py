import uuid

import pytest
from django.db import connection
from django.db.models import F, UUIDField

from reconcile import HaveValues, Rule
from reconcile.db.text_keys import AsText, KeyOf
from tests.helpers import repaired
from tests.zoo.models import Basket, Device

pytestmark = pytest.mark.django_db

NUMBER = Basket._meta.pk
KEY = Device._meta.pk


class Digits(AsText):
    """As on MySQL and SQLite, where a UUID is 32 digits."""

    def as_sql(self, compiler, connection, **_):
        return self._add_dashes(compiler, connection, self.get_source_expressions()[0])


def value_of(kind, text, field):
    """What the database makes of a text that stands in a column."""
    basket = Basket.objects.create(note=text)
    found = Basket.objects.filter(pk=basket.pk).annotate(_value=kind(F("note"), field=field))
    return found.values_list("_value", flat=True)[0]


def test_a_uuid_has_its_dashes():
    device = Device.objects.create(name="x")
    shown = Device.objects.annotate(_text=AsText(F("pk"), field=KEY)).values_list("_text", flat=True)
    assert list(shown) == [str(device.pk)]


def test_a_uuid_that_is_kept_as_digits_gets_its_dashes():
    key = uuid.uuid4()
    assert value_of(Digits, key.hex, UUIDField()) == str(key)
    assert value_of(Digits, None, UUIDField()) is None


@pytest.mark.parametrize("number", [0, 7, -7, 2**63 - 1, -(2**63)])
def test_a_text_leads_to_its_number(number):
    assert value_of(KeyOf, str(number), NUMBER) == number


@pytest.mark.parametrize("wrong", ["", "x", "1.5", "1e3", "-", "9" * 19, "9" * 30, " 1 ", "٣"])
def test_a_text_that_is_no_number_is_no_error(wrong):
    found = value_of(KeyOf, wrong, NUMBER)
    assert connection.vendor == "sqlite" or found is None


def test_a_text_leads_to_its_uuid_and_another_is_no_error():
    key = uuid.uuid4()
    assert value_of(KeyOf, str(key), KEY) == key
    if connection.vendor != "sqlite":
        assert value_of(KeyOf, "x", KEY) is None


def test_a_uuid_that_a_rule_puts_into_a_text_has_its_dashes():
    device = Device.objects.create(name="x")
    rule = Rule(name="uuids", every=Device, must=HaveValues(name=F("pk")))
    assert repaired(rule).written.update == 1
    assert Device.objects.get().name == str(device.pk)
    assert repaired(rule).written.total == 0
