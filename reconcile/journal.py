"""The journal: images of the rows that a chunk writes, made by the database in the chunk's own transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import CharField, F, Field, JSONField, Model, OuterRef, Subquery, TextField, Value
from django.db.models.functions import Cast

from reconcile.faults import Step, reached
from reconcile.finders import Rows
from reconcile.models import Change, Shard
from reconcile.sql.images import image, key_from_text
from reconcile.sql.statements import KEY, WANTED, execute_select_into, update_from
from reconcile.windows import Keys

__all__ = ["ChunkJournal"]

_KEY_AS_TEXT = Cast("pk", TextField())


@dataclass(frozen=True, kw_only=True)
class ChunkJournal:
    """The journal rows of one chunk of one shard."""

    shard: Shard
    chunk: int
    using: str

    def inserted(self, model: type[Model], rows: Rows) -> int:
        """Note `rows`, which this chunk has inserted, with all their columns; their number. One statement."""
        made = image((model._meta.concrete_model or model)._meta.local_concrete_fields)
        return self._note(model, rows, Change.Verb.INSERT, after=made)

    def before(self, model: type[Model], fields: Sequence[Field[Any, Any]], keys: Keys) -> int:
        """Note `fields` of the locked rows of `keys` as they are; their number. One statement."""
        rows = model._base_manager.using(self.using).filter(keys.on("pk"))
        return self._note(model, rows, Change.Verb.UPDATE, before=image(fields))

    def after(self, model: type[Model], fields: Sequence[Field[Any, Any]]) -> int:
        """Add to this chunk's journal rows how `fields` are now; their number. One statement."""
        key = key_from_text(model, OuterRef("key"))
        rows = model._base_manager.using(self.using).filter(pk=key).annotate(_image=image(fields))
        column = Change._meta.get_field("after")
        noted = Change._base_manager.using(self.using).filter(
            shard=self.shard,
            chunk=self.chunk,
            verb=Change.Verb.UPDATE,
            model=model._meta.label,
            after__isnull=True,
        )
        now = Subquery(rows.values("_image")[:1], output_field=JSONField())
        wanted = noted.annotate(**{KEY: F("pk"), WANTED.format("after"): now})
        return update_from(Change, [column], wanted.values_list(KEY, WANTED.format("after")))

    def deleted(self, model: type[Model], rows: Rows) -> int:
        """Note `rows`, which are about to be deleted, with all their columns; their number. One statement."""
        made = image((model._meta.concrete_model or model)._meta.local_concrete_fields)
        return self._note(model, rows, Change.Verb.DELETE, before=made)

    def handed_over(self, verb: str, model: type[Model], keys: Keys) -> int:
        """Note that the records of `keys` were `called` or `enqueued`, without an image. One statement."""
        rows = model._base_manager.using(self.using).filter(keys.on("pk"))
        return self._note(model, rows, Change.Verb(verb))

    def take_back(self, model: type[Model], keys: Keys) -> int:
        """Take back that the records of `keys` were enqueued, since that never went out; rows. Two statements."""
        rows = model._base_manager.using(self.using).filter(keys.on("pk")).annotate(_noted=_KEY_AS_TEXT)
        handed = Change._base_manager.using(self.using).filter(
            shard=self.shard, chunk=self.chunk, verb=Change.Verb.ENQUEUED, model=model._meta.label,
            key__in=list(rows.values_list("_noted", flat=True)),
        )  # fmt: skip
        taken: int = handed._raw_delete(self.using)
        return taken

    def _note(self, model: type[Model], rows: Rows, verb: Change.Verb, **images: Any) -> int:
        reached(Step.JOURNAL)
        columns = {
            "shard_id": Value(self.shard.pk),
            "chunk": Value(self.chunk),
            "verb": Value(str(verb), output_field=CharField()),
            "model": Value(model._meta.label, output_field=CharField()),
            "key": _KEY_AS_TEXT,
            **images,
        }
        fields = [next(each for each in Change._meta.fields if each.attname == name) for name in columns]
        selected = {f"_column_{name}": value for name, value in columns.items()}
        select = rows.order_by("pk").annotate(**selected).values_list(*selected)
        return execute_select_into(Change, fields, select)
