"""`Insert` beside constraints that can be deferred, which PostgreSQL's ON CONFLICT doesn't take."""

import time
from functools import partial

import pytest
from django.db import IntegrityError, connection, models, transaction
from django.db.models import Deferrable, F, Func, Q, UniqueConstraint, Value
from django.utils import timezone

from reconcile import MISSING, HaveRow, HaveRows, Rule
from reconcile.core.scopes import Keys
from reconcile.db.dialects import dialect_of
from reconcile.errors import ChunkConflictError
from reconcile.models import Change, WorkItem
from reconcile.remedies import Insert
from reconcile.repair.journal import ChunkJournal
from tests.helpers import assert_repairs, mendable, repaired, statements
from tests.protocol.test_guarantee_levels import in_flight, started
from tests.tables import model_of, table_of
from tests.zoo.models import Basket

pytestmark = pytest.mark.django_db(transaction=True)

IMMEDIATE, DEFERRED = Deferrable.IMMEDIATE, Deferrable.DEFERRED


def entries(*constraints, **meta):
    """A table of rows that baskets owe by their number."""
    columns = {"number": models.BigIntegerField(), "place": models.IntegerField(null=True)}
    constraints = [each if isinstance(each, models.BaseConstraint) else each() for each in constraints]
    return table_of("Entry", columns, constraints=constraints, **meta)


def once(column, deferrable):
    return UniqueConstraint(fields=[column], deferrable=deferrable, name="zoo_entry_once")


def excluding(deferrable):
    place = Func(F("place"), F("place"), Value("[]"), function="int4range")
    # It can't be imported without PostgreSQL's driver.
    from django.contrib.postgres.constraints import ExclusionConstraint

    return ExclusionConstraint(
        name="zoo_entry_once",
        expressions=[(place, "&&")],
        condition=Q(place__isnull=False),
        deferrable=deferrable,
    )


def owed(entry, **options):
    return Rule(name="owed", every=Basket, must=HaveRow(entry, link={"number": F("pk")}, **options))


def derived(entry):
    must = HaveRows(
        entry, link={"number": F("pk")}, rows=lambda quantity: [1], reads=["quantity"], key=["place"]
    )
    return Rule(name="derived", every=Basket, must=must)


@pytest.mark.postgresql
@pytest.mark.parametrize(
    "constraint",
    [
        once("number", DEFERRED),
        once("number", IMMEDIATE),
        once("place", DEFERRED),
        partial(excluding, DEFERRED),
    ],
)
@pytest.mark.parametrize("options", [{}, {"create_only": {"place": lambda: None}}])
def test_rows_are_inserted_into_a_table_with_a_constraint_that_can_be_deferred(constraint, options):
    Basket.objects.bulk_create([Basket() for _ in range(3)])
    with entries(constraint) as entry:
        assert_repairs(owed(entry, **options), insert=3)


@pytest.mark.postgresql
def test_derived_rows_are_too():
    Basket.objects.create()
    with entries(once("number", DEFERRED)) as entry:
        assert_repairs(derived(entry), insert=1)


@pytest.mark.postgresql
@pytest.mark.parametrize(
    "constraint", [once("place", IMMEDIATE), once("place", DEFERRED), partial(excluding, DEFERRED)]
)
@pytest.mark.parametrize("rule", [lambda entry: owed(entry, create_only={"place": 1}), derived])
def test_who_comes_second_there_is_told_before_the_commit_and_tries_again(constraint, rule):
    basket = Basket.objects.create()
    with entries(constraint) as entry:
        entry.objects.create(number=-1, place=1)
        compiled = rule(entry).compile(using="default", now=timezone.now())
        finder = next(each for each in compiled.finders if each.drift is MISSING)
        with pytest.raises(ChunkConflictError), transaction.atomic():
            journal = ChunkJournal(work_item=WorkItem(pk=1), chunk=1, using="default")
            Insert().write(finder, Keys([basket.pk]), journal)
        assert entry.objects.count() == 1


