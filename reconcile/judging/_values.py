"""What is known of one record under one rule."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Any, Literal

from reconcile.drift import Drift, Guarantee, Written

__all__ = ["UNSAID", "Cell", "Judgement", "Made", "Row", "State", "Subject", "Verdict"]

State = Literal["drifted", "young", "fine"]
"""`young`: it would drift, and is left alone until it is old enough to be judged."""


class _Unsaid(Enum):
    UNSAID = "unsaid"


UNSAID = _Unsaid.UNSAID
"""In the place of a value that isn't there, or that the rule says nothing of."""


@dataclass(frozen=True)
class Made:
    """In the place of a value that Python makes, once for each new row."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One column: the value that is there, and the one that is owed."""

    column: str
    there: Any = UNSAID
    owed: Any = UNSAID

    @property
    def differs(self) -> bool:
        """Whether what is there is not what is owed."""
        return self.there is not UNSAID and self.owed is not UNSAID and bool(self.there != self.owed)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row, with the columns that the rule reads or writes.

    key: None for a row that isn't there yet. extra: whether it is there and nothing owes it.
    """

    model: str
    key: Any
    cells: tuple[Cell, ...]
    extra: bool = False


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One kind of drift: whether it is there, and what a repair would write about it.

    owed: the rows that are missing. would: rows by verb; what the remedy is called stands in `remedy`.
    """

    drift: Drift
    state: State
    remedy: str
    would: Written
    owed: tuple[Row, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What the key names in one model.

    named: whether `every` names the record; None for a row that can only be EXTRA.
    unmet: the conditions of `every` that aren't true of the record, in words.
    young_until: the moment from which on the record is judged; None where it is old enough already.
    linked: rows of other models that belong to the record; `more` are left out.
    """

    row: Row
    named: bool | None
    unmet: tuple[str, ...]
    young_until: date | None
    linked: tuple[Row, ...]
    more: int
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How one key stands under one rule. Two subjects where both a record and a row have it.

    settles: whether the rule leaves young records alone.
    """

    rule: str
    using: str
    key: str
    sentence: str
    guarantee: Guarantee
    settles: bool
    subjects: tuple[Subject, ...]
