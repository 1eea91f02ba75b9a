"""Check and repair of orders without an invoice, beside hand-written SQL and beside the per-record loop.

All figures are ratios of medians measured in this one run, on the database behind DATABASE_URL. It builds a database of
its own there, next to the configured one, and drops it afterwards.

    DATABASE_URL=postgresql://… python benchmarks/orders.py --orders 1000000
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
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
from reconcile import AtLeast, HaveRow, Rule, runs
from reconcile.detect.checking import check
from reconcile.models import Change, Run
from sample_project.shop.models import Invoice, Order
from sample_project.shop.services import invoice_order

RECORDS = Order.objects.exclude(status="draft")
OWED = Rule(
    name="owed",
    every=RECORDS,
    must=HaveRow(Invoice, link={"order": F("pk")}, create_only={"amount": F("total")}, count=AtLeast(1)),
)
WHOLE = Rule(
    name="whole", every=RECORDS, must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")})
)

SEED = """
INSERT INTO shop_order (customer_name, status, total, item_count, created_at)
SELECT '', CASE WHEN g % 20 = 0 THEN 'draft' ELSE 'paid' END, g % 1000, 0, now() - interval '1 day'
FROM generate_series(1, {orders}) AS g
"""
INVOICES = """
INSERT INTO shop_invoice (order_id, amount, created_at)
SELECT id, total, now() FROM shop_order WHERE status <> 'draft' AND id % 100 <> 7
"""
MISSING = """
FROM shop_order o WHERE NOT o.status = 'draft'
AND NOT EXISTS (SELECT 1 FROM shop_invoice i WHERE i.order_id = o.id)
"""
STALE = """
FROM shop_order o JOIN shop_invoice i ON i.order_id = o.id
WHERE NOT o.status = 'draft' AND i.amount IS DISTINCT FROM o.total
"""
EXTRA = """
FROM shop_invoice i WHERE NOT EXISTS (SELECT 1 FROM shop_order o WHERE o.id = i.order_id AND NOT o.status = 'draft')
"""
LOOPED = 2_000
"""The number of records that the loop is timed with."""


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--orders", type=int, default=1_000_000)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--peak", choices=["check", "repair"], help=argparse.SUPPRESS)
    options = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    if options.peak:
        _print_peak(options.peak)
        return
    require_postgresql()
    with own_database():
        print(f"{options.orders:,} orders, 1 % without an invoice, on {connection.vendor}\n")
        _seed(options.orders)
        _compare_checks(options.rounds)
        _compare_repairs(options.rounds)
        _compare_loop()
        _compare_memory(options.orders)


def _seed(orders: int) -> None:
    execute("TRUNCATE shop_order, shop_invoice RESTART IDENTITY CASCADE")
    execute(SEED.format(orders=orders))
    execute(INVOICES)
    execute("VACUUM ANALYZE shop_order")
    execute("VACUUM ANALYZE shop_invoice")


def _compare_checks(rounds: int) -> None:
    def run_check(rule: Rule) -> None:
        result = check(rule, using="default", now=timezone.now(), samples=0)
        assert result.error is None, result.error

    _time(
        "check, missing only", lambda: run_check(OWED), lambda: execute(f"SELECT count(*) {MISSING}"), rounds
    )
    execute("SET max_parallel_workers_per_gather = 0")
    _time(
        "check, missing only, each on one core",
        lambda: run_check(OWED),
        lambda: execute(f"SELECT count(*) {MISSING}"),
        rounds,
    )
    execute("RESET max_parallel_workers_per_gather")
    _time(
        "check, missing, stale and extra",
        lambda: run_check(WHOLE),
        lambda: [execute(f"SELECT count(*) {tables}") for tables in (MISSING, STALE, EXTRA)],
        rounds,
    )


def _compare_repairs(rounds: int) -> None:
    by_hand = f"INSERT INTO shop_invoice (order_id, amount, created_at) SELECT o.id, o.total, now() {MISSING}"

    def run_repair() -> None:
        _, results = runs.repair({OWED.name: OWED}, using="default")
        assert results[0].left == 0, results[0]

    _time("repair, journalled and verified", run_repair, lambda: execute(by_hand), rounds, before=_make_drift)


def _make_drift() -> None:
    """Bring back the drift of the seed, and forget all runs."""
    execute("DELETE FROM shop_invoice WHERE order_id % 100 = 7")
    execute("TRUNCATE reconcile_change")
    Run.objects.all().delete()
    execute("VACUUM ANALYZE shop_invoice")


def _compare_loop() -> None:
    _make_drift()
    keys = list(Order.objects.exclude(status="draft").values_list("pk", flat=True)[:LOOPED])
    started = time.perf_counter()
    for order in Order.objects.filter(pk__in=keys).iterator():
        if not Invoice.objects.filter(order=order).exists():
            invoice_order(order)
    looped = (time.perf_counter() - started) / len(keys) * RECORDS.count()
    _make_drift()
    started = time.perf_counter()
    runs.repair({OWED.name: OWED}, using="default")
    _print_line(
        f"repair beside a loop over the records ({LOOPED:,} timed)", time.perf_counter() - started, looped
    )


def _compare_memory(orders: int) -> None:
    for act in ("check", "repair"):
        small, large = _measure_peak(act, orders // 10), _measure_peak(act, orders)
        print(
            f"peak memory of a {act}: {small:.0f} MiB at {orders // 10:,} orders, {large:.0f} MiB at {orders:,}"
        )
    print(f"changes in the journal after the last repair: {Change.objects.count():,}")


def _measure_peak(act: str, orders: int) -> float:
    """The peak memory, in MiB, of a check or a repair in a process of its own."""
    _seed(orders)
    _make_drift()
    environment = {**os.environ, "BENCHMARK_DATABASE": connection.settings_dict["NAME"]}
    command = [sys.executable, __file__, "--peak", act]
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def _print_peak(act: str) -> None:
    connection.settings_dict["NAME"] = os.environ["BENCHMARK_DATABASE"]
    if act == "check":
        check(WHOLE, using="default", now=timezone.now())
    else:
        runs.repair({OWED.name: OWED}, using="default")
    print(peak())


def _time(
    title: str,
    ours: Callable[[], object],
    by_hand: Callable[[], object],
    rounds: int,
    before: Callable[[], object] = lambda: None,
) -> None:
    """Run both in turn, each after `before`, and print their medians."""
    times: dict[str, list[float]] = {"ours": [], "by hand": []}
    for _ in range(rounds):
        for name, act in (("by hand", by_hand), ("ours", ours)):
            before()
            started = time.perf_counter()
            act()
            times[name].append(time.perf_counter() - started)
    _print_line(title, statistics.median(times["ours"]), statistics.median(times["by hand"]))


def _print_line(title: str, ours: float, other: float) -> None:
    print(f"{title:<60} {ours * 1000:>9,.0f} ms {other * 1000:>12,.0f} ms   ratio {ours / other:.4g}")


if __name__ == "__main__":
    main()
