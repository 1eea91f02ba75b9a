"""Traps that other tools fell into: transactions, locks, plans, options, receivers. What is tested elsewhere in full:

Locks: another run holds the rule -> tests/runs/test_runs.py::test_a_rule_that_another_run_holds_is_left_alone
Locks: they expire after SIGKILL -> tests/runs/test_runs.py::test_a_rule_whose_holder_has_died_is_taken_over_and_the_dead_is_fenced_out
Locks: a killed repair goes on -> tests/runs/test_runs.py::test_a_repair_that_is_killed_goes_on_where_it_was_when_it_is_resumed
Locks: who was superseded releases nothing -> tests/runs/test_runs.py::test_a_worker_that_was_superseded_neither_releases_the_rule_nor_closes_its_outcome
Dry run: the preview -> tests/runs/test_runs.py::test_a_preview_counts_and_writes_nothing_at_all
Dry run: the command -> tests/cli/test_cli.py::test_a_repair_without_apply_prints_the_plan_and_writes_nothing
Limits: samples of one rule -> tests/detect/test_checking.py::test_counts_are_never_capped_and_samples_are
Typos: names, tags, databases, flags -> tests/cli/test_cli.py::test_bad_usage_exits_with_2_and_names_the_way_out
Typos: columns and paths -> tests/rules/test_rule.py::test_a_bad_rule_says_what_is_wrong_and_the_way_out
save(): no other receiver runs -> tests/remedies/test_resend.py::test_no_other_receiver_runs
"""

from datetime import timedelta

import pytest
from django.db.models import Count, F, Q
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save
from django.utils import timezone

from reconcile import (
    EXTRA,
    MISSING,
    STALE,
    AtLeast,
    BeUnique,
    Call,
    Delete,
    Enqueue,
    FromPython,
    HaveReceipt,
    HaveRow,
    HaveRows,
    HaveSource,
    HaveValues,
    Latest,
    Rule,
    Satisfy,
    Split,
    Update,
    runs,
)
from reconcile.models import Change, Outcome, Receipt, Run, WorkItem
from sample_project.shop.models import Customer, Invoice, Notification, Order
from tests.helpers import (
    an_hour_ago,
    checked,
    everything,
    nightly,
    repaired,
)
from tests.zoo import tasks
from tests.zoo.models import Basket, Bill, Contact, Draft, Memo, Mention, Note, Team

pytestmark = pytest.mark.django_db


def own_tables():
    kept = (Run, Outcome, WorkItem, Change, Receipt)
    return {model.__name__: sorted(map(repr, model.objects.values_list())) for model in kept}


def test_each_chunk_is_a_transaction_of_its_own(settings):
    """What fails in the last chunk takes nothing back of the others, and no transaction holds more than a chunk."""
    settings.RECONCILE = {**settings.RECONCILE, "CHUNK": 10}
    Draft.objects.bulk_create([Draft(title=str(number)) for number in range(35)])
    batches = []

    def mend(records):
        batches.append(len(records))
        if any(each.title == "34" for each in records):
            raise ValueError("not this one")
        for each in records:
            Draft.objects.filter(pk=each.pk).update(slug="x")

    rule = Rule(name="r", every=Draft, must=HaveValues(slug="x"), remedies={STALE: Call(mend)})
    result = repaired(rule)
    assert max(batches) == 10
    assert (result.written.called, result.left, result.skipped) == (34, 1, 1)
    assert Draft.objects.filter(slug="x").count() == 34
    assert Change.objects.values("chunk").distinct().count() > 3


