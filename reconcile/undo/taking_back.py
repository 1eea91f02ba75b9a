"""The work of an undo: which changes can be taken back, and taking them back chunk by chunk.

It has the fence, journal, verification, retries and cursor of a repair, since the same executor does it. Changes are taken back in
reverse order; the last change of a row comes first.

Note [Done or changed]: a row that is as an earlier change of the same run has found it, in all columns that were written
from there on, was taken back already, to there or beyond. It may be that only some of the run was undone before. Such a row may
also look as a later change has left it, by that one's own columns, where a value came back that had been there before; taking
that change back once more would undo the undo. Where nothing was taken back yet, the row is as it was before all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from django.db.models import Model

from reconcile.core.finder import Rows
from reconcile.core.row_locks import lock_rows
from reconcile.core.scopes import Keys
from reconcile.core.verbs import UNDOABLE, Written
from reconcile.db.dialects import dialect_of
from reconcile.errors import NotRepairedError, Refusal
from reconcile.models import Change
from reconcile.remedies import Journal, WriteResult
from reconcile.undo.changes import ChangeHeader, RowState, read_changes
from reconcile.undo.groups import ChangeGroup, group_changes
from reconcile.undo.inverse import inverse_of
from reconcile.undo.row_history import LEFT_LATER, RowHistories

__all__ = ["ComparedChanges", "UndoWork", "compare_changes", "compare_with_references"]

PAGE = 5_000
"""Ids of changes that are read at once."""


@dataclass(frozen=True, kw_only=True)
class ComparedChanges:
    """The changes of one group, sorted by what an undo does about them.

    back: to be taken back, since their rows are as they have left them. done_already: taken back already. conflicts: can't be taken back, each with the refusal.
    """

    back: Sequence[ChangeHeader]
    done_already: Sequence[ChangeHeader]
    conflicts: Mapping[ChangeHeader, Refusal]


def compare_with_references(
    group: ChangeGroup,
    changes: Sequence[ChangeHeader],
    histories: RowHistories,
    ready: Collection[ChangeHeader],
) -> ComparedChanges:
    """Compare the rows of `changes`, which are of `group`, with their images, and look for what refers to them.

    `histories` are those of the run; `ready` are the changes that no other session is in the way of: the rows of others
    stay, and keep what they refer to. It costs what `compare_changes` costs, and one statement for each reference where rows are to be deleted.
    """
    found = compare_changes(group, changes, histories)
    conflicts = inverse_of(group).refuse(group, [each for each in found.back if each in ready])
    back = [each for each in found.back if each not in conflicts]
    return ComparedChanges(
        back=back, done_already=found.done_already, conflicts={**found.conflicts, **conflicts}
    )


def compare_changes(
    group: ChangeGroup, changes: Sequence[ChangeHeader], histories: RowHistories
) -> ComparedChanges:
    """Compare the rows of `changes`, which are of `group`, with their images.

    One statement, and a few for changes of rows that were written more than once; once a run one that passes over its journal.
    """
    if group.refusal is not None:
        return ComparedChanges(back=(), done_already=(), conflicts=dict.fromkeys(changes, group.refusal))
    states = group.row_states(changes)
    done_already = [each for each in changes if states[each] is RowState.BEFORE]
    taken_back = _taken_back_already(
        [each for each in changes if states[each] is not RowState.BEFORE], histories
    )
    back = [each for each in changes if states[each] is RowState.AFTER and each not in taken_back]
    conflicts = {
        each: refusal
        for each in changes
        if each not in taken_back and (refusal := states[each].refusal(each.verb)) is not None
    }
    return ComparedChanges(back=back, done_already=[*done_already, *taken_back], conflicts=conflicts)


def _taken_back_already(changes: Sequence[ChangeHeader], histories: RowHistories) -> set[ChangeHeader]:
    """The changes whose rows are as an earlier change of the run has found them. See Note [Done or changed]."""
    if not changes:
        return set()
    found = histories.read([each.row for each in changes])
    return {each for each in changes if each.row in found and found[each.row].was_taken_back(each)}


@dataclass(kw_only=True)
class UndoWork:
    """The work of taking the changes of one run back: to restore each row that is still as its change has left it.

    It lives as long as one worker takes back one run. `journal` are all changes of that run. `conflicts` are the changes
    that were left, each with the reason; earlier changes of the same columns of their rows are left, too. `locked_rows` are
    rows that other sessions hold, each with the change to be taken back first.
    """

    journal: Rows
    using: str
    conflicts: dict[ChangeHeader, Refusal] = field(default_factory=dict)
    locked_rows: dict[tuple[str, str], int] = field(default_factory=dict)
    done_already: set[int] = field(default_factory=set)
    blocking: dict[tuple[str, str], set[ChangeHeader]] = field(default_factory=dict)
    histories: RowHistories = field(init=False)

    name: ClassVar[str] = "undo"
    limit: ClassVar[int | None] = None
    tables: ClassVar[Sequence[type[Model]]] = ()
    deferred: ClassVar[bool] = False
    frees_values: ClassVar[bool] = False
    changed_by_database: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.histories = RowHistories(self.journal, self.using)

    def changes(self, *, floor: int, top: int, below: int | None, beat: Callable[[], None]) -> Iterator[int]:
        """Yield the ids of the changes from `top` down to `floor`, below the cursor. Calls `beat` before each read of PAGE ids."""
        changes = self.journal.filter(pk__gte=floor, pk__lte=top, verb__in=UNDOABLE)
        while True:
            beat()
            ahead = changes if below is None else changes.filter(pk__lt=below)
            ids = list(ahead.order_by("-pk").values_list("pk", flat=True)[:PAGE])
            yield from ids
            if len(ids) < PAGE:
                return
            below = ids[-1]

    def choose(self, keys: Sequence[int]) -> Sequence[int]:
        """All: nobody has to confirm an undo."""
        return keys

    def lock(self, keys: Sequence[int]) -> Sequence[int]:
        """Lock the changes themselves; their rows are locked once they are read. One statement."""
        return lock_rows(Change, keys, using=self.using).values

    def unwritable(self, keys: Sequence[int]) -> Mapping[int, str]:  # noqa: ARG002
        """None: what stood in the row before fits."""
        return {}

    def name_holder(self, key: int) -> str:  # noqa: ARG002
        """None is looked for."""
        return ""

    def order_conflicts(self, keys: Sequence[int]) -> tuple[Sequence[int], set[int]]:
        """As they are: later changes come first."""
        return keys, set()

    def write(self, keys: Keys, journal: Journal) -> WriteResult:
        """Take back the changes of `keys`. At most six statements for each group, and more for its conflicts."""
        changes = read_changes(self.journal.filter(keys.on("pk")))
        self._forget_failed_try(changes)
        written, waiting_rows = Written(), 0
        for group in group_changes(changes, self.using):
            back, waiting = self._choose(group)
            if back:
                inverse = inverse_of(group)
                written.add(group.inverse, inverse.revert(group, back, journal))
            waiting_rows += waiting
        if written.total:
            # Checked now, so that a broken reference fails this write and not the COMMIT.
            dialect_of(self.using).check_references()
        refused = {each.id: self.conflicts[each].reason for each in changes if each in self.conflicts}
        return WriteResult(written, waiting_rows=waiting_rows, refused=refused)

    def verify(self, locked: Sequence[int], wrote: WriteResult) -> set[int]:
        """No locked change may be still to take back, except for those whose rows other sessions have locked."""
        if not locked:
            return set()
        left = self.still_open(locked) - {*wrote.refused}
        if len(left) <= wrote.waiting_rows:
            return left
        change = next(iter(read_changes(self.journal.filter(pk=min(left)))))
        raise NotRepairedError(
            f"{change.name} is not as it was before the change that was taken back; does something in the database change what is "
            "written?"
        )

    def still_open(self, keys: Sequence[int]) -> set[int]:
        """The changes of `keys` that are yet to be taken back.

        If a row has several, the earliest decides: once it is taken back, the row need not equal images of later ones.
        """
        changes = read_changes(self.journal.filter(Keys(keys).on("pk")))
        earliest, found = {each.row: each.id for each in changes}, set[int]()
        for group in group_changes(changes, self.using):
            held = [each for each in group.changes if self.locked_rows.get(each.row, -1) >= each.id]
            rest = [
                each
                for each in group.changes
                if each not in held
                and each not in self.conflicts
                and each.id not in self.done_already
                and earliest[each.row] == each.id
            ]
            states = {} if group.refusal is not None else group.row_states(rest)
            found |= {each.id for each in held}
            found |= {each.id for each in rest if states.get(each) is not RowState.BEFORE}
        return found

    def _forget_failed_try(self, changes: Iterable[ChangeHeader]) -> None:
        """Forget what an earlier try at the chunk, which was rolled back, has recorded."""
        for each in changes:
            self.conflicts.pop(each, None)
            self.done_already.discard(each.id)
            self.blocking.get(each.row, set()).discard(each)
            if self.locked_rows.get(each.row) == each.id:
                del self.locked_rows[each.row]

    def _choose(self, group: ChangeGroup) -> tuple[list[ChangeHeader], int]:
        """Return the changes that can be taken back now, and the number that wait for other sessions."""
        candidates, wait = [], []
        for each in group.changes:
            if any(other.id > each.id and other.concerns(each) for other in self.blocking.get(each.row, ())):
                self._add_conflict(each, LEFT_LATER)
            elif self.locked_rows.get(each.row, each.id) > each.id:
                wait.append(each)
            else:
                candidates.append(each)
        free, absent = self._lock(group, candidates)
        # A row that came back a moment ago isn't locked; a row to be inserted again can't be.
        ready = absent if inverse_of(group).restores_absent else free
        found = compare_with_references(group, candidates, self.histories, ready)
        self.done_already |= {each.id for each in found.done_already}
        for each, refusal in found.conflicts.items():
            if each in free or each in absent or group.refusal is not None:
                self._add_conflict(each, refusal)
            else:
                # Another session has locked the row and may change it.
                wait.append(each)
        wait += [each for each in found.back if each not in ready]
        for each in wait:
            self.locked_rows.setdefault(each.row, each.id)
        return [each for each in found.back if each in ready], len(wait)

    def _lock(
        self, group: ChangeGroup, changes: Sequence[ChangeHeader]
    ) -> tuple[set[ChangeHeader], set[ChangeHeader]]:
        """Lock the rows of the changes. Returns the changes whose rows are locked, and those whose rows are not there."""
        if group.refusal is not None or not changes:
            return set(), set()
        # A collation may find rows with another spelling of the key, which belong to no change.
        keys = group.keys(changes)
        cascades = inverse_of(group).deletes and dialect_of(self.using).cascades(group.model)
        locked = lock_rows(group.model, keys, using=self.using, from_references=cascades)
        free = {keys[key] for key in locked.values if key in keys}
        if len(free) == len(changes):
            return free, set()
        there = group.model._base_manager.using(self.using).filter(Keys([*keys]).on("pk"))
        present = {keys[key] for key in there.values_list("pk", flat=True) if key in keys}
        return free, {*changes} - free - present

    def _add_conflict(self, change: ChangeHeader, refusal: Refusal) -> None:
        self.conflicts[change] = refusal
        self.blocking.setdefault(change.row, set()).add(change)
