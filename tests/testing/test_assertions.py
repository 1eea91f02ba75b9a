from dataclasses import replace

import pytest
from django.db.models import F

from reconcile import BeUnique, FromPython, HaveRow, HaveValues, Rule, Settle
from reconcile.errors import InvalidRulesError, UsageError
from reconcile.testing import Watch, assert_consistent, assert_rules
from reconcile.testing.assertions import choose_rules, find_drift, find_drift_of
from sample_project.shop import seed
from sample_project.shop.models import Invoice, Order
from tests.helpers import an_hour_ago, statements
from tests.zoo.models import Badge, Basket, Bill, Device, Ghost, Page, Team, Visit

pytestmark = pytest.mark.django_db

BILL = Rule(name="bill", every=Basket, must=HaveRow(Bill, link={"basket_number": F("pk")}))
BADGE = Rule(
    name="badge", every=Device, must=HaveRow(Badge, link={"device": F("pk")}, values={"name": F("name")})
)
VISIT = Rule(name="visit", every=Page, must=HaveRow(Visit, link={"page_code": F("code")}))
NAME = Rule(name="name", every=Team, must=BeUnique("name"))


def fails(act, *said):
    with pytest.raises(AssertionError) as caught:
        act()
    for line in said:
        assert line in str(caught.value), str(caught.value)
    return str(caught.value)


def baskets(number):
    made = Basket.objects.bulk_create([Basket() for _ in range(number)])
    made = list(Basket.objects.order_by("-pk")[: len(made)])[::-1]
    Bill.objects.bulk_create([Bill(basket_number=each.pk) for each in made])
    return made


def test_records_that_have_what_they_must_pass():
    baskets(3)
    assert_consistent(Basket, BILL)
    assert_consistent(Basket.objects.all(), [BILL])


def test_a_record_that_lacks_its_row_fails_and_the_others_pass():
    good, bad = baskets(2)
    Bill.objects.filter(basket_number=bad.pk).delete()
    assert_consistent(good, BILL)
    assert_consistent(Basket.objects.exclude(pk=bad.pk), BILL)
    for records in (bad, Basket, Basket.objects.filter(pk=bad.pk)):
        fails(
            lambda records=records: assert_consistent(records, BILL),
            "1 drifted row in 1 of 1 rule.",
            f"bill  {BILL.sentence}",
            f"missing {bad.pk}",
            f"zoo.Basket {bad.pk}  a record of every=",
            "missing  yes  Insert: a repair would insert 1 row",
            "a new zoo.Bill  is owed",
        )


def test_a_surplus_row_is_the_fault_of_its_own_record_alone():
    first, second, third, fourth = baskets(4)
    extra = Bill.objects.create(basket_number=second.pk)
    assert_consistent(Basket.objects.filter(pk__in=[first.pk, third.pk, fourth.pk]), BILL)
    for records in (second, Basket.objects.filter(pk__in=[first.pk, second.pk]), Basket):
        fails(lambda records=records: assert_consistent(records, BILL), f"extra   {extra.pk}", "Report")


def test_surplus_rows_are_found_by_keys_of_any_type():
    devices = [Device.objects.create(name="a") for _ in range(4)]
    for each in devices[1:]:
        Badge.objects.create(device=each, name="a")
    Badge.objects.filter(device=devices[1]).update(name="b")
    assert_consistent(Device.objects.filter(pk__in=[devices[2].pk, devices[3].pk]), BADGE)
    fails(lambda: assert_consistent(devices[0], BADGE), f"missing {devices[0].pk}")
    fails(lambda: assert_consistent(devices[1], BADGE), f"stale   {devices[1].pk}", "'b' ", "'a'")
    few = replace(BADGE, every=Device.objects.filter(name="z"))
    extra = Badge.objects.get(device=devices[2])
    said = fails(lambda: assert_consistent(devices[2], few), f"extra   {extra.pk}")
    assert "1 drifted row" in said


def test_surplus_rows_of_a_text_link_are_found():
    Page.objects.create(code="a")
    for _ in range(2):
        Visit.objects.create(page_code="a")
    fails(lambda: assert_consistent(Page, VISIT), "extra   ")
    fails(lambda: assert_consistent(Page.objects.filter(code="a"), VISIT), "extra   ")


def test_duplicates_are_found_among_the_given_records():
    kept, other = Team.objects.create(name="a"), Team.objects.create(name="a")
    assert_consistent(kept, NAME)
    fails(lambda: assert_consistent(other, NAME), f"extra   {other.pk}")


def test_a_value_that_only_python_can_tell():
    rule = Rule(name="label", every=Basket, must=HaveValues(label=FromPython(str.upper, reads=["label"])))
    good, bad = Basket.objects.create(label="A"), Basket.objects.create(label="b")
    assert_consistent(good, rule)
    fails(lambda: assert_consistent(bad, rule), f"stale   {bad.pk}")


def test_any_drift_fails_whatever_the_rule_tolerates():
    Basket.objects.create(label="a")
    rule = Rule(name="label", every=Basket, must=HaveValues(label="x"), warn_if=10, error_if="100%")
    fails(lambda: assert_consistent(Basket, rule), "1 drifted row")


