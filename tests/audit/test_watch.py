"""`init MODEL --watch`: drafts of what saves are seen to write, on three databases, and none that is wrong without a mark."""

import json
import sys
from datetime import timedelta
from decimal import Decimal

import jsonschema
import pytest
from django.core import mail
from django.db import transaction
from django.db.models.signals import post_delete, post_save, pre_save
from django.utils import timezone

from reconcile.audit.drafts.drafting import draft_rules
from reconcile.audit.drafts.watched.drafting import watch_saves
from reconcile.audit.drafts.watched.guessing import _of_schema
from reconcile.audit.drafts.watched.observing import Observer, Target
from reconcile.audit.listing import audit_signals
from sample_project.shop.models import Address, Article, Category, Customer, Item, Order, PendingCharge
from tests.audit.test_effects import connected
from tests.cli.test_cli import run
from tests.helpers import ROOT, everything
from tests.zoo.models import Player, Team

pytestmark = pytest.mark.django_db

SCHEMA = json.loads((ROOT / "docs" / "schemas" / "init-1.json").read_text())


@pytest.fixture
def shop():
    """A shop that was written through signals, in which no two rows are alike by chance."""
    customers = [Customer.objects.create(name=f"customer {number}") for number in range(6)]
    for number in range(24):
        order = Order.objects.create(
            customer=customers[number % 5] if number % 7 else None,
            status=["draft", "placed", "paid"][number % 3],
            created_at=timezone.now() - timedelta(days=number * 7 % 24),
        )
        for place in range(number % 3 + 1):
            Item.objects.create(order=order, price=Decimal(number + place + 1), quantity=place + 2)
    for customer in customers:
        for number in range(2):
            Address.objects.create(customer=customer, street=f"street {number}", is_default=number == 1)
    for number in range(10):
        Article.objects.create(title=f"Title & {number}", body=f"#word{number}")
    root = Category.objects.create(name="root")
    for name in "abc":
        Category.objects.create(name=f"leaf {name}", parent=Category.objects.create(name=name, parent=root))
    for number, item in enumerate(Item.objects.order_by("pk")[:18]):
        for status in (PendingCharge.Status.PENDING, PendingCharge.Status.CHARGED):
            PendingCharge.objects.create(item=item, amount=1, status=status, scheduled_at=timezone.now())
        if number % 2:
            item.status = Item.Status.ARCHIVED
            item.save()
    return customers


def drafts_of(model):
    return {f"{each.model.__name__}.{each.column}": each for each in watch_saves(model, "default").drafts}


EXPECTED = {
    Order: {
        "Order.customer_name": ("Order", 'HaveValues(customer_name=Coalesce(F("customer__name"), Value("")))'),
        "Customer.order_count": ("Customer", 'HaveValues(order_count=Count("orders"))'),
        "Customer.last_order": ("Customer", 'HaveValues(last_order=Latest("orders", by=["-created_at", "-pk"]))'),
        "Invoice.amount": ("Invoice", 'HaveValues(amount=F("order__total"))'),
    },
    Item: {
        "Order.total": ("Order", 'HaveValues(total=Sum(F("items__price") * F("items__quantity")))'),
        "Order.item_count": ("Order", 'HaveValues(item_count=Count("items"))'),
        "Item.on_sale_since": ('Item.objects.filter(status="archived")', "HaveValues(on_sale_since=None)"),
    },
    Article: {"Article.slug": ("Article", 'HaveValues(slug=FromPython(slugify, reads=["title"]))')},
    Category: {
        "Category.path": (
            "Category", 'HaveValues(path=Concat(Coalesce(F("parent__path"), Value("")), Value("/"), F("name")))',
        ),
    },
}  # fmt: skip


@pytest.mark.parametrize("model", EXPECTED, ids=lambda each: each.__name__)
def test_what_saves_write_is_drafted_with_its_condition(shop, model):
    found = drafts_of(model)
    for name, (every, must) in EXPECTED[model].items():
        assert (found[name].every, found[name].must) == (every, must)
        assert not found[name].unsure, found[name].unsure


