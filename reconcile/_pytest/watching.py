"""The marker: the rules are checked before and after the test, inside its transaction, and what is new fails it."""

from __future__ import annotations

import unittest
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from reconcile.rules import Rule
    from reconcile.testing import Watch

_WATCH = pytest.StashKey["Watch"]()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Have pytest-django make a test database: it looks at the marks and fixtures of what was collected."""
    marker = item.get_closest_marker("reconcile")
    asks = "reconcile_check" in getattr(item, "fixturenames", ())
    if (marker or asks) and item.get_closest_marker("django_db") is None:
        using = marker.kwargs.get("using") if marker else None
        item.add_marker(pytest.mark.django_db(databases=[using]) if using else pytest.mark.django_db)


@pytest.fixture(autouse=True)
def _reconcile_watch(request: pytest.FixtureRequest) -> None:
    """Begin to watch. As an autouse fixture it comes before those of the test, so that what they write counts, too."""
    marker = request.node.get_closest_marker("reconcile")
    if marker is None:
        return
    request.getfixturevalue("db")
    watch = _begun(*marker.args, **marker.kwargs)
    if isinstance(request.instance, unittest.TestCase):
        # Django's TestCase rolls back within the call; its clean-ups come before that.
        request.instance.addCleanup(_end_unless_failed, request.node, watch)
    else:
        request.node.stash[_WATCH] = watch


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """End what was begun, once the test has passed and before any of its fixtures is torn down.

    As the last wrapper it is the innermost, so that what a rule's own functions print is captured.
    """
    result = yield
    watch = item.stash.get(_WATCH, None)
    if watch is not None:
        _end(watch)
    return result


def _begun(
    rules: Iterable[str | Rule] | None = None, *, settled: bool = True, using: str = "default"
) -> Watch:
    from reconcile.testing import Watch

    return Watch.begin(rules, using=using, settled=settled)


def _end_unless_failed(item: Any, watch: Watch) -> None:
    if not getattr(item, "_excinfo", None):
        _end(watch)


def _end(watch: Watch) -> None:
    """Fail with what the assertion says alone: the marker is no place in the code to point at."""
    try:
        watch.end()
    except AssertionError as error:
        raise pytest.fail.Exception(f"What the test wrote drifts: {error}", pytrace=False) from None
