"""The history of a row that one run has written several times, and where an undo leads.

The database itself compares a single change, in `inverse`. Here Python reads the images and goes through them backwards.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.db.models import Case, CharField, Count, F, TextField, Value, When, Window
from django.db.models.functions import Cast

from reconcile.core.finder import Rows
from reconcile.core.scopes import Keys
from reconcile.core.verbs import UNDOABLE, UPDATE
from reconcile.db.django_compat import own_columns
from reconcile.db.images import image
from reconcile.errors import Refusal
from reconcile.undo.changes import ChangeHeader, RowState, concrete_labels, read_changes
from reconcile.undo.groups import ChangeGroup, group_changes, read_keys

__all__ = ["LEFT_LATER", "RowHistories", "RowHistory"]

LEFT_LATER = Refusal("A later change of the row was left.")

Row = tuple[str, str]

_Image = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One change with its images."""

    change: ChangeHeader
    before: _Image | None
    after: _Image | None


@dataclass(frozen=True, kw_only=True)
class RowHistory:
    """One row as it is now, None if there is none, and the run's changes of it, the last one first."""

    now: _Image | None
    steps: Sequence[Step]

    def was_taken_back(self, change: ChangeHeader) -> bool:
        """Whether the row is as an earlier change than this one has found it."""
        return _is_taken_back(self.now, [each for each in self.steps if each.change.id <= change.id])

    def predict(
        self, refuse: Callable[[ChangeHeader], Refusal | None]
    ) -> Iterator[tuple[ChangeHeader, RowState, Refusal | None]]:
        """Yield each change with the state in which its undo will find the row, and why the undo would leave it.

        The last change comes first. `refuse` says why a change can't be taken back whatever its row is like.
        """
        row, left = self.now, list[ChangeHeader]()
        for position, step in enumerate(self.steps):
            change, state, refusal = step.change, _state(row, step), refuse(step.change)
            if any(each.concerns(change) for each in left):
                refusal = LEFT_LATER
            elif refusal is None and state is not RowState.BEFORE:
                if _is_taken_back(row, self.steps[position:]):
                    state = RowState.BEFORE
                elif state is RowState.AFTER:
                    row = _revert(row, step)
                else:
                    refusal = state.refusal(change.verb)
            if refusal is not None:
                left.append(change)
            yield change, state, refusal


def _is_taken_back(row: _Image | None, steps: Sequence[Step]) -> bool:
    """Whether going back through the steps, the last one first, leads to the row after more than one of them.

    All columns count that any of the steps wrote: each alone may have its old value by chance.
    """
    expected: _Image | None = {}
    for number, step in enumerate(steps):
        expected = _revert(expected, step)
        if number and _is(row, expected):
            return True
    return False


def _revert(row: _Image | None, step: Step) -> _Image | None:
    """The row as it was before the step, from how it was afterwards."""
    if step.change.statement == UPDATE:
        return {**(row or {}), **(step.before or {})}
    return step.before


def _is(row: _Image | None, wanted: _Image | None) -> bool:
    if row is None or wanted is None:
        return row is wanted
    return all(name in row and row[name] == value for name, value in wanted.items())


def _state(row: _Image | None, step: Step) -> RowState:
    if _is(row, step.before):
        return RowState.BEFORE
    if _is(row, step.after):
        return RowState.AFTER
    return RowState.GONE if row is None else RowState.OTHER


class RowHistories:
    """The histories of the rows that `journal`, all changes of one run, has several changes of."""

    def __init__(self, journal: Rows, using: str) -> None:
        self.journal, self.using = journal, using

    @cached_property
    def several(self) -> Mapping[Row, Sequence[int]]:
        """Ids of the changes of each row that was written more than once, the last one first. One statement, once."""
        concrete = concrete_labels()
        proxies = [When(model=proxy, then=Value(label)) for proxy, label in concrete.items()]
        label = Case(*proxies, default=F("model"), output_field=CharField())
        changes = self.journal.filter(verb__in=UNDOABLE).annotate(_label=label)
        changes = changes.annotate(_number=Window(Count("pk"), partition_by=["_label", "key"]))
        found: dict[Row, list[int]] = {}
        listed = changes.filter(_number__gt=1).order_by("-pk").values_list("pk", "_label", "key")
        for pk, its, key in listed.iterator():
            found.setdefault((its, key), []).append(pk)
        # A collation may have counted rows as one.
        return {row: ids for row, ids in found.items() if len(ids) > 1}

    def read(self, rows: Collection[Row]) -> Mapping[Row, RowHistory]:
        """The histories of those of the rows that have one. Two statements, and one for each model."""
        ids = [pk for row in rows for pk in self.several.get(row, ())]
        if not ids:
            return {}
        changes = self.journal.filter(Keys(ids).on("pk"))
        images = {
            pk: (_parse_image(before), _parse_image(after))
            for pk, before, after in changes.values_list(
                "pk", Cast("before", TextField()), Cast("after", TextField())
            )
        }
        steps: dict[Row, list[Step]] = {}
        for each in read_changes(changes):
            before, after = images[each.id]
            steps.setdefault(each.row, []).append(Step(change=each, before=before, after=after))
        now = self._now([step.change for its in steps.values() for step in its])
        return {row: RowHistory(now=now.get(row), steps=its) for row, its in steps.items()}

    def _now(self, changes: Sequence[ChangeHeader]) -> dict[Row, _Image | None]:
        by_label: dict[str, list[ChangeHeader]] = {}
        for each in changes:
            by_label.setdefault(each.label, []).append(each)
        return {
            row: now
            for label, its in by_label.items()
            for row, now in self._now_of(label, its, next(group_changes(its, self.using)))
        }

    def _now_of(
        self, label: str, changes: Sequence[ChangeHeader], group: ChangeGroup
    ) -> Iterator[tuple[Row, _Image | None]]:
        """The rows of one model as they are, in all columns that any of their changes has written."""
        if not group.model_is_there:
            return
        names = {name for each in changes for name in each.columns}
        fields = [each for each in own_columns(group.model) if each.attname in names]
        keys = read_keys(group.model, {each.key for each in changes}, using=self.using)
        rows = group.model._base_manager.using(self.using).filter(Keys([*keys.values()]).on("pk"))
        listed = rows.values_list(Cast("pk", TextField()), Cast(image(fields), TextField()))
        yield from (((label, key), _parse_image(text)) for key, text in listed)


def _parse_image(text: str | None) -> _Image | None:
    """An image such that two are equal if they say the same to the byte: -0.0 isn't 0.0, nor true 1."""
    return None if text is None else json.loads(text, parse_float=_Number, parse_int=_Number)


class _Number(str):
    """A number by its digits; a text of the same is another value."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Number) and str(self) == str(other)

    __hash__ = str.__hash__