def test_a_status_is_drafted_for_those_rows_alone_that_the_effect_asks_for(shop):
    found = drafts_of(Item)["PendingCharge.status"]
    assert found.must == 'HaveValues(status="cancelled")'
    assert 'item__status="archived"' in found.every
    assert 'filter(status="pending")' in found.every or 'exclude(status="charged")' in found.every


def test_what_is_put_into_a_document_each_time_is_marked(shop):
    found = drafts_of(Customer)["Customer.preferences"]
    assert found.must == 'HaveValues(preferences=HaveKeys({"language": "en", "newsletter": False}))'
    assert found.unsure == "One value was written each time: is it always that?"


def test_where_no_choice_tells_which_rows_are_written_it_is_marked(shop):
    found = drafts_of(Address)["Address.is_default"]
    assert (found.must, found.reports) == ("HaveValues(is_default=False)", "STALE")
    assert "no choice, truth or NULL tells which" in found.unsure


def test_nothing_is_left_and_nothing_gets_out(shop):
    ran = []

    def receiver(instance, **_):
        transaction.on_commit(lambda: ran.append(instance))
        mail.EmailMessage("a", "b", None, ["c@example.com"]).send()

    before = everything()
    with connected(post_save, receiver, Article):
        found = watch_saves(Article, "default")
    assert found.saves > 20
    assert everything() == before
    assert (ran, mail.outbox) == ([], [])


def test_nothing_is_deleted(shop):
    def receiver(**_):
        raise AssertionError("a row was deleted")

    with connected(post_delete, receiver, Item), connected(post_delete, receiver, Order):
        assert drafts_of(Item)


# False inferences.


def test_a_constant_that_was_seen_once_is_marked():
    Article.objects.create(title="One")

    def receiver(instance, **_):
        instance.body = "fixed"

    with connected(pre_save, receiver, Article):
        found = drafts_of(Article)["Article.body"]
    assert found.must == 'HaveValues(body="fixed")'
    assert found.unsure
    assert found.reports == "STALE"


def test_a_condition_on_the_key_is_marked():
    items = [Item.objects.create(price=number) for number in range(1, 12)]
    middle = items[5].pk

    def receiver(instance, **_):
        if instance.pk and instance.pk < middle:
            instance.name = "early"

    with connected(pre_save, receiver, Item):
        found = drafts_of(Item)["Item.name"]
    assert "pk" not in found.every
    assert "no choice, truth or NULL tells which" in found.unsure


def test_a_timestamp_is_no_constant_and_no_copy():
    customer = Customer.objects.create(name="Ann")
    for number in range(5):
        Address.objects.create(customer=customer, street=str(number))

    def receiver(instance, **_):
        instance.updated_at = timezone.now()

    with connected(pre_save, receiver, Address):
        found = watch_saves(Address, "default")
    assert "updated_at" not in {each.column for each in found.drafts}
    assert ("Address", "updated_at") in {(each.model.__name__, each.column) for each in found.unexplained}


def test_rendered_markup_is_no_template(shop):
    def receiver(instance, **_):
        instance.body = f"<p class='lead'>{instance.title}</p>"

    with connected(pre_save, receiver, Article):
        found = watch_saves(Article, "default")
    assert "body" not in {each.column for each in found.drafts}
    assert "body" in {each.column for each in found.unexplained}


def test_a_path_that_comes_back_to_the_row_and_a_key_are_no_guess():
    told = {each.told for each in _of_schema(Target(Order, "total"))}
    assert not any("total = total" in each or each.endswith(("= id", ".id", "= pk")) for each in told)
    assert not any(each.reads == ("slug",) for each in _of_schema(Target(Article, "slug")))


