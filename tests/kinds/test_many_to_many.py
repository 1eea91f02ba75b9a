"""What `add`, `remove`, `clear` and `set` of a many-to-many field leave behind where nobody heard of them, and the remedies."""

import pytest
from django.contrib.auth.models import User
from django.db.models import F

from reconcile import EXTRA, MISSING, Call, Delete, HaveRow, HaveRows, Rule
from sample_project.shop.models import Access, Group
from tests.helpers import assert_clean, assert_finds, assert_repairs
from tests.zoo.models import Contact, Tag

pytestmark = pytest.mark.django_db

MEMBERS = Group.members.through
GRANTED = HaveRow(Access, link={"user": F("user"), "group": F("group")})


@pytest.fixture
def group():
    """A group of three, each with access."""
    made = Group.objects.create(name="a")
    made.members.add(*(User.objects.create(username=name) for name in "xyz"))
    assert Access.objects.count() == 3
    return made


def access(*, delete=True):
    return Rule(name="access", every=MEMBERS, must=GRANTED, remedies={EXTRA: Delete()} if delete else {})


def test_what_a_remove_that_nobody_heard_of_leaves_is_extra_and_deleted(group):
    gone, *_ = User.objects.all()
    MEMBERS.objects.filter(user=gone)._raw_delete("default")
    (left,) = Access.objects.filter(user=gone)
    assert_finds(access(), extra=[left])
    assert_repairs(access(), delete=1)
    assert Access.objects.filter(group=group).count() == 2


def test_so_is_what_a_clear_leaves(group):
    MEMBERS.objects.all()._raw_delete("default")
    assert_finds(access(), extra=Access.objects.all())
    assert_repairs(access(), delete=3)
    assert not Access.objects.exists()
    assert group.members.count() == 0


def test_a_function_of_the_project_revokes_instead(group):
    MEMBERS.objects.filter(user__username="x")._raw_delete("default")

    def revoke(rows):
        Access.objects.filter(pk__in=[each.pk for each in rows]).delete()

    rule = Rule(name="access", every=MEMBERS, must=GRANTED, remedies={EXTRA: Call(revoke)})
    assert_repairs(rule, called=1)
    assert Access.objects.filter(group=group).count() == 2


def test_rows_of_the_field_itself_are_removed():
    """`add` and `remove` as a rule: each contact that is a default has the tag, and no other has."""
    tag = Tag.objects.create(name="default")
    one, two, three = (Contact.objects.create(is_default=is_default) for is_default in (True, False, False))
    two.tags.add(tag)
    through = Contact.tags.through
    must = HaveRow(through, link={"contact": F("pk"), "tag": tag.pk})
    rule = Rule(
        name="tagged", every=Contact.objects.filter(is_default=True), must=must, remedies={EXTRA: Delete()}
    )
    assert_finds(rule, missing=[one], extra=[through.objects.get(contact=two)])
    assert_repairs(rule, insert=1, delete=1)
    assert [*Contact.objects.filter(tags=tag)] == [one]
    assert_clean(rule)
    assert not three.tags.exists()


def tags_of(email):
    return [{"tag_id": int(each)} for each in (email or "").split()]


def test_set_is_the_set_that_a_function_gives():
    tags = [Tag.objects.create(name=name) for name in "abc"]
    contact = Contact.objects.create(email=f"{tags[0].pk} {tags[1].pk}")
    contact.tags.add(tags[1], tags[2])
    through = Contact.tags.through
    must = HaveRows(through, link={"contact": F("pk")}, rows=tags_of, reads=["email"], key=["tag_id"])
    rule = Rule(name="tags", every=Contact, must=must, remedies={EXTRA: Delete()})
    assert_repairs(rule, insert=1, delete=1)
    assert {*contact.tags.all()} == {*tags[:2]}


def test_both_sides_of_a_field_that_refers_to_its_own_model():
    one, two = Contact.objects.create(), Contact.objects.create()
    friends = Contact.friends.through
    friends.objects.bulk_create([friends(from_contact=one, to_contact=two)])
    must = HaveRow(friends, link={"from_contact": F("to_contact"), "to_contact": F("from_contact")})
    rule = Rule(name="symmetrical", every=friends, must=must)
    assert rule.remedy(MISSING).inserts
    assert_repairs(rule, insert=1)
    assert [*two.friends.all()] == [one]
