"""A check of a large fixture: how long making, loading and checking take, and what memory each of them adds.

    DATABASE_URL=postgresql://… python benchmarks/fixtures.py --objects 100000

Loading is Django's `loaddata`, a JSON file as a whole; the check comes after it, and is to take less than a second.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django
import structlog

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sample_project.settings")
django.setup()

from django.utils import timezone

from reconcile.detect.checking import check
from reconcile.rules.registry import valid_rules
from reconcile.testing.fixtures import find_origins, load, throwaway_database

WHEN = "2025-01-01T00:00:00Z"


def objects(number: int) -> Iterator[dict[str, Any]]:
    """The objects of the fixture: orders, invoices and notifications, a third each. One order in a hundred has no invoice."""
    orders = number // 3
    for key in range(1, orders + 1):
        yield {"model": "shop.order", "pk": key, "fields": {"status": "paid", "created_at": WHEN}}
    for key in range(1, orders + 1):
        if key % 100:
            yield {"model": "shop.invoice", "pk": key, "fields": {"order": key, "amount": "0.00"}}
    for key in range(1, orders + 1):
        yield {"model": "shop.notification", "pk": key, "fields": {"order": key, "kind": "created"}}


def print_step(step: str, started: float) -> None:
    """Print what the step took since `started`, and the memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    now = pages * resource.getpagesize() // 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10
    print(f"{step:<10} {time.monotonic() - started:8.2f} s   {now:5} MB now   {peak:5} MB at most")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=100_000)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "large.json")
        path.write_text(json.dumps(list(objects(arguments.objects))))
        started = time.monotonic()
        with throwaway_database("default"):
            print_step("made", started)
            started = time.monotonic()
            places = load([path], using="default", as_written=True)
            print_step("loaded", started)
            started, now = time.monotonic(), timezone.now()
            checks = [check(rule, using="default", now=now) for rule in valid_rules().values()]
            origins = find_origins(checks, places, using="default", now=now)
            print_step("checked", started)
            drifted = sum(result.tally.total for result in checks)
            print(f"{drifted:,} drifted rows, {len(origins)} of them traced")


if __name__ == "__main__":
    main()
