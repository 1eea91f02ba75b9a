from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import CharField, F, Q, Value
from django.db.models.functions import Cast, Concat, Now
from django.utils import timezone

from reconcile import MISSING, STALE, AtLeast, AtMost, Exactly, HaveRow, Report, Rule, Settle
from reconcile.core.drift import Guarantee
from reconcile.models import Change
from sample_project.shop.models import Invoice, Notification, Order
from tests.helpers import (
    an_hour_ago,
    assert_clean,
    assert_finds,
    assert_repairs,
    checked,
    everything,
    mendable,
    repaired,
    statements,
)
from tests.zoo.models import Badge, Basket, Bill, Blob, Device, Page, Player, Tariff, Team, Thread, Visit

pytestmark = pytest.mark.django_db

INVOICE = Rule(
    name="invoice",
    every=Order.objects.exclude(status=Order.Status.DRAFT),
    must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")}),
)


def orders(number, **values):
    return Order.objects.bulk_create([Order(total=Decimal("12.50"), **values) for _ in range(number)])


def bill(**options):
    return Rule(name="bill", every=Basket, must=HaveRow(Bill, link={"basket_number": F("pk")}, **options))


def test_missing_invoice_is_found_and_inserted():
    lacking = orders(3)
    assert_finds(INVOICE, missing=lacking)
    assert_repairs(INVOICE, insert=3)
    assert set(Invoice.objects.values_list("order", "amount")) == {
        (order.pk, Decimal("12.50")) for order in lacking
    }


def test_present_invoice_is_not_found():
    orders(2)
    Invoice.objects.bulk_create([Invoice(order=order, amount=order.total) for order in Order.objects.all()])
    assert_clean(INVOICE)


def test_a_record_outside_every_owes_nothing():
    orders(2, status=Order.Status.DRAFT)
    assert_clean(INVOICE)


def test_stale_amount_is_found_and_corrected():
    wrong, right = orders(2)
    Invoice.objects.create(order=wrong, amount=1)
    Invoice.objects.create(order=right, amount=right.total)
    assert_finds(INVOICE, stale=[wrong])
    assert_repairs(INVOICE, update=1)
    assert Invoice.objects.get(order=wrong).amount == Decimal("12.50")
    change = Change.objects.get()
    assert (change.verb, change.model, change.key) == ("update", "shop.Invoice", str(wrong.invoice.pk))
    assert Decimal(str(change.before["amount"])) == 1
    assert Decimal(str(change.after["amount"])) == Decimal("12.50")


def test_an_invoice_that_nothing_owes_is_found_and_left():
    draft = orders(1, status=Order.Status.DRAFT)[0]
    extra = Invoice.objects.create(order=draft, amount=1)
    assert_finds(INVOICE, extra=[extra])
    assert_repairs(INVOICE)
    assert Invoice.objects.count() == 1


def test_rows_that_were_right_stay_untouched():
    _lacking, wrong, right = orders(3)
    draft = orders(1, status=Order.Status.DRAFT)[0]
    Invoice.objects.create(order=wrong, amount=1)
    for order in (right, draft):
        Invoice.objects.create(order=order, amount=99 if order is draft else order.total)
    before = everything()
    assert_repairs(INVOICE, insert=1, update=1)
    after = everything()
    assert {label for label in after if after[label] != before[label]} == {"shop.Invoice"}
    assert len(set(after["shop.Invoice"]) - set(before["shop.Invoice"])) == 2
    assert len(set(before["shop.Invoice"]) - set(after["shop.Invoice"])) == 1


def test_the_journal_holds_the_inserted_row():
    order = orders(1)[0]
    assert_repairs(INVOICE, insert=1)
    change = Change.objects.get()
    invoice = Invoice.objects.get()
    assert (change.verb, change.before, change.key) == ("insert", None, str(invoice.pk))
    assert (change.after["order_id"], Decimal(str(change.after["amount"]))) == (order.pk, Decimal("12.50"))


