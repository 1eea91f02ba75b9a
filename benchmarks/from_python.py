"""Checks of values that only Python can tell, beside a bare loop over the driver's cursor that does the same.

All figures are ratios of medians measured in this one run, on the database behind DATABASE_URL. It builds a database of
its own there, next to the configured one, and drops it afterwards. The loop executes one statement and takes
the rows with fetchmany(); "reading alone" does nothing with them, "by hand" calls the function and compares.

    DATABASE_URL=postgresql://… python benchmarks/from_python.py --orders 1000000
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import django
import structlog

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sample_project.settings")
django.setup()

from django.db import connection
from django.db.models import F
from django.utils import timezone

from benchmarks.measuring import execute, own_database, peak, require_postgresql
from reconcile import FromPython, HaveRows, HaveValues, Rule, runs
from reconcile.detect.checking import check
from sample_project.shop.models import Notification, Order

BATCH = 10_000


def name_of(status: str) -> str:
    """The name of a status, from a function that costs next to nothing."""
    return status.upper()


def slow_name_of(status: str) -> str:
    """The name of a status, from a function that takes about 20 µs."""
    for _ in range(1_000):
        pass
    return status.upper()


def kinds_of(status: str) -> list[str]:
    """The kinds of notification that an order owes: one."""
    return [status]


NAMED = Rule(name="named", every=Order, must=HaveValues(customer_name=FromPython(name_of, reads=["status"])))
SLOW = Rule(
    name="slow", every=Order, must=HaveValues(customer_name=FromPython(slow_name_of, reads=["status"]))
)
KINDS = Rule(
    name="kinds",
    every=Order,
    must=HaveRows(Notification, link={"order": F("pk")}, rows=kinds_of, reads=["status"], key=["kind"]),
)
READ = "SELECT id, customer_name, status FROM shop_order ORDER BY id"
ROWS = "SELECT order_id, id, kind FROM shop_notification ORDER BY order_id, id"

SEED = """
INSERT INTO shop_order (customer_name, status, total, item_count, created_at)
SELECT CASE WHEN g % 100 = 7 THEN '' WHEN g % 20 = 0 THEN 'DRAFT' ELSE 'PAID' END,
       CASE WHEN g % 20 = 0 THEN 'draft' ELSE 'paid' END, g % 1000, 0, now() - interval '1 day'
