"""The journal: images of the rows that a chunk writes, made by the database in the chunk's own transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import (
    CharField,
    Exists,
    Expression,
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

from reconcile.core.finder import Rows
from reconcile.core.scopes import Keys
from reconcile.core.verbs import DELETE, ENQUEUED, INSERT, UPDATE
from reconcile.db.columns import concrete_model, label_of
from reconcile.db.django_compat import ordering_of, own_columns, raw_delete
from reconcile.db.images import image
from reconcile.db.placeholders import PendingKeys, PlaceholderValue
from reconcile.db.schema import may_change_values
from reconcile.db.statements import KEY, WANTED, InsertWithJournal, execute_select_into, update_from
from reconcile.db.text_keys import is_key, key_from_text
from reconcile.models import Change, WorkItem
from reconcile.repair.fault_injection import Step, reach

__all__ = ["ChunkJournal", "Prepared"]

Prepared = dict[type[Model], InsertWithJournal | None]
"""What the chunks of one work item insert by, by model; None if that takes two statements."""

_KEY_AS_TEXT = Cast("pk", TextField())


def _whole_image(model: type[Model]) -> Expression:
    """The image of a row with all its columns."""
    return image(own_columns(concrete_model(model)))


@dataclass(frozen=True)
class _Beside:
    """The columns of some rows that an update doesn't name, as they were before it."""

    rows: Rows
    columns: tuple[str, ...]
    before: Mapping[Any, tuple[Any, ...]]

    @classmethod
    def of(cls, rows: Rows, fields: Sequence[Field[Any, Any]]) -> _Beside:
        """Read them. One statement."""
        written = {each.attname for each in fields}
        columns = tuple(
            each.attname
            for each in own_columns(concrete_model(rows.model))
            if each.attname not in written and not each.generated
        )
        return cls(rows, columns, cls._read(rows, columns))

    def moved(self) -> set[str]:
        """The names of those that are not as they were. One statement."""
        after = self._read(self.rows, self.columns)
        label = label_of(self.rows.model)
        return {
            f"{label}.{name}"
            for key, values in self.before.items()
            for name, there, now in zip(self.columns, values, after.get(key, values), strict=True)
            if there != now
        }

    @staticmethod
    def _read(rows: Rows, columns: tuple[str, ...]) -> dict[Any, tuple[Any, ...]]:
        return {key: tuple(values) for key, *values in rows.order_by().values_list("pk", *columns)}


