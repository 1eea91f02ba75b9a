"""How much slower live transactions are beside a repair: their latency with the repairer on and off, in turn, in one run.

Handlers, a bulk writer and the repairer are processes of their own. Each handler begins its transactions by the clock, so many a
second, and its latency counts from when it was due: a wait delays those behind it, too. The writer makes drift all
the time, past the handlers; the repairer repairs run after run. Ratios are of percentiles over all rounds.

    DATABASE_URL=postgresql://… python benchmarks/live.py --levels A B C --between 0.5
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import django
import structlog

sys.path[0] = str(Path(__file__).resolve().parent.parent)
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
django.setup()

from django.conf import settings
from django.db import Error, connection, transaction
from django.db.models import F, Model

from benchmarks.measuring import execute, own_database, postgresql_only
from benchmarks.models import Account, Statement
from reconcile import HaveRow, Rule, holding, locks, runs
from reconcile.faults import Step, listening
from reconcile.pacing import MOST, REST
from sample_project.shop.models import Invoice, Order

NEW = 0.4
"""Share of the handlers' transactions that make a record; the others change one."""

SETTLING = 0.7
"""Seconds after each switch that don't count."""

OFF, ON, IDLE, OVER = 0, 1, 2, 3
"""Phases: measured without and with the repairer, not measured, and the end."""

WAITING = """
SELECT CASE WHEN wait_event_type IN ('Lock', 'LWLock', 'IO') THEN wait_event_type ELSE 'at work' END, count(*)
FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'handler' AND state = 'active'
GROUP BY 1
"""

Keep = Callable[[Any], None]


def invoiced(order: Order) -> None:
    """The shop's receivers have done it."""


def stated(account: Account) -> None:
    """Look for the statement, and insert or correct it."""
    if not Statement.objects.filter(account=account).update(balance=account.balance):
        Statement.objects.create(account=account, balance=account.balance)


def stated_under_lock(account: Account) -> None:
    """The same, under the lock that a repair takes."""
    with holding(account):
        stated(account)


@dataclass(frozen=True, kw_only=True)
class Level:
    """One guarantee: records, the column that their row follows, the row's model, and what keeps it."""

    rule: Rule
    record: type[Model]
    column: str
    row: type[Model]
    link: str
    keep: Keep


INVOICE = HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")})
STATEMENT = HaveRow(Statement, link={"account": F("pk")}, values={"balance": F("balance")})
ACCOUNTS = {"record": Account, "column": "balance", "row": Statement, "link": "account"}


def level(name: str) -> Level:
    """The level of this name: A, B or C."""
    if name == "A":
        rule = Rule(name="invoice", every=Order, must=INVOICE)
        return Level(rule=rule, record=Order, column="total", row=Invoice, link="order", keep=invoiced)
    if name == "B":
        held = locks(Account)(_kept)
        rule = Rule(name="statement", every=Account, must=STATEMENT, covers=[held])
        return Level(rule=rule, keep=stated_under_lock, **ACCOUNTS)
    return Level(rule=Rule(name="statement", every=Account, must=STATEMENT), keep=stated, **ACCOUNTS)


def _kept(*, instance: Account) -> None:
    stated(instance)


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--levels", nargs="+", choices=["A", "B", "C"], default=["A", "B", "C"])
    arguments.add_argument("--records", type=int, default=20_000)
    arguments.add_argument("--handlers", type=int, default=4)
    arguments.add_argument("--rate", type=float, default=20, help="transactions a second of each handler")
    arguments.add_argument("--seconds", type=float, default=5, help="of a phase")
    arguments.add_argument("--rounds", type=int, default=6)
    arguments.add_argument("--between", type=float, default=0.5, help="seconds between two repairs")
    arguments.add_argument(
        "--rests",
        type=float,
        default=REST,
        help="how many times as long as a chunk the repair rests, as in the settings",
    )
    arguments.add_argument("--nice", type=int, default=0, help="of the repairer's process")
    arguments.add_argument(
        "--chunk", type=int, default=MOST, help="most records in a chunk, as in the settings"
    )
    options = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    postgresql_only()
    with own_database():
        for name in options.levels:
            _measure(name, options)


