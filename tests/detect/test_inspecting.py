import uuid
from datetime import timedelta

import pytest
from django.db.models import Count, F, Q, Value
from django.utils import timezone

from reconcile import (
    EXTRA,
    MISSING,
    STALE,
    BeUnique,
    Delete,
    Exactly,
    HaveRow,
    HaveValues,
    Report,
    Rule,
    Settle,
)  # fmt: skip
from reconcile.core.finder import PythonFinder
from reconcile.core.verbs import Written
from reconcile.detect.inspecting import MadeInPython, inspect_record
from reconcile.errors import UsageError
from sample_project.shop.models import Invoice, Item, Order, PendingCharge
from tests.detect.test_explaining import Silent
from tests.helpers import checked, everything, statements
from tests.zoo.models import (
    Badge,
    Basket,
    Bill,
    Contact,
    Device,
    Letter,
    Node,
    Page,
    Player,
    Shy,
    Team,
    Visit,
)  # fmt: skip

pytestmark = pytest.mark.django_db

INVOICE = {
    "every": Order.objects.exclude(status="draft"),
    "must": HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")}),
}


def judged(key, **options):
    return inspect_record(Rule(name="r", **options), str(key), using="default", now=timezone.now())


def record(key, **options):
    return judged(key, **options).subjects[0]


def states(subject):
    return {verdict.drift: verdict.state for verdict in subject.verdicts}


def cells(row):
    return {cell.column: (cell.there, cell.owed) for cell in row.cells}


@pytest.fixture
def order(db):
    Order.objects.bulk_create([Order(pk=7_001, total=20)])
    return Order.objects.get()


@pytest.fixture
def billed(order):
    Invoice.objects.bulk_create([Invoice(pk=9_001, order=order, amount=5)])
    return order


def test_what_is_missing_is_said_with_the_row_that_would_be_inserted(order):
    subject = record(order.pk, **INVOICE)
    assert (subject.named_by_every, subject.young_until, subject.linked) == (True, None, ())
    missing, stale = subject.verdicts
    assert (missing.drift, missing.state, missing.remedy) == (MISSING, "drifted", "Insert")
    assert missing.would == Written(insert=1)
    (row,) = missing.owed
    assert (row.model, row.key) == ("shop.Invoice", None)
    assert {name: str(owed) for name, (_, owed) in cells(row).items() if name != "created_at"} == {
        "order_id": str(order.pk), "amount": "20.00",
    }  # fmt: skip
    assert (stale.drift, stale.state, stale.would) == (STALE, "fine", Written())


def test_what_is_stale_is_said_with_both_values(billed):
    subject = record(billed.pk, **INVOICE)
    assert states(subject) == {MISSING: "fine", STALE: "drifted"}
    (row,) = subject.linked
    assert (row.model, row.key, row.extra) == ("shop.Invoice", 9_001, False)
    amount = next(cell for cell in row.cells if cell.column == "amount")
    assert (str(amount.there), str(amount.owed), amount.differs) == ("5.00", "20.00", True)
    assert subject.verdicts[1].would == Written(update=1)


def test_a_record_that_is_as_it_should_be_shows_the_same_twice(billed):
    Invoice.objects.update(amount=20)
    subject = record(billed.pk, **INVOICE)
    assert states(subject) == {MISSING: "fine", STALE: "fine"}
    amount = next(cell for cell in subject.linked[0].cells if cell.column == "amount")
    assert (str(amount.there), str(amount.owed), amount.differs) == ("20.00", "20.00", False)


def test_a_record_that_every_does_not_name_owes_nothing_and_its_row_is_extra(billed):
    Order.objects.update(status="draft", total=5)
    every = Order.objects.exclude(status="draft").filter(item_count__lt=3)
    subject = record(billed.pk, every=every, must=INVOICE["must"])
    assert (subject.named_by_every, subject.unmet) == (False, ("not (status = 'draft')",))
    assert states(subject) == {MISSING: "fine", STALE: "fine"}
    assert [row.extra for row in subject.linked] == [True]
    assert subject.verdicts[0].would == Written()


def test_a_filter_that_joins_is_said_as_a_whole(billed):
    item = Item.objects.create(order=billed, status="active")
    charge = PendingCharge.objects.create(item=item)
    every = PendingCharge.objects.filter(item__status="archived", status="pending")
    subject = record(charge.pk, every=every, must=HaveValues(status="cancelled"))
    assert subject.unmet == ("item.status = 'archived' and status = 'pending'",)


def test_none_and_all_are_served(order):
    assert record(order.pk, every=Order, must=HaveValues(item_count=0)).named_by_every
    subject = record(order.pk, every=Order.objects.none(), must=HaveValues(item_count=0))
    assert (subject.named_by_every, states(subject)) == (False, {STALE: "fine"})


def test_an_extra_row_is_found_by_its_own_key(billed):
    Order.objects.update(status="draft")
    (subject,) = judged(9_001, **INVOICE).subjects
    assert (subject.row.model, subject.named_by_every) == ("shop.Invoice", None)
    assert states(subject) == {EXTRA: "drifted"}
    assert (subject.verdicts[0].remedy, subject.verdicts[0].would) == ("Report", Written())


