"""Walking over the keys of a work item, chunk by chunk, and then again over those that were passed over."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import structlog

from reconcile.errors import GivenUpError, HopelessError
from reconcile.repair.chunk import ChunkExecutor
from reconcile.repair.quarantine import with_more

__all__ = ["AHEAD", "Progress", "work_through"]

log = structlog.get_logger()

AHEAD = 100_000
"""Keys that are looked at for others that can be repaired, before a rule is given up."""

AGAIN = (0.1, 0.5, 2.0)
"""Most seconds to wait before each further try at records that were locked."""

SAMPLE = 10
"""Records that are tried of the others before a rule is given up."""

SWAP = (
    "It owes a value that another of these records has, and that one owes its own or waits for it: a swap. Give one of them a "
    "free value by hand, and repair again."
)

Progress = Callable[[int], None]
"""Called with the number of keys that were done."""


def work_through(executor: ChunkExecutor, keys: Iterable[Any], progress: Progress) -> int:
    """Write for the keys, then again for those that were locked, a few times with a pause. Returns their number."""
    number, ahead = 0, iter(keys)
    while chunk := list(islice(ahead, executor.next_size())):
        try:
            number += _do(executor, chunk)
        except HopelessError as error:
            near = [*chunk, *islice(ahead, AHEAD)]
            _try_spread_sample(executor, near, error)
            ahead = chain((key for key in near if key not in executor.quarantine.failures), ahead)
            continue
        progress(len(chunk))
    for seconds in AGAIN:
        if not executor.quarantine.to_retry:
            break
        executor.pause(random.uniform(seconds / 2, seconds))  # noqa: S311
        for chunk in _in_chunks(executor.quarantine.take_locked(), executor):
            _do(executor, chunk)
    _resolve_conflicts(executor)
    return number


def _do(executor: ChunkExecutor, keys: Sequence[Any]) -> int:
    """Write for those of the keys for which the run may. Returns their number."""
    if taken := executor.work.choose(keys):
        executor.execute(taken)
    return len(taken)


def _in_chunks(keys: Iterable[Any], executor: ChunkExecutor) -> Iterator[list[Any]]:
    """Yield chunks of the size that pace and work allow at that moment."""
    ahead = iter(keys)
    while chunk := list(islice(ahead, executor.next_size())):
        yield chunk


def _try_spread_sample(executor: ChunkExecutor, keys: Sequence[Any], hopeless: HopelessError) -> None:
    """Try a few of the keys, far from each other: those that failed may just stand in front. Raises GivenUpError if all fail."""
    quarantine = executor.quarantine
    mended = quarantine.mended
    others = [key for key in keys if key not in quarantine.failures and key not in quarantine.unverified]
    sample = others[:: max(len(others) // SAMPLE, 1)][-SAMPLE:]
    quarantine.trying = True
    try:
        for key in sample:
            if _do(executor, [key]) and quarantine.mended > mended:
                log.info("others_can_be_repaired", rule=quarantine.rule, key=str(key), failed=hopeless.failed)
                quarantine.forgive()
                return
    finally:
        quarantine.trying = False
    if not sample:
        raise hopeless
    quarantine.fail_unverified()
    raise GivenUpError(
        f"{hopeless.failed} records failed and {hopeless.mended} were mended; so did {len(sample)} that stand apart among the next "
        f"{len(others):,}, and the rest were left alone. The last one, {hopeless.last}"
    )


def _resolve_conflicts(executor: ChunkExecutor) -> None:
    """Repair the records whose unique value another one had, each after that one, as long as a round repairs any.

    Records that owe each other's values stay in quarantine. A transaction for each record.
    """
    quarantine, swaps = executor.quarantine, set[Any]()
    while quarantine.conflicts:
        mended = quarantine.mended
        ordered, swaps = executor.work.order_conflicts([*quarantine.take_conflicts()])
        for key in ordered:
            executor.execute([key])
        if quarantine.mended == mended:
            break
    conflicts = quarantine.take_conflicts()
    executor.item.count_quarantined(len(conflicts))
    for number, (key, why) in enumerate(conflicts.items()):
        more = SWAP if key in swaps else executor.name_holder([key]) if number < NAMED else ""
        quarantine.give_up(key, with_more(why, more))


NAMED = 50
"""Records of which it is said which row is in their way, where each is by itself for that reason."""
