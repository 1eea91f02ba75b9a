"""What a function would send, without sending it."""

import pytest
from django.db import connection, transaction
from django.db.models import F

from reconcile.db.unexecuted import first_read, first_write
from tests.zoo.models import Page

pytestmark = pytest.mark.django_db


@pytest.fixture
def page():
    return Page.objects.create(code="a", visits=1)


def write():
    """Read, then write twice."""
    for each in Page.objects.filter(visits=1):
        Page.objects.filter(pk=each.pk).update(visits=F("visits") + 1)
    Page.objects.all().delete()


def test_the_first_write_is_told_and_none_is_sent(page):
    sql, params = first_write(write, using="default")
    assert sql.startswith("UPDATE")
    assert "a" in params
    page.refresh_from_db()
    assert page.visits == 1


def test_what_is_read_before_is_asked_of_the_database(page):
    Page.objects.update(visits=2)
    assert first_write(write, using="default")[0].startswith("DELETE")
    assert Page.objects.exists()
    assert page.pk


def test_the_first_read_is_told_and_not_sent(page):
    sql, params = first_read(write, using="default")
    assert sql.startswith("SELECT")
    assert params == (1,)
    page.refresh_from_db()
    assert page.visits == 1


def test_a_savepoint_is_no_write():
    def within():
        with transaction.atomic():
            Page.objects.create(code="new")

    assert first_write(within, using="default")[0].startswith("INSERT")
    assert not Page.objects.exists()


@pytest.mark.parametrize(
    ("find", "function"), [(first_write, lambda: list(Page.objects.all())), (first_read, lambda: None)]
)
def test_a_function_that_sends_nothing_of_the_kind_has_none(find, function):
    assert find(function, using="default") is None
    assert not connection.needs_rollback


def test_what_the_function_raises_is_raised(page):
    def fail():
        Page.objects.count()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        first_write(fail, using="default")
    assert Page.objects.get() == page
