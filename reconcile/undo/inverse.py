"""The inverse statements: they restore rows from the images of the journal.

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

from reconcile.core.finder import Rows
from reconcile.core.scopes import Keys
from reconcile.core.verbs import DELETE, INSERT, UPDATE
from reconcile.db.columns import concrete_model, stored_field
from reconcile.db.django_compat import own_columns
from reconcile.db.images import SameImage, image, is_writable, value_from_image
from reconcile.db.statements import KEY, WANTED, execute_select_into, update_from
from reconcile.db.text_keys import is_key, key_from_text
from reconcile.errors import ChunkConflictError, Refusal
from reconcile.models import Change
from reconcile.remedies import Journal
from reconcile.remedies.delete import Leaving, delete_rows, referred_rows
from reconcile.remedies.references import Reference, Referring, references_to
from reconcile.undo.changes import ChangeHeader, RowState, row_state

__all__ = ["ChangeGroup", "group_changes", "read_keys"]


@dataclass(frozen=True, kw_only=True)
class ChangeGroup:
    """Consecutive changes of one kind: one verb, the same columns of one model, no row twice.

    refusal: why none of them can be taken back, such as a column that is gone; None if they can.
    """

    changes: Sequence[ChangeHeader]
    model: type[Model]
    fields: Sequence[Field[Any, Any]]
    using: str
    refusal: Refusal | None = None

    @property
    def verb(self) -> str:
        """The verb of the changes; the table of verbs has the one that takes them back."""
        return self.changes[0].verb

    @property
    def model_is_there(self) -> bool:
        """Whether the project still has the model."""
        return self.model is not Change

    def keys(self, changes: Iterable[ChangeHeader]) -> dict[Any, ChangeHeader]:
        """The changes by the primary key of their rows, without keys that the key's type can't hold any more."""
        read = read_keys(self.model, (each.key for each in changes), using=self.using)
        return {read[each.key]: each for each in changes if each.key in read}

    def row_states(self, changes: Sequence[ChangeHeader]) -> dict[ChangeHeader, RowState]:
        """Compare the rows of the changes with the images. One statement, by keys."""
        if not changes:
            return {}
        rows = self.model._base_manager.using(self.using)
        rows = rows.filter(pk=key_from_text(self.model, OuterRef("key")))
        if self.verb != DELETE:
            # For a deleted row, also a row whose key is equal only by the collation is in the way.
            rows = rows.filter(is_key(self.model, OuterRef("key"), using=self.using))
        now = Subquery(
            rows.annotate(_image=image(self.fields)).values("_image")[:1], output_field=JSONField()
        )
        with_rows = self._journal(changes).annotate(_there=Exists(rows), _now=now)
        with_rows = with_rows.annotate(_is_after=SameImage(F("_now"), F("after")))
        with_rows = with_rows.annotate(_is_before=SameImage(F("_now"), F("before")))
        found = {
            pk: states for pk, *states in with_rows.values_list("pk", "_there", "_is_after", "_is_before")
        }
        return {each: row_state(each.verb, *found[each.id]) for each in changes}

    def refuse_referred(
        self, changes: Iterable[ChangeHeader], leaving: Leaving = lambda _: ()
    ) -> dict[ChangeHeader, Refusal]:
        """Find the inserted rows that other rows refer to, each with the refusal to delete it.

        Rows that are deleted together may refer to each other, and rows of `leaving` no longer refer to anything. One statement
        for each reference, and again for each link of a chain of rows that stay.
        """
        going, found = self.keys(changes), dict[ChangeHeader, Refusal]()

        def rows_leaving(reference: Reference) -> Sequence[AbstractSet[Any]]:
            return [*leaving(reference), *([going.keys()] if reference.model is self.model else [])]

        while going:
            kept = dict(referred_rows(self.model, Keys([*going]), using=self.using, leaving=rows_leaving))
            found |= {going.pop(key): Refusal(why) for key, why in kept.items()}
            if not kept:
                break
        return found

    def revert(self, changes: Sequence[ChangeHeader], journal: Journal) -> int:
        """Restore the rows of the changes. The rows are locked and as the changes have left them. Returns their number.

        Three statements for an update, two for an insert or a delete. Raises ChunkConflictError if the journal has another
        number of rows than were written, and IntegrityError if a constraint forbids it.
        """
        if not changes:
            return 0
        keys = Keys([*self.keys(changes)])
        if self.verb == INSERT:
            return sum(
                delete_rows(self.model, layer, journal, using=self.using) for layer in self._layers(changes)
            )
        reverted = (
            self._update(changes, keys, journal) if self.verb == UPDATE else self._insert(changes, journal)
        )
        if reverted != len(changes):
            raise ChunkConflictError(
                f"{self.model._meta.label}: of {len(changes)} rows {reverted} were taken back; another session writes them."
            )
        return reverted

    def _layers(self, changes: Sequence[ChangeHeader]) -> Iterator[Sequence[Any]]:
        """Yield the keys so that a row comes before the rows that it refers to, if the database checks each row at once."""
        going = self.keys(changes)
        alone = not any(each.model is self.model for each in references_to(self.model))
        if alone or connections[self.using].features.can_defer_constraint_checks:
            yield [*going]
            return
        while going:
            referred_to = self._referred_among(going)
            # Rows that refer to each other in a circle can't be deleted; the database refuses them.
            layer = [key for key in going if key not in referred_to] or [*going]
            yield layer
            going = {key: each for key, each in going.items() if key not in {*layer}}

    def _referred_among(self, going: Mapping[Any, ChangeHeader]) -> set[Any]:
        """The keys of rows that another row of the same set refers to."""
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

    def _update(self, changes: Sequence[ChangeHeader], keys: Keys, journal: Journal) -> int:
        fields = [field for field in self.fields if is_writable(field)]
        wanted: dict[str, Any] = {KEY: key_from_text(self.model, F("key"))}
        wanted |= {WANTED.format(field.attname): value_from_image("before", field) for field in fields}
        recorded = journal.record_before(self.model, fields, keys)
        updated = update_from(
            self.model, fields, self._journal(changes).annotate(**wanted).values_list(*wanted)
        )
        completed = journal.record_after(self.model, fields)
        return updated if recorded == updated == completed else -1

    def _insert(self, changes: Sequence[ChangeHeader], journal: Journal) -> int:
        fields = [field for field in self.fields if is_writable(field)]
        values: dict[str, Any] = {
            f"_column_{field.attname}": value_from_image("before", field) for field in fields
        }
        rows = self._journal(changes).order_by("-pk").annotate(**values).values_list(*values)
        inserted = execute_select_into(self.model, fields, rows, own_keys=True)
        return inserted if journal.record_reinserts(self.model, self._journal(changes)) == inserted else -1

    def _journal(self, changes: Sequence[ChangeHeader]) -> Rows:
        ids = Keys([each.id for each in changes])
        rows: Rows = Change._base_manager.using(self.using).filter(ids.on("pk"))
        return rows


def read_keys(model: type[Model], texts: Iterable[str], *, using: str) -> dict[str, Any]:
    """Convert the keys of the journal from text, without those that the key's type can't hold any more."""
    column, zone, found = stored_field(model._meta.pk), connections[using].timezone, {}
    for text in texts:
        try:
            key = column.to_python(text)
        except ValidationError:
            continue
        # A database that stores times without a zone reads them in its own.
        bare = zone is not None and isinstance(key, datetime) and is_naive(key)
        found[text] = make_aware(key, zone) if bare else key
    return found


def group_changes(changes: Iterable[ChangeHeader], using: str) -> Iterator[ChangeGroup]:
    """Group the changes, in their order, into as few groups as that allows."""
    group: list[ChangeHeader] = []
    rows: set[str] = set()
    for each in changes:
        if group and (_kind(each) != _kind(group[0]) or each.key in rows):
            yield _group(group, using)
            group, rows = [], set()
        group.append(each)
        rows.add(each.key)
    if group:
        yield _group(group, using)


def _kind(change: ChangeHeader) -> tuple[str, str, tuple[str, ...]]:
    return change.verb, change.label, change.columns


def _group(changes: Sequence[ChangeHeader], using: str) -> ChangeGroup:
    first = changes[0]
    try:
        model = apps.get_model(first.label)
    except LookupError:
        no_model = Refusal(f"There is no model {first.label} any more.")
        return ChangeGroup(changes=changes, model=Change, fields=(), using=using, refusal=no_model)
    model = concrete_model(model)
    known: Mapping[str, Field[Any, Any]] = {each.attname: each for each in own_columns(model)}
    missing = [name for name in first.columns if name not in known]
    gone = Refusal(f"{first.label} has no column {missing[0]!r} any more.") if missing else None
    fields = [known[name] for name in first.columns if name in known]
    return ChangeGroup(changes=changes, model=model, fields=fields, using=using, refusal=gone)
