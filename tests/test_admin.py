"""Actions of the admin that write in bulk: what the selected records owe is there with them, or nothing is."""

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.contrib.messages import get_messages
from django.contrib.messages.storage.fallback import FallbackStorage
from django.db import connection
from django.http import HttpResponse, HttpResponseRedirect, QueryDict
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext

from reconcile import HaveValues, Rule
from reconcile.admin import EnsureActionMixin, ensure_selected
from sample_project.shop.models import Item, Order, PendingCharge

pytestmark = pytest.mark.django_db


class ItemAdmin(EnsureActionMixin, admin.ModelAdmin):
    actions = ("archive", "archive_and_fail", "shout", "look", ensure_selected)

    def archive(self, _, queryset):
        queryset.update(status=Item.Status.ARCHIVED)

    def archive_and_fail(self, _, queryset):
        queryset.update(status=Item.Status.ARCHIVED)
        raise ValueError("no stock")

    def look(self, _, queryset):
        return HttpResponse(f"seen {queryset.count()}")

    def shout(self, _, queryset):
        for each in queryset:
            each.delete()


@pytest.fixture
def request_(settings):
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.admin", "django.contrib.messages"]
    made = RequestFactory().post("/")
    made.user = User(username="ann", is_superuser=True, is_active=True)
    made.session = {}
    made._messages = FallbackStorage(made)
    return made


@pytest.fixture
def act(request_):
    """Runs an action of the page on rows through the admin. Returns the text of the page that it made itself, and what the user is told."""

    def run(name, rows, page=ItemAdmin):
        request_.POST = QueryDict(f"action={name}&select_across=1&_selected_action=1")
        response = page(rows.model, admin.AdminSite()).response_action(request_, rows)
        own = None if isinstance(response, HttpResponseRedirect) else response.content.decode()
        return own, [str(each) for each in get_messages(request_)]

    return run


@pytest.fixture
def charged():
    items = [Item.objects.create(price=10) for _ in range(3)]
    PendingCharge.objects.bulk_create([PendingCharge(item=each) for each in items])
    return items


def statuses():
    return [*PendingCharge.objects.order_by("pk").values_list("status", flat=True)]


def test_what_the_action_owes_for_its_writes_is_there_after_it(act, charged):
    selected = Item.objects.filter(status=Item.Status.ACTIVE).exclude(pk=charged[2].pk)
    returned, told = act("archive", selected)
    assert returned is None
    assert statuses() == ["cancelled", "cancelled", "pending"]
    assert Item.objects.filter(on_sale_since=None).count() == 2
    assert told == ["Also written: 6 rows by items.archived, items.archived_charges, items.storefront."]


def test_what_an_action_gives_back_is_given_back_and_nothing_is_done_where_it_writes_nothing(act, charged):
    Item.objects.update(status=Item.Status.ARCHIVED)
    assert act("look", Item.objects.all()) == ("seen 3", [])
    assert statuses() == ["pending"] * 3


def test_of_what_an_action_deletes_nothing_is_owed(act, charged):
    assert act("shout", Item.objects.all()) == (None, [])
    assert not Item.objects.exists()


def test_an_action_that_fails_fails_as_ever_and_leaves_nothing(act, charged):
    with pytest.raises(ValueError, match="no stock"):
        act("archive_and_fail", Item.objects.all())
    assert statuses() == ["pending"] * 3
    assert not Item.objects.filter(status=Item.Status.ARCHIVED).exists()


def test_where_what_is_owed_cannot_be_written_the_action_is_undone_and_the_user_told(act, charged):
    class Page(ItemAdmin):
        ensure_rules = (Rule(name="other", every=Order, must=HaveValues(total=0)),)

    _, told = act("archive", Item.objects.all(), Page)
    assert told == ["Nothing was done: other: It doesn't read shop.Item."]
    assert not Item.objects.filter(status=Item.Status.ARCHIVED).exists()


def test_a_page_may_name_its_rules(act, charged):
    class Page(ItemAdmin):
        ensure_rules = ("items.archived_charges",)

    _, told = act("archive", Item.objects.all(), Page)
    assert told == ["Also written: 3 rows by items.archived_charges."]
    assert Item.objects.filter(on_sale_since=None).count() == 0


def test_the_action_brings_into_being_what_is_owed_already(act, charged):
    Item.objects.update(status=Item.Status.ARCHIVED)
    _, told = act("ensure_selected", Item.objects.all())
    assert told == ["Also written: 9 rows by items.archived, items.archived_charges, items.storefront."]
    assert statuses() == ["cancelled"] * 3


def test_where_nothing_is_owed_the_action_says_so(act, charged):
    assert act("ensure_selected", Item.objects.all())[1] == ["The selected records owe nothing."]


def test_the_statements_do_not_grow_with_what_is_selected(act, charged):
    counts = []
    for _ in range(2):
        with CaptureQueriesContext(connection) as queries:
            act("archive", Item.objects.all())
        counts.append(len(queries))
        Item.objects.bulk_create([Item(price=10) for _ in range(200)])
    assert counts[1] <= counts[0] + 2
