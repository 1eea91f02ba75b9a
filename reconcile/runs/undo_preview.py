"""The preview of an undo: which changes it would take back, and why it would leave the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps

from reconcile.core.finder import Rows
from reconcile.core.verbs import INSERT, UNDOABLE, VERBS, Written, verbs_of
from reconcile.db.columns import label_of
from reconcile.db.dialects import dialect_of
from reconcile.detect.checking import evaluation_errors
from reconcile.errors import Refusal
from reconcile.models import Run
from reconcile.remedies import references_to
from reconcile.remedies.references import Reference
from reconcile.runs.undo_run import LISTED, Conflict, RuleUndo, RunJournal, outside_effects, undoable
from reconcile.undo.changes import ChangeHeader, RowState, read_changes
from reconcile.undo.groups import ChangeGroup, group_changes
from reconcile.undo.inverse import inverse_of
from reconcile.undo.row_history import RowHistories
from reconcile.undo.taking_back import PAGE, compare_changes

__all__ = ["preview_undo"]

Row = tuple[str, str]


def preview_undo(run: Run, *, using: str) -> list[RuleUndo]:
    """Return what `undo` would do, rule by rule in its order. Writes nothing and locks nothing.

    It reads the whole journal in the order of `undo`, so that each change is compared with the rows as the undo would find
    them. It does not foresee what the database would refuse. Raises UsageError as `undo` does.
    """
    with evaluation_errors(using), dialect_of(using).see_all_rows():
        counts_by_rule = undoable(run, using)
        undos = {
            rule: _PredictedUndo(rule=rule, outside=outside_effects(counts))
            for rule, counts in counts_by_rule.items()
        }
        for rule, change, refusal in _Preview(run, using).changes():
            undos[rule].add(change, refusal)
        return [each.as_undo() for each in undos.values()]


@dataclass(kw_only=True)
class _PredictedUndo:
    """What the undo would do about the changes of one rule."""

    rule: str
    outside: Written
    planned: Written = field(default_factory=Written)
    conflicts: list[Conflict] = field(default_factory=list)
    left: int = 0

    def add(self, change: ChangeHeader, refusal: Refusal | None) -> None:
        if refusal is None:
            self.planned.add(VERBS[change.verb].inverse, 1)
            return
        self.left += 1
        if self.left <= LISTED:
            self.conflicts.append(Conflict(change.name, refusal.reason))

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
        self.histories = RowHistories(self.journal.changes, using)
        self.deleted_rows = _DeletedRows(self.journal.changes)
        self.known: dict[int, tuple[RowState, Refusal | None]] = {}

    def changes(self) -> Iterator[tuple[str, ChangeHeader, Refusal | None]]:
        """Yield the rule of each change, the change, and why it would be left; None if it would be taken back."""
        changes = self.journal.changes.filter(verb__in=UNDOABLE).order_by("-pk")
        after: Any = None
        while True:
            below = changes if after is None else changes.filter(pk__lt=after)
            rules = {
                pk: self.journal.rules[work_item]
                for pk, work_item in below.values_list("pk", "work_item_id")[:PAGE]
            }
            if not rules:
                return
            with dialect_of(self.using).lossless_settings():
                found = list(self._page([*rules]))
            yield from ((rules[change.id], change, refusal) for change, refusal in found)
            after = min(rules)

    def _page(self, ids: Sequence[int]) -> Iterator[tuple[ChangeHeader, Refusal | None]]:
        page = read_changes(self.journal.changes.filter(pk__gte=min(ids), pk__lte=max(ids)))
        self._retrace(page)
        for group in group_changes(page, self.using):
            outcomes = self._outcomes(group)
            for change in group.changes:
                if change in outcomes:
                    yield change, outcomes[change]
                    if outcomes[change] is None:
                        self.deleted_rows.note(group, change)

    def _retrace(self, page: Sequence[ChangeHeader]) -> None:
        """Work out all changes of the rows that have several, if the last of them is on the page."""
        several = self.histories.several
        last = [each.row for each in page if several.get(each.row, [0])[0] == each.id]
        for history in self.histories.read(last).values():
            for change, state, refusal in history.predict(self._refuse):
                self.known[change.id] = state, refusal

    def _refuse(self, change: ChangeHeader) -> Refusal | None:
        return next(group_changes([change], self.using)).refusal

    def _outcomes(self, group: ChangeGroup) -> Mapping[ChangeHeader, Refusal | None]:
        """Why each change of the group would be left, None if it would be taken back; without those taken back already."""
        found: dict[ChangeHeader, Refusal | None] = {}
        single = []
        for change in group.changes:
            state, refusal = self.known.pop(change.id, (None, None))
            if state is None:
                single.append(change)
            elif refusal is not None or state is RowState.AFTER:
                found[change] = refusal
        compared = compare_changes(group, single, self.histories)
        found |= {**dict.fromkeys(compared.back), **compared.conflicts}
        back = [change for change, refusal in found.items() if refusal is None]
        return {**found, **inverse_of(group).refuse(group, back, self.deleted_rows.of)}


class _DeletedRows:
    """Rows that refer to an inserted row now, and no longer when the undo deletes it: deleted by then, or restored."""

    def __init__(self, changes: Rows) -> None:
        self.gone: dict[tuple[str, str], set[Any]] = {}
        inserted = changes.filter(verb__in=verbs_of(INSERT)).order_by().values_list("model", flat=True)
        for label in inserted.distinct():
            try:
                references = references_to(apps.get_model(label))
            except LookupError:
                continue
            for each in references:
                self.gone.setdefault(_place(each), set())

    def of(self, reference: Reference) -> Sequence[AbstractSet[Any]]:
        """The keys of the rows that no longer refer by this reference."""
        return [self.gone.get(_place(reference), frozenset())]

    def note(self, group: ChangeGroup, change: ChangeHeader) -> None:
        """Remember a change that will be taken back."""
        if inverse_of(group).restores_absent:
            return
        for name in change.columns:
            keys = self.gone.get((change.label, name))
            if keys is not None:
                keys.update(group.keys([change]))


def _place(reference: Reference) -> tuple[str, str]:
    model = reference.model
    return label_of(model), reference.column.attname
