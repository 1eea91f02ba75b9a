"""What saves of existing rows were seen to set off, as values."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from reconcile.audit.effects import On
from reconcile.audit.shut import Outside

__all__ = ["EffectRun", "ModelRun", "SeenWrite"]


@dataclass(frozen=True, order=True, kw_only=True)
class SeenWrite:
    """A write that an effect was seen to do. how: INSERT, UPDATE or DELETE. through: the effects between, nearest first."""

    model: str
    how: str
    through: tuple[str, ...] = ()


@dataclass(kw_only=True)
class EffectRun:
    """What an effect was seen to do. rows: for how many of the rows it ran. writes: each with the number of statements."""

    rows: int = 0
    writes: Counter[SeenWrite] = field(default_factory=Counter)


@dataclass(kw_only=True)
class ModelRun:
    """What saving rows of a model was seen to do.

    rows: how many were saved. looked_at: among how many they were chosen. effects: by name and signal. others: writes of which it isn't known
    whose they are. changed: columns of the record that had another value after the save, with the number of rows. faults: by key, why a row
    could not be saved. on_commit: callbacks of COMMIT that were dropped. why: why no row was saved; empty if some were, or there are none.
    is_unreadable: the rows could not be read.
    """

    rows: int = 0
    looked_at: int = 0
    effects: dict[tuple[str, On], EffectRun] = field(default_factory=dict)
    others: Counter[SeenWrite] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    faults: dict[Any, str] = field(default_factory=dict)
    on_commit: int = 0
    outside: Outside = field(default_factory=Outside)
    why: str = ""
    is_unreadable: bool = False
