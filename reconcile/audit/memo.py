"""What is read of functions and expressions that lead to each other, each once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from reconcile.audit.trail import Trail

__all__ = ["Memo"]

T = TypeVar("T")
S = TypeVar("S")


class Memo(Generic[T]):
    """Remembers what was read of each function or expression.

    Of one that leads to itself the inner reading is `nothing`. What that cut short isn't kept beyond it, so that the answers are the same
    whatever is asked for first; unless the whole turned out to be nothing, too.
    """

    def __init__(self, nothing: T, trail: Trail) -> None:
        self.nothing = nothing
        self.trail = trail
        self._known: dict[Hashable, tuple[T, int]] = {}
        self._short: dict[Hashable, tuple[T, int, set[Hashable]]] = {}
        self._running: set[Hashable] = set()
        self._lacking: set[Hashable] = set()
        self._refused = 0

    @property
    def depth(self) -> int:
        """How many are being read, each for the one before."""
        return len(self._running)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._known

    def whole(self, read: Callable[[], S]) -> tuple[S, bool]:
        """What `read` gives, and whether nothing in it was cut short."""
        before, self._lacking, refused = self._lacking, set(), self._refused
        try:
            found = read()
        finally:
            lacking, self._lacking = self._lacking, before | self._lacking
        return found, not lacking and refused == self._refused

    def refuse(self) -> T:
        """Nothing, since too many are being read, each for the one before."""
        self._refused += 1
        return self.nothing

    def once(self, function: Hashable, key: Hashable, read: Callable[[], T]) -> T:
        """What is read of the function for the key."""
        known = self._known.get(key) or self._cut_short(key)
        if known is not None:
            self.trail.add(known[1])
            return known[0]
        if function in self._running:
            self._lacking.add(function)
            return self.nothing
        before, self._lacking = self._lacking, set()
        self._running.add(function)
        try:
            found, mask = self.trail.made(read)
        finally:
            self._running.discard(function)
            lacking = self._lacking - {function}
            self._lacking = before | lacking
        if lacking:
            self._short[key] = found, mask, lacking
        else:
            self._known[key] = found, mask
        return found

    def _cut_short(self, key: Hashable) -> tuple[T, int] | None:
        """What was read of a key that lacks what is being read now, as long as it is; for good, if that turned out to be nothing."""
        if key not in self._short:
            return None
        found, mask, lacking = self._short[key]
        running = lacking & self._running
        for each in lacking - running:
            whole, others = self._known.get(each, (None, 0))
            if whole != self.nothing:
                return None
            mask |= others
        self._lacking |= running
        if not running:
            self._known[key] = found, mask
        return found, mask
