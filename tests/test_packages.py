"""Other packages' own models and signals: drifted by a bulk path, found by a rule, repaired."""

import pytest
from actstream import action
from actstream.models import Action
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db.models import CharField, Count, Exists, F, OuterRef, Q, Subquery, Value
from django.db.models.functions import Cast, Coalesce
from django.utils.text import slugify
from taggit.models import Tag, TaggedItem

from reconcile import (
    EXTRA,
    STALE,
    BeUnique,
    Call,
    Delete,
    FromPython,
    HaveRow,
    HaveSource,
    HaveValues,
    LookedUp,
    Rule,
    Satisfy,
)
from tests.helpers import assert_clean, assert_finds, assert_repairs, everything, repaired
from tests.packages.models import ArtProject, Genre, Place, Project, ResearchProject

pytestmark = pytest.mark.django_db


def content_type(model):
    """A model's content type, looked up by the database when the rule runs."""
    named = ContentType.objects.filter(app_label=model._meta.app_label, model=model._meta.model_name)
    return Subquery(named.values("pk")[:1])


# django-taggit: rows of the through model hang on a generic key.

TAG_COUNT = Rule(
    name="tags.count",
    every=Place,
    must=HaveValues(
        tag_count=LookedUp(
            TaggedItem,
            link={"object_id": F("pk")},
            where=Q(content_type__app_label="packages", content_type__model="place"),
            value=Count("pk"),
        )
    ),
)
TAGGED = Rule(
    name="tags.source", every=TaggedItem, must=HaveSource("content_object"), remedies={EXTRA: Delete()}
)
SLUG = Rule(name="tags.slug", every=Tag, must=HaveValues(slug=FromPython(slugify, reads=["name"])))
TAGGED_ONCE = Rule(
    name="tags.once",
    every=TaggedItem,
    must=BeUnique("tag", "content_type", "object_id"),
    remedies={EXTRA: Delete()},
)


def test_tags_that_a_bulk_path_has_added_are_counted():
    place, other = Place.objects.create(name="a"), Place.objects.create(name="b")
    other.tags.add("calm")
    Place.objects.filter(pk=other.pk).update(tag_count=1)
    kind = ContentType.objects.get_for_model(Place)
    tags = [Tag.objects.create(name=name) for name in ("bright", "large")]
    assert_clean(TAG_COUNT)
    TaggedItem.objects.bulk_create(TaggedItem(tag=tag, content_type=kind, object_id=place.pk) for tag in tags)
    assert_finds(TAG_COUNT, stale=[place])
    assert_repairs(TAG_COUNT, update=1)
    place.refresh_from_db()
    assert place.tag_count == place.tags.count() == 2


def test_tags_of_a_place_that_was_deleted_past_the_collector_are_deleted():
    places = [Place.objects.create(name=name) for name in "ab"]
    for place in places:
        place.tags.add("calm", "bright")
    left = Place.objects.filter(pk=places[0].pk)
    left._raw_delete(left.db)
    assert_finds(TAGGED, extra=TaggedItem.objects.filter(object_id=places[0].pk))
    assert_repairs(TAGGED, delete=2)
    assert places[1].tags.count() == 2


def test_tags_made_in_bulk_get_the_slug_that_save_would_have_made():
    right = Tag.objects.create(name="Old Town")
    assert right.slug == "old-town"
    Tag.objects.bulk_create([Tag(name="Sea View", slug="x1"), Tag(name="Roof", slug="x2")])
    assert_finds(SLUG, stale=Tag.objects.exclude(pk=right.pk))
    assert_repairs(SLUG, update=2)
    assert set(Tag.objects.values_list("slug", flat=True)) == {"old-town", "sea-view", "roof"}


# django-mptt: a nested set is rebuilt by the package's own function.


def rebuild(records):
    """As the package rebuilds a tree: all of it, once a chunk."""
    Genre.objects.rebuild()


LEVEL = Rule(
    name="genres.level",
    every=Genre,
    must=HaveValues(level=Coalesce(F("parent__level") + 1, Value(0))),
    remedies={STALE: Call(rebuild)},
)
NESTED = Rule(
    name="genres.nested",
    every=Genre,
    must=Satisfy(
        Q(lft__lt=F("rght"))
        & (
            Q(parent__isnull=True)
            | Q(lft__gt=F("parent__lft"), rght__lt=F("parent__rght"), tree_id=F("parent__tree_id"))
        )
    ),
    remedies={STALE: Call(rebuild)},
)