def test_a_young_record_is_left_alone_and_counted():
    rule = Rule(name="young", every=INVOICE.every, must=INVOICE.must, settle=Settle("created_at", minutes=15))
    orders(2)
    old = orders(1, created_at=an_hour_ago())
    assert_finds(rule, missing=old)
    assert checked(rule).tally.settling == 2
    assert_repairs(rule, insert=1)


def test_the_invoice_of_a_young_order_is_not_extra():
    rule = Rule(name="young", every=INVOICE.every, must=INVOICE.must, settle=Settle("created_at", minutes=15))
    Invoice.objects.create(order=orders(1)[0], amount=99)
    assert_clean(rule)


def test_a_record_whose_settle_column_is_null_counts_as_settled():
    rule = Rule(
        name="null",
        every=Basket,
        must=HaveRow(Bill, link={"basket_number": F("pk")}),
        settle=Settle("seen_at", days=1),
    )
    never, old, _young = (
        Basket.objects.create(seen_at=when)
        for when in (None, timezone.now() - timedelta(days=2), timezone.now())
    )
    assert_finds(rule, missing=[never, old])


def test_a_constant_in_the_link_identifies_the_row():
    rule = Rule(
        name="kind", every=Order, must=HaveRow(Notification, link={"order": F("pk"), "kind": "created"})
    )
    told, untold = orders(2)
    Notification.objects.create(order=told, kind="created")
    Notification.objects.create(order=untold, kind="shipped")
    result = checked(rule)
    assert result.tally[MISSING] == 1
    assert_repairs(rule, insert=1)
    assert Notification.objects.filter(order=untold).count() == 2


def test_a_row_with_another_constant_is_none_that_the_rule_speaks_of():
    rule = Rule(
        name="kind", every=Order, must=HaveRow(Notification, link={"order": F("pk"), "kind": "created"})
    )
    order = orders(1)[0]
    for kind in ("created", "paid"):
        Notification.objects.create(order=order, kind=kind)
    assert_clean(rule)


def test_rows_of_another_kind_do_not_count():
    rule = bill(where=Q(kind="bill"))
    basket = Basket.objects.create()
    Bill.objects.create(basket_number=basket.pk, kind="draft")
    assert_finds(rule, missing=[basket])
    assert_repairs(rule, insert=1)


def test_a_where_that_an_inserted_row_does_not_meet_is_said_and_rolled_back():
    rule = bill(where=Q(kind="other"))
    Basket.objects.create()
    result = repaired(rule)
    assert (result.written.total, result.left, result.skipped) == (0, 1, 1)
    assert "is not found by its link" in result.why_stopped
    assert not Bill.objects.exists()
    assert not Change.objects.exists()


def test_a_generated_column_and_a_database_default_land_in_the_row():
    rule = bill(values={"amount": F("total"), "score": F("score")})
    Basket.objects.create(price=Decimal("3.25"), quantity=4)
    assert_repairs(rule, insert=1)
    assert list(Bill.objects.values_list("amount", "score")) == [(Decimal("13.00"), 7)]


def test_a_value_made_once_a_row_is_not_shared_and_never_compared():
    rule = Rule(
        name="badge", every=Device, must=HaveRow(Badge, link={"device": F("pk")}, values={"name": F("name")})
    )
    devices = [Device.objects.create(name=f"device {number}") for number in range(5)]
    assert_finds(rule, missing=devices)
    assert_repairs(rule, insert=5)
    assert len(set(Badge.objects.values_list("token", flat=True))) == 5
    Badge.objects.update(token="someone changed it")
    assert_clean(rule)
    Badge.objects.filter(device=devices[0]).update(name="other")
    assert_finds(rule, stale=[devices[0]])
    assert_repairs(rule, update=1)


def test_create_only_is_written_once_and_never_compared():
    numbers = iter(range(100, 200))
    rule = bill(create_only={"amount": F("price"), "score": lambda: next(numbers)})
    Basket.objects.bulk_create([Basket(), Basket()])
    assert_repairs(rule, insert=2)
    assert list(Bill.objects.order_by("score").values_list("amount", "score")) == [
        (Decimal("2.50"), 100),
        (Decimal("2.50"), 101),
    ]
    Bill.objects.update(amount=0, score=0)
    assert_clean(rule)


