"""Groups of changes: consecutive ones of the same kind, which are compared and taken back at once.

Nothing here knows runs or chunks. The statements that take a group back are in `inverse`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from reconcile.core.verbs import DELETE, VERBS
from reconcile.db.columns import concrete_model, stored_field
from reconcile.db.django_compat import own_columns
from reconcile.db.images import SameImage, image
from reconcile.db.text_keys import is_key, key_from_text
from reconcile.errors import Refusal
from reconcile.models import Change
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
    def inverse(self) -> str:
        """The verb that takes the changes back."""
        return VERBS[self.verb].inverse

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
        if VERBS[self.verb].statement != DELETE:
            # For a deleted row, also a row whose key is equal only by the collation is in the way.
            rows = rows.filter(is_key(self.model, OuterRef("key"), using=self.using))
        now = Subquery(
            rows.annotate(_image=image(self.fields)).values("_image")[:1], output_field=JSONField()
        )
        with_rows = self.journal_rows(changes).annotate(_there=Exists(rows), _now=now)
        with_rows = with_rows.annotate(_is_after=SameImage(F("_now"), F("after")))
        with_rows = with_rows.annotate(_is_before=SameImage(F("_now"), F("before")))
        found = {
            pk: states for pk, *states in with_rows.values_list("pk", "_there", "_is_after", "_is_before")
        }
        return {each: row_state(each.verb, *found[each.id]) for each in changes}

    def journal_rows(self, changes: Sequence[ChangeHeader]) -> Rows:
        """The rows of the journal."""
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
