"""Asserts that two paths leave the same behind: rows, messages and mails."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from reconcile.audit.parity.running import compare_paths
from reconcile.reports.text_parity import parity_as_text

__all__ = ["assert_parity"]


def assert_parity(
    one: Callable[[], Any], two: Callable[[], Any], *, volatile: Iterable[str] = (), using: str = "default"
) -> None:
    """Assert that both functions leave the same behind, whatever keys the database makes for it.

    Each runs twice, in a transaction that is rolled back, with what it asks for after COMMIT; messages and mails go nowhere. Compared are all rows of the
    database, messages by task and key, so that a batch is what its single messages are, and mails. volatile: columns of which only the shape is
    compared, as `app.Model.field`; what differs between two runs of one function is found by itself, and moments within the run are one.

    Raises AssertionError with each difference, RefusedError where a function writes to another database, and what a function raises.
    """
    __tracebackhide__ = True
    found = compare_paths(one, two, using=using, volatile=volatile)
    if not found.is_same:
        raise AssertionError(parity_as_text(found, names=("one", "two")))
