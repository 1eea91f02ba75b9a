"""The examples of the pages that teach a service layer are run, and do what the page says."""

import re
from decimal import Decimal
from functools import partial

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import transaction

from reconcile import ensure
from reconcile.audit.muting import muted
from reconcile.testing import assert_consistent
from sample_project.shop import models
from sample_project.shop.models import Article, Customer, Item, Order, PendingCharge
from sample_project.shop.services import tell_storefront
from tests.helpers import ROOT

pytestmark = [pytest.mark.django_db, pytest.mark.once]


def blocks(page):
    """The python blocks of a page, fenced or indented, in their order."""
    text = (ROOT / "docs" / page).read_text()
    fenced = r"^```python\n(.*?)^```"
    indented = r"(?:(?<=\n\n)((?: {4}[^\n]*\n|\n(?= {4}))+))"
    for match in re.finditer(f"{fenced}|{indented}", text, re.DOTALL | re.MULTILINE):
        block = match[1] or re.sub("^ {4}", "", match[2], flags=re.MULTILINE)
        if re.search(r"^(from|import|def|with|class|@)", block, re.MULTILINE):
            yield block


def run_page(page, **given):
    """Run the blocks of a page one after the other in one module. Returns its names."""
    names = {**vars(models), "transaction": transaction, "partial": partial, "__name__": "page", **given}
    for block in blocks(page):
        exec(compile(block, page, "exec"), names)
    return names


@pytest.fixture
def ann():
    return Customer.objects.create(name="Ann")


def import_catalogue(titles):
    Article.objects.bulk_create([Article(title=each) for each in titles])


def test_the_bulk_half(ann, settings, admin_installed):
    names = run_page("bulk-half.md", import_catalogue=import_catalogue, file=["One & two"])
    assert Article.objects.get().slug == "one-two"
    orders = [Order(customer=ann) for _ in range(3)]
    names["create_orders"](orders, [Item(order=each, price=Decimal(2)) for each in orders])
    assert_consistent(Order)
    names["import_orders"](ann, [{"status": "paid"}, {"status": "draft"}])
    ann.refresh_from_db()
    assert ann.order_count == 5
    assert issubclass(names["ItemAdmin"], admin.ModelAdmin)
    names["import_orders"], names["make_lines"] = (
        Order.objects.bulk_create,
        lambda number: [Order() for _ in range(number)],
    )
    names["test_import_orders"](None)


@pytest.fixture
def admin_installed(settings):
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.admin", "django.contrib.messages"]


def test_two_paths():
    def path():
        order = Order.objects.create()
        Item.objects.create(order=order, price=3)

    def in_bulk():
        with transaction.atomic():
            orders = Order.objects.bulk_create([Order()])
            ensure([*orders, *Item.objects.bulk_create([Item(order=orders[0], price=3)])], new=True)

    names = run_page("two-paths.md", one_by_one=path, in_bulk=in_bulk, User=User)
    names["test_both_halves_leave_the_same"](None)
    names["in_bulk"] = lambda: Order.objects.bulk_create([Order()])
    with pytest.raises(AssertionError, match="differ"):
        names["test_both_halves_leave_the_same"](None)
    made = names["orders"]()
    assert [type(each).__name__ for each in made] == ["Customer", "Order", "Order", "Item"]
    assert len(names["groups"]()) == 2


def charged(number):
    items = [Item.objects.create(price=10) for _ in range(number)]
    PendingCharge.objects.bulk_create([PendingCharge(item=each) for each in items])
    return items


def statuses():
    return sorted(PendingCharge.objects.values_list("status", flat=True))


@pytest.mark.parametrize("step", [1, 2, 3])
def test_each_step_of_the_receiver_does_the_same(step, django_capture_on_commit_callbacks):
    told = []
    storefront = type("Task", (), {"delay": staticmethod(told.append)})
    names = {**vars(models), "transaction": transaction, "partial": partial, "tell_storefront": storefront}
    for block in [*blocks("thin-receiver.md")][:step]:
        exec(compile(block, "thin-receiver.md", "exec"), names)
    item, other = charged(2)
    receiver = names["on_item_saved"]
    with muted():
        item.status = "archived"
        item.save()
    with django_capture_on_commit_callbacks(execute=True):
        for each in (item, other):
            receiver(Item, each)
    assert (statuses(), told) == (["cancelled", "pending"], [[item.pk]])


def test_a_receiver_becomes_a_function_a_rule_and_a_bulk_half():
    names = run_page("thin-receiver.md", tell_storefront=tell_storefront)
    names["test_archiving_many_is_archiving_each"](None)
    items = charged(3)
    names["archive"](Item.objects.filter(pk__in=[each.pk for each in items[:2]], status="active"))
    assert statuses() == ["cancelled", "cancelled", "pending"]
    assert names["archived_charges"].covers == [names["on_item_saved"]]


def test_a_lambda_in_a_loop_finds_the_last(django_capture_on_commit_callbacks):
    """Why the page says `partial`."""
    late, held = [], []
    with django_capture_on_commit_callbacks(execute=True):
        for number in range(3):
            transaction.on_commit(lambda: late.append(number))  # noqa: B023 - that is the point
            transaction.on_commit(partial(held.append, number))
    assert (late, held) == ([2, 2, 2], [0, 1, 2])
