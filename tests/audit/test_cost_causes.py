"""Who causes the statements that a save needs, and what is counted from which state."""

from dataclasses import replace
from itertools import count

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction
from django.db.models import CharField, Model
from django.db.models.signals import post_delete, post_save

from reconcile.audit.cost.costing import cost_of_models, cost_of_new
from reconcile.audit.shut import RefusedError
from reconcile.rules.registry import project_rules
from sample_project.shop.models import Article, Customer, Invoice, Item, Note, Order
from tests.audit.test_effects import connected
from tests.zoo.models import Parcel, ParcelProxy, Stamp

pytestmark = pytest.mark.django_db(databases=["default", "archive"])


def cost_of(make):
    return cost_of_new(make, using="default")


def causes(counted):
    """Statements by the last part of the effect's name."""
    return {
        (name.rpartition(".")[2], statement): times for (name, statement), times in counted.by_effect.items()
    }


def costs(*models, deletes=False, factory=None):
    rules = {} if factory is None else {"it": replace(project_rules()["orders.invoice"], factory=factory)}
    audit = cost_of_models(rules, list(models), using="default", deletes=deletes)
    return audit, {each.model: each for each in audit.models}


def ks(cost, act):
    return [each.counted.k for each in cost.acts[act].samples]


def count_stamps(**_):
    """One statement."""
    Stamp.objects.count()


def test_an_own_save_is_charged_what_it_executes_itself(monkeypatch):
    """Neither the record's own statement nor that of a receiver is executed by it, though both run within it."""

    def save(self, *args, **kwargs):
        Stamp.objects.count()
        Model.save(self, *args, **kwargs)

    monkeypatch.setattr(Article, "save", save)
    counted = cost_of(lambda: Article(title="a"))
    assert causes(counted) == {
        ("save", "SELECT zoo_stamp"): 1,
        ("handle_article_written", "SELECT shop_keyword"): 1,
    }
    assert (counted.k, counted.own) == (2, 1)


def test_an_own_save_that_writes_another_record_is_charged_for_it(monkeypatch):
    def save(self, *args, **kwargs):
        Model.save(self, *args, **kwargs)
        Customer.objects.create(name="a")

    monkeypatch.setattr(Parcel, "save", save)
    counted = cost_of(Parcel)
    assert causes(counted) == {("save", "INSERT shop_customer"): 1}
    assert (counted.k, counted.own) == (1, 1)


def test_a_field_is_charged_what_it_looks_up(monkeypatch):
    """It can't be muted, and yet it isn't the record's own statement."""

    class LookingUp(CharField):
        def pre_save(self, instance, add):
            Stamp.objects.count()
            return super().pre_save(instance, add)

    monkeypatch.setattr(Customer._meta.get_field("name"), "__class__", LookingUp)
    monkeypatch.setattr(Parcel._meta.get_field("label"), "__class__", LookingUp)
    for make, label in ((lambda: Customer(name="a"), "shop.Customer.name"), (Parcel, "zoo.Parcel.label")):
        counted = cost_of(make)
        # Once for each time that Django asks the field, which its next version does twice.
        asked = counted.by_effect[label, "SELECT zoo_stamp"]
        assert counted.by_effect.keys() == {(label, "SELECT zoo_stamp")}
        assert (counted.k, counted.own, asked in {1, 2}) == (asked, 1, True)


def test_a_receiver_that_is_awaited_is_named():
    async def waits(instance, **_):
        await sync_to_async(lambda: Note.objects.filter(pk=1).count())()

    with connected(post_save, waits, Parcel):
        counted = cost_of(Parcel)
    assert causes(counted) == {("waits", "SELECT shop_note"): 1}
    assert counted.k == 1


def test_a_proxy_s_costs_are_its_own():
    """Its save calls none of the receivers of the model behind it."""
    Parcel.objects.create()
    with connected(post_save, count_stamps, Parcel):
        _, found = costs(Parcel, ParcelProxy)
    assert ks(found[Parcel], "saved again") == [1]
    assert ks(found[ParcelProxy], "saved again") == [0]


def test_what_would_be_written_to_another_database_is_refused():
    """Nothing would roll it back."""

    def writes(**_):
        with transaction.atomic("archive"):
            Article.objects.using("archive").create(title="a")

    before = Article.objects.using("archive").count()
    with connected(post_save, writes, Parcel), pytest.raises(RefusedError, match="archive"):
        cost_of(Parcel)
    assert Article.objects.using("archive").count() == before


def test_a_new_record_is_counted_in_silence_from_the_state_that_it_is_saved_in():
    """An earlier record's receiver has made what the later one updates."""

    def makes(instance, **_):
        if instance.label == "first":
            Parcel.objects.create(pk=1_000_007, label="second")

    def factory():
        return [Parcel(label="first"), Parcel(pk=1_000_007, label="second")]

    with connected(post_save, makes, Parcel):
        audit, found = costs(Parcel, factory=factory)
    assert not audit.faults
    second = found[Parcel].acts["created"].samples[1].counted
    assert (second.k, second.own) == (0, 1)


def test_a_delete_of_a_new_record_finds_the_same_rows_in_silence():
    def factory():
        customer = Customer(name="a")
        return [customer, Order(customer=customer)]

    _, found = costs(Order, factory=factory, deletes=True)
    (deleted,) = found[Order].acts["deleted"].samples
    by_receivers = sum(times for (name, _), times in deleted.counted.by_effect.items() if name)
    assert by_receivers == 4
    # In silence its invoice and its notification are there, too.
    assert deleted.counted.own >= 4


def test_a_factory_that_makes_something_else_each_time_is_a_fault():
    calls = count()

    def factory():
        return [Parcel() for _ in range(1 + next(calls))]

    audit, _ = costs(Parcel, factory=factory)
    assert "does not make the same records" in audit.faults["the factory of it"]
    assert audit.status == "error"


# Deletes by a queryset.


def test_the_receiver_that_has_cost_the_fast_delete_is_named_and_counted():
    parcel = Parcel.objects.create()
    Stamp.objects.bulk_create(Stamp(parcel=parcel) for _ in range(5))
    with connected(post_delete, count_stamps, Stamp):
        _, found = costs(Stamp, deletes=True)
    cost = found[Stamp]
    assert "count_stamps" in {each.name.rpartition(".")[2] for each in cost.slows_deletes}
    assert not cost.referring
    # Read, delete by key, and the receiver for each.
    assert (cost.together.rows, cost.together.statements, cost.together.without) == (5, 2 + 5, 1)


def test_relations_that_have_the_rows_read_in_any_case_are_told_instead():
    _, found = costs(Order)
    assert not found[Order].slows_deletes
    assert found[Order].referring == sorted(
        each._meta.label for each in (Customer, Invoice, Item, type(Order().notifications.model()))
    )
    assert found[Order].together is None


def test_a_record_that_others_protect_is_no_failure(monkeypatch):
    from django.db.models import PROTECT

    parcel = Parcel.objects.create()
    Stamp.objects.create(parcel=parcel)
    monkeypatch.setattr(Stamp._meta.get_field("parcel").remote_field, "on_delete", PROTECT)
    audit, found = costs(Parcel, deletes=True)
    deleted = found[Parcel].acts["deleted"]
    assert (deleted.protected, deleted.faults, audit.status) == (1, {}, "counted")
    assert found[Parcel].together is None
