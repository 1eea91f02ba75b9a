"""The models of the shelf are there for the tests that ask for them, so that no other test has to know them."""

from importlib import import_module
from textwrap import dedent

import pytest
from django.test.utils import modify_settings

from reconcile.audit.searching import Search, search_bypasses


@pytest.fixture
def shelf():
    with modify_settings(INSTALLED_APPS={"append": "tests.shelf"}):
        yield import_module("tests.shelf.models")


HEAD = """
from django.db import connection, models
from django.db.models import F
from tests.shelf.models import *
from tests.shelf.models import (
    Author, Book, Cached, Checked, Club, Coded, Copy, Country, Document, Event, Label, Membership, Numbered, Part, Phased, Seat, Shout, Slugged,
    Guarded, Halves, Named, Owned, Publishing, Various, Scoped, Soft, Stashing, State, Summed, TaxRule, Tracked, Trunk, Visitors, Voters, Watched, Whisper,
)
"""


@pytest.fixture
def search(tmp_path):
    def find(text, **options):
        file = tmp_path / "paths.py"
        file.write_text(HEAD + dedent(text))
        return search_bypasses({}, {}, Search(paths=[file], **options))

    return find


@pytest.fixture
def found(search):
    def find(text):
        return {each.model: each for each in search(text).bypasses}

    return find


@pytest.fixture
def skipped(found):
    """What the calls skip, by model: the names of the effects that are worth saying."""

    def find(text):
        return {
            model: {each.effect.name.rpartition(".")[2] for each in bypass.skips if each.state == "uncovered"}
            for model, bypass in found(text).items()
        }

    return find


@pytest.fixture
def states(found):
    def find(text):
        return {
            model: {each.effect.name.rpartition(".")[2]: str(each.state) for each in bypass.skips}
            or str(bypass.state)
            for model, bypass in found(text).items()
        }

    return find
