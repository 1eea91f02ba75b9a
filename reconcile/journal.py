"""The journal: images of the rows that a chunk writes, made by the database in the chunk's own transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import (
    CharField,
    Exists,
    F,
    Field,
    JSONField,
    Model,
    OuterRef,
    PositiveBigIntegerField,
    Subquery,
    TextField,
    Value,
)
from django.db.models.functions import Cast

from reconcile.faults import Step, reached
from reconcile.finders import Rows
from reconcile.models import Change, Shard
from reconcile.sql.holes import Later, LaterValue
from reconcile.sql.images import image
from reconcile.sql.keys import is_key, key_from_text
from reconcile.sql.statements import KEY, WANTED, InsertNoting, execute_select_into, update_from
from reconcile.windows import Keys

__all__ = ["ChunkJournal", "Prepared", "label_of"]

Prepared = dict[type[Model], InsertNoting | None]
"""What the chunks of one shard insert by, by model; None where that takes two statements."""

_KEY_AS_TEXT = Cast("pk", TextField())


def label_of(model: type[Model]) -> str:
    """The label of the model whose table it is: a row is the same one whichever proxy it is written through."""
    return str((model._meta.concrete_model or model)._meta.label)


@dataclass(frozen=True, kw_only=True)
class ChunkJournal:
    """The journal rows of one chunk of one shard. `prepared` is what the shard's chunks have in common."""

    shard: Shard
    chunk: int
    using: str
    prepared: Prepared = field(default_factory=dict)

    def inserted(self, model: type[Model], rows: Rows) -> int:
        """Note `rows`, which this chunk has inserted, with all their columns; their number. One statement."""
        made = image((model._meta.concrete_model or model)._meta.local_concrete_fields)
        return self._note(model, rows, Change.Verb.INSERT, after=made)

    def insert(
        self,
        model: type[Model],
        fields: Sequence[Field[Any, Any]],
        claimed: Callable[[Keys], Rows],
        present: Callable[[Keys], Rows],
        keys: Keys,
    ) -> tuple[int, int] | None:
        """Insert what `claimed` selects, and note those of the new rows that `present` finds; the number of both.

        None, and nothing is done, where the database can't do both at once. One statement, and one for each shard.
        """
        if model not in self.prepared:
            later = Keys(Later("keys"))
            made = image((model._meta.concrete_model or model)._meta.local_concrete_fields)
            chunk = LaterValue("chunk", PositiveBigIntegerField())
            columns, noted = self._noting(model, present(later), Change.Verb.INSERT, chunk=chunk, after=made)
            self.prepared[model] = InsertNoting.of(
                model, fields, claimed(later), into=Change, columns=columns, noted=noted
            )
        if (statement := self.prepared[model]) is None:
            return None
        reached(Step.JOURNAL)
        return statement.execute(keys=keys.values, chunk=self.chunk)

    def inserted_again(self, model: type[Model], changes: Rows) -> int:
        """Note the rows that `changes` had deleted and this chunk has inserted; their number. One statement.

        In the order in which they came, the last change first, so that what refers to another of them is noted after it.
        """
        there = self._rows_of_changes(model)
        made = image((model._meta.concrete_model or model)._meta.local_concrete_fields)
        now = Subquery(there.annotate(_image=made).values("_image")[:1], output_field=JSONField())
        rows = changes.filter(Exists(there)).order_by("-pk")
        return self._note(model, rows, Change.Verb.INSERT, key=F("key"), after=now)

    def before(self, model: type[Model], fields: Sequence[Field[Any, Any]], keys: Keys) -> int:
        """Note `fields` of the locked rows of `keys` as they are; their number. One statement."""
        rows = model._base_manager.using(self.using).filter(keys.on("pk"))
        return self._note(model, rows, Change.Verb.UPDATE, before=image(fields))

    def after(self, model: type[Model], fields: Sequence[Field[Any, Any]]) -> int:
        """Add to this chunk's journal rows how `fields` are now; their number. One statement."""
        rows = self._rows_of_changes(model).annotate(_image=image(fields))
        column = Change._meta.get_field("after")
        noted = Change._base_manager.using(self.using).filter(
            shard=self.shard,
            chunk=self.chunk,
            verb=Change.Verb.UPDATE,
            model=label_of(model),
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
            shard=self.shard, chunk=self.chunk, verb=Change.Verb.ENQUEUED, model=label_of(model),
            key__in=list(rows.values_list("_noted", flat=True)),
        )  # fmt: skip
        taken: int = handed._raw_delete(self.using)
        return taken

    def _rows_of_changes(self, model: type[Model]) -> Rows:
        """A subquery: the row that a change was made to."""
        key = OuterRef("key")
        rows: Rows = model._base_manager.using(self.using)
        return rows.filter(is_key(model, key, using=self.using), pk=key_from_text(model, key))

    def _note(self, model: type[Model], rows: Rows, verb: Change.Verb, **images: Any) -> int:
        reached(Step.JOURNAL)
        return execute_select_into(Change, *self._noting(model, rows, verb, **images))

    def _noting(
        self, model: type[Model], rows: Rows, verb: Change.Verb, **images: Any
    ) -> tuple[Sequence[Field[Any, Any]], Rows]:
        """Columns of the journal, and a SELECT of them for each of `rows`."""
        columns = {
            "shard_id": Value(self.shard.pk),
            "chunk": Value(self.chunk),
            "verb": Value(str(verb), output_field=CharField()),
            "model": Value(label_of(model), output_field=CharField()),
            "key": _KEY_AS_TEXT,
            **images,
        }
        fields = [next(each for each in Change._meta.fields if each.attname == name) for name in columns]
        selected = {f"_column_{name}": value for name, value in columns.items()}
        ordered = rows if rows.query.order_by else rows.order_by("pk")
        return fields, ordered.annotate(**selected).values_list(*selected)
