"""Links that no index leads along: two columns over large groups, and trees of texts; beside SQL by hand.

All figures are ratios of medians measured in this one run, on the database behind DATABASE_URL. The statements by hand are the usual
NOT EXISTS and LIKE, and the forms that somebody writes who has met their plans.

    python benchmarks/links.py --records 5000 [--by-hand plain]
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import django
import structlog

sys.path[0] = str(Path(__file__).resolve().parent.parent)
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
django.setup()

from django.db import connection
from django.db.models import CharField, Count, F, Value
from django.db.models.functions import Cast, Concat

from benchmarks.measuring import Case, compare, execute, own_database
from benchmarks.models import Branch, Purchase, Receipt
from reconcile import AtLeast, HaveRow, HaveValues, LookedUp, Rule

CUSTOMERS = 3
CHILDREN = 50


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--records", type=int, default=5_000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--by-hand", choices=["plain", "best"], default="best")
    options = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with own_database():
        _seed(options.records)
        print(
            f"{options.records:,} records on {connection.vendor}: ours, {options.by_hand} by hand\n",
            flush=True,
        )
        for case in (*groups(options.by_hand), *trees(options.by_hand)):
            compare(case, options.rounds)


def groups(by_hand: str) -> Iterator[Case]:
    """The case of a receipt for each purchase of a customer with thousands."""
    code = "CONCAT('p-', p.number)" if connection.vendor == "mysql" else "'p-' || p.number"
    plain = (
        "SELECT COUNT(*) FROM benchmarks_purchase p WHERE NOT EXISTS "
        f"(SELECT 1 FROM benchmarks_receipt r WHERE r.customer = p.customer AND r.code = {code})"
    )
    in_a_set = (
        "SELECT COUNT(*) FROM benchmarks_purchase p WHERE "
        f"(p.customer, {code}) NOT IN (SELECT r.customer, r.code FROM benchmarks_receipt r)"
    )
    number = Cast("number", CharField(max_length=12))
    link = {"customer": F("customer"), "code": Concat(Value("p-"), number, output_field=CharField())}
    rule = Rule(name="receipts", every=Purchase, must=HaveRow(Receipt, link=link, count=AtLeast(1)))
    yield Case(
        name="a link over two columns",
        rule=rule,
        by_hand=(plain,) if by_hand == "plain" else (plain, in_a_set),
    )


def trees(by_hand: str) -> Iterator[Case]:
    """The case of a count of all that is below each node of a tree of texts."""
    pattern = "CONCAT(b.path, '%')" if connection.vendor == "mysql" else "b.path || '%'"
    pattern = pattern.replace("%", "%%")
    counted = "SELECT COUNT(*) FROM benchmarks_branch u WHERE {}u.path LIKE {}"
    plain = f"SELECT COUNT(*) FROM benchmarks_branch b WHERE b.below <> ({counted.format('', pattern)})"
    beyond = "b.path || '~'"
    ranged = f"SELECT COUNT(*) FROM benchmarks_branch b WHERE b.below <> ({counted.format(f'u.path >= b.path AND u.path < {beyond} AND ', pattern)})"
    rule = Rule(
        name="branches",
        every=Branch,
        must=HaveValues(below=LookedUp(Branch, link={"path__startswith": F("path")}, value=Count("pk"))),
    )
    ranges = by_hand == "best" and connection.vendor == "sqlite"
    yield Case(name="a tree of texts", rule=rule, by_hand=(plain, ranged) if ranges else (plain,))


def _seed(records: int) -> None:
    purchases = [Purchase(customer=number % CUSTOMERS, number=number) for number in range(records)]
    Purchase.objects.bulk_create(purchases)
    Receipt.objects.bulk_create(
        Receipt(customer=number % CUSTOMERS, code=f"p-{number}") for number in range(records) if number % 100
    )
    roots = [f"{number:04}" for number in range(records // CHILDREN)]
    Branch.objects.bulk_create(
        Branch(path=f"{root}{child}", below=CHILDREN if not child else 1)
        for root in roots
        for child in ("", *(f"{number:04}" for number in range(CHILDREN - 1)))
    )
    Branch.objects.filter(path__endswith="0007").update(below=9)
    if connection.vendor != "mysql":
        execute("ANALYZE")
    else:
        execute("ANALYZE TABLE benchmarks_purchase, benchmarks_receipt, benchmarks_branch")


if __name__ == "__main__":
    main()