@pytest.mark.postgresql
def test_a_record_that_was_mended_meanwhile_is_passed_over_there_too():
    baskets = [Basket.objects.create() for _ in range(3)]
    with entries(
        once("place", DEFERRED), UniqueConstraint(fields=["number"], name="zoo_entry_number")
    ) as entry:
        entry.objects.create(number=baskets[1].pk)
        compiled = owed(entry).compile(using="default", now=timezone.now())
        finder = next(each for each in compiled.finders if each.drift is MISSING)
        journal = ChunkJournal(work_item=WorkItem(pk=1), chunk=1, using="default")
        with transaction.atomic():
            wrote = Insert().write(finder, Keys([each.pk for each in baskets]), journal)
        assert wrote.written.insert == 2
        Change.objects.all().delete()


@pytest.mark.postgresql
def test_a_row_that_stands_in_the_way_for_good_is_named_and_the_others_are_repaired():
    baskets = [Basket.objects.create() for _ in range(3)]
    with entries(once("place", DEFERRED)) as entry:
        entry.objects.create(number=-1, place=baskets[1].pk)
        result = repaired(owed(entry, create_only={"place": F("pk")}))
        assert (result.written.insert, mendable(result), result.skipped) == (2, 1, 1)
        assert [each["key"] for each in result.refused] == [str(baskets[1].pk)]
        assert "zoo_entry_once" in result.refused[0]["why"]


@pytest.mark.postgresql
@pytest.mark.parametrize("deferrable", [IMMEDIATE, DEFERRED])
def test_beside_a_handler_in_flight_it_is_the_repair_that_gives_way(deferrable):
    basket = Basket.objects.create()
    with entries(once("number", deferrable)) as entry:

        def handler(pause):
            with transaction.atomic():
                entry.objects.create(number=basket.pk)
                pause()

        with in_flight(handler) as finish:
            repair = started(lambda: repaired(owed(entry)))
            # Longer than a chunk waits for a lock.
            time.sleep(0.5)
            assert finish() is None
        result = repair.join()
        assert (result.error, result.written.total, result.left) == (None, 0, 0)
        assert entry.objects.count() == 1


@pytest.mark.postgresql
def test_what_is_wrong_with_a_row_otherwise_is_no_conflict():
    with (
        entries(once("place", DEFERRED)) as entry,
        pytest.raises(IntegrityError),
        transaction.atomic(),
        dialect_of("default").detect_conflicts(entry),
    ):
        entry.objects.create(number=None)


@pytest.mark.postgresql
def test_fact_a_constraint_that_can_be_deferred_keeps_every_insert_from_passing_over_others():
    with entries(once("place", IMMEDIATE)) as entry:
        with pytest.raises(Exception, match="does not support deferrable"):
            entry.objects.bulk_create([entry(number=1)], ignore_conflicts=True)
        assert not dialect_of("default").skips_conflicts(entry)


def test_elsewhere_what_others_have_inserted_is_passed_over_as_ever():
    entry = model_of("Entry", {"number": models.BigIntegerField(unique=True)})
    foreign = model_of("Entry", {"number": models.BigIntegerField(unique=True)}, managed=False)
    expected = {"postgresql": (True, False), "mysql": (False, False), "sqlite": (True, True)}
    told = tuple(dialect_of("default").skips_conflicts(each) for each in (entry, foreign))
    assert told == expected[connection.vendor]


@pytest.mark.postgresql
def test_the_look_at_deferred_constraints_costs_one_statement_of_a_chunk():
    def sent_for(*constraints):
        Basket.objects.create()
        with entries(*constraints) as entry, statements() as sent:
            assert repaired(owed(entry)).written.insert
        return [each["sql"] for each in sent if each["sql"].startswith("SET CONSTRAINTS")]

    assert (len(sent_for()), len(sent_for(once("place", DEFERRED)))) == (0, 1)
