"""A model for each package: tags, a tree, an activity stream, and models that inherit."""

from django.db import models
from mptt.models import MPTTModel, TreeForeignKey
from polymorphic.models import PolymorphicModel
from taggit.managers import TaggableManager


class Place(models.Model):
    """Tagged by django-taggit, and an actor and target of django-activity-stream."""

    name = models.CharField(max_length=40)
    tags = TaggableManager(blank=True)
    tag_count = models.IntegerField(default=0)


class Genre(MPTTModel):
    """A nested set."""

    name = models.CharField(max_length=40)
    parent = TreeForeignKey("self", null=True, blank=True, on_delete=models.CASCADE, related_name="children")


class Project(PolymorphicModel):
    topic = models.CharField(max_length=40)


class ArtProject(Project):
    artist = models.CharField(max_length=40, default="unknown")


class ResearchProject(Project):
    supervisor = models.CharField(max_length=40, default="nobody")
