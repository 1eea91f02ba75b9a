"""Exceptions of the package. Each message says what is wrong, the value, and what to do.

No exception is raised here, and no exit code is decided here: the command line maps the
classes below to its codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

__all__ = [
    "CancelledError",
    "ChunkConflictError",
    "EnsureError",
    "EvaluationError",
    "Fault",
    "FixtureError",
    "GivenUpError",
    "InvalidRulesError",
    "LeaseHeldError",
    "LeaseLostError",
    "NightIncomplete",
    "NoRulesError",
    "NotRepairedError",
    "PausedError",
    "ReconcileError",
    "Refusal",
    "RemedyFailedError",
    "StoppedError",
    "Suspended",
    "UnevaluableRecordError",
    "UnknownNameError",
    "UsageError",
    "first_line",
    "nearest",
    "with_type",
]


class ReconcileError(Exception):
    """Base of every error that the package raises."""


class UsageError(ReconcileError):
    """What was asked for can't be done as asked: settings, names, options. Nothing was run."""


class NoRulesError(UsageError):
    """There is no rule yet."""


class UnknownNameError(UsageError):
    """A rule, tag, option or field that does not exist; the message names the nearest known one."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, instead: str = "") -> None:
        super().__init__(f"There is no {kind} {name!r}.{nearest(name, known) or instead}")


class InvalidRulesError(UsageError):
    """One or more rules can't be used. All faults of all rules are in the message, one a line."""


class EvaluationError(ReconcileError):
    """The database could not answer: unreachable, not migrated, or a statement failed."""


class UnevaluableRecordError(EvaluationError):
    """A single record can't be evaluated; the others may be."""


class FixtureError(EvaluationError):
    """A fixture can't be loaded; the message names the file, and the object where there is one."""


class LeaseHeldError(ReconcileError):
    """Another run repairs the rule at this moment."""


class NightIncomplete(ReconcileError):  # noqa: N818 - it says what became of a night, and is none of the package's failures
    """A night after which somebody should look; all rules have had their turn, and the run is in the database.

    result: what became of it, as plain values.
    """

    def __init__(self, message: str, result: Mapping[str, Any] | None = None) -> None:
        # Celery makes it anew from its arguments.
        super().__init__(message)
        self.result = dict(result or {})


class StoppedError(ReconcileError):
    """Somebody interrupted a repair; what it had written stands, and the run can be resumed."""


class PausedError(StoppedError):
    """Somebody has asked the run to pause, and it has; it can be resumed."""


class CancelledError(StoppedError):
    """Somebody has asked the run to end, and it has; what it had written stands."""


class LeaseLostError(ReconcileError):
    """The fence found the work item in other hands: this worker must stop and write nothing more."""


class ChunkConflictError(ReconcileError):
    """Another session wrote the same rows during the chunk; rolled back, worth another try."""


class GivenUpError(ReconcileError):
    """Too many records of a rule could not be repaired; the rest were left alone."""


class HopelessError(GivenUpError):
    """So many records could not be repaired that the others are not likely to be.

    failed, mended: how many records failed and were repaired. last: the last one that failed, with the reason.
    """

    def __init__(self, *, failed: int, mended: int, last: str) -> None:
        super().__init__(
            f"{failed} records failed and {mended} were mended; the rest were left alone. The last one, {last}"
        )
        self.failed, self.mended, self.last = failed, mended, last


class RemedyFailedError(ReconcileError):
    """The project's own function, which a remedy called, raised; the chunk was rolled back."""


class EnsureError(ReconcileError):
    """What records owe could not be brought into being; nothing of it was written."""


class NotRepairedError(ReconcileError):
    """After the remedy's write, records of the chunk had still drifted; the chunk was rolled back."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence ` Did you mean 'x'?` with the nearest of `known`, or nothing when none is near."""
    close = get_close_matches(name, [each for each in known if each], n=1, cutoff=0.6) if name else []
    return f" Did you mean {close[0]!r}?" if close else ""


def first_line(error: BaseException) -> str:
    """What the error says, and PostgreSQL's DETAIL; a database goes on with hints and its context in further lines."""
    first, *more = str(error).strip().split("\n")
    detail = next((line for line in more if line.startswith("DETAIL:")), "")
    return f"{first} {detail}".rstrip()


def with_type(error: BaseException) -> str:
    """The first line of what the error says, after the name of its class."""
    return f"{type(error).__name__}: {first_line(error)}".removesuffix(": ")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a declaration: a stable id, what is wrong, and the way out."""

    id: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


@dataclass(frozen=True)
class Refusal:
    """Why something is not done."""

    reason: str

    def __str__(self) -> str:
        return self.reason


class Suspended(Refusal):
    """Why the nightly job leaves a rule alone until a person resumes it."""