def test_young_records_are_judged_unless_they_are_left_alone_on_demand():
    rule = Rule(
        name="due",
        every=Order,
        must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")}),
        settle=Settle("created_at", minutes=15),
    )
    Order.objects.bulk_create([Order()])
    fails(lambda: assert_consistent(Order, rule), "missing")
    fails(lambda: assert_consistent(Order.objects.all(), rule), "missing")
    assert_consistent(Order, rule, settled=False)
    assert_consistent(Order.objects.all(), rule, settled=False)
    Order.objects.update(created_at=an_hour_ago())
    fails(lambda: assert_consistent(Order.objects.all(), rule, settled=False), "missing")


def test_without_rules_those_of_the_project_that_are_about_the_model_are_taken():
    Order.objects.bulk_create([Order(created_at=an_hour_ago())])
    said = fails(lambda: assert_consistent(Order), "orders.invoice  Every order")
    assert "groups.access" not in said
    fails(assert_rules, "orders.invoice", "rules.")
    fails(lambda: assert_rules("orders.invoice"), "1 drifted row in 1 of 1 rule.")
    assert_rules("groups.access", "orders.total")


def test_keys_beyond_ten_are_counted_and_few_records_are_judged():
    Basket.objects.bulk_create([Basket() for _ in range(12)])
    said = fails(lambda: assert_consistent(Basket, [BILL]), "12 drifted rows", " and 2 more")
    assert said.count("a record of every=") == 1


def test_a_rule_that_cannot_be_evaluated_fails_and_the_next_one_is_judged():
    ghosts = Rule(name="ghosts", every=Ghost, must=HaveValues(value=1))
    Basket.objects.create()
    said = fails(
        lambda: assert_rules(ghosts, BILL), "1 rule could not be evaluated.", "ghosts  Every", "bill  Every"
    )
    assert "1 drifted row in 1 of 2 rules." in said
    fails(
        lambda: assert_consistent(Ghost.objects.none(), ghosts) or assert_consistent(Ghost(pk=1), ghosts),
        "could not",
    )
    assert Basket.objects.count() == 1


@pytest.mark.parametrize(
    ("records", "rules", "said"),
    [
        (Basket, None, "No rule is about zoo.Basket. Give rules=, or write one."),
        (Basket, [], "rules= is empty."),
        (Basket, [VISIT], "Rule 'visit' is about zoo.Page, and the records are zoo.Basket."),
        (Order, ["orders.invioce"], "Did you mean 'orders.invoice'?"),
        (Order, [3], "rules= has 3. Give the name of a rule, or a Rule."),
        ("orders", None, "'orders' is neither a model, a queryset nor a record."),
    ],
)
def test_what_would_assert_nothing_is_refused(records, rules, said):
    with pytest.raises(UsageError) as caught:
        assert_consistent(records, rules)
    assert said in str(caught.value)


def test_a_faulty_rule_is_refused_with_its_faults():
    with pytest.raises(InvalidRulesError, match="has no column 'lable'"):
        assert_consistent(Basket, Rule(every=Basket, must=HaveValues(lable=1)))


def test_no_more_statements_for_many_records_than_for_few():
    counts = []
    for number in (10, 1_000):
        records = baskets(number)
        keys = [each.pk for each in records]
        with statements() as made:
            assert_consistent(Basket.objects.filter(pk__gte=keys[0]), BILL)
        counts.append(len(made))
    assert counts[0] == counts[1]


def test_a_watch_ends_well_where_nothing_new_drifts():
    Basket.objects.create()
    watch = Watch.begin([BILL])
    baskets(2)
    watch.end()


@pytest.mark.parametrize(
    "act",
    [
        lambda: Basket.objects.bulk_create([Basket()]),
        lambda: Bill.objects.filter(basket_number__isnull=False).delete(),
        lambda: Bill.objects.create(basket_number=Basket.objects.last().pk),
    ],
)
def test_a_watch_finds_what_was_written_on_either_side(act):
    Basket.objects.create()
    baskets(1)
    watch = Watch.begin([BILL])
    act()
    fails(watch.end, "1 new drifted row in 1 of 1 rule.")


def test_a_watch_counts_where_there_are_more_keys_than_it_names():
    Basket.objects.bulk_create([Basket() for _ in range(1_001)])
    watch = Watch.begin([BILL])
    watch.end()
    Basket.objects.create()
    fails(watch.end, "1 new drifted row in 1 of 1 rule.")


def test_all_records_of_a_drifted_shop_have_the_drift_that_a_check_finds():
    """For every kind of rule that the shop has, looked at record by record, in halves, and as a whole."""
    seed.fill(100)
    drifting = 0
    for rule in choose_rules(None, using="default", settled=True):
        keys = list(rule.model._base_manager.order_by("pk").values_list("pk", flat=True))
        whole = keys_found([find_drift(rule, using="default")])
        halves = [keys[::2], keys[1::2]]
        assert keys_found(find_drift_of(rule, half, using="default") for half in halves) == whole, rule.name
        assert keys_found([find_drift_of(rule, keys, using="default")]) == whole, rule.name
        assert keys_found([find_drift_of(rule, [], using="default")]) == {}
        drifting += bool(whole)
    assert drifting > 10


def keys_found(found):
    """By kind of drift, the keys that any of these has."""
    drifted = {}
    for each in found:
        assert each.error is None
        for drift, rows in each.drifted.items():
            drifted.setdefault(drift, set()).update(rows.keys)
    return drifted
