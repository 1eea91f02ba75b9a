"""Kinds of models and columns that projects have: inheritance, proxies, enumerations, arrays, another user model."""

import enum
import subprocess
import sys

import pytest
from django.db import connection, models
from django.db.models import CharField, Count, F, Func, Value
from django.db.models.functions import Cast, Concat

from reconcile import HaveRow, HaveValues, Rule
from reconcile.core.drift import Guarantee
from sample_project.shop.models import Order
from tests import helpers
from tests.helpers import ROOT, assert_clean, assert_finds, assert_repairs, everything
from tests.zoo import models as zoo
from tests.zoo.models import (
    Basket,
    Car,
    Device,
    Lorry,
    NamedTeam,
    Page,
    Player,
    Stamped,
    Team,
    Trailer,
    Vehicle,
)

pytestmark = pytest.mark.django_db

LORRY = Rule(
    name="lorry",
    every=Vehicle.objects.filter(wheels__gte=6),
    must=HaveRow(Lorry, link={"vehicle_ptr": F("pk")}, values={"load": F("wheels") * 2}),
)


def test_a_child_row_that_is_missing_while_its_parent_row_exists_is_inserted():
    Vehicle.objects.create(wheels=4)
    lost = Vehicle.objects.create(wheels=8)
    Lorry.objects.create(wheels=6, load=12)
    assert_finds(LORRY, missing=[lost])
    assert_repairs(LORRY, insert=1)
    child = Lorry.objects.get(pk=lost.pk)
    assert (child.wheels, child.load, child.plate) == (8, 16, "none")
    assert LORRY.guarantee("default") == Guarantee.CONSTRAINT


def test_a_stale_child_row_is_updated_in_its_own_table():
    lorry = Lorry.objects.create(wheels=6, load=1)
    assert_finds(LORRY, stale=[lorry.pk])
    assert_repairs(LORRY, update=1)
    lorry.refresh_from_db()
    assert (lorry.wheels, lorry.load) == (6, 12)


def test_a_child_row_of_a_parent_that_does_not_owe_it_is_extra():
    odd = Lorry.objects.create(wheels=3)
    assert_finds(LORRY, extra=[odd.pk])


def test_a_grandchild_row_continues_its_parent_s():
    rule = Rule(name="trailer", every=Lorry, must=HaveRow(Trailer, link={"lorry_ptr": F("pk")}))
    lorry = Lorry.objects.create(wheels=6)
    assert_finds(rule, missing=[lorry.pk])
    assert_repairs(rule, insert=1)
    assert Trailer.objects.get().wheels == 6


def test_a_child_row_without_a_link_to_its_parent_s_is_refused():
    rule = Rule(name="car", every=Vehicle, must=HaveRow(Car, link={"doors": F("pk")}))
    (fault,) = rule.faults()
    assert fault.id == "reconcile.E015"
    assert "link={'vehicle_ptr': F('pk')}" in fault.hint


def test_a_child_row_with_a_value_made_in_python_is_refused():
    rule = Rule(name="stamped", every=Vehicle, must=HaveRow(Stamped, link={"vehicle_ptr": F("pk")}))
    assert [fault.id for fault in rule.faults()] == ["reconcile.E015"]


def test_a_column_of_the_parent_is_read_through_the_child():
    rule = Rule(
        name="load",
        every=Lorry,
        must=HaveValues(load=F("wheels") + 1, plate=Concat(Cast("wheels", CharField()), Value("!"))),
    )
    wrong = Lorry.objects.create(wheels=6)
    assert_finds(rule, stale=[wrong.pk])
    assert_repairs(rule, update=1)
    wrong.refresh_from_db()
    assert (wrong.load, wrong.plate) == (7, "6!")


def test_a_proxy_stands_for_its_table():
    team = Team.objects.create(name="t", player_count=5)
    rule = Rule(name="proxy", every=NamedTeam, must=HaveValues(player_count=Count("players")))
    assert_finds(rule, stale=[team])
    assert_repairs(rule, update=1)
    rows = Rule(name="row", every=NamedTeam, must=HaveRow(Player, link={"team": F("pk")}))
    assert_repairs(rows, insert=1)
    of_proxy = Rule(
        name="of", every=Basket, must=HaveRow(NamedTeam, link={"points": F("pk")}, create_only={"name": "n"})
    )
    Basket.objects.create(pk=41)
    assert_repairs(of_proxy, insert=1)


class Colour(models.TextChoices):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


def test_members_of_enumerations_are_their_values():
    rule = Rule(name="enum", every=Basket, must=HaveValues(label=Colour.RED, quantity=Level.HIGH))
    assert list(rule.faults()) == []
    assert rule.sentence == "Every basket must have label = 'red' and quantity = 3."
    Basket.objects.create(label="red", quantity=3)
    assert_clean(rule)
    wrong = Basket.objects.create(label="blue")
    assert_finds(rule, stale=[wrong])
    assert_repairs(rule, update=1)


@pytest.mark.parametrize(
    ("every", "columns"),
    [(Device, {"name": "same"}), (Page, {"visits": 3})],
    ids=["uuid", "text"],
)
def test_keys_of_other_types_are_walked_and_repaired(every, columns):
    rule = Rule(name="keys", every=every, must=HaveValues(**columns))
    for number in range(30):
        every.objects.create(**({"code": f"K{number} "} if every is Page else {"name": str(number)}))
    assert_repairs(rule, update=30)


@pytest.mark.postgresql
def test_arrays_and_ranges_are_compared_and_written():
    made = zoo.Shelf.objects.create(labels=["a"])
    right = zoo.Shelf.objects.create(labels=["b", "c"], span=(1, 5))
    bounds = Func(F("low"), F("high"), function="int4range", output_field=zoo.Shelf._meta.get_field("span"))
    rule = Rule(name="shelf", every=zoo.Shelf, must=HaveValues(labels=["b", "c"], span=bounds))
    assert list(rule.faults()) == []
    assert_finds(rule, stale=[made])
    before = everything()
    assert_repairs(rule, update=1)
    made.refresh_from_db()
    assert (made.labels, made.span.lower, made.span.upper) == (["b", "c"], 1, 5)
    assert right.pk != made.pk
    assert everything() != before
    first = Rule(name="first", every=zoo.Shelf, must=HaveValues(first=F("labels__0")))
    assert_repairs(first, update=2)


@pytest.mark.once
@pytest.mark.process
def test_another_user_model_is_the_one_that_counts():
    """In a project of its own, since a process has one user model."""
    command = [sys.executable, "-m", "tests.swapped"]
    done = subprocess.run(
        command, cwd=ROOT, env=helpers.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "missing 1",
        "inserted 1",
        "Rule 'old': every= is User, which has no table. Give a model that has a table of its own.",
    ]


def test_the_order_s_database_has_the_vendor_that_was_asked_for():
    assert Order.objects.db == "default"
    assert connection.vendor in {"sqlite", "postgresql", "mysql"}