def test_the_order_of_a_latest_is_told_by_asking(shop):
    """By key and by time are the same until a row is out of order."""
    Order.objects.all().delete()
    customer = Customer.objects.create(name="Ann")
    now = timezone.now()
    orders = [
        Order.objects.create(customer=customer, created_at=now - timedelta(days=9 - day)) for day in range(4)
    ]
    other = Customer.objects.create(name="Bob")
    Order.objects.create(customer=other, created_at=now)
    Order.objects.create(customer=other, created_at=now - timedelta(days=3))
    assert orders[-1].pk
    found = drafts_of(Order)["Customer.last_order"]
    assert found.must == 'HaveValues(last_order=Latest("orders", by=["-created_at", "-pk"]))'


def test_a_save_that_fails_is_told_and_the_others_are_watched(shop):
    def receiver(instance, **_):
        if instance.title.endswith("3"):
            raise ValueError("no good")

    with connected(post_save, receiver, Article):
        found = watch_saves(Article, "default")
    assert [*found.faults.values()] == ["ValueError: no good"]
    assert {each.column for each in found.drafts} == {"slug"}


def test_columns_that_a_field_makes_itself_are_no_effect():
    assert "pk" not in {each.column for each in Observer(Order, "default").targets()}
    Team.objects.create(name="a")
    assert watch_saves(Team, "default").drafts == []


def test_rich_rows_come_first():
    poor, rich = (Team.objects.create(name=each) for each in "ab")
    for _ in range(3):
        Player.objects.create(team=rich)
    assert [each.pk for each in Observer(Team, "default").rows] == [rich.pk, poor.pk]


def test_drafts_of_data_give_way_to_what_was_seen_and_both_evidences_stand(shop):
    audit = audit_signals({}, follow=True, with_names=True)
    watched = watch_saves(Item, "default").drafts
    found = {
        f"{each.model.__name__}.{each.column}": each
        for each in draft_rules([Order], audit, "default", watched).drafts
    }
    assert len(found["Order.item_count"].evidence) == 2
    assert "Saves of items put" in found["Order.item_count"].evidence[0]
    assert [each.effect.name.rpartition(".")[2] for each in found["Order.item_count"].covers] == [
        "handle_item_changed", "handle_item_deleted",
    ]  # fmt: skip


@pytest.mark.once
def test_the_command_writes_what_rules_check_accepts(shop, tmp_path, monkeypatch, settings):
    settings.RECONCILE = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    code, out, err = run("init", "Item", "--watch", "--folder", "watched_rules")
    assert (code, err) == (0, ""), err
    assert "saves, each rolled back." in out
    text = (tmp_path / "watched_rules" / "orders.py").read_text()
    assert "# Saves of items put" in text
    assert "covers=[signals.handle_item_changed, signals.handle_item_deleted]" in text
    settings.RECONCILE = {"RULES": ["watched_rules"]}
    assert run("rules", "--check")[0] == 0
    report = json.loads(run("init", "Item", "--watch", "--folder", "watched_rules", "--format", "json")[1])
    jsonschema.validate(report, SCHEMA)
    assert report["watched"]["saves"] > 20
    for name in [name for name in sys.modules if name.startswith("watched_rules")]:
        del sys.modules[name]


@pytest.mark.once
def test_a_model_has_to_be_named():
    code, out, err = run("init", "--watch")
    assert (code, out) == (2, "")
    assert "reconcile init MODEL --watch" in err


@pytest.mark.once
def test_what_nobody_can_say_is_told(shop, tmp_path, monkeypatch):
    def receiver(instance, **_):
        instance.body = f"<p class='lead'>{instance.title}</p>"

    monkeypatch.chdir(tmp_path)
    with connected(pre_save, receiver, Article):
        _, out, _ = run("init", "Article", "--watch", "--folder", "rules_here")
    assert "no expression found  shop.Article.body" in out
    assert "say what with FromPython and the receiver's own function" in out
