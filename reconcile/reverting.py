"""Taking back what journal rows say was written: how the written rows are now, and the statements that restore them.

Nothing here knows runs or chunks. Everything is done for a group of changes of the same kind at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db.models import Exists, F, Field, JSONField, Model, OuterRef, Subquery

from reconcile.errors import ChunkConflictError
from reconcile.finders import Rows
from reconcile.models import Change
from reconcile.remedies import Journal
from reconcile.remedies.delete import delete_rows, referred
from reconcile.sql.columns import stored_field
from reconcile.sql.images import Columns, SameImage, image, imaged, key_from_text, written
from reconcile.sql.statements import KEY, WANTED, execute_select_into, update_from
from reconcile.windows import Keys

__all__ = ["INVERSE", "UNDOABLE", "Group", "Noted", "Standing", "grouped", "read"]

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
    return [
        Noted(pk, verb, label, key, tuple((before if verb == "delete" else after) or before or ()))
        for pk, verb, label, key, before, after in rows
    ]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Consecutive changes of one kind: one verb, the same columns of one model, no row twice.

    unusable: why none of them can be taken back, such as a column that is no longer there; else empty.
    """

    changes: Sequence[Noted]
    model: type[Model]
    fields: Sequence[Field[Any, Any]]
    using: str
    unusable: str = ""

    @property
    def verb(self) -> str:
        """What the changes were; `INVERSE` has what is written to take them back."""
        return self.changes[0].verb

    def keys(self, changes: Iterable[Noted]) -> dict[Any, Noted]:
        """The changes by the primary key of their rows; one that the key's type can't hold any more is left out."""
        column, found = stored_field(self.model._meta.pk), {}
        for each in changes:
            try:
                found[column.to_python(each.key)] = each
            except ValidationError:
                continue
        return found

    def standings(self, changes: Sequence[Noted]) -> dict[Noted, Standing]:
        """How the rows of the changes are now. One statement, by the rows' keys and the changes'."""
        if not changes:
            return {}
        rows = self.model._base_manager.using(self.using)
        rows = rows.filter(pk=key_from_text(self.model, OuterRef("key")))
        now = Subquery(
            rows.annotate(_image=image(self.fields)).values("_image")[:1], output_field=JSONField()
        )
        asked = self._journal(changes).annotate(_there=Exists(rows), _now=now)
        asked = asked.annotate(_is_after=SameImage(F("_now"), F("after")))
        asked = asked.annotate(_is_before=SameImage(F("_now"), F("before")))
        found = {pk: said for pk, *said in asked.values_list("pk", "_there", "_is_after", "_is_before")}
        return {each: _standing(each.verb, *found[each.id]) for each in changes}

    def referred(self, changes: Iterable[Noted]) -> dict[Noted, str]:
        """Of changes that inserted a row, those whose row another refers to, with the reason to leave it."""
        keys = self.keys(changes)
        return {keys[key]: why for key, why in referred(self.model, Keys([*keys]), using=self.using)}

    def revert(self, changes: Sequence[Noted], journal: Journal) -> int:
        """Restore the rows of the changes, which stand as these have left them and are locked; their number.

        Three statements for rows that are updated, two for those that are written again or deleted. Raises
        ChunkConflictError where what was written isn't what was noted, and IntegrityError where a constraint forbids it.
        """
        if not changes:
            return 0
        keys = Keys([*self.keys(changes)])
        if self.verb == "insert":
            return delete_rows(self.model, keys.values, journal, using=self.using)
        reverted = (
            self._update(changes, keys, journal)
            if self.verb == "update"
            else self._insert(changes, keys, journal)
        )
        if reverted != len(changes):
            raise ChunkConflictError(
                f"{self.model._meta.label}: of {len(changes)} rows {reverted} were taken back; another session writes them."
            )
        return reverted

    def _update(self, changes: Sequence[Noted], keys: Keys, journal: Journal) -> int:
        fields = [field for field in self.fields if written(field)]
        wanted: dict[str, Any] = {KEY: key_from_text(self.model, F("key"))}
        wanted |= {WANTED.format(field.attname): imaged("before", field) for field in fields}
        noted = journal.before(self.model, fields, keys)
        updated = update_from(
            self.model, fields, self._journal(changes).annotate(**wanted).values_list(*wanted)
        )
        completed = journal.after(self.model, fields)
        return updated if noted == updated == completed else -1

    def _insert(self, changes: Sequence[Noted], keys: Keys, journal: Journal) -> int:
        fields = [field for field in self.fields if written(field)]
        values: dict[str, Any] = {f"_column_{field.attname}": imaged("before", field) for field in fields}
        rows = self._journal(changes).order_by("-pk").annotate(**values).values_list(*values)
        inserted = execute_select_into(self.model, fields, rows)
        there = self.model._base_manager.using(self.using).filter(keys.on("pk"))
        return inserted if journal.inserted(self.model, there) == inserted else -1

    def _journal(self, changes: Sequence[Noted]) -> Rows:
        ids = Keys([each.id for each in changes])
        rows: Rows = Change._base_manager.using(self.using).filter(ids.on("pk"))
        return rows


def _standing(verb: str, there: object, is_after: object, is_before: object) -> Standing:
    if not there:
        return {"insert": Standing.BEFORE, "delete": Standing.AFTER}.get(verb, Standing.GONE)
    if is_before:
        return Standing.BEFORE
    return Standing.AFTER if is_after else Standing.OTHER


def grouped(changes: Iterable[Noted], using: str) -> Iterator[Group]:
    """The changes in their order, in as few groups as that allows."""
    group: list[Noted] = []
    rows: set[str] = set()
    for each in changes:
        if group and (_kind(each) != _kind(group[0]) or each.key in rows):
            yield _group(group, using)
            group, rows = [], set()
        group.append(each)
        rows.add(each.key)
    if group:
        yield _group(group, using)


def _kind(change: Noted) -> tuple[str, str, tuple[str, ...]]:
    return change.verb, change.label, change.columns


def _group(changes: Sequence[Noted], using: str) -> Group:
    first = changes[0]
    try:
        model = apps.get_model(first.label)
    except LookupError:
        why = f"There is no model {first.label} any more."
        return Group(changes=changes, model=Change, fields=(), using=using, unusable=why)
    model = model._meta.concrete_model or model
    known: Mapping[str, Field[Any, Any]] = {each.attname: each for each in model._meta.local_concrete_fields}
    missing = [name for name in first.columns if name not in known]
    why = f"{first.label} has no column {missing[0]!r} any more." if missing else ""
    fields = [known[name] for name in first.columns if name in known]
    return Group(changes=changes, model=model, fields=fields, using=using, unusable=why)
