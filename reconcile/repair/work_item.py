"""Repairing a work item: all chunks of one kind of drift of one rule, from the cursor to the end."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import structlog
from django.db import Error

from reconcile.core.drift import EXTRA
from reconcile.core.finder import Finder, QueryFinder, Source
from reconcile.core.fixes import Heights, Levels
from reconcile.core.scopes import Window, blocks
from reconcile.db.dialects import dialect_of
from reconcile.detect.checking import KeptKeys, finder_windows
from reconcile.detect.unevaluable import Unevaluable, concerns_values
from reconcile.errors import GivenUpError, HopelessError
from reconcile.repair.chunk import Chunks
from reconcile.repair.conflicts import order_conflicts

__all__ = ["KEEP", "drifted_keys", "repair_work_item"]

log = structlog.get_logger()

KEEP = 100_000
"""Drifted keys that a check keeps for the repair that follows it; a few MiB."""

BLOCK = 50_000
"""Keys in one read if the scope does not reach the linked side: each read is a statement over the whole table."""

AGAIN = (0.1, 0.5, 2.0)
"""Most seconds to wait before each further try at records that were locked."""

LEVELS = 1_000
"""Most levels of a tree that one repair goes down."""

SAMPLE = 10
"""Records that are tried of the others before a rule is given up."""

STEPS = 50
"""Most records of a circle that a message names."""

SWAP = (
    "It owes a value that another of these records has, and that one owes its own or waits for it: a swap. Give one of them a "
    "free value by hand, and repair again."
)

Progress = Callable[[int], None]


def repair_work_item(
    chunks: Chunks, source: Source, *, records: int, kept: KeptKeys, progress: Progress
) -> None:
    """Repair a work item from its cursor to its end, then the records that were locked, a few times with a pause.

    kept: keys that a check has just found; a work item with a cursor finds its keys itself. records: the number of checked
    records. Records that are computed from each other are repaired level by level.
    """
    found = _Found(chunks.beat, source, records, chunks.finder, aside=chunks.quarantine.set_aside)
    chunks.quarantine.set_aside(kept.unevaluable)
    begun = chunks.work_item.cursor is not None
    if chunks.finder.levels is not None:
        _by_levels(chunks, found, begun=begun, progress=progress)
    elif begun:
        _repair(
            chunks, found.beyond(chunks.finder.model._meta.pk.to_python(chunks.work_item.cursor)), progress
        )
    else:
        _repair(chunks, found.kept_and_beyond(kept), progress)


def _repair(chunks: Chunks, keys: Iterable[Any], progress: Progress) -> int:
    """Repair the keys, then again those that were locked. Returns their number."""
    number, ahead = 0, iter(keys)
    while chunk := list(islice(ahead, chunks.next_size())):
        try:
            number += _chunk(chunks, chunk)
        except HopelessError as error:
            near = [*chunk, *islice(ahead, KEEP)]
            _try_spread_sample(chunks, near, error)
            ahead = chain((key for key in near if key not in chunks.quarantine.failures), ahead)
            continue
        progress(len(chunk))
    for seconds in AGAIN:
        if not chunks.quarantine.to_retry:
            break
        chunks.pause(random.uniform(seconds / 2, seconds))  # noqa: S311
        again, chunks.quarantine.to_retry = chunks.quarantine.to_retry, []
        for chunk in _in_chunks(again, chunks):
            _chunk(chunks, chunk)
    _resolve_conflicts(chunks)
    return number


def _try_spread_sample(chunks: Chunks, keys: Sequence[Any], hopeless: HopelessError) -> None:
    """Repair a few of the keys, far from each other: those that failed may just stand in front. Raises GivenUpError if all fail."""
    quarantine, mended = chunks.quarantine, chunks.mended
    others = [key for key in keys if key not in quarantine.failures and key not in quarantine.unverified]
    sample = others[:: max(len(others) // SAMPLE, 1)][-SAMPLE:]
    quarantine.trying = True
    try:
        for key in sample:
            if _chunk(chunks, [key]) and chunks.mended > mended:
                log.info("others_can_be_repaired", rule=chunks.rule, key=str(key), failed=hopeless.failed)
                quarantine.forgive(mended=chunks.mended)
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


def _resolve_conflicts(chunks: Chunks) -> None:
    """Repair the records whose unique value another one had, each after that one, as long as a round repairs any.

    Records that owe each other's values stay in quarantine. A transaction for each record.
    """
    swaps: set[Any] = set()
    while chunks.quarantine.conflicts:
        mended, waiting = chunks.mended, chunks.quarantine.conflicts
        chunks.quarantine.conflicts = {}
        ordered, swaps = order_conflicts(chunks.finder, [*waiting])
        for key in ordered:
            chunks.repair([key])
        if chunks.mended == mended:
            break
    conflicts, chunks.quarantine.conflicts = chunks.quarantine.conflicts, {}
    chunks.item.count_quarantined(len(conflicts))
    for key, why in conflicts.items():
        swapped = f" {SWAP}" if key in swaps else ""
        chunks.quarantine.give_up(key, f"{why}{swapped}", mended=chunks.mended)


def _chunk(chunks: Chunks, keys: list[Any]) -> int:
    """Repair the keys that are confirmed. Returns their number."""
    taken = keys if chunks.confirm is None else chunks.confirm(keys)
    chunks.unconfirmed += len(keys) - len(taken)
    if taken:
        chunks.repair(taken)
    return len(taken)


def _in_chunks(keys: Iterable[Any], chunks: Chunks) -> Iterator[list[Any]]:
    """Yield chunks of the size that pace and remedy allow at that moment."""
    ahead = iter(keys)
    while chunk := list(islice(ahead, chunks.next_size())):
        yield chunk


def drifted_keys(
    finder: Finder, source: Source, records: int, kept: KeptKeys, beat: Callable[[], None]
) -> Iterator[Any]:
    """Yield all drifted keys in order: those that a check has kept, then those beyond. Calls `beat` once a window."""
    return _Found(beat, source, records, finder).kept_and_beyond(kept)


@dataclass(frozen=True)
class _Found:
    """Reads the drifted keys of a work item, in short statements outside any transaction.

    aside: called with the keys of records that can't be evaluated, each with its message. alone: what tells that one fails by itself.
    """

    beat: Callable[[], None]
    source: Source
    records: int
    finder: Finder
    aside: Callable[[Mapping[Any, str]], None] = lambda _: None
    alone: Finder | None = None

    def kept_and_beyond(self, kept: KeptKeys) -> Iterator[Any]:
        """All drifted keys in order: those that a check has kept, then those beyond."""
        yield from kept.keys
        if not kept.complete:
            yield from self.within(kept.upto)

    def beyond(self, cursor: Any) -> Iterator[Any]:
        """The drifted keys beyond the cursor, which is a key of the finder's rows."""
        if not self.finder.in_windows:
            return self._in_blocks(cursor)
        # Windows are ranges of the records' keys, so all linked rows are looked at again.
        return self.within(None if self.finder.drift is EXTRA else cursor)

    def within(self, after: Any) -> Iterator[Any]:
        """The drifted keys beyond the record `after`."""
        if not self.finder.in_windows:
            yield from self._in_blocks(after)
            return
        for window in finder_windows(self.finder, self.source, self.records, after=after):
            self.beat()
            yield from self._around_unevaluable(window)

    def _in_blocks(self, after: Any) -> Iterator[Any]:
        while True:
            self.beat()
            try:
                with dialect_of(self.finder.using).protect_transaction():
                    keys = self.finder.keys_after(after, limit=BLOCK)
            except Error as error:
                if not concerns_values(error, self.finder.using):
                    raise
                yield from self._around_unevaluable(Window(after))
                return
            yield from keys
            if len(keys) < BLOCK:
                return
            after = keys[-1]

    def _around_unevaluable(self, window: Window) -> Iterator[Any]:
        unevaluable = Unevaluable(finder=self.finder, model=self.source.model, alone=self.alone)
        for keys in unevaluable.read_around(window, self.finder.keys):
            yield from keys
        self.aside(unevaluable.reasons)