def test_an_owed_row_is_said_not_to_be_extra(billed):
    (subject,) = judged(9_001, **INVOICE).subjects
    assert states(subject) == {EXTRA: "fine"}


def test_a_key_that_names_a_record_and_a_row_says_both(order):
    Invoice.objects.bulk_create([Invoice(pk=order.pk, order=order, amount=20)])
    subjects = judged(order.pk, **INVOICE).subjects
    assert [subject.row.model for subject in subjects] == ["shop.Order", "shop.Invoice"]


def test_a_young_record_is_said_to_be_left_alone_until_when(order):
    settle = Settle("created_at", minutes=15)
    subject = record(order.pk, settle=settle, **INVOICE)
    order.refresh_from_db()
    assert subject.young_until == order.created_at + timedelta(minutes=15)
    assert states(subject) == {MISSING: "young", STALE: "fine"}
    assert subject.verdicts[0].would == Written(insert=1)


def test_an_old_record_is_not(order):
    Order.objects.update(created_at=timezone.now() - timedelta(hours=1))
    subject = record(order.pk, settle=Settle("created_at", minutes=15), **INVOICE)
    assert (subject.young_until, states(subject)[MISSING]) == (None, "drifted")


def test_a_record_is_as_young_as_the_newest_of_many_rows_and_old_without_any(order):
    settle = Settle("items__on_sale_since", minutes=15)
    assert states(record(order.pk, settle=settle, **INVOICE))[MISSING] == "drifted"
    now = timezone.now()
    old, new = now - timedelta(hours=2), now - timedelta(minutes=1)
    for moment in (old, new, old):
        Item.objects.create(order=order, price=1, quantity=1, on_sale_since=moment)
    subject = record(order.pk, settle=settle, **INVOICE)
    assert (states(subject)[MISSING], subject.young_until) == ("young", new + timedelta(minutes=15))
    rule = Rule(name="r", settle=settle, **INVOICE)
    assert (checked(rule).tally.checked, checked(rule).tally.settling) == (0, 1)
    Item.objects.update(on_sale_since=old)
    assert checked(rule).tally[MISSING] == 1


def test_a_record_s_own_values_stand_beside_what_they_should_be():
    team = Team.objects.create(name="t", player_count=5)
    Player.objects.create(team=team)
    must = HaveValues(player_count=Count("players"), name="t")
    subject = record(team.pk, every=Team, must=must)
    assert cells(subject.row)["player_count"] == (5, 1)
    assert cells(subject.row)["name"] == ("t", "t")
    assert subject.verdicts[0].would == Written(update=1)
    Team.objects.update(player_count=1)
    assert cells(record(team.pk, every=Team, must=must).row)["player_count"] == (1, 1)


def test_null_is_a_value():
    basket = Basket.objects.create(note="x")
    subject = record(basket.pk, every=Basket, must=HaveValues(note=Value(None)))
    assert cells(subject.row)["note"] == ("x", None)
    assert subject.row.cells[-1].differs


def test_several_missing_rows_are_several_owed_ones():
    basket = Basket.objects.create()
    Bill.objects.create(basket_number=basket.pk)
    must = HaveRow(Bill, link={"basket_number": F("pk")}, count=Exactly(3))
    missing = record(basket.pk, every=Basket, must=must).verdicts[0]
    assert (missing.would, len(missing.owed)) == (Written(insert=2), 2)


def test_what_python_makes_is_named_and_not_made():
    device = Device.objects.create(name="d")

    def never():
        raise AssertionError("explaining makes nothing")

    must = HaveRow(Badge, link={"device": F("pk")}, values={"name": F("name")}, create_only={"token": never})
    subject = record(device.pk, every=Device, must=must)
    owed = cells(subject.verdicts[0].owed[0])
    assert isinstance(owed["token"][1], MadeInPython)
    assert owed["name"][1] == "d"


@pytest.mark.parametrize("written", [str, lambda key: key.hex, lambda key: str(key).upper()])
def test_a_uuid_is_a_key_however_it_is_written(written):
    device = Device.objects.create(name="d")
    assert record(written(device.pk), every=Device, must=HaveValues(name="e")).row.key == device.pk


def test_a_text_is_a_key_to_the_character():
    Page.objects.create(code="Home")
    subject = record("Home", every=Page, must=HaveRow(Visit, link={"page_code": F("pk")}))
    assert states(subject) == {MISSING: "drifted"}
    for other in ("home", "Home ", "Hom"):
        with pytest.raises(UsageError, match=r"There is no zoo\.Page"):
            judged(other, every=Page, must=HaveValues(visits=1))


def test_a_row_that_the_default_manager_hides_is_there():
    hidden = Shy._base_manager.create(visible=False, value=2)
    assert states(record(hidden.pk, every=Shy, must=HaveValues(value=1))) == {STALE: "drifted"}


