"""A delete() that sets to NULL what the foreign keys set to NULL anyway does nothing that a bulk delete leaves out; any other does."""

from importlib import import_module
from pathlib import Path

import pytest
from django.db.models import Manager, QuerySet

from reconcile.audit.searching import Search, search_bypasses

pytestmark = [pytest.mark.usefixtures("shelf"), pytest.mark.once]

OWN = "Bough.objects.filter(height__gt=1, trunk=self.pk).update(trunk=None)"


@pytest.fixture
def skipped(tmp_path):
    """What calls skip where the delete() of trunks does something else."""

    def find(does, call="Trunk.objects.all().delete()"):
        file = tmp_path / "paths.py"
        file.write_text(f"from django.db import connection\nfrom tests.shelf.models import *\n\n{call}\n")
        models = Path(import_module("tests.shelf.models").__file__)
        text = models.read_text()
        assert OWN in text
        texts = {str(models): text.replace(OWN, does).encode()}
        found = search_bypasses({}, {}, Search(paths=[file]), texts).bypasses
        return {skip.effect.name.rpartition(".")[2] for each in found for skip in each.skips if skip.state == "uncovered"}  # fmt: skip

    return find


@pytest.mark.parametrize(
    "does",
    [
        OWN,
        "Bough.objects.filter(trunk=self).update(trunk=None)",
        "Bough.objects.filter(trunk=self.id).update(trunk=None)",
        "Bough.objects.filter(trunk_id=self.pk).update(trunk=None)",
        "Bough._default_manager.filter(trunk=self).update(trunk_id=None)",
        "kind = self.kind.model_class()\n        kind.objects.filter(trunk=self.pk).update(trunk=None)",
    ],
)
def test_what_the_keys_do_anyway_is_not_skipped(skipped, does):
    assert skipped(does) == set()


@pytest.mark.parametrize(
    "does",
    [
        "Bough.objects.filter(trunk=self).update(trunk=None, height=1)",
        "Bough.objects.filter(trunk=self).update(trunk=self.pk)",
        "Bough.objects.filter(trunk=self).update(nest=None)",
        "Bough.objects.filter(graft=self).update(graft=None)",
        "Bough.objects.filter(graft=self).update(trunk=None)",
        "Bough.objects.filter(height=self.pk).update(trunk=None)",
        "Bough.objects.filter(trunk=self.name).update(trunk=None)",
        "Bough.objects.filter(trunk=other.pk).update(trunk=None)",
        "Bough.objects.filter(trunk__gt=self.pk).update(trunk=None)",
        "Bough.objects.filter(Q(trunk=self)).update(trunk=None)",
        "Bough.objects.exclude(trunk=self).update(trunk=None)",
        "Bough.objects.using('other').filter(trunk=self).update(trunk=None)",
        "Bough.objects.filter(trunk=self).using('other').update(trunk=None)",
        "Bough.objects.filter(trunk=self).delete()",
        "remote.filter(trunk=self).update(trunk=None)",
        "remote.boughs.filter(trunk=self).update(trunk=None)",
        "Document.objects.filter(state=self.pk).update(state=None)",
        "kind = self.name\n        kind.objects.filter(trunk=self.pk).update(trunk=None)",
        "Index.objects.filter(trunk=self.pk).update(trunk=None)",
        "trunk = self\n        if self.name:\n            trunk = self.other\n        Bough.objects.filter(trunk=trunk).update(trunk=None)",
        "if self.name:\n            return None",
        "Bough.objects.filter(trunk=self).update(trunk=None)\n        Log.objects.create(text='gone')",
    ],
)
def test_anything_else_is_skipped(skipped, does):
    assert skipped(does) == {"delete"}


@pytest.mark.parametrize("call", ["Trunk.objects.all()._raw_delete('default')", "connection.cursor().execute('DELETE FROM shelf_trunk')"])  # fmt: skip
def test_what_deletes_past_django_leaves_the_keys_as_they_are(skipped, call):
    assert skipped(OWN, call) == {"delete"}


class Few(Manager):
    def get_queryset(self):
        return super().get_queryset().filter(height=1)


class Own(QuerySet):
    def update(self, **values):
        return super().update(**values)


def test_rows_that_django_does_not_find_are_not_set_to_null(skipped, shelf, monkeypatch):
    few = Few()
    few.auto_created, few.model, few.name = True, shelf.Bough, "_base_manager"
    monkeypatch.setitem(vars(shelf.Bough._meta), "base_manager", few)
    assert skipped(OWN) == {"delete"}


def test_an_update_of_the_projects_own_may_do_more(skipped, shelf, monkeypatch):
    monkeypatch.setattr(shelf.Bough.objects, "_queryset_class", Own)
    assert skipped(OWN) == {"delete"}
