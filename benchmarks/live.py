"""How much slower live transactions are beside a repair: their latency with the repairer on and off, in turn, in one run.

Handlers, a bulk writer and the repairer are processes of their own. Each handler begins its transactions by the clock, so many a
second, and its latency counts from when it was due: a wait delays those behind it, too. The writer makes drift all
the time, past the handlers; the repairer repairs run after run. Ratios are of percentiles over all rounds.

    DATABASE_URL=postgresql://… python benchmarks/live.py --guarantees constraint lock --between 0.5
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

from benchmarks.measuring import execute, own_database, require_postgresql
from benchmarks.models import Account, Statement
from reconcile import HaveRow, Rule, runs
from reconcile.conf import MOST_RECORDS, REST
from reconcile.core.drift import Guarantee
from reconcile.repair.fault_injection import Step, listen
from sample_project.shop.models import Invoice, Order

NEW = 0.4
"""The share of the handlers' transactions that make a record. The others change one."""

SETTLING = 0.7
"""The seconds after each change of the phase that are not measured."""

OFF, ON, IDLE, OVER = 0, 1, 2, 3
"""The phases: measured without the repairer, measured with it, not measured, and the end."""

WAITING = """
SELECT CASE WHEN wait_event_type IN ('Lock', 'LWLock', 'IO') THEN wait_event_type ELSE 'at work' END, count(*)
FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'handler' AND state = 'active'
GROUP BY 1
"""

Keep = Callable[[Any], None]


def keep_invoice(order: Order) -> None:
    """Do nothing: the receivers of the shop have kept the invoice."""


def keep_statement(account: Account) -> None:
    """Correct the statement of the account, or insert it."""
    if not Statement.objects.filter(account=account).update(balance=account.balance):
        Statement.objects.create(account=account, balance=account.balance)


@dataclass(frozen=True, kw_only=True)
class Trade:
    """What is repaired at one guarantee.

    record: the model of the records. column: the column that their row copies. row: the model of the rows. link: the column
    of the row that names its record. keep: what a handler calls to keep the row of a record.
    """

    rule: Rule
    record: type[Model]
    column: str
    row: type[Model]
    link: str
    keep: Keep


INVOICE = HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")})
STATEMENT = HaveRow(Statement, link={"account": F("pk")}, values={"balance": F("balance")})
ACCOUNTS = {"record": Account, "column": "balance", "row": Statement, "link": "account"}


def trade_at(guarantee: str) -> Trade:
    """The trade whose rule has this guarantee: `constraint` or `lock`."""
    if guarantee == Guarantee.CONSTRAINT:
        rule = Rule(name="invoice", every=Order, must=INVOICE)
        return Trade(rule=rule, record=Order, column="total", row=Invoice, link="order", keep=keep_invoice)
    return Trade(rule=Rule(name="statement", every=Account, must=STATEMENT), keep=keep_statement, **ACCOUNTS)


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    guarantees = [str(Guarantee.CONSTRAINT), str(Guarantee.LOCK)]
    arguments.add_argument("--guarantees", nargs="+", choices=guarantees, default=guarantees)
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
        "--chunk", type=int, default=MOST_RECORDS, help="most records in a chunk, as in the settings"
    )
    options = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    require_postgresql()
    with own_database():
        for name in options.guarantees:
            _measure(name, options)


def _measure(name: str, options: argparse.Namespace) -> None:
    trade = trade_at(name)
    execute("TRUNCATE shop_order, shop_invoice, benchmarks_account, benchmarks_statement CASCADE")
    _make_records(trade, options.records, random.Random(1))
    runs.repair({trade.rule.name: trade.rule}, using="default")
    assert trade.rule.guarantee("default") == name
    execute("ANALYZE")
    context = multiprocessing.get_context("spawn")
    phase = context.Value("i", IDLE)
    messages: Queue[Any] = context.Queue()
    database = connection.settings_dict["NAME"]
    acts = [(_handle, number) for number in range(options.handlers)] + [(_make_drift, 90), (_repair, 91)]
    workers = [
        context.Process(target=_work, args=(act, number, name, database, phase, messages, options))
        for act, number in acts
    ]
    for worker in workers:
        worker.start()
    for _ in workers:
        messages.get()
    loads: list[float] = []
    waits: dict[int, list[Mapping[str, float]]] = {OFF: [], ON: []}
    for turn in range(2 * options.rounds):
        phase.value = IDLE
        time.sleep(SETTLING)
        phase.value = now = ON if turn % 2 else OFF
        waits[now].append(_sample_waits(options.seconds, options.handlers))
        loads.append(os.getloadavg()[0])
    phase.value = OVER
    results = [messages.get() for _ in workers]
    for worker in workers:
        worker.join()
    _print_results(name, results, loads)
    for event in ("at work", "Lock", "LWLock", "IO"):
        without, beside = (
            statistics.mean(shares.get(event, 0) for shares in waits[measured]) for measured in (OFF, ON)
        )
        print(f"  {event}: {without:.1%} of a handler's time, {beside:.1%} beside the repairer", flush=True)


def _print_results(name: str, results: Sequence[dict[str, Any]], loads: Sequence[float]) -> None:
    latencies: dict[int, list[float]] = {OFF: [], ON: []}
    for result in results:
        for phase in latencies:
            latencies[phase] += result.get(phase, [])
    failed = sum(result.get("failed", 0) for result in results)
    written, repairs = (sum(result.get(count, 0) for result in results) for count in ("written", "repairs"))
    off, on = sorted(latencies[OFF]), sorted(latencies[ON])
    print(f"guarantee {name}: {len(off):,} transactions without, {len(on):,} beside {repairs} repairs of {written:,} rows; "
          f"{failed} failed; load {min(loads):.1f} to {max(loads):.1f}")  # fmt: skip
    for title, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)):
        without, beside = _percentile(off, share), _percentile(on, share)
        print(
            f"  {title}  {without * 1000:>8.1f} ms  {beside * 1000:>8.1f} ms   ratio {beside / without:.2f}"
        )
    chunks = sorted(seconds for result in results for seconds in result.get("chunks", []))
    print(
        f"  {len(chunks)} chunks took {_percentile(chunks, 0.5) * 1000:.0f} ms, the longest {chunks[-1] * 1000:.0f} ms"
    )


