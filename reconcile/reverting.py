"""Taking back what journal rows say was written: how the written rows are now, and the statements that restore them.

Nothing here knows runs or chunks. Everything is done for a group of changes of the same kind at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import connections
from django.db.models import Exists, F, Field, JSONField, Model, OuterRef, Subquery
from django.utils.timezone import is_naive, make_aware

from reconcile.errors import ChunkConflictError
from reconcile.finders import Rows
from reconcile.models import Change
from reconcile.noted import Noted, Standing, standing
from reconcile.remedies import Journal
from reconcile.remedies._referring import Reference, Referring, references_to
from reconcile.remedies.delete import Leaving, delete_rows, referred
from reconcile.sql.columns import stored_field
from reconcile.sql.images import SameImage, image, imaged, written
from reconcile.sql.keys import is_key, key_from_text
from reconcile.sql.statements import KEY, WANTED, execute_select_into, update_from
from reconcile.windows import Keys

__all__ = ["Group", "grouped", "keys_read"]


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

    @property
    def model_is_there(self) -> bool:
        """Whether the project still has it."""
        return self.model is not Change

    def keys(self, changes: Iterable[Noted]) -> dict[Any, Noted]:
        """The changes by the primary key of their rows; one that the key's type can't hold any more is left out."""
        read = keys_read(self.model, (each.key for each in changes), using=self.using)
        return {read[each.key]: each for each in changes if each.key in read}

    def standings(self, changes: Sequence[Noted]) -> dict[Noted, Standing]:
        """How the rows of the changes are now. One statement, by the rows' keys and the changes'."""
        if not changes:
            return {}
        rows = self.model._base_manager.using(self.using)
        rows = rows.filter(pk=key_from_text(self.model, OuterRef("key")))
        if self.verb != "delete":
            # One that only the collation takes for a row that was deleted is in its way.
            rows = rows.filter(is_key(self.model, OuterRef("key"), using=self.using))
        now = Subquery(
            rows.annotate(_image=image(self.fields)).values("_image")[:1], output_field=JSONField()
        )
        asked = self._journal(changes).annotate(_there=Exists(rows), _now=now)
        asked = asked.annotate(_is_after=SameImage(F("_now"), F("after")))
        asked = asked.annotate(_is_before=SameImage(F("_now"), F("before")))
        found = {pk: said for pk, *said in asked.values_list("pk", "_there", "_is_after", "_is_before")}
        return {each: standing(each.verb, *found[each.id]) for each in changes}

    def referred(self, changes: Iterable[Noted], leaving: Leaving = lambda _: ()) -> dict[Noted, str]:
        """Of changes that inserted a row, those whose row another refers to, with the reason to leave it.

        Rows that go together may refer to each other, and those of `leaving` won't refer to anything any more. One
        statement for each reference; as often again as rows that stay refer to each other, one behind the other.
        """
        going, found = self.keys(changes), dict[Noted, str]()

        def gone(reference: Reference) -> Sequence[AbstractSet[Any]]:
            return [*leaving(reference), *([going.keys()] if reference.model is self.model else [])]

        while going:
            kept = dict(referred(self.model, Keys([*going]), using=self.using, leaving=gone))
            found |= {going.pop(key): why for key, why in kept.items()}
            if not kept:
                break
        return found

    def revert(self, changes: Sequence[Noted], journal: Journal) -> int:
        """Restore the rows of the changes, which stand as these have left them and are locked; their number.

        Three statements for rows that are updated, two for those that are written again or deleted. Raises
        ChunkConflictError where what was written isn't what was noted, and IntegrityError where a constraint forbids it.
        """
        if not changes:
            return 0
        keys = Keys([*self.keys(changes)])
        if self.verb == "insert":
            return sum(
                delete_rows(self.model, layer, journal, using=self.using) for layer in self._layers(changes)
            )
        reverted = (
            self._update(changes, keys, journal) if self.verb == "update" else self._insert(changes, journal)
        )
        if reverted != len(changes):
            raise ChunkConflictError(
                f"{self.model._meta.label}: of {len(changes)} rows {reverted} were taken back; another session writes them."
            )
        return reverted

    def _layers(self, changes: Sequence[Noted]) -> Iterator[Sequence[Any]]:
        """Keys of the rows, those first that no other of them refers to, where the database looks at each by itself."""
        going = self.keys(changes)
        alone = not any(each.model is self.model for each in references_to(self.model))
        if alone or connections[self.using].features.can_defer_constraint_checks:
            yield [*going]
            return
        while going:
            referred_to = self._referred_among(going)
            # Those of a circle can't go at all, which the database says.
            layer = [key for key in going if key not in referred_to] or [*going]
            yield layer
            going = {key: each for key, each in going.items() if key not in {*layer}}

    def _referred_among(self, going: Mapping[Any, Noted]) -> set[Any]:
        """Those of the keys whose rows another row of them refers to."""
        references = Referring.to(self.model, self.using)
        found = set()
        for each in references.all:
            if each.model is self.model and each.binding and each.target.model is self.model:
                values = references.values(each, Keys([*going]))
                pairs = references.rows(each, values).values_list(each.column.attname, "pk")
                found |= {
                    values[value]
                    for value, key in pairs
                    if key in going and value in values and values[value] != key
                }
        return found

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

    def _insert(self, changes: Sequence[Noted], journal: Journal) -> int:
        fields = [field for field in self.fields if written(field)]
        values: dict[str, Any] = {f"_column_{field.attname}": imaged("before", field) for field in fields}
        rows = self._journal(changes).order_by("-pk").annotate(**values).values_list(*values)
        inserted = execute_select_into(self.model, fields, rows)
        return inserted if journal.inserted_again(self.model, self._journal(changes)) == inserted else -1

    def _journal(self, changes: Sequence[Noted]) -> Rows:
        ids = Keys([each.id for each in changes])
        rows: Rows = Change._base_manager.using(self.using).filter(ids.on("pk"))
        return rows


def keys_read(model: type[Model], texts: Iterable[str], *, using: str) -> dict[str, Any]:
    """Primary keys by their texts in the journal; what the key's type can't hold any more is left out."""
    column, zone, found = stored_field(model._meta.pk), connections[using].timezone, {}
    for text in texts:
        try:
            key = column.to_python(text)
        except ValidationError:
            continue
        # As the database's own converters have it, where it keeps moments without their zone.
        bare = zone is not None and isinstance(key, datetime) and is_naive(key)
        found[text] = make_aware(key, zone) if bare else key
    return found


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
