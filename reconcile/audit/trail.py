"""What a result was made from: files, and what was asked of all of them. By this a later run knows whether the result still holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

__all__ = ["ANSWERS", "WITHIN_FILES", "Asked", "Thing", "Trail"]

T = TypeVar("T")


class Asked(StrEnum):
    """What was asked.

    FILE: all that stands in it. Of `file::name`, PART: a function or class; BODY: a class without what its functions do; NAMED: what gives a module's
    name its value; CALLS: the calls of anything of the name. PARAMETER: what `file::function::name` is, whoever calls the function. CALLEES: which
    functions the calls of `file::name` call. CALLERS: in which functions these stand. BARE: what a function does that isn't handed the record. ACTS: what an effect does. HELD: what a name, `module:name`, holds in the running project. CALLED, DEFINED, MENTIONED: which files call or define a name, or have it
    in their text. MODULE: whether there is one.
    """

    FILE = "file"
    PART = "part"
    BODY = "body"
    NAMED = "named"
    CALLS = "calls"
    PARAMETER = "parameter"
    CALLEES = "callees"
    CALLERS = "callers"
    BARE = "bare"
    ACTS = "acts"
    HELD = "held"
    CALLED = "called"
    DEFINED = "defined"
    MENTIONED = "mentioned"
    MODULE = "module"


WITHIN_FILES = frozenset({Asked.PART, Asked.BODY, Asked.NAMED, Asked.CALLS})
"""What is asked of one place in a file: while the file is the same, so is the place."""

ANSWERS = frozenset({Asked.PARAMETER, Asked.CALLEES, Asked.CALLERS, Asked.BARE})
"""What is found by evaluating: whoever asks depends on the answer alone, and not on all that it was made from."""


Thing = tuple[Asked, str]


class Trail:
    """Notes what was asked while something is made. What is remembered keeps its mask, a bit for each thing, and adds it wherever it is used."""

    def __init__(self) -> None:
        self._bits: dict[Thing, int] = {}
        self._listed: list[Thing] = []
        self._open: list[int] = [0]

    def note(self, asked: Asked, name: str) -> None:
        """Note one thing for whatever is being made."""
        thing = (asked, name)
        bit = self._bits.get(thing)
        if bit is None:
            bit = self._bits[thing] = 1 << len(self._listed)
            self._listed.append(thing)
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
        digits = bin(mask)[:1:-1]
        return [self._listed[each.start()] for each in re.finditer("1", digits)]
