"""The plan file: a plan that a person has looked at, and that a repair may not exceed.

The file is what `repair --format json` prints without `--apply`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconcile.core.verbs import VERBS, Written
from reconcile.errors import Refusal, UsageError

__all__ = ["VERSION", "PlanFile", "PlannedRule", "read_plan"]


@dataclass(frozen=True, kw_only=True)
class PlannedRule:
    """What the plan says of one rule. `fingerprint` is the rule's at that time; `planned` are its drifted records by verb."""

    fingerprint: str
    planned: Written

    def refusal(self, name: str, fingerprint: str, planned: Written, file: str) -> Refusal | None:
        """Why the rule may no longer be repaired by this plan; None if it may."""
        if fingerprint != self.fingerprint:
            return Refusal(f"Rule {name} was edited after the plan in {file} was made. {_ANEW}")
        grown = list(_grown(self.planned, planned))
        if grown:
            return Refusal(f"The plan in {file} no longer covers {name}: {'; '.join(grown)}. {_ANEW}")
        return None

    def as_dict(self) -> dict[str, Any]:
        """As the outcome of a run keeps it."""
        return {"fingerprint": self.fingerprint, "planned_records": self.planned.as_dict()}

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> PlannedRule:
        """From what `as_dict` gave. Raises KeyError, TypeError or ValueError for anything else."""
        if kept.get("records") is not None:
            raise ValueError("it was made for some records alone, by --keys")
        numbers = dict(kept["planned_records"])
        if not all(isinstance(number, int) and number >= 0 for number in numbers.values()):
            raise ValueError("counts of rows are whole numbers")
        return cls(fingerprint=str(kept["fingerprint"]), planned=Written(**numbers))


_ANEW = "Nothing was written for it. Make a new plan, look at it, and apply that: reconcile repair … --format json --output FILE"


@dataclass(frozen=True, kw_only=True)
class PlanFile:
    """A whole plan, for one database. `file` is where it stands; `rules` has those with nothing to write, too."""

    file: str
    database: str
    rules: Mapping[str, PlannedRule]

    def writes(self, name: str) -> bool:
        """Whether the plan has anything to write for the rule."""
        return name in self.rules and self.rules[name].planned.total > 0


def read_plan(file: Path) -> PlanFile:
    """Read the plan. Raises UsageError for a file that is none, says of what version, or was made by applying."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"The plan {str(file)!r} can't be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise UsageError(f"The plan {str(file)!r} is no JSON: {error}. {_MADE}") from error
    return _plan(str(file), found)


VERSION = 2
"""The version of the JSON that the reports of this release have, and so of a plan."""

_MADE = "A plan is what `reconcile repair … --format json --output FILE` writes without --apply."


def _plan(file: str, found: Any) -> PlanFile:
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise UsageError(f"The plan {file!r} isn't of version {VERSION}. {_MADE}")
    if found.get("applied") is not False:
        raise UsageError(f"The plan {file!r} is the report of a repair, or of something else. {_MADE}")
    try:
        rules = {str(each["rule"]): PlannedRule.of(each) for each in _rules(found)}
        return PlanFile(file=file, database=str(found["database"]), rules=rules)
    except (KeyError, TypeError, ValueError) as error:
        message = f"{type(error).__name__}: {error}"
        raise UsageError(
            f"The plan {file!r} lacks something, or has it wrong ({message}). {_MADE}"
        ) from error


def _rules(found: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    listed = found["rules"]
    if any(each["error"] for each in listed):
        raise ValueError("a rule could not be evaluated when it was made")
    # A rule that had nothing to write then may have by what another rule of the plan writes; that is not planned.
    return list(listed)


def _grown(then: Written, now: Written) -> Iterator[str]:
    for verb in VERBS:
        before, after = then[verb], now[verb]
        if after > before:
            yield f"{verb} {before:,} planned, {after:,} now"
