"""What an effect's function does, as values: the columns that it sets, what it calls, and of which records it does so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from reconcile.audit.record import Phase

__all__ = ["Act", "Acts", "Does", "Phase", "as_plain", "from_plain"]


class Does(StrEnum):
    """What an act does."""

    ASSIGN = "assign"
    CALL = "call"
    WRITE = "write"
    VALIDATE = "validate"


@dataclass(frozen=True, kw_only=True)
class Act:
    """One thing that the function does. name: the column that it sets, or what it calls. target: what that is known to be, empty if it isn't.

    reads: the columns of the record on which it depends; None if that can't be told.
    model: whose rows it writes. writes: what it calls writes, as (model, method). empty: columns that are empty where it runs. undecided: it depends on
    the model whether it runs, in a way that can't be told. on_record: it is a method of the record. calls: what else it
    calls in the end that may do something. changed: of a record that is there one of these columns has to have changed, None if it needn't.
    resolved: it is known what is called. by_keys: foreign keys do the same when Django deletes the record.
    """

    does: Does
    name: str
    phase: Phase = Phase.BOTH
    reads: frozenset[str] | None = frozenset()
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
    by_keys: bool = False

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


def as_plain(acts: Acts) -> dict[str, Any]:
    """The acts as values that JSON has; what has its default is left out."""
    return {
        "acts": [_act_as_plain(each) for each in acts.acts],
        "is_read": acts.is_read,
        "functions": sorted(map(list, acts.functions)),
    }


def _act_as_plain(act: Act) -> dict[str, Any]:
    given = {
        each.name: getattr(act, each.name) for each in fields(act) if getattr(act, each.name) != each.default
    }
    return {name: _value_as_plain(value) for name, value in given.items()}


def _value_as_plain(value: Any) -> Any:
    match value:
        case frozenset():
            return sorted(list(each) if isinstance(each, tuple) else each for each in value)
        case Phase():
            return value.value
    return value


def from_plain(plain: Mapping[str, Any]) -> Acts:
    """The acts of such values."""
    return Acts(
        acts=tuple(map(_act_of, plain["acts"])),
        is_read=plain["is_read"],
        functions=frozenset((path, name) for path, name in plain["functions"]),
    )


_SETS = {each.name for each in fields(Act) if isinstance(each.default, frozenset)} | {"changed"}


def _act_of(plain: Mapping[str, Any]) -> Act:
    held: dict[str, Any] = {name: _set_of(value) if name in _SETS else value for name, value in plain.items()}
    held["does"] = Does(held["does"])
    if "phase" in held:
        held["phase"] = Phase(held["phase"])
    return Act(**held)


def _set_of(value: list[Any] | None) -> frozenset[Any] | None:
    return (
        None
        if value is None
        else frozenset(tuple(each) if isinstance(each, list) else each for each in value)
    )
