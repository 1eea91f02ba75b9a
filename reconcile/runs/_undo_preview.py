"""The preview of an undo: what would be taken back, what is in the way, and what can't be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.db.models import Count, Max

from reconcile.checking import evaluated
from reconcile.drift import Written
from reconcile.finders import Rows
from reconcile.models import Run
from reconcile.reverting import INVERSE, UNDOABLE, Noted, grouped, read
from reconcile.runs._undo_journal import LISTED, Conflict, RuleUndo, RunJournal, outside, undoable
from reconcile.undoing import PAGE, judged

__all__ = ["preview_undo"]


def preview_undo(run: Run, *, using: str) -> list[RuleUndo]:
    """What `undo` would do, rule by rule in its order. Writes nothing, and locks nothing.

    Of a row that the run wrote several times, its last change tells of them all. Raises UsageError as `undo` does.
    """
    with evaluated(using):
        counted = undoable(run, using)
        return [_previewed(run, rule, counts, using) for rule, counts in counted.items()]


def _previewed(run: Run, rule: str, counts: Mapping[str, int], using: str) -> RuleUndo:
    planned, conflicts, left = Written(), [], 0
    for each, why in _foreseen(run, rule, using):
        if not why:
            planned.add(INVERSE[each.verb], 1)
            continue
        left += 1
        if left <= LISTED:
            conflicts.append(Conflict(each.name, why))
    return RuleUndo(
        rule=rule, planned=planned, outside=outside(counts), conflicts=tuple(conflicts), left=left, incomplete=bool(left)
    )  # fmt: skip


def _foreseen(run: Run, rule: str, using: str) -> Iterator[tuple[Noted, str]]:
    """Each change of the rule that would be taken back, and each that would be left, with the reason."""
    journal = RunJournal(run, using)
    latest = _latest(journal.changes)
    after: Any = None
    while True:
        changes = journal.of(rule) if after is None else journal.of(rule).filter(pk__lt=after)
        page = read(changes.filter(pk__in=_ids(changes)))
        for group in grouped([each for each in page if latest.get(each.row, each.id) == each.id], using):
            found = judged(group, group.changes, journal.changes)
            yield from ((each, "") for each in found.back)
            yield from found.conflicts.items()
        # Of these the last change tells: where that is taken back, the row is as they have left it.
        yield from ((each, "") for each in page if latest.get(each.row, each.id) != each.id)
        if not page:
            return
        after = page[-1].id


def _ids(changes: Rows) -> list[int]:
    return list(changes.filter(verb__in=UNDOABLE).order_by("-pk").values_list("pk", flat=True)[:PAGE])


def _latest(changes: Rows) -> dict[tuple[str, str], int]:
    """Of rows with several changes, the last one's id. One statement."""
    rows = changes.filter(verb__in=UNDOABLE).order_by().values_list("model", "key")
    rows = rows.annotate(number=Count("pk"), last=Max("pk")).filter(number__gt=1)
    return {(label, key): last for label, key, _, last in rows}
