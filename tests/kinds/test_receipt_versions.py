"""Receipts with a version: an effect that was done for columns that have changed since is owed again."""

import threading
from datetime import UTC, date, datetime, time as clock, timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from django.db import transaction
from django.db.models import F

from reconcile import MISSING, Enqueue, HaveReceipt, Rule, receipts
from reconcile.errors import UsageError
from reconcile.models import Receipt
from tests.helpers import Session, assert_clean, assert_finds, assert_repairs, checked, statements
from tests.zoo.models import Basket, Sheet
from tests.zoo.tasks import MESSAGES, keep

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _no_messages():
    MESSAGES.clear()


def indexed(version="label", every=Basket, task=None, **options):
    remedies = {MISSING: Enqueue(task)} if task else {}
    must = HaveReceipt("search", version=version, **options)
    return Rule(name="indexed", every=every, must=must, remedies=remedies)


@pytest.mark.parametrize("version", ["label", F("label"), ["label"], ("quantity", F("label"))], ids=str)
def test_a_record_whose_columns_have_changed_owes_its_effect_again(version):
    basket = Basket.objects.create(label="a")
    rule = indexed(version)
    assert_finds(rule, missing=[basket])
    receipts.record("search", basket, version=version)
    assert_clean(rule)
    Basket.objects.update(note="another column")
    assert_clean(rule)
    Basket.objects.update(label="b")
    assert_finds(rule, missing=[basket])
    assert receipts.record("search", Basket.objects.all(), version=version) == 1
    assert_clean(rule)
    Basket.objects.update(label="a")
    assert_finds(rule, missing=[basket])
    assert receipts.record("search", Basket, keys=[basket.pk], version=version) == 1
    assert_clean(rule)


def test_a_record_that_has_changed_since_it_was_read_owes_its_effect_again():
    """The task has written the text that it read, and not the one that the record has by now."""
    basket = Basket.objects.create(label="a")
    Basket.objects.update(label="b")
    receipts.record("search", basket, version="label")
    assert_finds(indexed(), missing=[basket])
    basket.refresh_from_db()
    receipts.record("search", [basket], version="label")
    assert_clean(indexed())


def test_nothing_runs_together_where_several_columns_change():
    one, other = Basket.objects.create(label="ab", note="c"), Basket.objects.create(label="a", note="bc")
    for basket in (one, other):
        receipts.record("search", basket, version=["label", "note"])
    assert len({*Receipt.objects.values_list("version", flat=True)}) == 2
    Basket.objects.filter(pk=one.pk).update(label="a", note="bc")
    assert_finds(indexed(["label", "note"]), missing=[one])


def test_values_of_each_kind_have_the_same_version_in_a_record_and_in_the_table():
    given = {
        "flag": True, "small": 3, "number": 2**30, "ratio": 0.1 + 0.2, "money": Decimal("1.5"), "day": date(2026, 3, 1),
        "moment": datetime(2026, 3, 1, 4, 5, 6, 789, tzinfo=UTC), "hour": clock(4, 5, 6), "span": timedelta(hours=3, microseconds=7),
        "token": uuid4(), "word": "a'\\b ü", "prose": "p",
    }  # fmt: skip
    full, empty = Sheet.objects.create(**given), Sheet.objects.create()
    for name in given:
        Receipt.objects.all().delete()
        receipts.record("search", [full, empty], version=name)
        assert_clean(indexed(name, every=Sheet))
        full.refresh_from_db()
        receipts.record("search", [full], version=name)
        assert_clean(indexed(name, every=Sheet))


def test_a_promise_is_of_the_version_that_it_was_made_for():
    basket = Basket.objects.create(label="a")
    rule = indexed(task=keep)
    assert_repairs(rule, enqueued=1)
    assert [("keep", [basket.pk])] == MESSAGES
    assert_clean(rule)
    Basket.objects.update(label="b")
    assert_finds(rule, missing=[basket])
    assert_repairs(rule, enqueued=1)
    assert list(Receipt.objects.values_list("state", flat=True)) == ["sent"]
    # A task that says no version has done what was promised.
    receipts.record("search", basket)
    assert_clean(rule)
    Basket.objects.update(label="c")
    assert_repairs(rule, enqueued=1)
    assert Receipt.objects.get().state == "sent"


