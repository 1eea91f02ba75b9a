"""How many rows a record must have."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AtLeast", "AtMost", "Bounds", "Exactly"]


@dataclass(frozen=True)
class Exactly:
    """`n` rows, no more and no fewer; a row that no record owes is EXTRA."""

    n: int

    @property
    def least(self) -> int:
        """Fewer are MISSING."""
        return self.n

    @property
    def most(self) -> int | None:
        """More are EXTRA."""
        return self.n

    def __str__(self) -> str:
        return f"exactly {self.n}"


@dataclass(frozen=True)
class AtLeast:
    """`n` rows or more; no row is EXTRA."""

    n: int

    @property
    def least(self) -> int:
        """Fewer are MISSING."""
        return self.n

    @property
    def most(self) -> int | None:
        """No number of rows is too many."""
        return None

    def __str__(self) -> str:
        return f"at least {self.n}"


@dataclass(frozen=True)
class AtMost:
    """`n` rows or fewer; no row is MISSING."""

    n: int

    @property
    def least(self) -> int:
        """No number of rows is too small."""
        return 0

    @property
    def most(self) -> int | None:
        """More are EXTRA."""
        return self.n

    def __str__(self) -> str:
        return f"at most {self.n}"


Bounds = Exactly | AtLeast | AtMost
