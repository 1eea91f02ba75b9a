"""Changes as the journal has them, and the state of a row beside a change of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from django.apps import apps

from reconcile.core.finder import Rows
from reconcile.core.verbs import DELETE, INSERT, UNDOABLE, UPDATE, VERBS
from reconcile.db.columns import label_of
from reconcile.db.images import Columns
from reconcile.errors import Refusal

__all__ = ["ChangeHeader", "RowState", "concrete_labels", "read_changes", "row_state"]


class RowState(Enum):
    """The state of a row, compared with one change of it."""

    AFTER = "as the change has left it"
    BEFORE = "as it was before the change"
    GONE = "gone"
    OTHER = "neither"

    def refusal(self, verb: str) -> Refusal | None:
        """Why a change of the verb isn't taken back whose row is in this state; None if it is, or was already."""
        if self in {RowState.AFTER, RowState.BEFORE}:
            return None
        if self is RowState.GONE:
            return Refusal("The row is gone.")
        changed = (
            "A row of its key is there again."
            if VERBS[verb].statement == DELETE
            else "The row has been changed since."
        )
        return Refusal(changed)


_STATE_OF_NO_ROW = {INSERT: RowState.BEFORE, DELETE: RowState.AFTER}


def row_state(verb: str, there: object, is_after: object, is_before: object) -> RowState:
    """The state of a row, from whether it is there and whether it equals the images of the change."""
    if not there:
        return _STATE_OF_NO_ROW.get(VERBS[verb].statement, RowState.GONE)
    if is_before:
        return RowState.BEFORE
    return RowState.AFTER if is_after else RowState.OTHER


@dataclass(frozen=True, slots=True)
class ChangeHeader:
    """A change without its images: the row, and the columns that were written, in the order of the image."""

    id: int
    verb: str
    label: str
    key: str
    columns: tuple[str, ...]

    @property
    def statement(self) -> str:
        """What the change was for the database: `insert`, `update` or `delete`."""
        return VERBS[self.verb].statement

    @property
    def row(self) -> tuple[str, str]:
        """The row that was written."""
        return self.label, self.key

    @property
    def name(self) -> str:
        """The row, for people: `shop.Invoice 12`."""
        return f"{self.label} {self.key}"

    def concerns(self, other: ChangeHeader) -> bool:
        """Whether both have written a column in common."""
        whole = self.statement != UPDATE or other.statement != UPDATE
        return self.row == other.row and (whole or bool({*self.columns} & {*other.columns}))


def read_changes(changes: Rows) -> list[ChangeHeader]:
    """Read the changes that can be taken back, the last one first. One statement, which reads no image."""
    listed = changes.filter(verb__in=UNDOABLE).annotate(_before=Columns("before"), _after=Columns("after"))
    rows = listed.order_by("-pk").values_list("pk", "verb", "model", "key", "_before", "_after")
    concrete = concrete_labels()
    return [
        ChangeHeader(
            pk,
            verb,
            concrete.get(label, label),
            key,
            tuple((before if VERBS[verb].statement == DELETE else after) or before or ()),
        )
        for pk, verb, label, key, before, after in rows
    ]


def concrete_labels() -> Mapping[str, str]:
    """The label of the concrete model, by the label of each proxy."""
    proxies = (model for model in apps.get_models() if model._meta.proxy)
    return {each._meta.label: label_of(each) for each in proxies}
