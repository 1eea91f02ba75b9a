"""The marker `reconcile`: the rules are checked before and after the test, and new drift fails the test."""

from __future__ import annotations

import unittest
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from reconcile.rules.rule import Rule
    from reconcile.testing import Watch

_WATCH = pytest.StashKey["Watch"]()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the test for pytest-django, which makes a test database only if a collected test asks for one."""
    marker = item.get_closest_marker("reconcile")
    uses_check = "reconcile_check" in getattr(item, "fixturenames", ())
    if (marker or uses_check) and item.get_closest_marker("django_db") is None:
        using = marker.kwargs.get("using") if marker else None
        item.add_marker(pytest.mark.django_db(databases=[using]) if using else pytest.mark.django_db)


@pytest.fixture(autouse=True)
def _reconcile_watch(request: pytest.FixtureRequest) -> None:
    """Begin to watch. An autouse fixture comes before the fixtures of the test, so that their writes are watched, too."""
    marker = request.node.get_closest_marker("reconcile")
    if marker is None:
        return
    request.getfixturevalue("db")
    watch = _begin(*marker.args, **marker.kwargs)
    if isinstance(request.instance, unittest.TestCase):
        # Django's TestCase rolls back at the end of the call, after its clean-ups.
        request.instance.addCleanup(_end_unless_failed, request.node, watch)
    else:
        request.node.stash[_WATCH] = watch


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """End the watch after the test has passed, and before its fixtures are torn down.

    The last wrapper is the innermost, so that pytest captures what the functions of a rule print.
    """
    result = yield
    watch = item.stash.get(_WATCH, None)
    if watch is not None:
        _end(watch)
    return result


def _begin(
    rules: Iterable[str | Rule] | None = None, *, settled: bool = True, using: str = "default"
) -> Watch:
    from reconcile.testing import Watch

    return Watch.begin(rules, using=using, settled=settled)


def _end_unless_failed(item: Any, watch: Watch) -> None:
    if not getattr(item, "_excinfo", None):
        _end(watch)


def _end(watch: Watch) -> None:
    """End the watch. Fails with the message of the assertion alone, since a traceback would show none of the test's code."""
    try:
        watch.end()
    except AssertionError as error:
        raise pytest.fail.Exception(f"What the test wrote drifts: {error}", pytrace=False) from None
