"""Compares a check of ours with what a good engineer would write by hand: rounds in turn, medians, and their ratio."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from django.db import connection
from django.utils import timezone

from reconcile import Rule
from reconcile.detect.checking import check

__all__ = ["Case", "as_text", "compare", "differs", "execute", "own_database", "peak", "require_postgresql"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A rule, and hand-written statements that count the same drift. The rule is compared with the fastest of them."""

    name: str
    rule: Rule
    by_hand: Sequence[str]


@contextmanager
def own_database() -> Iterator[None]:
    """Use a database of its own beside the configured one during the block, and drop it afterwards."""
    name = connection.settings_dict["NAME"]
    connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    try:
        yield
    finally:
        connection.creation.destroy_test_db(name, verbosity=0)


def require_postgresql() -> None:
    """End the benchmark if the database is not PostgreSQL, for which its seed is written."""
    if connection.vendor != "postgresql":
        sys.exit("The seed of this benchmark is written for PostgreSQL: set DATABASE_URL.")


def execute(sql: str) -> list[tuple[Any, ...]]:
    """Execute one statement. Returns its rows; none if it is no query."""
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


def differs(left: str, right: str) -> str:
    """The SQL of a comparison that takes NULL for a value, in the words of the database."""
    words = {"postgresql": "{} IS DISTINCT FROM {}", "mysql": "NOT ({} <=> {})", "sqlite": "{} IS NOT {}"}
    return words[connection.vendor].format(left, right)


def peak() -> float:
    """The peak memory of this process, in MiB. It is not ru_maxrss, which for a child begins at the peak of its parent."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (kilobytes,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kilobytes) / 1024


def as_text(number: str) -> str:
    """The SQL of a number as text, in the words of the database."""
    return f"CAST({number} AS {'CHAR' if connection.vendor == 'mysql' else 'varchar'})"


def compare(case: Case, rounds: int) -> None:
    """Print the medians of `rounds` rounds, and their ratio. Each statement must count what the check counts.

    On PostgreSQL this is repeated with one core for each, since a parallel plan takes more than its share of a busy machine.
    """
    _compare(case, rounds)
    if connection.vendor == "postgresql":
        execute("SET max_parallel_workers_per_gather = 0")
        _compare(replace(case, name=f"{case.name}, on one core"), rounds)
        execute("RESET max_parallel_workers_per_gather")


def _compare(case: Case, rounds: int) -> None:
    found = _count_by_check(case.rule)
    first_times = {
        sql: min(_seconds(lambda sql=sql: _count_by_hand(sql, found)) for _ in range(2))
        for sql in case.by_hand
    }
    best = min(first_times, key=first_times.__getitem__)
    times: dict[str, list[float]] = {"ours": [], "by hand": []}
    for _ in range(rounds):
        times["by hand"].append(_seconds(lambda: _count_by_hand(best, found)))
        times["ours"].append(_seconds(lambda: _count_by_check(case.rule)))
    ours, by_hand = (statistics.median(times[name]) for name in ("ours", "by hand"))
    print(f"{case.name:<50} {ours * 1000:>9,.0f} ms {by_hand * 1000:>9,.0f} ms   ratio {ours / by_hand:.2f}")
    print(f"{'':<50} {found:,} found; by hand: {' '.join(best.split())[:150]}", flush=True)


def _count_by_check(rule: Rule) -> int:
    result = check(rule, using="default", now=timezone.now(), samples=0)
    assert result.error is None, result.error
    return result.tally.total


def _count_by_hand(sql: str, expected: int) -> None:
    ((counted,),) = execute(sql)
    assert counted == expected, f"{counted} counted by hand, {expected} by the check: {sql}"


def _seconds(act: Callable[[], object]) -> float:
    """Run the act once; how long it took, in seconds."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started
