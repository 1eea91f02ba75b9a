import sqlite3

import pytest
from django.db import OperationalError, transaction

from reconcile.db.retry import LONGEST_PAUSE, RECONNECTING, TRIES, retry
from reconcile.errors import ChunkConflictError


def failing(*errors):
    """A function that raises these, one a call, then returns how often it was called."""
    left = list(errors)

    def act():
        if left:
            raise left.pop(0)
        return len(errors) + 1

    return act


def test_what_others_are_in_the_way_of_is_tried_again():
    paused = []
    act = failing(ChunkConflictError("first"), ChunkConflictError("second"))
    assert retry("default", pause=paused.append)(act) == 3
    assert len(paused) == 2


def test_an_error_of_the_caller_is_raised_at_once():
    paused = []
    with pytest.raises(OperationalError, match="no such table"):
        retry("default", pause=paused.append)(failing(OperationalError("no such table")))
    assert paused == []


def test_the_last_error_is_raised_as_it_is():
    errors = [ChunkConflictError(str(number)) for number in range(TRIES)]
    with pytest.raises(ChunkConflictError) as raised:
        retry("default", pause=lambda _: None)(failing(*errors))
    assert raised.value is errors[-1]


@pytest.mark.parametrize(
    ("options", "bounds"), [({}, [0.05, 0.1, 0.2, 0.4]), (RECONNECTING, [0.5, 1, 2, 4, 8])]
)
def test_each_pause_is_a_random_part_of_a_bound_that_doubles(options, bounds):
    paused = []
    with pytest.raises(ChunkConflictError):
        retry("default", pause=paused.append, **options)(failing(*[ChunkConflictError("busy")] * 10))
    assert len(paused) == len(bounds)
    assert all(0 <= seconds <= bound <= LONGEST_PAUSE for seconds, bound in zip(paused, bounds, strict=True))


def test_the_caller_may_say_which_errors_are_worth_it():
    busy = failing(sqlite3.OperationalError("busy"))
    when = lambda error: isinstance(error, sqlite3.OperationalError)  # noqa: E731
    assert retry("default", when=when, pause=lambda _: None)(busy) == 2


@pytest.mark.django_db(transaction=True)
def test_inside_a_transaction_it_is_the_callers_to_try_again():
    with pytest.raises(ChunkConflictError), transaction.atomic():
        retry("default", pause=lambda _: None)(failing(ChunkConflictError("busy")))
