from datetime import timedelta

import pytest
from django.db import models
from django.utils import timezone

from reconcile import MISSING, HaveReceipt, HaveRow, Insert, Rule, Settle, receipts
from reconcile.core.drift import Guarantee
from reconcile.core.scopes import EVERYTHING, Keys
from reconcile.models import Receipt
from reconcile.rules.order import sort_rules
from tests.helpers import an_hour_ago, assert_clean, assert_finds, checked, everything, repaired, statements
from tests.zoo.models import Basket, Car, Device, Memo, Page, ProxyTeam, Shy, Team

pytestmark = pytest.mark.django_db


def mail(every=Basket, **options):
    return Rule(name="mail", every=every, must=HaveReceipt("mail", **options))


def receipt(record, state="done", age=timedelta(0), name="mail"):
    return Receipt.objects.create(
        name=name, model=record._meta.label, key=str(record.pk), state=state, recorded_at=timezone.now() - age
    )


def test_a_record_without_a_receipt_is_found():
    assert_finds(mail(), missing=[Basket.objects.create()])


def test_a_record_with_a_receipt_is_not_found():
    receipts.record("mail", Basket.objects.create())
    assert_clean(mail())


@pytest.mark.parametrize("kind", [Basket, Device, Page, Car, Team, Shy], ids=lambda kind: kind.__name__)
def test_keys_of_every_type_agree(kind):
    key = {"code": "A ü'"} if kind is Page else {}
    made = kind._base_manager.create(**key)
    assert_finds(mail(kind), missing=[made])
    receipts.record("mail", made)
    assert_clean(mail(kind))
    (finder,) = mail(kind).compile(using="default", now=timezone.now()).finders
    assert finder.keys(Keys([made.pk])) == []
    receipts.forget("mail", made)
    assert_finds(mail(kind), missing=[made])
    assert finder.keys(Keys([made.pk])) == [made.pk]


def test_the_receipt_of_another_effect_model_or_record_does_not_count():
    basket, team = Basket.objects.create(), Team.objects.create()
    receipt(basket, name="Mail")
    Receipt.objects.create(name="mail", model="zoo.Team", key=str(basket.pk))
    Receipt.objects.create(name="mail", model="zoo.Basket", key=f"{basket.pk}0")
    assert_finds(mail(), missing=[basket])
    assert team.pk


def test_texts_that_differ_in_case_or_by_a_space_are_two_records():
    page = Page.objects.create(code="a")
    for key in ("A", "a "):
        Receipt.objects.create(name="mail", model="zoo.Page", key=key)
    assert_finds(mail(Page), missing=[page])


@pytest.mark.parametrize(
    ("state", "age", "within", "counts"),
    [
        ("done", timedelta(days=900), None, True),
        ("done", timedelta(days=900), timedelta(hours=1), True),
        ("sent", timedelta(days=900), None, True),
        ("sent", timedelta(minutes=59), timedelta(hours=1), True),
        ("sent", timedelta(minutes=61), timedelta(hours=1), False),
        ("promised", timedelta(minutes=9), None, True),
        ("promised", timedelta(minutes=11), None, False),
        ("promised", timedelta(minutes=11), timedelta(hours=1), False),
    ],
)
def test_which_receipts_count(state, age, within, counts):
    basket = Basket.objects.create()
    receipt(basket, state, age)
    assert_finds(mail(confirmed_within=within), missing=[] if counts else [basket])


def test_a_proxy_s_records_have_the_receipts_of_their_table():
    receipts.record("mail", Team.objects.create())
    assert_clean(mail(ProxyTeam))


def test_young_records_are_left_alone():
    old = Memo.objects.create(written_at=an_hour_ago())
    Memo.objects.create()
    rule = Rule(name="mail", every=Memo, must=HaveReceipt("mail"), settle=Settle("written_at", minutes=15))
    assert_finds(rule, missing=[old])


def test_only_the_records_of_the_rule_owe_a_receipt():
    wanted, _other = Basket.objects.create(score=1), Basket.objects.create(score=2)
    assert_finds(mail(Basket.objects.filter(score=1)), missing=[wanted])


def test_without_a_remedy_of_the_rule_it_is_reported_and_nothing_is_written():
    Basket.objects.create()
    before = everything()
    result = repaired(mail())
    assert (result.written.total, result.left, result.reported) == (0, 1, {MISSING: 1})
    assert everything() == before
    assert not Receipt.objects.exists()


def test_keys_are_found_in_order_and_beyond_one():
    Basket.objects.bulk_create([Basket() for _ in range(4)])
    keys = sorted(Basket.objects.values_list("pk", flat=True))
    receipts.record("mail", Basket, keys=[keys[2]])
    (finder,) = mail().compile(using="default", now=timezone.now()).finders
    assert finder.keys(EVERYTHING, limit=2) == keys[:2]
    assert finder.keys_after(keys[0], limit=5) == [keys[1], keys[3]]


def test_the_number_of_statements_does_not_grow():
    numbers = []
    for number in (10, 990):
        Basket.objects.bulk_create([Basket() for _ in range(number)])
        with statements() as sent:
            assert checked(mail()).tally[MISSING] == Basket.objects.count()
        numbers.append(len(sent))
    assert numbers[0] == numbers[1]


def test_the_sentence():
    assert mail().sentence == "Every basket must have a receipt of 'mail'."
    within = mail(confirmed_within=timedelta(hours=2))
    assert within.sentence == "Every basket must have a receipt of 'mail', confirmed within 2:00:00."


def test_the_guarantee_is_lock_since_an_effect_in_flight_is_out_of_sight():
    assert mail().guarantee("default") == Guarantee.LOCK


class Wordy(models.Model):
    code = models.CharField(max_length=256, primary_key=True)

    class Meta:
        app_label = "zoo"
        managed = False


@pytest.mark.parametrize(
    ("every", "must", "remedies", "fault_id", "said"),
    [
        (Basket, HaveReceipt(""), {}, "E012", "its name is ''"),
        (Basket, HaveReceipt(7), {}, "E012", "its name is 7"),
        (Basket, HaveReceipt("x" * 101), {}, "E012", "1 to 100 characters"),
        (Basket, HaveReceipt("x", confirmed_within=3), {}, "E012", "confirmed_within= is 3"),
        (Basket, HaveReceipt("x", confirmed_within=timedelta(0)), {}, "E012", "confirmed_within="),
        (Basket, HaveReceipt("x"), {MISSING: Insert()}, "E012", "Insert() does not mend"),
        (Wordy, HaveReceipt("x"), {}, "E015", "more than 255 characters"),
    ],
)  # fmt: skip
def test_each_fault_says_the_way_out(every, must, remedies, fault_id, said):
    (fault,) = Rule(name="faulty", every=every, must=must, remedies=remedies).faults()
    assert fault.id == f"reconcile.{fault_id}"
    assert said in str(fault)
    assert fault.hint


def test_a_rule_that_makes_the_records_comes_first():
    made = Rule(name="made", every=Team, must=HaveRow(Basket, link={"label": "x"}))
    rules = {"mail": mail(), "made": made}
    assert [rule.name for rule in sort_rules(rules, using="default", now=timezone.now()).rules] == [
        "made",
        "mail",
    ]
