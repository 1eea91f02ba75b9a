"""What an effect's function does, as values: the columns that it sets, what it calls, and of which records it does so."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from reconcile.audit.record import Phase

__all__ = ["Act", "Acts", "Does", "Phase"]


class Does(StrEnum):
    """What an act does."""

    ASSIGN = "assign"
    CALL = "call"
    WRITE = "write"
    VALIDATE = "validate"


@dataclass(frozen=True, kw_only=True)
class Act:
    """One thing that the function does. name: the column that it sets, or what it calls. target: what that is known to be, empty if it isn't.

    reads: the columns of the record on which it depends; None if that can't be told. fills: it sets the column only where it is empty.
    model: whose rows it writes. writes: what it calls writes, as (model, method). empty: columns that are empty where it runs. undecided: it depends on
    the model whether it runs, in a way that can't be told. on_record: it is a method of the record. calls: what else it
    calls in the end that may do something. changed: of a record that is there one of these columns has to have changed, None if it needn't.
    resolved: it is known what is called.
    """

    does: Does
    name: str
    path: str
    line: int
    phase: Phase = Phase.BOTH
    reads: frozenset[str] | None = frozenset()
    fills: bool = False
    sets_empty: bool = False
    target: str = ""
    model: str = ""
    writes: frozenset[tuple[str, str]] = frozenset()
    empty: frozenset[str] = frozenset()
    undecided: bool = False
    on_record: bool = False
    calls: frozenset[str] = frozenset()
    changed: frozenset[str] | None = None
    resolved: bool = True

    @property
    def written(self) -> frozenset[tuple[str, str]]:
        """The models whose rows it writes itself or by what it calls, each with the method."""
        own = {(self.model, self.name.rpartition(".")[2])} if self.model else set()
        return self.writes | own

    @property
    def called(self) -> frozenset[str]:
        """What it calls that may do something and isn't seen to write: itself, or what it leads to."""
        if self.written or self.calls or self.does is not Does.CALL:
            return self.calls
        return frozenset({self.target or self.name})

    @property
    def is_outside(self) -> bool:
        """Whether it does something to anything but the record's own columns."""
        return self.does in {Does.CALL, Does.WRITE}


@dataclass(frozen=True, kw_only=True)
class Acts:
    """What is read of an effect's function. is_read: there was a source to read. functions: those that it runs, as (file, qualified name)."""

    acts: tuple[Act, ...] = ()
    is_read: bool = True
    functions: frozenset[tuple[str, str]] = frozenset()