def test_a_tree_that_was_moved_past_the_package_is_rebuilt_by_its_own_function():
    rock, jazz = (Genre.objects.create(name=name) for name in ("rock", "jazz"))
    hard = Genre.objects.create(name="hard", parent=rock)
    Genre.objects.create(name="metal", parent=hard)
    assert_clean(LEVEL)
    assert_clean(NESTED)
    Genre._base_manager.filter(pk=hard.pk).update(parent=jazz)
    Genre._base_manager.bulk_create([Genre(name="free", parent=jazz, lft=0, rght=0, tree_id=0, level=0)])
    free = Genre.objects.get(name="free")
    assert_finds(LEVEL, stale=[free])
    assert_finds(NESTED, stale=[hard, free])
    result = repaired(NESTED)
    assert (result.left, result.why_stopped) == (0, "")
    assert result.written.called == 2
    assert_clean(NESTED)
    assert_clean(LEVEL)
    jazz.refresh_from_db()
    assert {node.name for node in jazz.get_descendants()} == {"hard", "metal", "free"}
    assert repaired(NESTED).written.total == 0


# django-activity-stream: generic keys, and a signal of its own.

OPENED = Rule(
    name="places.opened",
    every=Place,
    must=HaveRow(
        Action,
        link={
            "actor_content_type": content_type(Place),
            "actor_object_id": Cast("pk", CharField(max_length=255)),
            "verb": "opened",
        },
        where=Q(actor_content_type__app_label="packages", actor_content_type__model="place"),
    ),
)
ACTOR = Rule(name="actions.actor", every=Action, must=HaveSource("actor"), remedies={EXTRA: Delete()})
TARGET = Rule(name="actions.target", every=Action, must=HaveSource("target"))


def test_places_made_in_bulk_have_no_action_and_get_one():
    user = User.objects.create(username="ada")
    for name in "ab":
        action.send(Place.objects.create(name=name), verb="opened")
    action.send(user, verb="opened")
    assert assert_clean(OPENED) is None
    Place.objects.bulk_create([Place(name=name) for name in "cd"])
    assert_finds(OPENED, missing=Place.objects.filter(name__in="cd"))
    assert_repairs(OPENED, insert=2)
    place = Place.objects.get(name="c")
    assert [each.verb for each in place.actor_actions.all()] == ["opened"]
    assert Action.objects.count() == 5


def test_actions_of_an_actor_that_is_gone_are_found_and_those_without_a_target_are_none():
    user, place = User.objects.create(username="ada"), Place.objects.create(name="a")
    action.send(user, verb="saw", target=place)
    action.send(place, verb="opened")
    assert_clean(ACTOR)
    assert_clean(TARGET)
    gone = Place.objects.filter(pk=place.pk)
    gone._raw_delete(gone.db)
    assert_finds(ACTOR, extra=Action.objects.filter(verb="opened"))
    assert_finds(TARGET, extra=Action.objects.filter(verb="saw"))
    assert_repairs(ACTOR, delete=1)
    before = everything()
    assert repaired(TARGET).written.total == 0
    assert everything() == before


# django-polymorphic: a row in two tables, and a column that says in which.

ART = Rule(
    name="projects.art",
    every=Project.objects.non_polymorphic().filter(polymorphic_ctype__model="artproject"),
    must=HaveRow(ArtProject, link={"project_ptr": F("pk")}),
)
KIND = Rule(
    name="projects.kind",
    every=Project.objects.non_polymorphic().filter(
        Exists(ArtProject._base_manager.filter(pk=OuterRef("pk")))
    ),
    must=HaveValues(polymorphic_ctype=content_type(ArtProject)),
)


def test_the_second_half_of_a_project_that_a_bulk_path_has_not_written_is_inserted():
    ArtProject.objects.create(topic="murals", artist="Emi")
    ResearchProject.objects.create(topic="tides")
    kind = ContentType.objects.get_for_model(ArtProject, for_concrete_model=False)
    Project._base_manager.bulk_create([Project(topic="half", polymorphic_ctype=kind)])
    half = Project.objects.non_polymorphic().get(topic="half")
    assert_finds(ART, missing=[half.pk])
    assert_repairs(ART, insert=1)
    whole = Project.objects.get(pk=half.pk)
    assert (type(whole), whole.topic, whole.artist) == (ArtProject, "half", "unknown")


def test_a_project_that_does_not_say_what_it_is_says_so_again():
    project = ArtProject.objects.create(topic="murals")
    ResearchProject.objects.create(topic="tides")
    assert_clean(KIND)
    Project.objects.non_polymorphic().filter(pk=project.pk).update(polymorphic_ctype=None)
    assert_finds(KIND, stale=[project.pk])
    assert_repairs(KIND, update=1)
    assert type(Project.objects.get(pk=project.pk)) is ArtProject