def test_clocks_in_defaults_are_the_run_s_pinned_clock():
    Basket.objects.bulk_create([Basket(), Basket()])
    assert_repairs(bill(), insert=2)
    assert (
        len(
            set(Bill.objects.values_list("made_at", flat=True))
            | set(Bill.objects.values_list("printed_at", flat=True))
        )
        == 1
    )


def test_now_in_an_expression_is_pinned():
    rule = bill(values={"printed_at": Now()})
    Basket.objects.bulk_create([Basket(), Basket()])
    result = repaired(rule)
    assert (result.written.insert, mendable(result)) == (2, 0)
    assert len(set(Bill.objects.values_list("printed_at", flat=True))) == 1


@pytest.mark.parametrize("present", [0, 1, 2])
def test_exactly_three_rows_are_filled_up(present):
    rule = bill(count=Exactly(3))
    basket = Basket.objects.create()
    Bill.objects.bulk_create([Bill(basket_number=basket.pk) for _ in range(present)])
    kept = set(Bill.objects.values_list("pk", flat=True))
    assert_finds(rule, missing=[basket])
    assert_repairs(rule, insert=3 - present)
    assert kept < set(Bill.objects.values_list("pk", flat=True))


def test_surplus_rows_are_extra_after_the_first():
    rule = bill(count=2)
    basket = Basket.objects.create()
    bills = Bill.objects.bulk_create([Bill(basket_number=basket.pk) for _ in range(5)])
    assert_finds(rule, extra=sorted(Bill.objects.values_list("pk", flat=True))[2:])
    assert len(bills) == 5


def test_surplus_of_what_nothing_owes_is_counted_once():
    Bill.objects.bulk_create([Bill(basket_number=404) for _ in range(3)])
    assert_finds(bill(), extra=Bill.objects.all())


def test_at_least_has_no_extra():
    rule = bill(count=AtLeast(1))
    basket, lacking = Basket.objects.create(), Basket.objects.create()
    Bill.objects.bulk_create([Bill(basket_number=basket.pk) for _ in range(3)])
    Bill.objects.create(basket_number=404)
    assert_finds(rule, missing=[lacking])


def test_at_most_has_no_missing_and_only_surplus_is_extra():
    rule = bill(count=AtMost(1))
    basket = Basket.objects.create()
    Basket.objects.create()
    Bill.objects.bulk_create([Bill(basket_number=basket.pk) for _ in range(2)])
    Bill.objects.create(basket_number=404)
    assert_finds(rule, extra=[max(Bill.objects.filter(basket_number=basket.pk).values_list("pk", flat=True))])


def test_a_row_without_a_link_belongs_to_nobody_and_is_not_extra():
    Bill.objects.create(basket_number=None)
    assert_clean(bill())


def test_extra_rows_beyond_the_last_record_are_found():
    basket = Basket.objects.create()
    Bill.objects.create(basket_number=basket.pk)
    beyond = Bill.objects.create(basket_number=basket.pk + 1_000_000)
    before = Bill.objects.create(basket_number=-5)
    assert_finds(bill(), extra=[beyond, before])


def test_extra_rows_are_found_where_there_is_no_record_at_all():
    assert_finds(bill(), extra=[Bill.objects.create(basket_number=1)])


def test_a_link_by_text_without_a_foreign_key():
    rule = Rule(name="visit", every=Page, must=HaveRow(Visit, link={"page_code": F("code")}))
    seen, unseen = Page.objects.create(code="home"), Page.objects.create(code="about")
    Visit.objects.create(page_code="home")
    assert_finds(rule, missing=[unseen])
    assert_repairs(rule, insert=1)
    assert set(Visit.objects.values_list("page_code", flat=True)) == {seen.pk, unseen.pk}


