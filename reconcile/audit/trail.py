"""What a result was made from: files, and what was asked of all of them. By this a later run knows whether the result still holds."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

__all__ = ["Asked", "Thing", "Trail"]

T = TypeVar("T")


class Asked(StrEnum):
    """What was asked. FILE: what stands in it. HELD: what a name, `module:name`, holds in the running project. PARAMETER: what `file::function::name` is, whoever calls the function. CALLED, DEFINED: which files call or define a name. ABSENT: a module that isn't there."""

    FILE = "file"
    HELD = "held"
    PARAMETER = "parameter"
    CALLED = "called"
    DEFINED = "defined"
    ABSENT = "absent"


Thing = tuple[Asked, str]


class Trail:
    """Notes what was asked while something is made. What is remembered keeps its mask, a bit for each thing, and adds it wherever it is used."""

    def __init__(self) -> None:
        self._bits: dict[Thing, int] = {}
        self._open: list[int] = [0]

    def note(self, asked: Asked, name: str) -> None:
        """Note one thing for whatever is being made."""
        thing = (asked, name)
        bit = self._bits.get(thing)
        if bit is None:
            bit = self._bits[thing] = 1 << len(self._bits)
        self._open[-1] |= bit

    def add(self, mask: int) -> None:
        """Note all that a remembered result was made from."""
        self._open[-1] |= mask

    def made(self, make: Callable[[], T]) -> tuple[T, int]:
        """What `make` gives, and the mask of what it was made from."""
        self._open.append(0)
        try:
            found = make()
        finally:
            mask = self._open.pop()
            self._open[-1] |= mask
        return found, mask

    def apart(self, make: Callable[[], T]) -> tuple[T, int]:
        """As `made`, but whatever is being made around it doesn't depend on these things."""
        before = self._open[-1]
        found, mask = self.made(make)
        self._open[-1] = before
        return found, mask

    def things(self, mask: int) -> list[Thing]:
        """The things of the mask."""
        return [thing for place, thing in enumerate(self._bits) if mask >> place & 1]
