"""What the safety of a repair costs: ours, with fence, locks, journal, verification and cursor, beside one bare INSERT … SELECT.

All figures are medians of alternating rounds measured in this one run, on the database behind DATABASE_URL, and so is
the table of where ours spends its time: told by the fault points, each of which is reached before its step. It builds
a database of its own beside the configured one, and drops it afterwards.

On a busy machine the clock says more of the others than of this: processor seconds, of this process and of the server's
session, which has to be on the same machine, are given beside it.

    DATABASE_URL=postgresql://… python benchmarks/safety.py --orders 1000000 --share 20
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import django
import structlog

sys.path[0] = str(Path(__file__).resolve().parent.parent)
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sample_project.settings")
django.setup()

from django.db import connection

from benchmarks.measuring import execute, own_database, require_postgresql
from benchmarks.orders import MISSING, OWED, SEED
from reconcile import runs
from reconcile.models import Change, Chunk, Run
from reconcile.repair.fault_injection import Step, listen

BY_HAND = f"INSERT INTO shop_invoice (order_id, amount, created_at) SELECT o.id, o.total, now() {MISSING}"
INVOICES = """
INSERT INTO shop_invoice (order_id, amount, created_at)
SELECT id, total, now() FROM shop_order WHERE status <> 'draft' AND id % {share} <> 7
"""

NAMES = {
    "": "check: find the keys, count the records, begin the run",
    Step.FENCE: "fence: the work item's row, compared and set",
    Step.TABLES: "lock the table",
    Step.LOCK: "lock the records",
    Step.WRITE: "before the first insert: compile it",
    Step.JOURNAL: "insert and journal, in one statement",
    Step.VERIFY: "verify",
    Step.CURSOR: "cursor, proof and counts",
    Step.COMMIT: "COMMIT, with the deferred foreign keys",
    Step.COMMITTED: "between chunks: who is at work, pause asked for, BEGIN",
    "last": "count again, end the run",
}
"""For each point of a repair, what the time after it is spent on."""


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--orders", type=int, default=1_000_000)
    arguments.add_argument("--share", type=int, default=20, help="one order in so many lacks its invoice")
    arguments.add_argument("--rounds", type=int, default=9)
    options = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    require_postgresql()
    with own_database():
        _seed(options)
        _compare(options)


def _seed(options: argparse.Namespace) -> None:
    execute("TRUNCATE shop_order, shop_invoice RESTART IDENTITY CASCADE")
    execute(SEED.format(orders=options.orders))
    execute(INVOICES.format(share=options.share))
    execute("VACUUM ANALYZE shop_order")
    execute("VACUUM ANALYZE shop_invoice")


def _compare(options: argparse.Namespace) -> None:
    by_hand, ours = Rounds(), Rounds()
    spent: dict[str, list[float]] = defaultdict(list)
    loads: list[float] = []
    for _ in range(options.rounds):
        _make_drift(options)
        by_hand.time(lambda: execute(BY_HAND))
        _make_drift(options)
        points = ours.time(_repair)
        for name, seconds in _seconds_by_point(points).items():
            spent[name].append(seconds)
        loads.append(os.getloadavg()[0])
    rows, chunks = Change.objects.count(), Chunk.objects.count()
    print(
        f"{options.orders:,} orders, {rows:,} without an invoice, {options.rounds} rounds, on {connection.vendor}"
    )
    for unit in ("seconds", "cpu"):
        our_times, bare_times = getattr(ours, unit), getattr(by_hand, unit)
        our_median, bare_median = statistics.median(our_times), statistics.median(bare_times)
        ratios = [our_time / bare_time for our_time, bare_time in zip(our_times, bare_times, strict=True)]
        print(
            f"{unit:<8} ours {our_median:.2f}, bare INSERT … SELECT {bare_median:.2f}: "
            f"ratio {our_median / bare_median:.2f}, "
            f"of neighbouring rounds {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), "
            f"of the fastest {min(our_times) / min(bare_times):.2f}"
        )
    whole = statistics.median(ours.seconds)
    for name, activity in NAMES.items():
        if name in spent:
            seconds = statistics.median(spent[name])
            print(f"  {activity:<60} {seconds * 1000:>7,.0f} ms {seconds / whole:>6.0%}")
    print(f"{chunks} chunks in the last round; load average {min(loads):.1f} to {max(loads):.1f}")


@dataclass
class Rounds:
    """The time of each round of one act: seconds by the clock, and seconds of the processors."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def time(self, act: Callable[[], Any]) -> Any:
        """Time one more round. Returns what the act returns."""
        started, cpu_before = time.perf_counter(), _processor_seconds()
        result = act()
        self.seconds.append(time.perf_counter() - started)
        self.cpu.append(_processor_seconds() - cpu_before)
        return result


def _processor_seconds() -> float:
    """The processor seconds that this process and the server's session have used so far."""
    ((session,),) = execute("SELECT pg_backend_pid()")
    fields = Path(f"/proc/{session}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    user_ticks, system_ticks = int(fields[11]), int(fields[12])
    return time.process_time() + (user_ticks + system_ticks) / os.sysconf("SC_CLK_TCK")


Points = list[tuple[str, float]]
"""The points that a repair has reached, each with its moment."""


def _repair() -> Points:
    """Repair all. Returns when the repair reached each point and its end."""
    points: Points = [("", time.perf_counter())]
    with listen(lambda step: points.append((step, time.perf_counter()))):
        _, (result,) = runs.repair({OWED.name: OWED}, using="default")
    assert (result.left, result.why_stopped) == (0, ""), result
    points[-1] = ("last", points[-1][1])
    return [*points, ("", time.perf_counter())]


def _seconds_by_point(points: Points) -> Mapping[str, float]:
    """For each kind of point, the seconds until the next point."""
    spent: dict[str, float] = defaultdict(float)
    for (name, at), (_, until) in pairwise(points):
        spent[name] += until - at
    return spent


def _make_drift(options: argparse.Namespace) -> None:
    """Bring back the drift of the seed, and forget all runs."""
    execute(f"DELETE FROM shop_invoice WHERE order_id % {options.share} = 7")
    execute("TRUNCATE reconcile_change")
    Run.objects.all().delete()
    execute("VACUUM ANALYZE shop_invoice")


if __name__ == "__main__":
    main()