def test_a_link_by_an_expression_is_not_carried_but_found():
    rule = Rule(
        name="slot",
        every=Basket,
        must=HaveRow(Visit, link={"page_code": Concat(Value("basket-"), Cast("pk", CharField()))}),
    )
    first, second = Basket.objects.create(), Basket.objects.create()
    Visit.objects.create(page_code=f"basket-{first.pk}")
    extra = Visit.objects.create(page_code="basket-none")
    assert_finds(rule, missing=[second], extra=[extra])
    assert_repairs(rule, insert=1)
    assert Visit.objects.filter(page_code=f"basket-{second.pk}").exists()


def test_text_that_differs_only_in_case_or_trailing_space_is_another_text():
    rule = Rule(name="visit", every=Page, must=HaveRow(Visit, link={"page_code": F("code")}))
    page = Page.objects.create(code="home")
    for other in ("HOME", "home "):
        Visit.objects.create(page_code=other)
    assert_finds(rule, missing=[page], extra=Visit.objects.all())


def test_stale_text_is_compared_exactly():
    rule = Rule(
        name="badge", every=Device, must=HaveRow(Badge, link={"device": F("pk")}, values={"name": F("name")})
    )
    device = Device.objects.create(name="Lamp")
    Badge.objects.create(device=device, name="lamp")
    assert_finds(rule, stale=[device])
    assert_repairs(rule, update=1)


def test_an_every_that_joins_to_many_rows_counts_each_record_once():
    rule = Rule(
        name="joined",
        every=Order.objects.filter(notifications__kind__startswith="c"),
        must=INVOICE.must,
    )
    order = orders(1)[0]
    for kind in ("created", "cancelled"):
        Notification.objects.create(order=order, kind=kind)
    assert checked(rule).tally.checked == 1
    assert_finds(rule, missing=[order])
    assert_repairs(rule, insert=1)


def test_a_remedy_of_report_writes_nothing():
    rule = Rule(name="told", every=Order, must=INVOICE.must, remedies={MISSING: Report(), STALE: Report()})
    missing = orders(1)
    assert_finds(rule, missing=missing)
    assert repaired(rule).written.total == 0
    assert not Invoice.objects.exists()


def test_an_image_holds_bytes_and_more_columns_than_one_json_object_takes():
    rule = Rule(name="blob", every=Team, must=HaveRow(Blob, link={"team": F("pk")}))
    Team.objects.create(name="wide")
    assert_repairs(rule, insert=1)
    after = Change.objects.get().after
    assert after["content"].lower() == "00ff"
    assert {after[f"n{number}"] for number in range(1, 60, 2)} == set(range(1, 60, 2))
    assert len(after) == 63


def test_a_record_that_breaks_another_constraint_is_set_aside_with_its_error_and_the_rest_is_repaired():
    rule = bill(values={"kind": F("label")})
    Basket.objects.bulk_create(
        [Basket(label="short"), Basket(label="far too long for the kind"), Basket(label="ok")]
    )
    result = repaired(rule)
    if connection.vendor == "sqlite":
        assert result.written.insert == 3
        return
    assert (result.written.insert, result.left, result.skipped) == (2, 1, 1)
    assert "could not be repaired" in result.why_stopped
    assert result.incomplete


def test_a_null_link_expression_links_with_nothing_owes_nothing_and_is_said():
    rule = Rule(name="alternate", every=Team, must=HaveRow(Bill, link={"basket_number": F("alternate")}))
    Team.objects.create(name="alone")
    assert_clean(rule)
    assert repaired(rule).written.total == 0
    assert not Bill.objects.exists()
    assert (
        rule.sentence
        == "Every team must have exactly 1 Bill with basket_number = alternate, if alternate is not NULL."
    )