FROM generate_series(1, {orders}) AS g
"""
NOTIFICATIONS = """
INSERT INTO shop_notification (order_id, kind{columns})
SELECT id, status{values} FROM shop_order WHERE id % 100 <> 7
"""


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--orders", type=int, default=1_000_000)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    if options.peak:
        _print_peak()
        return
    require_postgresql()
    with own_database():
        print(f"{options.orders:,} orders, 1 % drifted, on {connection.vendor}\n")
        _seed(options.orders)
        _compare(options)
        _compare_processes(options.orders)
        _compare_memory(options.orders)


def _seed(orders: int) -> None:
    execute("TRUNCATE shop_order, shop_notification RESTART IDENTITY CASCADE")
    execute(SEED.format(orders=orders))
    has_created_at = any(field.name == "created_at" for field in Notification._meta.concrete_fields)
    columns, values = (", created_at", ", now()") if has_created_at else ("", "")
    execute(NOTIFICATIONS.format(columns=columns, values=values))
    execute("VACUUM ANALYZE shop_order")
    execute("VACUUM ANALYZE shop_notification")


def _compare(options: argparse.Namespace) -> None:
    _time(
        "HaveValues(FromPython), trivial, beside reading alone",
        lambda: _run_check(NAMED),
        _read_all_rows,
        options,
    )
    _time(
        "the same, beside the loop by hand",
        lambda: _run_check(NAMED),
        lambda: _count_by_hand(name_of),
        options,
    )
    _time(
        "HaveValues(FromPython), 20 µs, beside the loop",
        lambda: _run_check(SLOW),
        lambda: _count_by_hand(slow_name_of),
        options,
    )
    _time("HaveRows, beside a merge by hand", lambda: _run_check(KINDS), _count_merged_by_hand, options)
    started = time.perf_counter()
    _, (result,) = runs.repair({NAMED.name: NAMED}, using="default")
    seconds = time.perf_counter() - started
    print(f"a repair of {result.written.update:,} records, journalled and verified: {seconds:.1f} s")


def _run_check(rule: Rule) -> None:
    result = check(rule, using="default", now=timezone.now(), samples=0)
    assert result.error is None, result.error
    assert result.tally.total, "nothing has drifted"


def _fetch_batches(sql: str) -> Iterator[list[tuple[object, ...]]]:
    connection.ensure_connection()
    with connection.connection.cursor() as cursor:
        cursor.execute(sql)
        while rows := cursor.fetchmany(BATCH):
            yield rows


def _read_all_rows() -> None:
    for _ in _fetch_batches(READ):
        pass


def _count_by_hand(function: Callable[[str], str]) -> int:
    return sum(
        1 for rows in _fetch_batches(READ) for _, name, status in rows if function(str(status)) != name
    )


def _count_merged_by_hand() -> int:
    kinds: dict[object, set[object]] = {}
    for rows in _fetch_batches(ROWS):
        for order, _, kind in rows:
            kinds.setdefault(order, set()).add(kind)
    return sum(
        1
        for rows in _fetch_batches(READ)
        for order, _, status in rows
        if set(kinds_of(str(status))) != kinds.get(order, set())
    )


def _compare_processes(orders: int) -> None:
    """Compare the same calls in one process and in two, to see whether worker processes would pay."""
    values = ["paid"] * min(orders, 200_000)
    started = time.perf_counter()
    for value in values:
        slow_name_of(value)
    alone = time.perf_counter() - started
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(slow_name_of, values[:100])
        started = time.perf_counter()
        pool.map(slow_name_of, values, chunksize=5_000)
        _print_line(f"{len(values):,} calls of 20 µs in two processes", time.perf_counter() - started, alone)
    print(f"one call takes {alone / len(values) * 1e6:.0f} µs; {multiprocessing.cpu_count()} cores")


def _compare_memory(orders: int) -> None:
    small, large = _measure_peak(orders // 10), _measure_peak(orders)
    print(
        f"peak memory of both checks: {small:.0f} MiB at {orders // 10:,} orders, {large:.0f} MiB at {orders:,}"
    )


def _measure_peak(orders: int) -> float:
    """The peak memory, in MiB, of both checks in a process of its own."""
    _seed(orders)
    environment = {**os.environ, "BENCHMARK_DATABASE": connection.settings_dict["NAME"]}
    command = [sys.executable, __file__, "--peak"]
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def _print_peak() -> None:
    connection.settings_dict["NAME"] = os.environ["BENCHMARK_DATABASE"]
    for rule in (NAMED, KINDS):
        check(rule, using="default", now=timezone.now())
    print(peak())


def _time(
    title: str, ours: Callable[[], object], by_hand: Callable[[], object], options: argparse.Namespace
) -> None:
    """Run both in turn, and print their medians."""
    times: dict[str, list[float]] = {"ours": [], "by hand": []}
    for _ in range(options.rounds):
        for name, act in (("by hand", by_hand), ("ours", ours)):
            started = time.perf_counter()
            act()
            times[name].append(time.perf_counter() - started)
    median = statistics.median(times["ours"])
    _print_line(title, median, statistics.median(times["by hand"]))
    print(f"{'':<8}{options.orders / median:,.0f} records a second")


def _print_line(title: str, ours: float, other: float) -> None:
    print(f"{title:<60} {ours * 1000:>9,.0f} ms {other * 1000:>12,.0f} ms   ratio {ours / other:.4g}")


if __name__ == "__main__":
    main()
