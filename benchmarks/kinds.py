"""The check of each kind of rule beside the best SQL by hand, on plain tables of a database of its own.

All figures are ratios of medians measured in this one run, on the database behind DATABASE_URL: the check's windows,
with its count of all records, to one hand-written statement over the whole tables. Of several such statements the
fastest in a first round is taken.

    DATABASE_URL=postgresql://… python benchmarks/kinds.py --parents 1000000 [--only latest]

A further kind is one more function that yields cases, in CASES.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import django
import structlog

sys.path[0] = str(Path(__file__).resolve().parent.parent)
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
django.setup()

from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.db.models import Count, Q, Sum

from benchmarks.measuring import Case, as_text, compare, differs, execute, own_database
from benchmarks.models import Child, Note, Parent
from reconcile import BeUnique, HaveSource, HaveValues, Latest, Rule, Satisfy

CHILDREN = 3
"""The number of children of each parent."""

SCATTER = 48_271
"""A prime: the children of one parent lie far apart in the table."""

ARCHIVED = "p.status = 'archived'"
FIRST = "ORDER BY c.created DESC, c.id DESC"


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--parents", type=int, default=1_000_000)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--only", choices=[cases.__name__ for cases in CASES])
    options = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with own_database():
        _seed(options.parents)
        rows = f"{options.parents:,} parents, {options.parents * CHILDREN:,} children"
        print(f"{rows}, 1 % drifted, on {connection.vendor}: ours, best by hand\n", flush=True)
        for cases in CASES:
            if options.only in {None, cases.__name__}:
                for case in cases():
                    compare(case, options.rounds)


def aggregate() -> Iterator[Case]:
    """The cases of a count, and of a count and a sum, over the children."""
    both = f"{differs('p.child_count', 'COALESCE(x.n, 0)')} OR {differs('p.price_total', 'COALESCE(x.s, 0)')}"
    grouped = "SELECT parent_id, COUNT(*) AS n, SUM(price) AS s FROM benchmarks_child GROUP BY parent_id"
    joined = "FROM benchmarks_parent p LEFT JOIN benchmarks_child c ON c.parent_id = p.id"
    counted = "(SELECT COUNT(*) FROM benchmarks_child c WHERE c.parent_id = p.id)"
    yield Case(
        name="aggregate: Count",
        rule=_rule(child_count=Count("children")),
        by_hand=(
            (
                f"SELECT COUNT(*) FROM benchmarks_parent p LEFT JOIN ({grouped}) x ON x.parent_id = p.id "
                f"WHERE {differs('p.child_count', 'COALESCE(x.n, 0)')}"
            ),
            (
                f"SELECT COUNT(*) FROM (SELECT p.id {joined} GROUP BY p.id, p.child_count "
                f"HAVING {differs('p.child_count', 'COUNT(c.id)')}) x"
            ),
            f"SELECT COUNT(*) FROM benchmarks_parent p WHERE {differs('p.child_count', counted)}",
        ),
    )
    yield Case(
        name="aggregate: Count and Sum",
        rule=_rule(child_count=Count("children"), price_total=Sum("children__price")),
        by_hand=(
            f"SELECT COUNT(*) FROM benchmarks_parent p LEFT JOIN ({grouped}) x ON x.parent_id = p.id WHERE {both}",
            (
                f"SELECT COUNT(*) FROM (SELECT p.child_count, p.price_total, COUNT(c.id) AS n, SUM(c.price) AS s {joined} "
                f"GROUP BY p.id, p.child_count, p.price_total) x WHERE {both.replace('p.', 'x.')}"
            ),
        ),
    )


def latest() -> Iterator[Case]:
    """The cases of a pointer to the newest child, without and with an index on (parent, created)."""
    yield Case(name="latest, no further index", rule=_newest(), by_hand=_newest_by_hand())
    execute("CREATE INDEX benchmarks_newest ON benchmarks_child (parent_id, created DESC, id DESC)")
    _analyse()
    yield Case(name="latest, index on (parent, created)", rule=_newest(), by_hand=_newest_by_hand())
    on = " ON benchmarks_child" if connection.vendor == "mysql" else ""
    execute(f"DROP INDEX benchmarks_newest{on}")


def state() -> Iterator[Case]:
    """The case of a constant in the children of one parent in ten."""
    joined = "SELECT COUNT(*) FROM benchmarks_child c JOIN benchmarks_parent p ON p.id = c.parent_id"
    yield Case(
        name="state: a constant over a join",
        rule=Rule(
            name="state",
            every=Child.objects.filter(parent__status="archived"),
            must=HaveValues(state="cancelled"),
        ),
        by_hand=(
            f"{joined} WHERE {ARCHIVED} AND {differs('c.state', chr(39) + 'cancelled' + chr(39))}",
            f"{joined} WHERE {ARCHIVED} AND c.state <> 'cancelled'",
        ),
    )


def duplicates() -> Iterator[Case]:
    """The case of children that have the same parent and the same place."""
    groups = "SELECT COUNT(*) AS n FROM benchmarks_child GROUP BY parent_id, place"
    yield Case(
        name="duplicates",
        rule=Rule(name="duplicates", every=Child, must=BeUnique("parent", "place")),
        by_hand=(
            f"SELECT COALESCE(SUM(n - 1), 0) FROM ({groups} HAVING COUNT(*) > 1) x",
            (
                "SELECT COUNT(*) FROM (SELECT ROW_NUMBER() OVER (PARTITION BY parent_id, place ORDER BY id) AS n "
                "FROM benchmarks_child) x WHERE n > 1"
            ),
        ),
    )


def orphans() -> Iterator[Case]:
    """The case of notes whose parent, named by a generic foreign key, is gone."""
    kind = ContentType.objects.get_for_model(Parent).pk
    same = f"{as_text('p.id')} = t.object_id"
    yield Case(
        name="orphans by a generic key",
        rule=Rule(name="orphans", every=Note, must=HaveSource("target")),
        by_hand=(
            (
                f"SELECT COUNT(*) FROM benchmarks_note t LEFT JOIN benchmarks_parent p ON {same} "
                f"WHERE t.content_type_id = {kind} AND p.id IS NULL"
            ),
            (
                f"SELECT COUNT(*) FROM benchmarks_note t WHERE t.content_type_id = {kind} AND NOT EXISTS "
                f"(SELECT 1 FROM benchmarks_parent p WHERE {same})"
            ),
        ),
    )


def condition() -> Iterator[Case]:
    """The case of a plain condition on the row."""
    yield Case(
        name="condition",
        rule=Rule(name="condition", every=Child, must=Satisfy(Q(price__gte=1) & ~Q(state="lost"))),
        by_hand=("SELECT COUNT(*) FROM benchmarks_child WHERE NOT (price >= 1 AND state <> 'lost')",),
    )


CASES: tuple[Callable[[], Iterator[Case]], ...] = (aggregate, latest, state, duplicates, orphans, condition)


def _rule(**columns: object) -> Rule:
    return Rule(name="kinds", every=Parent, must=HaveValues(**columns))


def _newest() -> Rule:
    return _rule(last=Latest("children", by=["-created", "-pk"]))


def _newest_by_hand() -> tuple[str, ...]:
    count = "SELECT COUNT(*) FROM benchmarks_parent p"
    number = "ROW_NUMBER() OVER (PARTITION BY parent_id ORDER BY created DESC, id DESC) AS place"
    numbered = f"SELECT parent_id, id, {number} FROM benchmarks_child"
    single = f"(SELECT c.id FROM benchmarks_child c WHERE c.parent_id = p.id {FIRST} LIMIT 1)"
    newer = "o.parent_id = c.parent_id AND (o.created, o.id) > (c.created, c.id)"
    anywhere = "EXISTS (SELECT 1 FROM benchmarks_child c WHERE c.parent_id = p.id)"
    portable = (
        f"{count} LEFT JOIN ({numbered}) x ON x.parent_id = p.id AND x.place = 1 WHERE {differs('p.last_id', 'x.id')}",
        f"{count} WHERE {differs('p.last_id', single)}",
        (
            f"{count} WHERE NOT EXISTS (SELECT 1 FROM benchmarks_child c WHERE c.id = p.last_id AND c.parent_id = p.id "
            f"AND NOT EXISTS (SELECT 1 FROM benchmarks_child o WHERE {newer})) AND (p.last_id IS NOT NULL OR {anywhere})"
        ),
    )
    if connection.vendor != "postgresql":
        return portable
    distinct = f"SELECT DISTINCT ON (parent_id) parent_id, id FROM benchmarks_child c ORDER BY parent_id, {FIRST[9:]}"
    return (
        *portable,
        f"{count} LEFT JOIN ({distinct}) x ON x.parent_id = p.id WHERE {differs('p.last_id', 'x.id')}",
        f"{count} LEFT JOIN LATERAL {single} x ON true WHERE {differs('p.last_id', 'x.id')}",
    )


def _seed(parents: int) -> None:
    """Fill the tables with the same rows on every database. Numbers are made from digits, and scattered by multiplication."""
    children = parents * CHILDREN
    execute("CREATE TABLE numbers (n bigint PRIMARY KEY)")
    execute(f"INSERT INTO numbers VALUES {', '.join(f'({digit})' for digit in range(10))}")
    for power in range(1, len(str(children))):
        digits = f"(SELECT n AS d FROM numbers WHERE n BETWEEN 1 AND 9) digits WHERE n < {10**power}"
        execute(f"INSERT INTO numbers SELECT n + d * {10**power} FROM numbers, {digits}")
    execute(
        "INSERT INTO benchmarks_parent (id, status, child_count, price_total) "
        "SELECT n, CASE WHEN n % 10 = 3 THEN 'archived' ELSE 'active' END, 0, 0 FROM numbers "
        f"WHERE n BETWEEN 1 AND {parents}"
    )
    moment = {
        "postgresql": "timestamptz '2026-01-01 00:00Z' + {} * interval '1 second'",
        "mysql": "TIMESTAMPADD(SECOND, {}, '2026-01-01')",
        "sqlite": "DATETIME('2026-01-01', ({}) || ' seconds')",
    }[connection.vendor].format("n * 7919 % 1000003")
    scattered = f"(n * {SCATTER} % {parents} + 1)"
    execute(
        "INSERT INTO benchmarks_child (id, parent_id, created, price, state, place) "
        f"SELECT n, {scattered}, {moment}, n % 100, "
        f"CASE WHEN {scattered} % 10 = 3 AND n % 97 <> 7 THEN 'cancelled' ELSE 'pending' END, "
        f"CASE WHEN n % 67 = 7 THEN 0 WHEN n <= {parents} THEN 0 WHEN n <= {2 * parents} THEN 1 ELSE 2 END "
        f"FROM numbers WHERE n BETWEEN 1 AND {children}"
    )
    kind = ContentType.objects.get_for_model(Parent).pk
    lost = f"CASE WHEN n % 100 = 7 THEN n + {10 * parents} ELSE {scattered} END"
    execute(
        f"INSERT INTO benchmarks_note (id, content_type_id, object_id) SELECT n, {kind}, {as_text(lost)} FROM numbers "
        f"WHERE n BETWEEN 1 AND {children}"
    )
    execute("DROP TABLE numbers")
    _analyse()
    own = "FROM benchmarks_child c WHERE c.parent_id = benchmarks_parent.id"
    execute(
        f"UPDATE benchmarks_parent SET child_count = (SELECT COUNT(*) {own}) + CASE WHEN id % 100 = 7 THEN 1 ELSE 0 END, "
        f"price_total = (SELECT COALESCE(SUM(c.price), 0) {own}), "
        f"last_id = CASE WHEN id % 200 = 8 THEN NULL ELSE (SELECT c.id {own} {FIRST} LIMIT 1) END"
    )
    execute("UPDATE benchmarks_parent SET last_id = last_id - 1 WHERE id % 200 = 108 AND last_id > 1")
    _analyse()


def _analyse() -> None:
    for table in ("benchmarks_parent", "benchmarks_child", "benchmarks_note"):
        if connection.vendor == "postgresql":
            execute(f"VACUUM FULL {table}")
            # Only a plain VACUUM lets the database answer from the index alone, as it does for a table in use.
            execute(f"VACUUM ANALYZE {table}")
        else:
            table_word = "TABLE " if connection.vendor == "mysql" else ""
            execute(f"ANALYZE {table_word}{table}")


if __name__ == "__main__":
    main()