def _by_levels(chunks: Chunks, found: _Found, *, begun: bool, progress: Progress) -> None:
    """Repair the records whose sources don't drift, then those that are computed from them, until none is left.

    A record is written once, with its final values, unless its source agrees with a wrong one. A record of a circle is not written,
    even if its source doesn't drift now: it would by then. Raises GivenUpError if there are more levels than LEVELS.
    """
    whole = chunks.finder
    levels = whole.levels
    if levels is None:
        raise TypeError(f"{whole.drift} drift of {whole.model._meta.label} has no levels.")
    # The chunk checks its records alone; this finder has checked their sources.
    ready = QueryFinder(
        drift=whole.drift, model=whole.model, using=whole.using, in_windows=whole.in_windows, window=whole.window, query=levels.ready
    )  # fmt: skip
    found = replace(found, finder=ready, alone=whole)
    waiting: list[Any] = []
    # Of records in no circle: whoever comes to one looks no further.
    heights = Heights()
    cursor = whole.model._meta.pk.to_python(chunks.work_item.cursor) if begun else None
    try:
        keys = found.beyond(cursor) if begun else found.within(None)
        for level in range(LEVELS):
            passed = {*chunks.quarantine.failures, *waiting}
            ahead = (key for key in keys if key not in passed)
            # A killed worker has begun with some of the first level, and this one with the others.
            least = level - 1 if begun else level
            number = _repair(chunks, _of_level(chunks, levels, ahead, heights, least), progress)
            waiting, chunks.quarantine.to_retry = [*waiting, *chunks.quarantine.to_retry], []
            log.info("level_repaired", rule=chunks.rule, level=level + 1, keys=number)
            # A killed worker's cursor says nothing of the records before it.
            if not number and not (begun and level == 0):
                break
            keys = found.within(None)
        else:
            _refuse_more_levels(chunks, keys, waiting)
    finally:
        chunks.quarantine.to_retry = [*waiting, *chunks.quarantine.to_retry]
    # Of a circle in which all drift none is ever ready.
    passed = {*chunks.quarantine.failures, *chunks.quarantine.to_retry}
    for block in blocks(
        key for key in replace(found, finder=whole, alone=None).within(None) if key not in passed
    ):
        _give_up_circles(chunks, levels, block, heights)


