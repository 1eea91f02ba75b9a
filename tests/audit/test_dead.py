"""Receivers that stand in the source, and that nothing has connected."""

from types import SimpleNamespace

import pytest
from django.db.models.signals import post_save

from reconcile.audit import dead
from reconcile.audit.dead import dead_receivers
from reconcile.audit.sources import Sources
from tests.zoo.models import Parcel

pytestmark = pytest.mark.once

WRITTEN = """
from django.db.models.signals import post_save
from django.dispatch import receiver
import django.dispatch

@receiver(post_save)
def decorated(**kwargs): ...

@django.dispatch.receiver(post_save)
def by_module(**kwargs): ...

def by_hand(**kwargs): ...
post_save.connect(by_hand)

def nobody(**kwargs): ...

@nobody
def other(**kwargs): ...

def reached(): ...
socket.connect(reached)
"""


@pytest.fixture
def app(tmp_path, monkeypatch):
    """An app in a folder that nothing is imported from."""
    folder = tmp_path / "leaflets"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "apps.py").touch()
    config = SimpleNamespace(path=str(folder))
    monkeypatch.setattr(dead, "apps", SimpleNamespace(get_app_configs=lambda: [config]))
    return folder


def found():
    return {each.name: each for each in dead_receivers(Sources())}


def test_each_way_of_writing_one_is_seen_and_nothing_else(app):
    (app / "receivers.py").write_text(WRITTEN)
    assert set(found()) == {
        "leaflets.receivers.decorated", "leaflets.receivers.by_module", "leaflets.receivers.by_hand",
    }  # fmt: skip
    one = found()["leaflets.receivers.decorated"]
    assert (one.ready, one.config) == ("from leaflets import receivers", str(app / "apps.py"))
    assert one.place.line == 6


def test_one_that_is_connected_is_not_dead(app):
    file = app / "receivers.py"
    file.write_text("from django.dispatch import receiver\n@receiver(None)\ndef alive(**kwargs): ...\n")
    assert set(found()) == {"leaflets.receivers.alive"}
    code = compile("\n\ndef alive(**kwargs): ...\n", str(file), "exec")
    namespace = {}
    exec(code, namespace)
    post_save.connect(namespace["alive"], sender=Parcel)
    try:
        assert not found()
    finally:
        post_save.disconnect(namespace["alive"], sender=Parcel)


@pytest.mark.parametrize("folder", ["tests", "migrations"])
def test_folders_that_are_no_part_of_the_running_project_are_left_out(app, folder):
    (app / folder).mkdir()
    (app / folder / "receivers.py").write_text(WRITTEN)
    assert not found()


def test_a_file_that_can_not_be_read_is_noted(app):
    (app / "receivers.py").write_text("@receiver(\n")
    sources = Sources()
    assert not list(dead_receivers(sources))
    (unreadable,) = sources.unreadable.values()
    assert "SyntaxError" in unreadable.why


def test_none_of_the_shop_and_the_zoo_is_dead():
    """All are imported by ready()."""
    names = {each.name for each in dead_receivers(Sources())}
    assert not {each for each in names if each.startswith("sample_project")}