@pytest.mark.parametrize("key", ["abc", "", " 7", "1_000", "1e3", "7.0", "٧", "9" * 25, "\udcff"])
def test_what_cannot_be_a_whole_number_is_refused(key):
    with pytest.raises(UsageError, match=r"can't be a key of shop\.Order, which is a whole number"):
        judged(key, every=Order, must=HaveValues(item_count=0))


@pytest.mark.parametrize("key", ["7", "not-a-uuid", "12345678-1234-5678-1234-56781234567"])
def test_what_cannot_be_a_uuid_is_refused(key):
    with pytest.raises(UsageError, match=r"can't be a key of zoo\.Device, which is a UUID"):
        judged(key, every=Device, must=HaveValues(name="d"))


def test_no_such_record_is_refused_with_those_around_it(billed):
    Order.objects.bulk_create([Order(pk=7_005)])
    with pytest.raises(UsageError) as raised:
        judged(7_003, **INVOICE)
    assert str(raised.value) == (
        "There is no shop.Order and no shop.Invoice with the key '7003'. "
        "Nearest in shop.Order: 7001 and 7005. Nearest in shop.Invoice: 9001."
    )


def test_no_record_at_all_is_said():
    with pytest.raises(UsageError, match=r"zoo\.Basket is empty"):
        judged(1, every=Basket, must=HaveValues(label="x"))
    with pytest.raises(UsageError, match=r"`reconcile check` shows"):
        judged(uuid.uuid4(), every=Device, must=HaveValues(name="x"))


def test_a_remedy_that_writes_nothing_is_said_to():
    basket = Basket.objects.create()
    must = HaveRow(Bill, link={"basket_number": F("pk")})
    missing = record(basket.pk, every=Basket, must=must, remedies={MISSING: Report()}).verdicts[0]
    assert (missing.state, missing.remedy, missing.would) == ("drifted", "Report", Written())


class OddOnes(Silent):
    """Only Python tells which drift, and it says nothing of what it reads."""

    def finders(self, source):
        def sift(scope):
            keys = source.records(scope).values_list("pk", flat=True)
            return ((key, None) for key in keys if key % 2)

        return (PythonFinder(drift=STALE, model=source.model, using=source.using, sift=sift),)


def test_where_only_python_tells_the_drift_all_columns_are_shown():
    for key in (2, 3):
        Basket.objects.create(pk=key)
        subject = record(key, every=Basket, must=OddOnes(label="x"))
        assert states(subject) == {STALE: "drifted" if key % 2 else "fine"}
        assert len(subject.row.cells) == len(Basket._meta.concrete_fields)


def test_rows_beyond_the_first_few_are_counted():
    basket = Basket.objects.create()
    Bill.objects.bulk_create([Bill(basket_number=basket.pk) for _ in range(13)])
    must = HaveRow(Bill, link={"basket_number": F("pk")}, where=Q(kind="bill"))
    subject = record(basket.pk, every=Basket, must=must)
    assert (len(subject.linked), subject.more) == (10, 3)
    assert [row.extra for row in subject.linked] == [False, *[True] * 9]


def test_judging_writes_nothing_and_costs_the_same_for_any_number_of_records(order):
    def cost():
        with statements() as sent:
            judged(order.pk, settle=Settle("created_at", minutes=15), **INVOICE)
        assert not [each["sql"] for each in sent if not each["sql"].startswith("SELECT")]
        return len(sent)

    few = cost()
    before = everything()
    assert cost() == few
    assert everything() == before
    Order.objects.bulk_create([Order(created_at=order.created_at) for _ in range(1_000)])
    assert cost() == few


def test_a_text_that_the_database_cannot_hold_is_no_key():
    with pytest.raises(UsageError, match=r"can't be a key of zoo\.Page|There is no zoo\.Page"):
        judged("a\0", every=Page, must=HaveValues(visits=1))


def test_a_record_of_a_circle_is_never_said_to_be_repaired():
    one, two = Node.objects.create(name="a", depth=5), Node.objects.create(name="b", depth=5)
    Node.objects.filter(pk=one.pk).update(parent=two)
    Node.objects.filter(pk=two.pk).update(parent=one)
    rule = Rule(name="r", every=Node, must=HaveValues(depth=F("parent__depth") + 1))
    (subject,) = inspect_record(rule, str(one.pk), using="default", now=timezone.now()).subjects
    (verdict,) = subject.verdicts
    assert verdict.refusal == f"it is computed from itself: {one.pk} → {two.pk} → {one.pk}"
    assert verdict.would.total == 0


def test_nor_is_a_row_that_others_refer_to():
    _, second = (Contact.objects.create(email="a") for _ in range(2))
    Letter.objects.create(contact=second)
    rule = Rule(name="r", every=Contact, must=BeUnique("email"), remedies={EXTRA: Delete()})
    (subject,) = inspect_record(rule, str(second.pk), using="default", now=timezone.now()).subjects
    (verdict,) = [each for each in subject.verdicts if each.drift is EXTRA]
    assert "zoo.Letter by contact refers to it" in verdict.refusal