@pytest.mark.parametrize("several", [False, True], ids=["the only column", "one of several"])
def test_null_in_one_of_several_link_columns_owes_nothing_and_the_others_are_repaired(several):
    of_all = {"kind": "bill", "score": F("points")} if several else {}
    link = {"basket_number": F("alternate"), **of_all}
    rule = Rule(name="alternate", every=Team, must=HaveRow(Bill, link=link, values={"amount": 3}))
    alone = Team.objects.create(name="alone", points=1)
    both = Team.objects.create(name="both", points=2, alternate=alone)
    assert_finds(rule, missing=[both])
    assert_repairs(rule, insert=1)
    Bill.objects.create(basket_number=None, amount=5, score=1)
    assert_clean(rule)
    Bill.objects.filter(basket_number=alone.pk).update(amount=4)
    assert_finds(rule, stale=[both])


def test_a_unique_constraint_makes_duplicates_impossible_so_they_are_not_looked_for():
    order = orders(1)[0]
    Invoice.objects.create(order=order, amount=order.total)
    with pytest.raises(IntegrityError), transaction.atomic():
        Invoice.objects.create(order=order, amount=order.total)
    for rule, looked_for in ((INVOICE, False), (bill(), True)):
        with statements() as sent:
            checked(rule)
        assert (
            any("GROUP BY" in query["sql"] for query in sent if "information_schema" not in query["sql"])
            is looked_for
        )


@pytest.mark.parametrize(
    ("rule", "guarantee"),
    [
        (INVOICE, Guarantee.CONSTRAINT),
        (
            Rule(every=Order, must=HaveRow(Notification, link={"order": F("pk"), "kind": "x"})),
            Guarantee.CONSTRAINT,
        ),
        (Rule(every=Device, must=HaveRow(Badge, link={"device": F("pk")})), Guarantee.CONSTRAINT),
    ],
)
def test_the_guarantee_follows_the_constraints(rule, guarantee):
    assert rule.guarantee("default") == guarantee


def test_without_a_constraint_the_guarantee_depends_on_the_database():
    player = Rule(every=Team, must=HaveRow(Player, link={"team": F("pk")}))
    by_key = {"postgresql": Guarantee.LOCK, "mysql": Guarantee.LOCK, "sqlite": Guarantee.LOCK}
    by_number = {"postgresql": Guarantee.LOCK, "mysql": Guarantee.NONE, "sqlite": Guarantee.LOCK}
    assert player.guarantee("default") == by_key[connection.vendor]
    assert bill().guarantee("default") == by_number[connection.vendor]


def test_records_that_share_a_link_owe_one_row_together():
    rule = Rule(name="shared", every=Player, must=HaveRow(Bill, link={"basket_number": F("team")}))
    teams = [Team.objects.create(name="x") for _ in range(2)]
    Player.objects.bulk_create([Player(team=team) for team in teams for _ in range(3)])
    assert checked(rule).tally[MISSING] == 6
    assert_repairs(rule, insert=2)
    assert sorted(Bill.objects.values_list("basket_number", flat=True)) == [team.pk for team in teams]


def test_texts_that_a_collation_folds_are_linked_each_by_itself():
    """MariaDB keeps a subquery's answer by the folded text: what it found for 'a' it would say of 'A' and 'a ', too."""
    Page.objects.bulk_create([Page(code="a")])
    visits = [Visit.objects.create(page_code=code) for code in ("a", "A", "a ", "a")]
    rule = Rule(name="visit", every=Page, must=HaveRow(Visit, link={"page_code": F("pk")}, count=AtLeast(1)))
    assert_clean(rule)
    owed = Rule(name="page", every=Visit, must=HaveRow(Page, link={"code": F("page_code")}, count=AtLeast(1)))
    assert_finds(owed, missing=[visits[1], visits[2]])
    exactly = Rule(name="exactly", every=Page, must=HaveRow(Visit, link={"page_code": F("pk")}, count=2))
    assert_finds(exactly, extra=[visits[1], visits[2]])


def test_surplus_of_texts_that_a_collation_folds_is_counted_for_each_by_itself():
    rule = Rule(name="tariff", every=Thread, must=HaveRow(Tariff, link={"prefix": F("zip")}))
    for text in ("a", "A", "a "):
        Thread.objects.create(zip=text), Tariff.objects.create(prefix=text)
    assert_clean(rule)
    assert_finds(rule, extra=[Tariff.objects.create(prefix="A")])