def _measure(name: str, options: argparse.Namespace) -> None:
    at = level(name)
    execute("TRUNCATE shop_order, shop_invoice, benchmarks_account, benchmarks_statement CASCADE")
    _load(at, options.records, random.Random(1))
    runs.repair({at.rule.name: at.rule}, using="default")
    assert at.rule.guarantee("default") == name
    execute("ANALYZE")
    context = multiprocessing.get_context("spawn")
    phase = context.Value("i", IDLE)
    told: Queue[Any] = context.Queue()
    database = connection.settings_dict["NAME"]
    acts = [(_handle, number) for number in range(options.handlers)] + [(_write, 90), (_repair, 91)]
    workers = [
        context.Process(target=_work, args=(act, number, name, database, phase, told, options))
        for act, number in acts
    ]
    for worker in workers:
        worker.start()
    for _ in workers:
        told.get()
    loads: list[float] = []
    waits: dict[int, list[Mapping[str, float]]] = {OFF: [], ON: []}
    for turn in range(2 * options.rounds):
        phase.value = IDLE
        time.sleep(SETTLING)
        phase.value = now = ON if turn % 2 else OFF
        waits[now].append(_waiting(options.seconds, options.handlers))
        loads.append(os.getloadavg()[0])
    phase.value = OVER
    results = [told.get() for _ in workers]
    for worker in workers:
        worker.join()
    _print(name, results, loads)
    for what in ("at work", "Lock", "LWLock", "IO"):
        without, beside = (statistics.mean(told.get(what, 0) for told in waits[each]) for each in (OFF, ON))
        print(f"  {what}: {without:.1%} of a handler's time, {beside:.1%} beside the repairer", flush=True)


def _print(name: str, results: Sequence[dict[str, Any]], loads: Sequence[float]) -> None:
    found: dict[int, list[float]] = {OFF: [], ON: []}
    for result in results:
        for phase in found:
            found[phase] += result.get(phase, [])
    failed = sum(result.get("failed", 0) for result in results)
    written, repairs = (sum(result.get(what, 0) for result in results) for what in ("written", "repairs"))
    off, on = sorted(found[OFF]), sorted(found[ON])
    print(f"level {name}: {len(off):,} transactions without, {len(on):,} beside {repairs} repairs of {written:,} rows; "
          f"{failed} failed; load {min(loads):.1f} to {max(loads):.1f}")  # fmt: skip
    for what, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)):
        without, beside = _percentile(off, share), _percentile(on, share)
        print(f"  {what}  {without * 1000:>8.1f} ms  {beside * 1000:>8.1f} ms   ratio {beside / without:.2f}")
    chunks = sorted(seconds for result in results for seconds in result.get("chunks", []))
    print(
        f"  {len(chunks)} chunks took {_percentile(chunks, 0.5) * 1000:.0f} ms, the longest {chunks[-1] * 1000:.0f} ms"
    )


