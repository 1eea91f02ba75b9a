"""Fault injection: the steps of a chunk at which a test may make it fail, or kill the process.

In production nobody listens, and reaching a point costs a look at an empty list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

__all__ = ["Step", "listen", "reach"]


class Step(StrEnum):
    """The steps of a chunk, each reached before anything of it is done; COMMITTED when the server has said so."""

    FENCE = "fence"
    TABLES = "tables"
    LOCK = "lock"
    WRITE = "write"
    JOURNAL = "journal"
    VERIFY = "verify"
    CURSOR = "cursor"
    COMMIT = "commit"
    COMMITTED = "committed"


Listener = Callable[[Step], None]

_listeners: list[Listener] = []


def reach(step: Step) -> None:
    """Tell who listens; what a listener raises is raised here."""
    for listener in _listeners:
        listener(step)


@contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """While the block runs, call `listener` at each step of each chunk of this process."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