def _sample_waits(seconds: float, handlers: int) -> Mapping[str, float]:
    """Watch the handlers' sessions for these seconds. Returns, for each thing that they wait for, the share of their time."""
    until, looks, seen = time.monotonic() + seconds, 0, Counter[str]()
    while time.monotonic() < until:
        looks += 1
        seen.update({str(event): int(number) for event, number in execute(WAITING)})
        time.sleep(0.02)
    return {event: number / looks / handlers for event, number in seen.items()}


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _work(
    act: Callable[..., dict[Any, Any]],
    number: int,
    name: str,
    database: str,
    phase: Synchronized[int],
    messages: Queue[Any],
    options: argparse.Namespace,
) -> None:
    """Run one process: connect, say so, do the act until the last phase, and send its result."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    connection.settings_dict["NAME"] = database
    connection.ensure_connection()
    messages.put({})
    messages.put(act(trade_at(name), number, phase, options))


def _handle(
    trade: Trade, number: int, phase: Synchronized[int], options: argparse.Namespace
) -> dict[Any, Any]:
    """Write one record and keep its row, again and again by the clock. Returns the latencies in seconds, by phase."""
    chance = random.Random(number)
    execute("SET application_name = 'handler'")
    first = trade.record._base_manager.order_by("pk").values_list("pk", flat=True)[0]
    latencies: dict[Any, Any] = {OFF: [], ON: [], "failed": 0}
    due, before = time.perf_counter() + chance.uniform(0, 1 / options.rate), IDLE
    while (now := phase.value) != OVER:
        if now != before:
            # A delay of one phase must not count in the next.
            due, before = time.perf_counter() + chance.uniform(0, 1 / options.rate), now
        time.sleep(max(0.0, due - time.perf_counter()))
        try:
            with transaction.atomic():
                _write_record(trade, first + chance.randrange(options.records), chance)
        except Error:
            latencies["failed"] += 1
        # A transaction that began in one phase and ended in another belongs to neither.
        if now == phase.value and now in {OFF, ON}:
            latencies[now].append(time.perf_counter() - due)
        due += 1 / options.rate
    return latencies


def _write_record(trade: Trade, key: int, chance: random.Random) -> None:
    """Make a record, or change the one with this key, and keep its row."""
    value = chance.randrange(1_000)
    if chance.random() < NEW:
        record = trade.record(**{trade.column: value})
        record.save()
    else:
        stored = trade.record._base_manager.filter(pk=key).first()
        if stored is None:
            return
        record = stored
        setattr(record, trade.column, value)
        record.save(update_fields=[trade.column])
    trade.keep(record)


def _make_records(trade: Trade, number: int, chance: random.Random) -> None:
    trade.record._base_manager.bulk_create(
        [trade.record(**{trade.column: chance.randrange(1_000)}) for _ in range(number)], batch_size=5_000
    )


def _make_drift(
    trade: Trade, number: int, phase: Synchronized[int], options: argparse.Namespace
) -> dict[Any, Any]:
    """Make records, change values and delete rows without the handlers: about 300 drifted records a second."""
    chance = random.Random(number)
    first = trade.record._base_manager.order_by("pk").values_list("pk", flat=True)[0]
    while phase.value != OVER:
        keys = sorted(first + chance.randrange(options.records) for _ in range(50))
        _make_records(trade, 50, chance)
        records = trade.record._base_manager.filter(pk__in=keys[::2]).order_by("pk")
        with transaction.atomic():
            locked = list(records.select_for_update(no_key=True).values_list("pk", flat=True))
            trade.record._base_manager.filter(pk__in=locked).update(**{trade.column: chance.randrange(1_000)})
        rows = trade.row._base_manager.filter(**{f"{trade.link}__in": keys[1::2]})
        rows._raw_delete(rows.db)
        time.sleep(0.3)
    return {}


def _repair(trade: Trade, _: int, phase: Synchronized[int], options: argparse.Namespace) -> dict[Any, Any]:
    """Repair during the phase ON, with a rest between the runs. Returns the numbers of rows and runs, and the chunks' seconds."""
    # The throttle stops a run that is longer than its phase, so that no repair works in the other phases.
    settings.RECONCILE = {
        **settings.RECONCILE, "CHUNK": options.chunk, "REST": options.rests,
        "THROTTLES": [lambda _: 0.02 if phase.value in {OFF, IDLE} else False],
    }  # fmt: skip
    os.nice(options.nice)
    totals: dict[Any, Any] = {"written": 0, "repairs": 0, "chunks": []}
    chunk_begun: list[float] = []

    def listener(step: Step) -> None:
        if step is Step.FENCE:
            chunk_begun[:] = [time.perf_counter()]
        elif step is Step.COMMITTED:
            totals["chunks"].append(time.perf_counter() - chunk_begun[0])

    while phase.value != OVER:
        if phase.value != ON:
            time.sleep(0.02)
            continue
        with listen(listener):
            _, (result,) = runs.repair({trade.rule.name: trade.rule}, using="default")
        assert result.error is None, result.error
        totals["written"] += result.written.total
        totals["repairs"] += 1
        time.sleep(options.between)
    return totals


if __name__ == "__main__":
    main()
