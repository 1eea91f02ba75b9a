"""What Django runs for a record, as the running project has it connected."""

import functools
from contextlib import contextmanager

import pytest
from django.contrib.auth.models import User
from django.db.models import CharField, DateTimeField, FileField, Model
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_save
from django.test.utils import isolate_apps

from reconcile.audit.effects import On, audited_models, effects_of, inherited_but_deaf, is_third_party
from sample_project.shop.models import Group, Order
from tests.zoo.models import Car, Contact, Page, Parcel, ParcelProxy, Vehicle


def handle(**_):
    """Hear of it."""


async def handle_later(**_):
    """Hear of it, and wait."""


@contextmanager
def connected(signal, receiver, sender=None, **options):
    signal.connect(receiver, sender=sender, **options)
    try:
        yield
    finally:
        signal.disconnect(receiver, sender=sender, dispatch_uid=options.get("dispatch_uid"))


def names(model, on=None):
    return [each.name.rpartition(".")[2] for each in effects_of(model) if on in {None, each.on}]


def one(model, name):
    (found,) = [each for each in effects_of(model) if each.name.endswith(name)]
    return found


def test_receivers_are_named_in_the_order_in_which_they_are_called():
    assert names(Order, On.POST_SAVE) == ["handle_order_created", "handle_order_saved"]
    assert names(Order, On.PRE_SAVE) == ["handle_order_saving"]
    assert names(Order, On.POST_DELETE) == ["handle_order_saved", "handle_order_deleted"]
    place = one(Order, "handle_order_created").place
    assert place.path.endswith("sample_project/shop/signals.py")


def test_a_many_to_many_field_sets_off_what_listens_to_its_rows():
    assert names(Group, On.M2M_CHANGED) == ["handle_members_changed"]
    assert names(Group.members.through, On.M2M_CHANGED) == ["handle_members_changed"]
    assert names(User, On.M2M_CHANGED) == []


def test_a_receiver_of_every_model_is_one_of_each():
    with connected(post_save, handle):
        assert one(Parcel, "test_effects.handle").of_all
        assert one(Order, "test_effects.handle").of_all
    with connected(m2m_changed, handle):
        assert "handle" in names(Contact, On.M2M_CHANGED)
        assert "handle" not in names(Page, On.M2M_CHANGED)


def test_how_a_receiver_is_connected_is_told():
    with connected(post_save, handle, Parcel):
        assert (one(Parcel, "handle").weak, one(Parcel, "handle").is_async) == (True, False)
    with connected(post_save, handle_later, Parcel, weak=False, dispatch_uid="later"):
        assert (one(Parcel, "handle_later").weak, one(Parcel, "handle_later").is_async) == (False, True)
    assert names(Parcel, On.POST_SAVE) == []


def test_a_receiver_that_is_gone_is_none():
    receiver = functools.partial(handle)
    post_save.connect(receiver, sender=Parcel)
    del receiver
    assert names(Parcel, On.POST_SAVE) == []


def test_a_proxy_and_a_child_do_not_set_off_what_listens_to_the_model_behind_them():
    with connected(post_save, handle, Parcel), connected(pre_save, handle, Vehicle):
        assert names(ParcelProxy, On.POST_SAVE) == []
        assert [each.on for each in inherited_but_deaf(ParcelProxy)] == [On.POST_SAVE]
        assert [each.on for each in inherited_but_deaf(Car)] == [On.PRE_SAVE]
        assert not inherited_but_deaf(Parcel)
    with connected(post_delete, handle, Parcel), connected(post_delete, handle, ParcelProxy):
        assert not inherited_but_deaf(ParcelProxy)


@isolate_apps("tests.zoo")
def test_overrides_and_fields_with_a_pre_save_of_their_own():
    class Upper(CharField):
        def pre_save(self, instance, add):
            return super().pre_save(instance, add).upper()

    class Base(Model):
        def save(self, *args, **kwargs):
            super().save(*args, **kwargs)

        class Meta:
            app_label = "zoo"
            abstract = True

    class Sheet(Base):
        name = Upper(max_length=10)
        plain = CharField(max_length=10)
        file = FileField()
        made_at = DateTimeField(auto_now_add=True)
        told_at = DateTimeField()

        def delete(self, *args, **kwargs):
            return super().delete(*args, **kwargs)

        class Meta:
            app_label = "zoo"

    found = {each.name: each for each in effects_of(Sheet) if not each.of_all}
    assert set(found) == {
        "zoo.Sheet.save",
        "zoo.Sheet.delete",
        "zoo.Sheet.name",
        "zoo.Sheet.file",
        "zoo.Sheet.made_at",
    }
    assert found["zoo.Sheet.save"].function.__qualname__.endswith("Base.save")
    assert (found["zoo.Sheet.name"].third_party, found["zoo.Sheet.file"].third_party) == (False, True)
    assert found["zoo.Sheet.save"].on is On.SAVE


def test_what_others_have_written_is_told_from_the_projects_own():
    assert one(User, "User.save").third_party
    assert not one(Order, "handle_order_created").third_party
    assert is_third_party(pytest.__file__)
    assert not is_third_party(__file__)


def test_the_models_of_the_projects_own_apps_are_listed():
    labels = {model._meta.label for model in audited_models()}
    assert {"shop.Order", "zoo.ParcelProxy"} <= labels
    assert "auth.User" not in labels
    assert not any(label.startswith("reconcile.") for label in labels)


def test_a_model_of_a_package_is_listed_if_the_project_listens_to_it():
    with connected(post_save, handle):
        assert User not in audited_models()
    with connected(post_save, handle, User):
        assert User in audited_models()
    assert User not in audited_models()
