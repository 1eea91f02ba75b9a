"""Rows that other sessions and processes see, and that are cleaned up without emptying every table of the project."""

import pytest
from django.apps import apps
from django.db import connections

from sample_project.shop.models import Invoice, Order
from tests.zoo.models import Basket, Bill, Match, Player, Team

WRITTEN = (Invoice, Order, Match, Player, Team, Bill, Basket)
"""Children first."""


@pytest.fixture
def few_tables(transactional_db):
    """Only the package's own tables are left to be emptied when the test is over; on PostgreSQL each costs a file."""
    yield
    connections.close_all()
    for model in WRITTEN:
        model._base_manager.all()._raw_delete("default")
    apps.unset_available_apps()
    apps.set_available_apps(["reconcile"])
