"""What is read of functions that call each other, each once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from reconcile.audit.trail import Trail

__all__ = ["Memo"]

T = TypeVar("T")


class Memo(Generic[T]):
    """Remembers what was read of each function. Of one that leads to itself the inner reading is `nothing`, and what that cut short isn't kept."""

    def __init__(self, nothing: T, trail: Trail) -> None:
        self.nothing = nothing
        self.trail = trail
        self._known: dict[Hashable, tuple[T, int]] = {}
        self._running: list[Hashable] = []
        self._cut: set[Hashable] = set()

    def once(self, function: Hashable, key: Hashable, read: Callable[[], T]) -> T:
        """What is read of the function for the key."""
        if function in self._running:
            self._cut.add(function)
            return self.nothing
        if key in self._known:
            known, mask = self._known[key]
            self.trail.add(mask)
            return known
        before, self._cut = self._cut, set()
        self._running.append(function)
        try:
            found, mask = self.trail.made(read)
        finally:
            self._running.pop()
            cut = self._cut - {function}
            self._cut = before | cut
        if not cut:
            self._known[key] = found, mask
        return found
