"""Reading the drifted keys of a work item, in short statements outside any transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import Error

from reconcile.core.drift import EXTRA
from reconcile.core.finder import Finder, Source
from reconcile.core.scopes import Keys, Scope, Window
from reconcile.db.dialects import dialect_of
from reconcile.detect.checking import KeptKeys, finder_windows
from reconcile.detect.unevaluable import Unevaluable, concerns_values

__all__ = ["DriftedKeys"]

BLOCK = 50_000
"""Keys in one read if the scope does not reach the linked side: each read is a statement over the whole table."""


@dataclass(frozen=True)
class DriftedKeys:
    """The drifted keys of one finder.

    beat: called before each read. aside: called with the keys of records that can't be evaluated, each with its message. alone: what
    tells that one fails by itself. only: the records of these keys alone; None for all.
    """

    beat: Callable[[], None]
    source: Source
    records: int
    finder: Finder
    aside: Callable[[Mapping[Any, str]], None] = lambda _: None
    alone: Finder | None = None
    only: Keys | None = None

    def kept_and_beyond(self, kept: KeptKeys) -> Iterator[Any]:
        """All drifted keys in order: those that a check has kept, then those beyond."""
        yield from kept.keys
        if not kept.complete:
            yield from self.within(kept.upto)

    def beyond(self, cursor: Any) -> Iterator[Any]:
        """The drifted keys beyond the cursor, which is a key of the finder's rows."""
        if self.only is not None:
            # They are few, and what is repaired already doesn't drift any more.
            return self.within(None)
        if not self.finder.in_windows:
            return self._in_blocks(cursor)
        # Windows are ranges of the records' keys, so all linked rows are looked at again.
        return self.within(None if self.finder.drift is EXTRA else cursor)

    def within(self, after: Any) -> Iterator[Any]:
        """The drifted keys beyond the record `after`."""
        if self.only is not None:
            for scope in self.finder.scopes_of(self.only.values):
                self.beat()
                yield from self._around_unevaluable(scope)
            return
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

    def _around_unevaluable(self, window: Scope) -> Iterator[Any]:
        unevaluable = Unevaluable(finder=self.finder, model=self.source.model, alone=self.alone)
        for keys in unevaluable.read_around(window, self.finder.keys):
            yield from keys
        self.aside(unevaluable.reasons)
