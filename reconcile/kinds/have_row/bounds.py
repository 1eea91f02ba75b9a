"""How many rows a record must have."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AtLeast", "AtMost", "Bounds", "Exactly"]


@dataclass(frozen=True)
class Bounds:
    """Of each record's rows, fewer than `least` are MISSING and more than `most` are EXTRA; None is no limit."""

    n: int

    @property
    def least(self) -> int:
        return self.n

    @property
    def most(self) -> int | None:
        return self.n


@dataclass(frozen=True)
class Exactly(Bounds):
    """`n` rows, no more and no fewer; a row that no record owes is EXTRA."""

    def __str__(self) -> str:
        return f"exactly {self.n}"


@dataclass(frozen=True)
class AtLeast(Bounds):
    """`n` rows or more; no row is EXTRA."""

    @property
    def most(self) -> None:
        return None

    def __str__(self) -> str:
        return f"at least {self.n}"


@dataclass(frozen=True)
class AtMost(Bounds):
    """`n` rows or fewer; no row is MISSING."""

    @property
    def least(self) -> int:
        return 0

    def __str__(self) -> str:
        return f"at most {self.n}"
