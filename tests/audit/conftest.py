"""The models of the shelf are there for the tests that ask for them, so that no other test has to know them."""

from importlib import import_module

import pytest
from django.test.utils import modify_settings


@pytest.fixture
def shelf():
    with modify_settings(INSTALLED_APPS={"append": "tests.shelf"}):
        yield import_module("tests.shelf.models")
