"""The preview of an undo: what would be taken back, what is in the way, and what can't be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps

from reconcile.checking import evaluated
from reconcile.drift import Written
from reconcile.finders import Rows
from reconcile.models import Change, Run
from reconcile.noted import INVERSE, UNDOABLE, Noted, Standing, read
from reconcile.remedies import references_to
from reconcile.remedies._referring import Reference
from reconcile.retracing import Histories
from reconcile.reverting import Group, grouped
from reconcile.runs._undo_journal import LISTED, Conflict, RuleUndo, RunJournal, outside, undoable
from reconcile.sql.dialects import dialect_of
from reconcile.undoing import PAGE, compared

__all__ = ["preview_undo"]

Row = tuple[str, str]


def preview_undo(run: Run, *, using: str) -> list[RuleUndo]:
    """What `undo` would do, rule by rule in its order. Writes nothing, and locks nothing.

    Goes through the whole journal as `undo` does, so that each change is judged by what was taken back before it. What
    the database would refuse isn't foreseen. Raises UsageError as `undo` does.
    """
    with evaluated(using):
        counted = undoable(run, using)
        told = {rule: _Told(rule=rule, outside=outside(counts)) for rule, counts in counted.items()}
        for rule, change, why in _Preview(run, using).foreseen():
            told[rule].tell(change, why)
        return [each.as_undo() for each in told.values()]


@dataclass(kw_only=True)
class _Told:
    """What is foreseen of one rule's changes."""

    rule: str
    outside: Written
    planned: Written = field(default_factory=Written)
    conflicts: list[Conflict] = field(default_factory=list)
    left: int = 0

    def tell(self, change: Noted, why: str) -> None:
        if not why:
            self.planned.add(INVERSE[change.verb], 1)
            return
        self.left += 1
        if self.left <= LISTED:
            self.conflicts.append(Conflict(change.name, why))

    def as_undo(self) -> RuleUndo:
        return RuleUndo(
            rule=self.rule,
            planned=self.planned,
            outside=self.outside,
            conflicts=tuple(self.conflicts),
            left=self.left,
            incomplete=bool(self.left),
        )


class _Preview:
    """One pass over the journal of a run, from the last change to the first."""

    def __init__(self, run: Run, using: str) -> None:
        self.using = using
        self.journal = RunJournal(run, using)
        self.histories = Histories(self.journal.changes, using)
        self.leaving = _Leaving(self.journal.changes)
        self.known: dict[int, tuple[Standing, str]] = {}

    def foreseen(self) -> Iterator[tuple[str, Noted, str]]:
        """Each change that would be taken back, and each that would be left with the reason; and whose it is."""
        changes = self.journal.changes.filter(verb__in=UNDOABLE).order_by("-pk")
        after: Any = None
        while True:
            below = changes if after is None else changes.filter(pk__lt=after)
            rules = {
                pk: self.journal.rules[shard] for pk, shard in below.values_list("pk", "shard_id")[:PAGE]
            }
            if not rules:
                return
            with dialect_of(self.using).exact():
                found = list(self._page([*rules]))
            yield from ((rules[change.id], change, why) for change, why in found)
            after = min(rules)

    def _page(self, ids: Sequence[int]) -> Iterator[tuple[Noted, str]]:
        page = read(self.journal.changes.filter(pk__gte=min(ids), pk__lte=max(ids)))
        self._retrace(page)
        for group in grouped(page, self.using):
            why = self._reasons(group)
            for change in group.changes:
                if change in why:
                    yield change, why[change]
                    if not why[change]:
                        self.leaving.note(group, change)

    def _retrace(self, page: Sequence[Noted]) -> None:
        """Foresee all changes of those rows with several whose last one is on the page."""
        several = self.histories.several
        last = [each.row for each in page if several.get(each.row, [0])[0] == each.id]
        for history in self.histories.read(last).values():
            for change, standing, why in history.foreseen(self._unusable):
                self.known[change.id] = standing, why

    def _unusable(self, change: Noted) -> str:
        return next(grouped([change], self.using)).unusable

    def _reasons(self, group: Group) -> Mapping[Noted, str]:
        """Of the group's changes that aren't taken back already, why they would be left; empty where they wouldn't."""
        found: dict[Noted, str] = {}
        single = []
        for change in group.changes:
            standing, why = self.known.pop(change.id, (None, ""))
            if standing is None:
                single.append(change)
            elif why or standing is Standing.AFTER:
                found[change] = why
        judged = compared(group, single, self.histories)
        found |= {**dict.fromkeys(judged.back, ""), **judged.conflicts}
        if group.verb == "insert" and not group.unusable:
            back = [change for change, why in found.items() if not why]
            found |= group.referred(back, self.leaving.of)
        return found


class _Leaving:
    """Rows that refer to one that the run inserted, and won't when that is to go: deleted by then, or as they were."""

    def __init__(self, changes: Rows) -> None:
        self.gone: dict[tuple[str, str], set[Any]] = {}
        inserted = changes.filter(verb=Change.Verb.INSERT).order_by().values_list("model", flat=True)
        for label in inserted.distinct():
            try:
                references = references_to(apps.get_model(label))
            except LookupError:
                continue
            for each in references:
                self.gone.setdefault(_place(each), set())

    def of(self, reference: Reference) -> Sequence[AbstractSet[Any]]:
        """Keys of the rows that don't refer by it any more."""
        return [self.gone.get(_place(reference), frozenset())]

    def note(self, group: Group, change: Noted) -> None:
        """The change will be taken back."""
        if group.verb == "delete":
            return
        for name in change.columns:
            keys = self.gone.get((change.label, name))
            if keys is not None:
                keys.update(group.keys([change]))


def _place(reference: Reference) -> tuple[str, str]:
    model = reference.model
    return (model._meta.concrete_model or model)._meta.label, reference.column.attname
