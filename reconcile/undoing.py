"""The act of undoing: the remedy that takes back the changes of one stretch of a run's journal, and its finder.

To the chunks of a repair a change is a record like any other, which drifts as long as it has not been taken back. So an
undo has their fence, journal, verification, retries and cursor. Changes are taken in the reverse of the order in which
they were made; of a row that was written several times the last change goes first.

Note [Done or changed]: a row that is as an earlier change of the same run has found it, in all columns that were written
from there on, was taken back already, to there or beyond. It may be that only some of the run was undone before. Such a row may
also look as a later change has left it, by that one's own columns, where a value came back that had been there before; taking
that change back once more would undo the undo. Where nothing was taken back yet, the row is as it was before all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from reconcile.drift import STALE, Drift, Written
from reconcile.errors import Fault
from reconcile.finders import Finder, Rows
from reconcile.models import Change
from reconcile.noted import INVERSE, UNDOABLE, Noted, Standing, read
from reconcile.remedies import Journal, Wrote
from reconcile.remedies._locking import locked
from reconcile.retracing import LEFT_LATER, Histories
from reconcile.reverting import Group, grouped
from reconcile.sql.dialects import dialect_of
from reconcile.sql.expressions import Column
from reconcile.windows import Keys, Scope, Window

__all__ = ["Judged", "TakeBack", "compared", "judged"]

PAGE = 5_000
"""Ids of changes that are read at once."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What is to become of the changes of one group.

    back: their rows are as they have left them. passed: taken back already. conflicts: to be left, each with the reason.
    """

    back: Sequence[Noted]
    passed: Sequence[Noted]
    conflicts: Mapping[Noted, str]


def judged(group: Group, changes: Sequence[Noted], histories: Histories, ready: Collection[Noted]) -> Judged:
    """Compare the rows of `changes`, which are of `group`, with their images, and look for what refers to them.

    `histories` are those of the run; `ready` are the changes that no other session is in the way of: the rows of others
    stay, and keep what they refer to. What `compared` costs, and one statement for each reference where rows are to be deleted.
    """
    found = compared(group, changes, histories)
    if group.unusable or group.verb != "insert":
        return found
    conflicts = group.referred([each for each in found.back if each in ready])
    back = [each for each in found.back if each not in conflicts]
    return Judged(back=back, passed=found.passed, conflicts={**found.conflicts, **conflicts})


def compared(group: Group, changes: Sequence[Noted], histories: Histories) -> Judged:
    """Compare the rows of `changes`, which are of `group`, with their images.

    One statement, and a few for changes of rows that were written more than once; once a run one that passes over its journal.
    """
    if group.unusable:
        return Judged(back=(), passed=(), conflicts=dict.fromkeys(changes, group.unusable))
    standing = group.standings(changes)
    passed = [each for each in changes if standing[each] is Standing.BEFORE]
    beyond = _back_beyond([each for each in changes if standing[each] is not Standing.BEFORE], histories)
    back = [each for each in changes if standing[each] is Standing.AFTER and each not in beyond]
    others = [each for each in changes if standing[each] in {Standing.GONE, Standing.OTHER}]
    conflicts = {each: standing[each].reason(each.verb) for each in others if each not in beyond}
    return Judged(back=back, passed=[*passed, *beyond], conflicts=conflicts)


def _back_beyond(changes: Sequence[Noted], histories: Histories) -> set[Noted]:
    """Of the changes, those whose rows are as an earlier change of the run has found them. See Note [Done or changed]."""
    if not changes:
        return set()
    found = histories.read([each.row for each in changes])
    return {each for each in changes if each.row in found and found[each.row].is_back_beyond(each)}


@dataclass(kw_only=True)
class TakeBack:
    """The remedy for a change that stands: restore its row, if that still is as the change has left it.

    It lives as long as one worker takes back one run. `journal` are all changes of that run. `conflicts` are the changes
    that were left, each with the reason; earlier changes of the same columns of their rows are left, too. `waiting` are
    rows that other sessions hold, each with the change to be taken back first.
    """

    journal: Rows
    using: str
    conflicts: dict[Noted, str] = field(default_factory=dict)
    waiting: dict[tuple[str, str], int] = field(default_factory=dict)
    passed: set[int] = field(default_factory=set)
    blocking: dict[tuple[str, str], set[Noted]] = field(default_factory=dict)
    histories: Histories = field(init=False)

    def __post_init__(self) -> None:
        self.histories = Histories(self.journal, self.using)

    verb = "update"
    deferred = False
    chunk = None

    def writes(self, finder: Finder) -> Iterable[Column]:  # noqa: ARG002
        """Told by the journal alone; no rule waits for it."""
        return ()

    def faults(self, drift: Drift, finder: Finder | None) -> Iterable[Fault]:  # noqa: ARG002
        """None: it isn't for rules."""
        return ()

    def planned(self, finder: Finder, drifted: int) -> Written:  # noqa: ARG002
        """Not told by a number."""
        return Written()

    def finder(self, *, floor: int, top: int) -> Finder:
        """The changes with ids from `floor` to `top` as records, the last one first."""
        changes = self.journal.filter(pk__gte=floor, pk__lte=top, verb__in=UNDOABLE)

        def sifted(scope: Scope) -> Iterator[int]:
            return self._standing(scope) if isinstance(scope, Keys) else _descending(changes, scope)

        everything = Change._base_manager.using(self.using)
        return Finder(
            drift=STALE, model=Change, carried=False, find=lambda scope: everything.filter(scope.on("pk")), sifted=sifted
        )  # fmt: skip

    def write(self, finder: Finder, keys: Keys, journal: Journal) -> Wrote:  # noqa: ARG002
        """Take back the changes of `keys`. Six statements at most for each group of a kind, more for its conflicts."""
        changes = read(self.journal.filter(keys.on("pk")))
        self._forget(changes)
        written, held = Written(), 0
        for group in grouped(changes, self.using):
            back, waiting = self._chosen(group)
            written.add(INVERSE[group.verb], group.revert(back, journal))
            held += waiting
        if written.total:
            # Now, so that it is told of this chunk, and not only when it is committed.
            dialect_of(self.using).check_references()
        refused = {each.id: self.conflicts[each] for each in changes if each in self.conflicts}
        return Wrote(written, held=held, refused=refused)

    def _forget(self, changes: Iterable[Noted]) -> None:
        """What an earlier try at the chunk, which was rolled back, has noted of its changes."""
        for each in changes:
            self.conflicts.pop(each, None)
            self.passed.discard(each.id)
            self.blocking.get(each.row, set()).discard(each)
            if self.waiting.get(each.row) == each.id:
                del self.waiting[each.row]

    def _chosen(self, group: Group) -> tuple[list[Noted], int]:
        """Of the group, the changes that can be taken back now; and how many have to wait for other sessions."""
        candidates, wait = [], []
        for each in group.changes:
            if any(other.id > each.id and other.concerns(each) for other in self.blocking.get(each.row, ())):
                self._leave(each, LEFT_LATER)
            elif self.waiting.get(each.row, each.id) > each.id:
                wait.append(each)
            else:
                candidates.append(each)
        free, absent = self._locked(group, candidates)
        # A row that was gone a moment ago and is there now isn't locked; one to be inserted again can't be.
        ready = absent if group.verb == "delete" else free
        found = judged(group, candidates, self.histories, ready)
        self.passed |= {each.id for each in found.passed}
        for each, why in found.conflicts.items():
            # What another session holds may be about to change.
            stands = each in free or each in absent or group.unusable
            (self._leave(each, why) if stands else wait.append(each))
        wait += [each for each in found.back if each not in ready]
        for each in wait:
            self.waiting.setdefault(each.row, each.id)
        return [each for each in found.back if each in ready], len(wait)

    def _locked(self, group: Group, changes: Sequence[Noted]) -> tuple[set[Noted], set[Noted]]:
        """The changes whose rows are now locked, and those whose rows weren't there to be."""
        if group.unusable or not changes:
            return set(), set()
        # A collation may find rows of other spellings, which are none of the changes'.
        keys = group.keys(changes)
        free = {keys[key] for key in locked(group.model, keys, using=self.using).values if key in keys}
        if len(free) == len(changes):
            return free, set()
        there = group.model._base_manager.using(self.using).filter(Keys([*keys]).on("pk"))
        present = {keys[key] for key in there.values_list("pk", flat=True) if key in keys}
        return free, {*changes} - free - present

    def _leave(self, change: Noted, why: str) -> None:
        self.conflicts[change] = why
        self.blocking.setdefault(change.row, set()).add(change)

    def _standing(self, keys: Keys) -> Iterator[int]:
        """Of the changes of `keys`, those that still are to be taken back.

        Of a row with several, the earliest tells: once that is taken back, the row need not be as the later ones found it.
        """
        changes = read(self.journal.filter(keys.on("pk")))
        earliest = {each.row: each.id for each in changes}
        for group in grouped(changes, self.using):
            rest = []
            for each in group.changes:
                if self.waiting.get(each.row, -1) >= each.id:
                    yield each.id
                elif (
                    each not in self.conflicts
                    and each.id not in self.passed
                    and earliest[each.row] == each.id
                ):
                    rest.append(each)
            standing = {} if group.unusable else group.standings(rest)
            yield from (each.id for each in rest if standing.get(each) is not Standing.BEFORE)


def _descending(changes: Rows, scope: Window) -> Iterator[int]:
    """The ids below the window's lower end: a walk goes from the last change to the first."""
    after = scope.after
    while True:
        below = changes if after is None else changes.filter(pk__lt=after)
        ids = list(below.order_by("-pk").values_list("pk", flat=True)[:PAGE])
        yield from ids
        if len(ids) < PAGE:
            return
        after = ids[-1]
