"""The journal: images of the rows that a chunk writes, made by the database in the chunk's own transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import (
    BinaryField,
    CharField,
    F,
    Field,
    Func,
    JSONField,
    Model,
    OuterRef,
    Subquery,
    TextField,
    Value,
)
from django.db.models.functions import Cast, JSONObject

from reconcile.finders import Rows
from reconcile.models import Change, Shard
from reconcile.sql.lookups import is_text, stored_field
from reconcile.sql.statements import KEY, WANTED, execute_select_into, update_from
from reconcile.windows import Keys

__all__ = ["ChunkJournal"]

_KEY_AS_TEXT = Cast("pk", TextField())

_PAIRS = 40
"""Columns in one JSON object; the databases' functions take about 100 arguments."""


@dataclass(frozen=True, kw_only=True)
class ChunkJournal:
    """The journal rows of one chunk of one shard."""

    shard: Shard
    chunk: int
    using: str

    def inserted(self, model: type[Model], rows: Rows) -> int:
        """Note `rows`, which this chunk has inserted, with all their columns; their number. One statement."""
        image = _image((model._meta.concrete_model or model)._meta.local_concrete_fields)
        return self._note(model, rows, Change.Verb.INSERT, after=image)

    def before(self, model: type[Model], fields: Sequence[Field[Any, Any]], keys: Keys) -> int:
        """Note `fields` of the locked rows of `keys` as they are; their number. One statement."""
        rows = model._base_manager.using(self.using).filter(keys.on("pk"))
        return self._note(model, rows, Change.Verb.UPDATE, before=_image(fields))

    def after(self, model: type[Model], fields: Sequence[Field[Any, Any]]) -> int:
        """Add to this chunk's journal rows how `fields` are now; their number. One statement."""
        key = _key_from_text(model)
        rows = model._base_manager.using(self.using).filter(pk=key).annotate(_image=_image(fields))
        column = Change._meta.get_field("after")
        noted = Change._base_manager.using(self.using).filter(
            shard=self.shard,
            chunk=self.chunk,
            verb=Change.Verb.UPDATE,
            model=model._meta.label,
            after__isnull=True,
        )
        image = Subquery(rows.values("_image")[:1], output_field=JSONField())
        wanted = noted.annotate(**{KEY: F("pk"), WANTED.format("after"): image})
        return update_from(Change, [column], wanted.values_list(KEY, WANTED.format("after")))

    def deleted(self, model: type[Model], rows: Rows) -> int:
        """Note `rows`, which are about to be deleted, with all their columns; their number. One statement."""
        image = _image((model._meta.concrete_model or model)._meta.local_concrete_fields)
        return self._note(model, rows, Change.Verb.DELETE, before=image)

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


def _key_from_text(model: type[Model]) -> Any:
    """The key that a journal row names; a text key as it is, since a cast would bring another collation along."""
    field = stored_field(model._meta.pk)
    return OuterRef("key") if is_text(field) else Cast(OuterRef("key"), field)


def _image(fields: Sequence[Field[Any, Any]]) -> Any:
    """The row's columns, by attname, as a JSON object."""
    groups = [fields[start : start + _PAIRS] for start in range(0, len(fields), _PAIRS)]
    objects = [JSONObject(**{field.attname: _element(field) for field in group}) for group in groups]
    merged: Any = objects[0]
    for each in objects[1:]:
        merged = _Merged(merged, each)
    return merged


def _element(field: Field[Any, Any]) -> Any:
    if isinstance(field, JSONField):
        return _Document(field.attname)
    return _Hex(field.attname) if isinstance(field, BinaryField) else F(field.attname)


class _Document(Func):
    """A JSON column as a value of its own: as text it would become an escaped string inside the image."""

    output_field = JSONField()

    def as_sql(self, compiler: Any, connection: Any, **_: Any) -> Any:  # type: ignore[override]
        return super().as_sql(compiler, connection, template="%(expressions)s")

    def as_sqlite(self, compiler: Any, connection: Any, **_: Any) -> Any:
        return super().as_sql(compiler, connection, template="JSON(%(expressions)s)")

    def as_mysql(self, compiler: Any, connection: Any, **_: Any) -> Any:
        return super().as_sql(compiler, connection, template="JSON_EXTRACT(%(expressions)s, '$')")


class _Hex(Func):
    """Bytes as hexadecimal text, since JSON has none."""

    function = "HEX"
    output_field = TextField()

    def as_postgresql(self, compiler: Any, connection: Any, **_: Any) -> Any:
        return super().as_sql(compiler, connection, template="ENCODE(%(expressions)s, 'hex')")


class _Merged(Func):
    """Two JSON objects as one."""

    output_field = JSONField()
    function = "JSON_MERGE_PRESERVE"

    def as_postgresql(self, compiler: Any, connection: Any, **_: Any) -> Any:
        return super().as_sql(compiler, connection, template="(%(expressions)s)", arg_joiner=" || ")

    def as_sqlite(self, compiler: Any, connection: Any, **_: Any) -> Any:  # noqa: ARG002
        # json_patch() would drop what is null; text surgery keeps it: '{…' + ',' + '…}'.
        left, right = (compiler.compile(each) for each in self.get_source_expressions())
        sql = f"(SUBSTR({left[0]}, 1, LENGTH({left[0]}) - 1) || ',' || SUBSTR({right[0]}, 2))"
        return sql, [*left[1], *left[1], *right[1]]
