"""Eight handlers, two bulk writers and two repairers in one database, at `constraint` and at `lock`: nobody is hurt, nothing is doubled."""

import random
from collections import Counter

import pytest

from reconcile.core.drift import Guarantee
from tests.helpers import repaired
from tests.protocol.traffic import League, Ledger, Shop, Traffic, journalled, lost_to_each_other

pytestmark = [pytest.mark.server, pytest.mark.django_db(transaction=True)]

TRADES = [
    pytest.param(Shop, Guarantee.CONSTRAINT, id="constraint"),
    pytest.param(League, Guarantee.LOCK, id="lock"),
]
PARENTS = 2_000


def opened(trade, chance):
    """A trade with its records, none of which has its row yet."""
    opened = trade()
    opened.load(PARENTS, chance)
    return opened


@pytest.mark.parametrize(("trade", "guarantee"), TRADES)
def test_live_traffic_beside_repairs_loses_nothing_and_nothing_is_doubled(trade, guarantee):
    chance = random.Random()
    trade = opened(trade, chance)
    assert trade.rule.guarantee("default") == guarantee
    ledger = Ledger()
    # On InnoDB handlers may deadlock among themselves once in a while; such traffic tells nothing of a repair.
    for _ in range(3):
        ledger.failed.clear()
        Traffic(trade=trade, ledger=ledger, operations=15, batches=4, seed=chance.random()).run()
        if not ledger.failed:
            break
    assert ledger.failed == [], "already without a repair"
    assert len(trade.wrong()) > PARENTS / 2

    results = Traffic(trade=trade, ledger=ledger, seed=chance.random()).run(repairers=2)
    assert not ledger.failed or lost_to_each_other(ledger), ledger.failed
    assert {result.error for result in results} == {None}
    assert trade.doubled() == []
    last = repaired(trade.rule)
    assert (last.error, last.left, last.why_stopped) == (None, 0, "")
    assert trade.wrong() == {}
    assert repaired(trade.rule).written.total == 0

    written = [result.written for result in [*results, last]]
    assert sum(each.insert for each in written) > PARENTS / 2
    assert_journal_is_what_was_written(trade, ledger, written)


def assert_journal_is_what_was_written(trade, ledger, written):
    inserted, updated = (journalled(trade.child, verb) for verb in ("insert", "update"))
    assert (len(inserted), len(updated)) == (
        sum(each.insert for each in written), sum(each.update for each in written),
    )  # fmt: skip
    made, gone = ({str(key) for key in keys} for keys in (ledger.made, ledger.gone))
    present = {str(key) for key in trade.child._base_manager.values_list("pk", flat=True)}
    assert max(Counter(inserted).values()) == 1
    assert not {*inserted} & made, "a handler's row is in the journal"
    assert {*inserted} | made == present | gone