def test_what_is_done_for_an_older_version_after_a_newer_one_was_promised_is_owed_again():
    basket = Basket.objects.create(label="a")
    Basket.objects.update(label="b")
    rule = indexed(task=keep)
    assert_repairs(rule, enqueued=1)
    receipts.record("search", basket, version="label")
    assert Receipt.objects.get().state == "done"
    assert_finds(rule, missing=[basket])


def test_many_records_of_which_some_have_changed():
    Basket.objects.bulk_create([Basket(label="a") for _ in range(30)])
    receipts.record("search", Basket.objects.all(), version="label")
    changed = list(Basket.objects.order_by("pk")[:10])
    Basket.objects.filter(pk__in=[each.pk for each in changed]).update(label="b")
    assert_repairs(indexed(task=keep), enqueued=10)
    assert [("keep", [each.pk for each in changed])] == MESSAGES
    assert Receipt.objects.count() == 30


def test_many_records_as_they_were_read_take_few_statements():
    Basket.objects.bulk_create([Basket(label=f"a{number}") for number in range(250)])
    read = [*Basket.objects.order_by("pk"), Basket.objects.earliest("pk")]
    changed = read[200]
    Basket.objects.filter(pk=changed.pk).update(label="b")
    with statements() as one:
        receipts.record("search", read[:1], version="label")
    with statements() as sent:
        assert receipts.record("search", read, version="label") == 249
    assert len(sent) == 3 * len(one)
    assert_finds(indexed(), missing=[changed])


def test_receipts_without_a_version_are_of_none():
    basket = Basket.objects.create(label="a")
    receipts.record("search", basket)
    assert_finds(indexed(), missing=[basket])
    assert_clean(Rule(name="any", every=Basket, must=HaveReceipt("search")))


def test_the_number_of_statements_does_not_grow():
    numbers = []
    for number in (10, 400):
        Basket.objects.bulk_create([Basket() for _ in range(number)])
        with statements() as sent:
            assert checked(indexed()).tally[MISSING] == Basket.objects.count()
        numbers.append(len(sent))
    assert numbers[0] == numbers[1]


def test_the_sentence():
    assert indexed().sentence == "Every basket must have a receipt of 'search' for its label as it is now."
    both = indexed(["label", "note"], confirmed_within=timedelta(hours=2))
    assert both.sentence.endswith("for its label, note as it is now, confirmed within 2:00:00.")


@pytest.mark.parametrize(
    ("version", "fault_id", "said"),
    [
        ("lable", "E013", "Did you mean 'label'?"),
        (["label", 7], "E012", "version= is ['label', 7]"),
        (7, "E012", "version= is 7"),
        (F("team__name"), "E013", "has no column 'team__name'"),
    ],
)
def test_each_fault_says_the_way_out(version, fault_id, said):
    (fault,) = indexed(version).faults()
    assert fault.id == f"reconcile.{fault_id}"
    assert said in str(fault)


def test_a_version_that_a_record_does_not_have_is_a_usage_error():
    basket = Basket.objects.create()
    with pytest.raises(UsageError, match="has no column 'lable'"):
        receipts.record("search", basket, version="lable")
    with pytest.raises(UsageError, match="Give the name of a column"):
        receipts.record("search", basket, version=[7])
    basket.quantity = F("quantity") + 1
    with pytest.raises(UsageError, match="quantity is an expression"):
        receipts.record("search", basket, version="quantity")
    assert not Receipt.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.server
def test_callers_that_record_versions_at_once_lose_nothing():
    Basket.objects.bulk_create([Basket(label="a") for _ in range(50)])
    together = threading.Barrier(4, timeout=30)

    def record():
        together.wait()
        with transaction.atomic():
            return receipts.record("search", Basket.objects.all(), version="label")

    for label in ("a", "b"):
        Basket.objects.update(label=label)
        sessions = [Session(record) for _ in range(4)]
        for session in sessions:
            session.start()
        for session in sessions:
            session.join()
        assert Receipt.objects.count() == 50
        assert_clean(indexed())