def _refuse_more_levels(chunks: Chunks, keys: Iterable[Any], waiting: Sequence[Any]) -> None:
    """Raise GivenUpError if any of the keys is left, beside those in quarantine and those that wait."""
    passed = {*chunks.quarantine.failures, *waiting}
    if any(key not in passed for key in keys):
        raise GivenUpError(
            f"{LEVELS:,} levels of records are repaired, and there are more. Repair again to go on."
        )


def _of_level(
    chunks: Chunks, levels: Levels, keys: Iterable[Any], heights: Heights, least: int
) -> Iterator[Any]:
    """The keys whose records are not computed from themselves, which go into quarantine, and have at least so many levels above them.

    After so many rounds no others drift by the repair of those above them: another session has written them meanwhile. They are left to
    the next run, since a writer that goes on would keep this one for ever.
    """
    for block in blocks(keys):
        circles = _give_up_circles(chunks, levels, block, heights)
        levels_above = heights.above_lowest(block)
        yield from (key for key in block if key not in circles and levels_above[key] >= least)


def _give_up_circles(
    chunks: Chunks, levels: Levels, keys: Sequence[Any], heights: Heights
) -> Mapping[Any, Sequence[Any]]:
    """Put those of the keys whose records are computed from themselves into quarantine, each with its circle. Returns them."""
    if len(heights.of) > KEEP:
        heights.of.clear()
    circles = levels.circles(keys, heights)
    for key, circle in circles.items():
        why = _circle_in_words(" → ".join(map(str, circle[: STEPS + 1])), levels)
        chunks.quarantine.give_up(key, why, mended=chunks.mended)
    return circles


def _circle_in_words(circle: str, levels: Levels) -> str:
    return (
        f"Records are computed from each other in a circle: {circle}, through {levels.path!r}, so none of them can be first. "
        "Break the circle."
    )