def test_a_further_run_wipes_nothing_that_earlier_ones_have_kept():
    Order.objects.bulk_create([Order(created_at=an_hour_ago())])
    rule = Rule(name="i", every=Order, must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": 0}))
    repaired(rule)
    Invoice.objects.all().delete()
    before = own_tables()
    checked(rule)
    assert own_tables() == before
    repaired(rule)
    nightly()
    after = own_tables()
    for name, rows in before.items():
        assert {*rows} <= {*after[name]}, name


def test_a_nightly_run_that_overlaps_another_leaves_its_rules_and_does_the_rest():
    Order.objects.bulk_create([Order(created_at=an_hour_ago(), item_count=3)])
    other = Run.objects.create(kind="nightly", now=timezone.now())
    holder = Outcome.objects.create(
        run=other, rule="orders.invoice", position=0, state="repairing", leased="orders.invoice"
    )
    WorkItem.objects.create(outcome=holder, drift="missing", token=other.pk)
    for _ in range(2):
        # The second time, too: who passed the rule over has not let it go.
        nightly()
        holder.refresh_from_db()
        assert (holder.leased, Invoice.objects.count(), Notification.objects.count()) == (
            "orders.invoice",
            0,
            1,
        )
    assert Order.objects.get().item_count == 0
    WorkItem.objects.filter(outcome=holder).update(heartbeat=timezone.now() - timedelta(minutes=10))
    nightly()
    holder.refresh_from_db()
    assert (holder.leased, Invoice.objects.count()) == (None, 1)


def a_rule_of_each_kind():
    """(every, must, remedies) by name: each finds two records or rows in what `drifted` has made."""
    bill = HaveRow(Bill, link={"basket_number": F("pk")}, values={"score": 5}, count=AtLeast(1))
    named = HaveRows(Mention, link={"note": F("pk")}, rows=str.split, reads=["text"], key=["user_name"])
    drop = {EXTRA: Delete()}
    return {
        "row missing": (Basket.objects.filter(label="lacking"), bill, {}),
        "row stale": (Basket.objects.filter(label="stale"), bill, {}),
        "row extra": (
            Basket.objects.filter(label="none"),
            HaveRow(Bill, link={"basket_number": F("pk")}),
            drop,
        ),
        "rows": (Note, named, {}),
        "values": (Basket.objects.filter(label="stale"), HaveValues(score=9), {}),
        "aggregate": (Team, HaveValues(player_count=Count("players")), {}),
        "python": (Note, HaveValues(slug=FromPython(str.upper, reads=["text"])), {}),
        "latest": (Team, HaveValues(points=Latest("players", by=["pk"], value="age")), {}),
        "source": (Memo, HaveSource("basket"), drop),
        "unique": (Contact, BeUnique("email"), drop),
        "others": (Contact, BeUnique("email", others={"email": None}), {}),
        "merge": (Contact, BeUnique("email", merge={"visits": "sum"}), {}),
        "condition": (Team, Satisfy(Q(player_count=0), values={"player_count": 0}), {}),
        "enqueue": (Team, HaveReceipt("greeting"), {MISSING: Enqueue(tasks.keep)}),
        "receipt": (Team, HaveReceipt("greeting"), {}),
    }


@pytest.fixture
def drifted(db):
    Basket.objects.bulk_create([Basket(label=label) for label in ("lacking", "stale") * 2])
    stale = Basket.objects.filter(label="stale")
    Bill.objects.bulk_create([Bill(basket_number=each.pk, score=1) for each in stale])
    Note.objects.bulk_create([Note(text="ada"), Note(text="bob")])
    Team.objects.bulk_create([Team(name="x", player_count=4, points=4) for _ in range(2)])
    Memo.objects.bulk_create([Memo(basket_id=-7), Memo(basket_id=-8)])
    Contact.objects.bulk_create([Contact(email="a", visits=2) for _ in range(3)])


def rule_of(kind):
    every, must, remedies = a_rule_of_each_kind()[kind]
    rule = Rule(name="kind", every=every, must=must, remedies=remedies)
    assert not list(rule.faults())
    return rule


@pytest.mark.parametrize("kind", a_rule_of_each_kind())
def test_a_plan_has_looked_and_has_written_nothing(drifted, kind):
    rule = rule_of(kind)
    before = everything(), own_tables()
    (plan,) = runs.preview({"kind": rule}, using="default", now=timezone.now())
    assert (everything(), own_tables()) == before
    assert sum(plan.found.values()) == 2
    assert plan.planned.total == (0 if kind == "receipt" else 2)
    written = repaired(rule).written
    # What a merge brings to the rows that stay is only known when it merges.
    merged = kind == "merge"
    assert plan.planned.delete == written.delete if merged else plan.planned == written


@pytest.mark.parametrize("kind", a_rule_of_each_kind())
def test_a_limit_on_samples_is_none_on_the_count(drifted, kind):
    rule = rule_of(kind)
    for samples in (0, 1, 1_000):
        result = checked(rule, samples=samples)
        assert (result.tally.total, len(result.samples)) == (2, min(samples, 2))


@pytest.mark.parametrize("cap", [0, 1])
@pytest.mark.parametrize("kind", [kind for kind in a_rule_of_each_kind() if kind not in {"merge", "receipt"}])
def test_a_cap_on_repairs_does_not_cap_what_is_counted(drifted, kind, cap):
    before = everything()
    result = repaired(rule_of(kind), max_repairs=cap)
    assert (sum(result.found.values()), result.planned.total, result.written.total) == (2, 2, 0)
    assert f"2 repairs are planned, and the cap is {cap}" in result.why_stopped
    assert everything() == before


@pytest.mark.parametrize("kind", ["insert", "update", "aggregate", "python", "delete", "merge", "split"])
def test_a_repair_fires_no_receiver_and_bumps_no_timestamp(kind):
    seen = timezone.now() - timedelta(days=30)
    Draft.objects.bulk_create([Draft(title="a"), Draft(title="a")])
    Draft.objects.update(updated_at=seen)
    customer = Customer.objects.create(name="Ada")
    Customer.objects.update(order_count=4)
    Order.objects.bulk_create([Order(customer=customer)])
    rules = {
        "insert": (Order, HaveRow(Invoice, link={"order": F("pk")}, values={"amount": 0}), {}),
        "update": (Draft, HaveValues(slug="x"), {}),
        "aggregate": (Customer, HaveValues(order_count=Count("orders")), {}),
        "python": (Draft, HaveValues(slug=FromPython(str.upper, reads=["title"])), {}),
        "delete": (Draft, BeUnique("title"), {EXTRA: Delete()}),
        "merge": (Draft, BeUnique("title", merge={"votes": "max"}), {}),
        "split": (
            Draft,
            Satisfy(Q(votes=3), values={"votes": 3}),
            {STALE: Split(when=Q(slug="none"), each=Call(print), rest=Update())},
        ),
    }
    every, must, remedies = rules[kind]
    heard = []
    receivers = (pre_save, post_save, pre_delete, post_delete, m2m_changed)

    def hear(sender, **_):
        if sender._meta.app_label in {"shop", "zoo"}:
            heard.append(sender)

    for signal in receivers:
        signal.connect(hear)
    try:
        result = repaired(Rule(name="r", every=every, must=must, remedies=remedies))
    finally:
        for signal in receivers:
            signal.disconnect(hear)
    assert result.written.total > 0
    assert (result.left, heard) == (0, [])
    assert {*Draft.objects.values_list("updated_at", flat=True)} == {seen}
