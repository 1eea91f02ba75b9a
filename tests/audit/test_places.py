"""Where a function stands, behind whatever is around it."""

import functools
from pathlib import Path

import pytest

from reconcile.audit.places import innermost, name_of, place_of
from reconcile.core.declaration import Place, shown_path

pytestmark = pytest.mark.once

HERE = str(Path(__file__).resolve())


def plain():
    """Stand on a line of its own."""


def without_wraps(function):
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def with_wraps(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


class Handler:
    def method(self):
        """Be bound."""

    def __call__(self):
        """Be called."""

    @staticmethod
    def static():
        """Be nobody's."""


def local(helper):
    """A function that uses another one and is no decorator of it."""

    def handle(instance):
        return helper(instance)

    return handle


@pytest.mark.parametrize(
    "wrapped",
    [
        plain,
        functools.partial(plain),
        functools.partial(functools.partial(plain), 1),
        without_wraps(plain),
        with_wraps(plain),
        with_wraps(without_wraps(plain)),
        functools.lru_cache(plain),
    ],
    ids=["itself", "partial", "partial of a partial", "no wraps", "wraps", "both", "cache"],
)
def test_a_function_is_found_behind_what_wraps_it(wrapped):
    assert innermost(wrapped) is plain
    assert name_of(wrapped) == "tests.audit.test_places.plain"
    place = place_of(wrapped)
    assert place == Place(module=plain.__module__, file=HERE, line=plain.__code__.co_firstlineno)
    assert str(place).endswith(f"tests/audit/test_places.py:{place.line}")


def test_methods_and_callables_are_found_in_their_class():
    assert innermost(Handler().method) is Handler.method
    assert innermost(Handler()) is Handler.__call__
    assert innermost(Handler.static) is Handler.static
    assert name_of(Handler().method) == "tests.audit.test_places.Handler.method"


def test_a_helper_that_a_local_function_uses_is_not_taken_for_it():
    assert name_of(local(plain)).endswith("local.<locals>.handle")


def test_what_has_no_source_has_no_place():
    assert place_of(print) is None
    assert name_of(print) == "builtins.print"


def test_a_path_below_the_current_folder_is_shown_from_there(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert shown_path(str(tmp_path / "a" / "b.py")) == "a/b.py"
    assert shown_path("/elsewhere/b.py") == "/elsewhere/b.py"
