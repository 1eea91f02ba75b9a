"""Images: a row's columns as a JSON object made by the database, and how a column's value is read back out of it.

Both directions are lossless: what `imaged` reads is stored again as it was, to the byte. Integers and booleans are
themselves, texts and documents are texts, bytes are hexadecimal; of anything else an image holds the text that the
database itself reads back (on SQLite the value as it is stored, whatever the column was declared as).

Note [Exact reals on SQLite]: its JSON functions write 15 digits of a real number, which loses 0.1 + 0.2. QUOTE() writes as
many as it takes, and only infinity, which JSON doesn't have, is a number that overflows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence, Set as AbstractSet
from typing import Any, cast

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import (
    BinaryField,
    BooleanField,
    Expression,
    F,
    Field,
    Func,
    JSONField,
    TextField,
)
from django.db.models.functions import JSONObject
from django.db.models.sql.compiler import SQLCompiler

from reconcile.sql.columns import INTEGERS, TEXTS, stored_field
from reconcile.sql.zones import from_text, to_text

__all__ = ["Columns", "SameImage", "image", "imaged", "written"]

_PAIRS = 40
"""Columns in one JSON object; the databases' functions take about 100 arguments."""

_ITSELF = INTEGERS | {"BooleanField"}
"""Kinds of columns whose values JSON has."""

_INTEGRAL = re.compile(r"((small|big)?(int|serial)|integer|bool(ean)?)(?![\w\[])")
_TEXTUAL = re.compile(r"((var)?char|character|citext|text)(?![\w\[])")
"""Declared types that PostgreSQL's integers and booleans have, and its texts; fields of these names may have others."""

_UNHEX = "RECONCILE_UNHEX"


def image(fields: Sequence[Field[Any, Any]]) -> Expression:
    """The row's columns, by attname, as a JSON object. The same fields in the same order give comparable images."""
    groups = [fields[start : start + _PAIRS] for start in range(0, len(fields), _PAIRS)]
    objects = [JSONObject(**{field.attname: _Element(field) for field in group}) for group in groups]
    return objects[0] if len(objects) == 1 else _Merged(*objects)


def imaged(source: str, field: Field[Any, Any]) -> Expression:
    """The value of `field` in the image that the column `source` holds, such that it can be written to the field's column."""
    return _Imaged(source, field)


def written(field: Field[Any, Any]) -> bool:
    """Whether the column takes values: one that the database computes doesn't."""
    return not getattr(field, "generated", False)


class _OfField(Func):
    """An expression whose SQL depends on a field's column."""

    def __init__(self, expression: Any, field: Field[Any, Any]) -> None:
        self.stored = _stored(field)
        self.attname = field.attname
        super().__init__(expression, output_field=TextField())

    @property
    def kind(self) -> str:
        """The field's type, by Django's name of it."""
        return str(self.stored.get_internal_type())

    def _is_bytes(self, connection: BaseDatabaseWrapper) -> bool:
        declared = str(self.stored.db_type(connection)).lower()
        return isinstance(self.stored, BinaryField) or any(
            each in declared for each in ("bytea", "blob", "binary")
        )

    def _has(
        self, declared: re.Pattern[str], kinds: AbstractSet[str], connection: BaseDatabaseWrapper
    ) -> bool:
        """Whether the column is what its field's name says."""
        return self.kind in kinds and bool(declared.match(str(self.stored.db_type(connection)).lower()))


class _Element(_OfField):
    """A column's value as an element of an image."""

    def __init__(self, field: Field[Any, Any]) -> None:
        super().__init__(F(field.attname), field)

    def as_postgresql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any) -> Any:
        """As text all that isn't exact in JSON; moments in UTC, whatever the session's time zone is."""
        sql, params = self._column(compiler)
        if self._is_bytes(connection):
            return f"ENCODE({sql}, 'hex')", params
        if self._has(_INTEGRAL, _ITSELF, connection) or self._has(_TEXTUAL, TEXTS, connection):
            return sql, params
        template = to_text(str(self.stored.db_type(connection)))
        return template.format(sql), params * template.count("{0}")

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any) -> Any:
        """By the type of the value, since a column holds any. JSON has no bytes, and no NUL can be read back out of it."""
        sql, params = self._column(compiler)
        if self._is_bytes(connection):
            # HEX() makes an empty text of NULL.
            return f"CASE WHEN {sql} IS NOT NULL THEN HEX({sql}) END", params * 2
        # See Note [Exact reals on SQLite].
        as_json = (
            f"CASE WHEN TYPEOF({sql}) = 'integer' THEN {sql} WHEN {sql} = 9e999 THEN '9e999' WHEN {sql} = -9e999 THEN '-9e999' "
            f"WHEN TYPEOF({sql}) = 'real' THEN QUOTE({sql}) WHEN INSTR({sql}, CHAR(0)) > 0 OR TYPEOF({sql}) = 'blob' "
            f"THEN JSON_OBJECT(TYPEOF({sql}), HEX({sql})) ELSE JSON_QUOTE({sql}) END"
        )
        return f"JSON({as_json})", params * 10

    def as_mysql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any) -> Any:
        """As text all that isn't exact in JSON, documents among them: MySQL sorts the keys of what is in a document."""
        sql, params = self._column(compiler)
        if self._is_bytes(connection):
            return f"HEX({sql})", params
        return (sql if self.kind in _ITSELF | TEXTS else f"CAST({sql} AS CHAR)"), params

    def _column(self, compiler: SQLCompiler) -> tuple[str, tuple[Any, ...]]:
        sql, params = compiler.compile(self.get_source_expressions()[0])
        return sql, tuple(params)


