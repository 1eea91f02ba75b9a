"""Changes as the journal notes them, and how a row may be compared with one that was made to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from django.apps import apps

from reconcile.finders import Rows
from reconcile.sql.images import Columns

__all__ = ["INVERSE", "UNDOABLE", "Noted", "Standing", "concrete_labels", "read", "standing"]

INVERSE = {"insert": "delete", "update": "update", "delete": "insert"}
"""What is written when a change of a verb is taken back."""

UNDOABLE = tuple(INVERSE)
"""Verbs of changes that have an image."""


class Standing(Enum):
    """How a row is, compared with one change that was made to it."""

    AFTER = "as the change has left it"
    BEFORE = "as it was before the change"
    GONE = "gone"
    OTHER = "neither"

    def reason(self, verb: str) -> str:
        """Why a change of this verb is left where the row is so."""
        if self is Standing.GONE:
            return "The row is gone."
        return "A row of its key is there again." if verb == "delete" else "The row has been changed since."


def standing(verb: str, there: object, is_after: object, is_before: object) -> Standing:
    """How a row is, from whether one is there and whether it is as the change's images say."""
    if not there:
        return {"insert": Standing.BEFORE, "delete": Standing.AFTER}.get(verb, Standing.GONE)
    if is_before:
        return Standing.BEFORE
    return Standing.AFTER if is_after else Standing.OTHER


@dataclass(frozen=True, slots=True)
class Noted:
    """A change, without its images: which row it was made to, and which columns it wrote, in the image's order."""

    id: int
    verb: str
    label: str
    key: str
    columns: tuple[str, ...]

    @property
    def row(self) -> tuple[str, str]:
        """The row that was written."""
        return self.label, self.key

    @property
    def name(self) -> str:
        """The row, for people: `shop.Invoice 12`."""
        return f"{self.label} {self.key}"

    def concerns(self, other: Noted) -> bool:
        """Whether both have written the same thing."""
        whole = self.verb != "update" or other.verb != "update"
        return self.row == other.row and (whole or bool({*self.columns} & {*other.columns}))


def read(changes: Rows) -> list[Noted]:
    """The changes that can be taken back, the last one first. One statement, which reads no image."""
    listed = changes.filter(verb__in=UNDOABLE).annotate(_before=Columns("before"), _after=Columns("after"))
    rows = listed.order_by("-pk").values_list("pk", "verb", "model", "key", "_before", "_after")
    concrete = concrete_labels()
    return [
        Noted(
            pk,
            verb,
            concrete.get(label, label),
            key,
            tuple((before if verb == "delete" else after) or before or ()),
        )
        for pk, verb, label, key, before, after in rows
    ]


def concrete_labels() -> Mapping[str, str]:
    """Of each proxy's label, that of the model whose rows it shows."""
    models = (model._meta for model in apps.get_models() if model._meta.proxy and model._meta.concrete_model)
    return {each.label: each.concrete_model._meta.label for each in models if each.concrete_model}