def _waiting(seconds: float, handlers: int) -> Mapping[str, float]:
    """What the handlers' sessions wait for while these seconds pass: shares of their time."""
    until, looks, seen = time.monotonic() + seconds, 0, Counter[str]()
    while time.monotonic() < until:
        looks += 1
        seen.update({str(what): int(number) for what, number in execute(WAITING)})
        time.sleep(0.02)
    return {what: number / looks / handlers for what, number in seen.items()}


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _work(
    act: Callable[..., dict[Any, Any]],
    number: int,
    name: str,
    database: str,
    phase: Synchronized[int],
    told: Queue[Any],
    options: argparse.Namespace,
) -> None:
    """A process: its own connection, its act until the end, and what came of it."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    connection.settings_dict["NAME"] = database
    connection.ensure_connection()
    told.put({})
    told.put(act(level(name), number, phase, options))


def _handle(at: Level, number: int, phase: Synchronized[int], options: argparse.Namespace) -> dict[Any, Any]:
    """Write one record and keep its row, by the clock; seconds that each took, by phase."""
    chance = random.Random(number)
    execute("SET application_name = 'handler'")
    first = at.record._base_manager.order_by("pk").values_list("pk", flat=True)[0]
    took: dict[Any, Any] = {OFF: [], ON: [], "failed": 0}
    due, before = time.perf_counter() + chance.uniform(0, 1 / options.rate), IDLE
    while (now := phase.value) != OVER:
        if now != before:
            # What one phase was late must not be laid at the next one's door.
            due, before = time.perf_counter() + chance.uniform(0, 1 / options.rate), now
        time.sleep(max(0.0, due - time.perf_counter()))
        try:
            with transaction.atomic():
                _act(at, first + chance.randrange(options.records), chance)
        except Error:
            took["failed"] += 1
        # What began in one phase and ended in another tells of both.
        if now == phase.value and now in {OFF, ON}:
            took[now].append(time.perf_counter() - due)
        due += 1 / options.rate
    return took


def _act(at: Level, key: int, chance: random.Random) -> None:
    value = chance.randrange(1_000)
    if chance.random() < NEW:
        record = at.record(**{at.column: value})
        record.save()
    else:
        found = at.record._base_manager.filter(pk=key).first()
        if found is None:
            return
        record = found
        setattr(record, at.column, value)
        record.save(update_fields=[at.column])
    at.keep(record)


def _load(at: Level, number: int, chance: random.Random) -> None:
    at.record._base_manager.bulk_create(
        [at.record(**{at.column: chance.randrange(1_000)}) for _ in range(number)], batch_size=5_000
    )


def _write(at: Level, number: int, phase: Synchronized[int], options: argparse.Namespace) -> dict[Any, Any]:
    """New records, other values and lost rows, past the handlers: about 300 drifted records a second."""
    chance = random.Random(number)
    first = at.record._base_manager.order_by("pk").values_list("pk", flat=True)[0]
    while phase.value != OVER:
        some = sorted(first + chance.randrange(options.records) for _ in range(50))
        _load(at, 50, chance)
        records = at.record._base_manager.filter(pk__in=some[::2]).order_by("pk")
        with transaction.atomic():
            locked = list(records.select_for_update(no_key=True).values_list("pk", flat=True))
            at.record._base_manager.filter(pk__in=locked).update(**{at.column: chance.randrange(1_000)})
        rows = at.row._base_manager.filter(**{f"{at.link}__in": some[1::2]})
        rows._raw_delete(rows.db)
        time.sleep(0.3)
    return {}


def _repair(at: Level, _: int, phase: Synchronized[int], options: argparse.Namespace) -> dict[Any, Any]:
    """Repair while it is on, with a rest between the runs."""
    # A run that outlasts its phase is held back, so that the other phases are without a repair.
    settings.RECONCILE = {
        **settings.RECONCILE, "CHUNK": options.chunk, "REST": options.rests,
        "THROTTLES": [lambda _: 0.02 if phase.value in {OFF, IDLE} else False],
    }  # fmt: skip
    os.nice(options.nice)
    done: dict[Any, Any] = {"written": 0, "repairs": 0, "chunks": []}
    begun: list[float] = []

    def listener(step: Step) -> None:
        if step is Step.FENCE:
            begun[:] = [time.perf_counter()]
        elif step is Step.COMMITTED:
            done["chunks"].append(time.perf_counter() - begun[0])

    while phase.value != OVER:
        if phase.value != ON:
            time.sleep(0.02)
            continue
        with listening(listener):
            _, (result,) = runs.repair({at.rule.name: at.rule}, using="default")
        assert result.error is None, result.error
        done["written"] += result.written.total
        done["repairs"] += 1
        time.sleep(options.between)
    return done


if __name__ == "__main__":
    main()
