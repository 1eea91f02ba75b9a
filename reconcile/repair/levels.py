"""Repairing a tree: records that are computed from each other, level by level, and what is in a circle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from reconcile.core.finder import QueryFinder
from reconcile.core.fixes import Heights, Levels
from reconcile.core.scopes import blocks
from reconcile.errors import GivenUpError
from reconcile.repair.chunk import ChunkExecutor
from reconcile.repair.drifted_keys import DriftedKeys
from reconcile.repair.walking import AHEAD, Progress, work_through

__all__ = ["repair_by_levels"]

log = structlog.get_logger()

LEVELS = 1_000
"""Most levels of a tree that one repair goes down."""

FORGET = 8
"""Levels after which circles are looked for anew where heights don't tell of them: another session may have closed one meanwhile."""

STEPS = 50
"""Most records of a circle that a message names."""


def repair_by_levels(
    executor: ChunkExecutor, found: DriftedKeys, levels: Levels, *, after: Any, progress: Progress
) -> None:
    """Repair the records whose sources don't drift, then those that are computed from them, until none is left.

    after: the cursor of a killed worker, which has begun with some of the first level. A record is written once, with its final
    values, unless its source agrees with a wrong one. A record of a circle is not written, even if its source doesn't drift now: it
    would by then. Raises GivenUpError if there are more levels than LEVELS.
    """
    whole = found.finder
    # The chunk checks its records alone; this finder has checked their sources.
    ready = QueryFinder(
        drift=whole.drift, model=whole.model, using=whole.using, in_windows=whole.in_windows, window=whole.window, query=levels.ready
    )  # fmt: skip
    tree = _Tree(executor, levels)
    tree.repair(replace(found, finder=ready, alone=whole), after, progress)
    # Of a circle in which all drift none is ever ready.
    quarantine = executor.quarantine
    passed = {*quarantine.failures, *quarantine.to_retry}
    for block in blocks(key for key in found.within(None) if key not in passed):
        tree.give_up_circles(block)


@dataclass
class _Tree:
    """The tree as far as one worker knows it. heights: of records in no circle; whoever comes to one looks no further."""

    executor: ChunkExecutor
    levels: Levels
    heights: Heights = field(default_factory=Heights)

    def repair(self, ready: DriftedKeys, after: Any, progress: Progress) -> None:
        """Repair level after level, the ready ones of each."""
        quarantine, waiting, begun = self.executor.quarantine, list[Any](), after is not None
        try:
            keys = ready.beyond(after) if begun else ready.within(None)
            for level in range(LEVELS):
                passed = {*quarantine.failures, *waiting}
                if level % FORGET == FORGET - 1:
                    self.heights.forget_unlimited()
                ahead = (key for key in keys if key not in passed)
                # A killed worker has begun with some of the first level, and this one with the others.
                least = level - 1 if begun else level
                number = work_through(self.executor, self._of_level(ahead, least), progress)
                waiting += quarantine.take_locked()
                log.info("level_repaired", rule=quarantine.rule, level=level + 1, keys=number)
                # A killed worker's cursor says nothing of the records before it.
                if not number and not (begun and level == 0):
                    break
                keys = ready.within(None)
            else:
                self._refuse_more_levels(keys, waiting)
        finally:
            quarantine.to_retry = [*waiting, *quarantine.to_retry]

    def give_up_circles(self, keys: Sequence[Any]) -> Mapping[Any, Sequence[Any]]:
        """Put those of the keys whose records are computed from themselves into quarantine, each with its circle. Returns them."""
        if len(self.heights.of) > AHEAD:
            self.heights.of.clear()
        circles = self.levels.circles(keys, self.heights)
        for key, circle in circles.items():
            why = _circle_in_words(" → ".join(map(str, circle[: STEPS + 1])), self.levels)
            self.executor.quarantine.give_up(key, why)
        return circles

    def _of_level(self, keys: Iterable[Any], least: int) -> Iterator[Any]:
        """The keys whose records are not computed from themselves, which go into quarantine, and have at least so many levels above them.

        After so many rounds no others drift by the repair of those above them: another session has written them meanwhile. They are
        left to the next run, since a writer that goes on would keep this one for ever.
        """
        for block in blocks(keys):
            circles = self.give_up_circles(block)
            levels_above = self.heights.above_lowest(block)
            yield from (key for key in block if key not in circles and levels_above[key] >= least)

    def _refuse_more_levels(self, keys: Iterable[Any], waiting: Sequence[Any]) -> None:
        """Raise GivenUpError if any of the keys is left, beside those in quarantine and those that wait."""
        passed = {*self.executor.quarantine.failures, *waiting}
        if any(key not in passed for key in keys):
            raise GivenUpError(
                f"{LEVELS:,} levels of records are repaired, and there are more. Repair again to go on."
            )


def _circle_in_words(circle: str, levels: Levels) -> str:
    return (
        f"Records are computed from each other in a circle: {circle}, through {levels.path!r}, so none of them can be first. "
        "Break the circle."
    )
