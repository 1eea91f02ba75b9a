"""The journal of one run, as its undo reads it: what the run wrote for which rule, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from django.db.models import Count, Max

from reconcile.drift import Written
from reconcile.errors import UsageError
from reconcile.finders import Rows
from reconcile.models import Change, Outcome, Run, Shard
from reconcile.noted import INVERSE, UNDOABLE
from reconcile.runs._holding import LEASE
from reconcile.runs._steering import lives

__all__ = [
    "LISTED",
    "Conflict",
    "RuleUndo",
    "RunJournal",
    "Stretch",
    "counted",
    "outside",
    "planned",
    "stretches",
    "undoable",
]

LISTED = 100
"""Conflicts of a rule that are kept with their reasons."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A change that can't be taken back: its row, as `shop.Invoice 12`, and why."""

    key: str
    why: str


@dataclass(frozen=True, kw_only=True)
class RuleUndo:
    """One rule's part in an undo.

    planned: rows to be written, by verb: what was inserted is deleted, and the other way round. written: rows that were.
    outside: what the run had handed to functions and tasks, by verb; what these did can't be undone. conflicts: the first
    changes that were or are to be left; left: the number of all.
    """

    rule: str
    planned: Written
    written: Written = field(default_factory=Written)
    outside: Written = field(default_factory=Written)
    conflicts: tuple[Conflict, ...] = ()
    left: int = 0
    why_stopped: str = ""
    incomplete: bool = False


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive changes that one rule has made, by the ids of the first and the last."""

    rule: str
    floor: int
    top: int


class RunJournal:
    """The journal of one run, and which rule made which changes."""

    def __init__(self, run: Run, using: str) -> None:
        shards = Shard._base_manager.using(using).filter(outcome__run=run)
        self.rules: dict[int, str] = dict(shards.values_list("pk", "outcome__rule"))
        self.changes: Rows = Change._base_manager.using(using).filter(shard_id__in=[*self.rules])

    def of(self, rule: str) -> Rows:
        """The changes that one rule has made."""
        return self.changes.filter(shard_id__in=[shard for shard, its in self.rules.items() if its == rule])


def stretches(journal: RunJournal) -> Iterator[Stretch]:
    """The journal's stretches, the last one first. Two statements each."""
    changes = journal.changes.filter(verb__in=UNDOABLE)
    top = changes.aggregate(last=Max("pk"))["last"]
    while top is not None:
        rule = journal.rules[changes.values_list("shard_id", flat=True).get(pk=top)]
        mine = [shard for shard, its in journal.rules.items() if its == rule]
        below = changes.filter(pk__lt=top).exclude(shard_id__in=mine).aggregate(last=Max("pk"))["last"]
        yield Stretch(rule, 0 if below is None else below + 1, top)
        top = below


def undoable(run: Run, using: str) -> Mapping[str, Mapping[str, int]]:
    """The changes of each rule by verb, those without an image too. Raises UsageError where none can be taken back."""
    now = Run._base_manager.using(using).get(pk=run.pk)
    if lives(now, using=using):
        hint = f"Pause or cancel it first: reconcile pause {run}, or reconcile cancel {run}"
        if now.state == Run.State.RUNNING:
            raise UsageError(f"Run {run} goes on. {hint}")
        quiet = f"{LEASE.total_seconds():.0f} s"
        raise UsageError(
            f"Run {run} is {now.state}, and its worker may live: it stops before its next chunk, or counts as dead after {quiet} of "
            "silence. Undo it then."
        )
    found = counted(run, using)
    if not any(planned(counts).total for counts in found.values()):
        raise UsageError(f"Run {run} has written no rows, so there is nothing to undo.")
    if by := _undone_by(run, using):
        wrote = [each for each in by if _writes(each, using).exists()]
        again = ", then ".join(f"reconcile undo {each}" for each in wrote)
        hint = (
            f"To have its writes back, undo that: {again}" if wrote else "That found them taken back already."
        )
        raise UsageError(f"Run {run} was undone by run {(wrote or by)[0]}. {hint}")
    return found


def counted(run: Run, using: str) -> dict[str, dict[str, int]]:
    """The run's changes by rule and verb, the rule that wrote last first. One statement."""
    changes = Change._base_manager.using(using).filter(shard__outcome__run=run)
    rows = changes.order_by().values_list("shard__outcome__rule", "verb").annotate(Count("pk"), Max("pk"))
    found: dict[str, dict[str, int]] = {}
    for rule, verb, number, _ in sorted(rows, key=lambda row: -row[3]):
        found.setdefault(rule, {})[verb] = number
    return found


def planned(counts: Mapping[str, int]) -> Written:
    """Rows to be written, by verb, to take back changes of these verbs."""
    return Written(**{INVERSE[verb]: number for verb, number in counts.items() if verb in INVERSE})


def outside(counts: Mapping[str, int]) -> Written:
    """Of changes by verb, those that have no image: what was handed to functions and tasks."""
    return Written(**{verb: number for verb, number in counts.items() if verb not in INVERSE})


def _undone_by(run: Run, using: str) -> Sequence[Run]:
    """If all of the run's writes were taken back, the undos that did, the last one first: those not undone themselves."""
    undos = Run._base_manager.using(using).filter(undoes=run).order_by("-started_at")
    stand = [
        each
        for each in undos
        if not Change._base_manager.using(using).filter(shard__outcome__run__undoes=each).exists()
    ]
    left = Outcome._base_manager.using(using).filter(left__gt=0)
    whole = any(each.state == Run.State.FINISHED and not left.filter(run=each).exists() for each in stand)
    return stand if whole else []


def _writes(run: Run, using: str) -> Rows:
    changes: Rows = Change._base_manager.using(using).filter(shard__outcome__run=run, verb__in=UNDOABLE)
    return changes
