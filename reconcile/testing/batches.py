"""Asserts that a function does for many at once what it does for each of them, in a number of statements that doesn't grow with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from reconcile.audit.capture.capturing import count_statements
from reconcile.audit.parity.running import compare_paths
from reconcile.core.wording.names import plural
from reconcile.errors import UsageError
from reconcile.reports.text_parity import parity_as_text

__all__ = ["assert_batch_safe"]

SHARE = 10
"""Records for which one statement more is let pass: an INSERT of many rows is cut where a database takes no more parameters."""


def assert_batch_safe(
    function: Callable[[Sequence[Any]], Any],
    make: Callable[[int], Sequence[Any]] | None = None,
    *,
    n: tuple[int, int] = (1, 500),
    volatile: Iterable[str] = (),
    using: str = "default",
) -> None:
    """Assert that the function leaves for a batch what it leaves for each thing of it alone, and that its statements don't grow with the batch.

    function: takes a list. make: makes the list of so many things; unless given, it is the numbers from 0. n: a small batch and a large one. Of the
    large one the number of statements may be greater by one for each ten things. The end state is compared for the large one as `assert_parity` does, with
    `volatile`. Whatever is done is rolled back.

    Raises AssertionError with what differs, UsageError for an `n` that isn't two sizes, and what the function raises.
    """
    __tracebackhide__ = True
    few, many = _sizes(n)
    made = make or (lambda size: [*range(size)])
    counts = [_statements(function, made, size, using) for size in (few, many)]
    allowed = counts[0] + (many - few) // SHARE
    if counts[1] > allowed:
        raise AssertionError(
            f"It sends {plural(counts[0], 'statement')} for {few:,} and {counts[1]:,} for {many:,}, where at most {allowed:,} would not grow with them: "
            "something is asked or written one by one."
        )
    found = compare_paths(
        lambda: [function([each]) for each in made(many)],
        lambda: function(made(many)),
        using=using,
        volatile=volatile,
    )
    if not found.is_same:
        raise AssertionError(parity_as_text(found, names=("one by one", "in a batch")))


def _sizes(n: tuple[int, int]) -> tuple[int, int]:
    if not (isinstance(n, tuple) and [*map(type, n)] == [int, int] and 0 < n[0] < n[1]):
        raise UsageError(f"n={n!r} is no pair of a small and a larger size, such as (1, 500).")
    return n


def _statements(
    function: Callable[[Sequence[Any]], Any], made: Callable[[int], Sequence[Any]], size: int, using: str
) -> int:
    """How many statements the function sends for a batch, without those that make it. The first call of a process costs more."""
    counts = [
        count_statements(lambda: function(made(size)), using=using).total
        - count_statements(lambda: made(size), using=using).total
        for _ in range(2)
    ]
    return counts[-1]