class _Imaged(_OfField):
    """An element of an image as the column's value."""

    def as_postgresql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any) -> Any:
        """A text stays one: a cast to `varchar(n)` would cut what no longer fits, where storing it fails."""
        sql, its = compiler.compile(self.get_source_expressions()[0])
        found, params = f"({sql} ->> %s)", [*its, self.attname]
        if self._is_bytes(connection):
            return f"DECODE({found}, 'hex')", params
        if self._has(_TEXTUAL, TEXTS, connection):
            return found, params
        cast_to = str(self.stored.cast_db_type(connection))
        template = from_text(str(self.stored.db_type(connection)), cast_to)
        return template.format(found), params * template.count("{0}")

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any) -> Any:
        """Hexadecimal needs a function of Python's: SQLite has none before 3.41."""
        wrapper: Any = connection
        wrapper.ensure_connection()
        wrapper.connection.create_function(_UNHEX, 2, _unhex, deterministic=True)
        sql, params = compiler.compile(self.get_source_expressions()[0])
        path = f'$."{self.attname}"'
        found = f"JSON_EXTRACT({sql}, %s)"
        if self._is_bytes(connection):
            return f"{_UNHEX}('blob', {found})", [*params, path]
        as_bytes = f"CASE JSON_TYPE({sql}, %s) WHEN 'object' THEN {_UNHEX}('', {found}) ELSE {found} END"
        return as_bytes, [*params, path] * 3

    def as_mysql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any) -> Any:
        """Unquoted, the JSON value null would be the text `null`."""
        sql, its = compiler.compile(self.get_source_expressions()[0])
        params = [*its, f'$."{self.attname}"']
        found = f"JSON_EXTRACT({sql}, %s)"
        text = f"JSON_UNQUOTE({found})"
        value = f"UNHEX({text})" if self._is_bytes(connection) else text
        return f"CASE WHEN JSON_TYPE({found}) = 'NULL' THEN NULL ELSE {value} END", [*params, *params]


class Columns(Func):
    """The names of an image's columns, as a JSON array; in the order in which the image has them, if it has one."""

    output_field = JSONField()
    function = "JSON_KEYS"

    def as_postgresql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any) -> Any:
        template = "(SELECT JSONB_AGG(each_key) FROM JSONB_OBJECT_KEYS(%(expressions)s) AS each_key)"
        return super().as_sql(compiler, connection, template=template)

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any) -> Any:
        template = "(SELECT JSON_GROUP_ARRAY(key) FROM JSON_EACH(%(expressions)s))"
        return super().as_sql(compiler, connection, template=template)


class SameImage(Func):
    """Whether two images say the same of the same columns; false where one is NULL."""

    output_field = BooleanField()
    template = "COALESCE(%(expressions)s, FALSE)"
    arg_joiner = " = "

    def as_mysql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any) -> Any:
        wrapper: Any = connection
        if not wrapper.mysql_is_mariadb:
            return super().as_sql(compiler, connection)
        # There JSON is text, which a collation might fold.
        return super().as_sql(
            compiler, connection, template="COALESCE(BINARY %(expressions)s, FALSE)", arg_joiner=" = BINARY "
        )


class _Merged(Func):
    """Several JSON objects as one."""

    output_field = JSONField()
    function = "JSON_MERGE_PRESERVE"

    def as_postgresql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any) -> Any:
        return super().as_sql(compiler, connection, template="(%(expressions)s)", arg_joiner=" || ")

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any) -> Any:  # noqa: ARG002
        # json_patch() would drop what is null; text surgery keeps it: '{' + '…' + ',' + '…' + '}'.
        parts, params = [], []
        for each in self.get_source_expressions():
            sql, its = compiler.compile(each)
            parts.append(f"SUBSTR({sql}, 2, LENGTH({sql}) - 2)")
            params += [*its, *its]
        joined = " || ',' || ".join(parts)
        return f"('{{' || {joined} || '}}')", params


def _stored(field: Field[Any, Any]) -> Field[Any, Any]:
    """The field whose type the column has, also of one that the database computes."""
    computed = None if written(field) else getattr(field, "output_field", None)
    return stored_field(cast("Field[Any, Any]", computed or field))


def _unhex(kind: str, held: Any) -> Any:
    """The bytes, or the text, that an element holds as hexadecimal: `{"text": "…"}`, or bare for a column of bytes."""
    if held is None:
        return None
    if not kind:
        [(kind, held)] = json.loads(held).items()
    value = bytes.fromhex(held)
    return value if kind == "blob" else value.decode()