@dataclass(frozen=True, kw_only=True)
class ChunkJournal:
    """The journal rows of one chunk. `prepared`: statements that all chunks of the work item share.

    moved: names of columns that an update has changed although no statement of ours names them; they are looked at where the
    database may change what is written, by a trigger.
    """

    work_item: WorkItem
    chunk: int
    using: str
    prepared: Prepared = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)
    _beside: dict[type[Model], _Beside] = field(default_factory=dict)

    def record_inserts(self, model: type[Model], rows: Rows, *, verb: str = INSERT) -> int:
        """Record `rows` that this chunk has inserted, with all columns. Returns their number. One statement."""
        return self._record(model, rows, verb, after=_whole_image(model))

    def insert_and_record(
        self,
        model: type[Model],
        fields: Sequence[Field[Any, Any]],
        claimed: Callable[[Keys], Rows],
        present: Callable[[Keys], Rows],
        keys: Keys,
    ) -> tuple[int, int] | None:
        """Insert what `claimed` selects, and record the new rows that `present` finds. Returns both numbers.

        Returns None and does nothing if the database can't do both at once. One statement, and one for each work item.
        """
        if model not in self.prepared:
            later = Keys(PendingKeys("keys"))
            made = _whole_image(model)
            chunk = PlaceholderValue("chunk", PositiveBigIntegerField())
            columns, recorded = self._journal_rows(model, present(later), INSERT, chunk=chunk, after=made)
            self.prepared[model] = InsertWithJournal.of(
                model, fields, claimed(later), into=Change, columns=columns, recorded=recorded
            )
        if (statement := self.prepared[model]) is None:
            return None
        reach(Step.JOURNAL)
        return statement.execute(keys=keys.values, chunk=self.chunk)

    def record_reinserts(self, model: type[Model], changes: Rows, *, verb: str = INSERT) -> int:
        """Record the rows that `changes` had deleted and this chunk has inserted again. Returns their number. One statement.

        The last change comes first, so that a row is recorded after the rows that it refers to.
        """
        there = self._rows_of_changes(model)
        made = _whole_image(model)
        now = Subquery(there.annotate(_image=made).values("_image")[:1], output_field=JSONField())
        rows = changes.filter(Exists(there)).order_by("-pk")
        return self._record(model, rows, verb, key=F("key"), after=now)

    def record_before(
        self, model: type[Model], fields: Sequence[Field[Any, Any]], keys: Keys, *, verb: str = UPDATE
    ) -> int:
        """Record `fields` of the locked rows before an update. Returns their number. One statement.

        One more where the database may change other columns as well, here and in `record_after`.
        """
        rows = model._base_manager.using(self.using).filter(keys.on("pk"))
        if may_change_values(model, self.using):
            self._beside[model] = _Beside.of(rows, fields)
        return self._record(model, rows, verb, before=image(fields))

    def record_after(
        self, model: type[Model], fields: Sequence[Field[Any, Any]], *, verb: str = UPDATE
    ) -> int:
        """Add `fields` after the update to the journal rows of this chunk. Returns their number. One statement."""
        rows = self._rows_of_changes(model).annotate(_image=image(fields))
        column = Change._meta.get_field("after")
        recorded = Change._base_manager.using(self.using).filter(
            work_item=self.work_item,
            chunk=self.chunk,
            verb=verb,
            model=label_of(model),
            after__isnull=True,
        )
        if model in self._beside:
            self.moved.update(self._beside.pop(model).moved())
        now = Subquery(rows.values("_image")[:1], output_field=JSONField())
        wanted = recorded.annotate(**{KEY: F("pk"), WANTED.format("after"): now})
        return update_from(Change, [column], wanted.values_list(KEY, WANTED.format("after")))

    def record_deletes(self, model: type[Model], rows: Rows, *, verb: str = DELETE) -> int:
        """Record `rows` before their delete, with all columns. Returns their number. One statement."""
        return self._record(model, rows, verb, before=_whole_image(model))

    def record_handover(self, verb: str, model: type[Model], keys: Keys) -> int:
        """Record that the records of `keys` were `called` or `enqueued`, without images. One statement."""
        rows = model._base_manager.using(self.using).filter(keys.on("pk"))
        return self._record(model, rows, verb)

    def remove_handover(self, model: type[Model], keys: Keys) -> int:
        """Delete the journal rows of a message that was never sent. Returns their number. Two statements."""
        rows = model._base_manager.using(self.using).filter(keys.on("pk")).annotate(_noted=_KEY_AS_TEXT)
        handed = Change._base_manager.using(self.using).filter(
            work_item=self.work_item, chunk=self.chunk, verb=ENQUEUED, model=label_of(model),
            key__in=list(rows.values_list("_noted", flat=True)),
        )  # fmt: skip
        taken: int = raw_delete(handed, self.using)
        return taken

    def _rows_of_changes(self, model: type[Model]) -> Rows:
        """A subquery: the row of a change."""
        key = OuterRef("key")
        rows: Rows = model._base_manager.using(self.using)
        return rows.filter(is_key(model, key, using=self.using), pk=key_from_text(model, key))

    def _record(self, model: type[Model], rows: Rows, verb: str, **images: Any) -> int:
        reach(Step.JOURNAL)
        return execute_select_into(Change, *self._journal_rows(model, rows, verb, **images))

    def _journal_rows(
        self, model: type[Model], rows: Rows, verb: str, **images: Any
    ) -> tuple[Sequence[Field[Any, Any]], Rows]:
        """Columns of the journal, and a SELECT of them for each of `rows`."""
        columns = {
            "work_item_id": Value(self.work_item.pk),
            "chunk": Value(self.chunk),
            "verb": Value(verb, output_field=CharField()),
            "model": Value(label_of(model), output_field=CharField()),
            "key": _KEY_AS_TEXT,
            **images,
        }
        fields = [next(each for each in Change._meta.fields if each.attname == name) for name in columns]
        selected = {f"_column_{name}": value for name, value in columns.items()}
        ordered = rows if ordering_of(rows.query) else rows.order_by("pk")
        return fields, ordered.annotate(**selected).values_list(*selected)
