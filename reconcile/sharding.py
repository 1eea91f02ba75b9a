"""The act of repairing a shard: all chunks of one drift of one rule, from the cursor to the end."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import structlog

from reconcile.checking import Kept, in_windows
from reconcile.drift import EXTRA
from reconcile.errors import GivenUpError
from reconcile.finders import Finder, Source
from reconcile.repairing import Chunks

__all__ = ["KEEP", "drifted_keys", "repair_shard"]

log = structlog.get_logger()

KEEP = 100_000
"""Drifted keys that a check keeps for the repair that follows it; a few MiB."""

BLOCK = 50_000
"""Keys that are read at once where the scope isn't carried to the linked side: each read is a whole-table statement."""

AGAIN = (0.1, 0.5, 2.0)
"""Seconds to wait, at most, before each further try at records that others held."""

LEVELS = 1_000
"""Most levels that a repair goes down in records that are computed from each other."""

STEPS = 50
"""Longest circle of records that is named in full."""

Progress = Callable[[int], None]


def repair_shard(chunks: Chunks, source: Source, *, records: int, kept: Kept, progress: Progress) -> None:
    """Repair a shard from its cursor to its end, then what was set aside, a few times with a pause.

    `kept` are keys that a check has found just now; `records` is how many it counted. A shard that was begun
    before has a cursor, and looks for itself. Where records are computed from each other, level by level.
    """
    found = _Found(chunks.beat, source, records, chunks.finder)
    begun = chunks.shard.cursor is not None
    if chunks.finder.levels is not None:
        _by_levels(chunks, found, begun=begun, progress=progress)
    elif begun:
        _repair(chunks, found.beyond(chunks.finder.model._meta.pk.to_python(chunks.shard.cursor)), progress)
    else:
        _repair(chunks, drifted_keys(chunks.finder, source, records, kept, chunks.beat), progress)


def _repair(chunks: Chunks, keys: Iterable[Any], progress: Progress) -> int:
    """Repair the keys, and again those that others held; how many there were."""
    number = 0
    for chunk in _in_chunks(keys, chunks):
        number += _chunk(chunks, chunk)
        progress(len(chunk))
    for seconds in AGAIN:
        if not chunks.left.aside:
            break
        chunks.pause(random.uniform(seconds / 2, seconds))  # noqa: S311
        again, chunks.left.aside = chunks.left.aside, []
        for chunk in _in_chunks(again, chunks):
            _chunk(chunks, chunk)
    return number


def _chunk(chunks: Chunks, keys: list[Any]) -> int:
    """Repair those of the keys that this run may touch; how many those are."""
    taken = keys if chunks.may_take is None else chunks.may_take(keys)
    chunks.waiting += len(keys) - len(taken)
    if taken:
        chunks.repair(taken)
    return len(taken)


def _in_chunks(keys: Iterable[Any], chunks: Chunks) -> Iterator[list[Any]]:
    """Chunks of as many keys as the pace allows at that moment, and the remedy."""
    ahead = iter(keys)
    while chunk := list(islice(ahead, chunks.next_size())):
        yield chunk


def drifted_keys(
    finder: Finder, source: Source, records: int, kept: Kept, watch: Callable[[], None]
) -> Iterator[Any]:
    """All drifted keys in order: those that a check has kept, then those beyond. `watch` is called once a window."""
    yield from kept.keys
    if not kept.complete:
        yield from _Found(watch, source, records, finder).within(kept.upto)


@dataclass(frozen=True)
class _Found:
    """Where a shard's drifted keys come from. Read in short statements, outside any transaction."""

    beat: Callable[[], None]
    source: Source
    records: int
    finder: Finder

    def beyond(self, cursor: Any) -> Iterator[Any]:
        """The drifted keys beyond the cursor, which is a key of the finder's rows."""
        if not self.finder.carried:
            return self._in_blocks(cursor)
        # Windows are ranges of the records' keys; of linked rows, which may be of the same model, all are looked at again.
        return self.within(None if self.finder.drift is EXTRA else cursor)

    def within(self, after: Any) -> Iterator[Any]:
        """The drifted keys beyond the record `after`."""
        if not self.finder.carried:
            yield from self._in_blocks(after)
            return
        for window in in_windows(self.finder, self.source, self.records, after=after):
            self.beat()
            yield from self.finder.keys(window)

    def _in_blocks(self, after: Any) -> Iterator[Any]:
        while True:
            self.beat()
            keys = self.finder.beyond(after, limit=BLOCK)
            yield from keys
            if len(keys) < BLOCK:
                return
            after = keys[-1]


def _by_levels(chunks: Chunks, found: _Found, *, begun: bool, progress: Progress) -> None:
    """Mend the records whose sources are right, then those that are computed from them, until none is left.

    Each record is written once, with its final values. Raises GivenUpError where records form a circle.
    """
    whole = chunks.finder
    levels = whole.levels
    if levels is None:
        raise TypeError(f"{whole.drift} drift of {whole.model._meta.label} has no levels.")
    # A chunk asks of its records alone whether they drift: whether their sources do has chosen them.
    found = replace(found, finder=replace(whole, find=levels.ready, counted=None, sifted=None))
    held: list[Any] = []
    try:
        keys = (
            found.beyond(whole.model._meta.pk.to_python(chunks.shard.cursor)) if begun else found.within(None)
        )
        for level in range(LEVELS):
            passed = {*chunks.left.failures, *held}
            number = _repair(chunks, (key for key in keys if key not in passed), progress)
            held, chunks.left.aside = [*held, *chunks.left.aside], []
            log.info("level_repaired", rule=chunks.rule, level=level + 1, keys=number)
            # What a killed worker had begun with says nothing of the records before its cursor.
            if not number and not (begun and level == 0):
                break
            keys = found.within(None)
    finally:
        chunks.left.aside = [*held, *chunks.left.aside]
    if circle := _circle(whole, chunks):
        said = f"through {levels.path!r}, so none of them can be first"
        raise GivenUpError(
            f"Records are computed from each other in a circle: {circle}, {said}. Break the circle."
        )


def _circle(finder: Finder, chunks: Chunks) -> str:
    """The circle that keeps records from being mended, as `4 → 7 → 4`; empty where it isn't a circle."""
    if finder.levels is None:
        return ""
    passed = {*chunks.left.failures, *chunks.left.aside}
    walked: list[Any] = [key for key in finder.beyond(None, limit=1) if key not in passed]
    while walked and len(walked) <= STEPS:
        rows = finder.levels.sources(walked[-1]).order_by("pk").values_list("pk", flat=True)
        source = next((key for key in rows[: STEPS + 1] if key not in passed), None)
        if source is None:
            return ""
        if source in walked:
            return " → ".join(str(key) for key in [*walked[walked.index(source) :], source])
        walked.append(source)
    return f"{' → '.join(map(str, walked))} → …" if walked else ""
