"""Images: a row's columns as a JSON object that the database makes, and how a value is read back from it.

Both directions are lossless: what `value_from_image` reads is stored again as it was, to the byte. Integers and booleans are
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

from django.db.models import BinaryField, BooleanField, Expression, F, Field, Func, JSONField, TextField
from django.db.models.functions import JSONObject

from reconcile.db.columns import INTEGERS, TEXTS, stored_field
from reconcile.db.django_compat import (
    BaseDatabaseWrapper,
    SQLCompiler,
    cast_type,
    compile_expression,
    connect,
    driver_connection,
    is_mariadb,
)

__all__ = ["Columns", "SameImage", "from_text", "image", "is_writable", "to_text", "value_from_image"]

_PLAIN = "({0})::text"

_MOMENT = "timestamp with time zone"


def _between(range_of: str, span: str) -> str:
    """The range `span` with its bounds in, or out of, UTC."""
    inclusive = (
        "CASE WHEN LOWER_INC({0}) THEN '[' ELSE '(' END || CASE WHEN UPPER_INC({0}) THEN ']' ELSE ')' END"
    )
    ends = "LOWER({0}) AT TIME ZONE 'UTC', UPPER({0}) AT TIME ZONE 'UTC'"
    moved = (
        f"CASE WHEN ISEMPTY({{0}}) THEN 'empty'::{range_of} "
        f"WHEN {{0}} IS NOT NULL THEN {range_of}({ends}, {inclusive}) END"
    )
    return f"({moved.format(span)})"


_EACH = "ARRAY(SELECT i AT TIME ZONE 'UTC' FROM UNNEST({0}) WITH ORDINALITY AS e (i, n) ORDER BY n)"

# Of several dimensions, or with other bounds, an array says its time zone instead.
_ARRAY_TO = (
    "CASE WHEN ARRAY_NDIMS({0}) > 1 OR ARRAY_LOWER({0}, 1) <> 1 THEN ({0})::text "
    "WHEN {0} IS NOT NULL THEN " + _EACH + "::text END"
)
_ARRAY_FROM = (
    "CASE WHEN LEFT({0}, 2) = CHR(123) || CHR(123) OR LEFT({0}, 1) = '[' THEN ({0})::timestamptz[] "
    "WHEN {0} IS NOT NULL THEN " + _EACH.replace("{0}", "({0})::timestamp[]") + " END"
)

_TO = {
    _MOMENT: "({0} AT TIME ZONE 'UTC')::text",
    f"{_MOMENT}[]": _ARRAY_TO,
    "tstzrange": _between("TSRANGE", "{0}") + "::text",
}
_FROM = {
    _MOMENT: "(({0})::timestamp AT TIME ZONE 'UTC')",
    f"{_MOMENT}[]": _ARRAY_FROM,
    "tstzrange": _between("TSTZRANGE", "({0})::tsrange"),
}


def to_text(declared: str) -> str:
    """Template of the text of a value, `{0}`, of the declared type; any type will do."""
    return _TO.get(declared, _PLAIN)


def from_text(declared: str, cast: str) -> str:
    """Template of the value whose text is `{0}`; `cast` is the type that it is cast to where no time zone matters."""
    return _FROM.get(declared, f"({{0}})::{cast}")


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


def value_from_image(source: str, field: Field[Any, Any]) -> Expression:
    """The value of `field` in the image that the column `source` holds, such that it can be written to the field's column."""
    return _Imaged(source, field)


def is_writable(field: Field[Any, Any]) -> bool:
    """Whether the column takes values: one that the database computes doesn't."""
    return not getattr(field, "generated", False)


class _OfField(Func):
    """An expression whose SQL depends on a field's column."""

    def __init__(self, expression: Any, field: Field[Any, Any]) -> None:
        self.stored = _stored_type(field)
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
        sql, params = compile_expression(compiler, self.get_source_expressions()[0])
        if self._is_bytes(connection):
            return f"ENCODE({sql}, 'hex')", params
        if self._has(_INTEGRAL, _ITSELF, connection) or self._has(_TEXTUAL, TEXTS, connection):
            return sql, params
        template = to_text(str(self.stored.db_type(connection)))
        return template.format(sql), params * template.count("{0}")

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any) -> Any:
        """By the type of the value, since a column holds any. JSON has no bytes, and no NUL can be read back out of it."""
        sql, params = compile_expression(compiler, self.get_source_expressions()[0])
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
        sql, params = compile_expression(compiler, self.get_source_expressions()[0])
        if self._is_bytes(connection):
            return f"HEX({sql})", params
        return (sql if self.kind in _ITSELF | TEXTS else f"CAST({sql} AS CHAR)"), params


class _Imaged(_OfField):
    """An element of an image as the column's value."""

    def as_postgresql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any) -> Any:
        """A text stays one: a cast to `varchar(n)` would cut what no longer fits, where storing it fails."""
        sql, its = compiler.compile(self.get_source_expressions()[0])
        found, params = f"({sql} ->> %s)", (*its, self.attname)
        if self._is_bytes(connection):
            return f"DECODE({found}, 'hex')", params
        if self._has(_TEXTUAL, TEXTS, connection):
            return found, params
        cast_to = cast_type(self.stored, connection)
        template = from_text(str(self.stored.db_type(connection)), cast_to)
        return template.format(found), params * template.count("{0}")

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any) -> Any:
        """Hexadecimal needs a function of Python's: SQLite has none before 3.41."""
        connect(connection)
        driver_connection(connection).create_function(_UNHEX, 2, _unhex, deterministic=True)
        sql, params = compiler.compile(self.get_source_expressions()[0])
        path = f'$."{self.attname}"'
        found = f"JSON_EXTRACT({sql}, %s)"
        if self._is_bytes(connection):
            return f"{_UNHEX}('blob', {found})", (*params, path)
        as_bytes = f"CASE JSON_TYPE({sql}, %s) WHEN 'object' THEN {_UNHEX}('', {found}) ELSE {found} END"
        return as_bytes, (*params, path) * 3

    def as_mysql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any) -> Any:
        """Unquoted, the JSON value null would be the text `null`."""
        sql, its = compiler.compile(self.get_source_expressions()[0])
        params = (*its, f'$."{self.attname}"')
        found = f"JSON_EXTRACT({sql}, %s)"
        text = f"JSON_UNQUOTE({found})"
        value = f"UNHEX({text})" if self._is_bytes(connection) else text
        return f"CASE WHEN JSON_TYPE({found}) = 'NULL' THEN NULL ELSE {value} END", (*params, *params)


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
    """Whether two images say the same of the same columns; false if one is NULL."""

    output_field = BooleanField()
    template = "COALESCE(%(expressions)s, FALSE)"
    arg_joiner = " = "

    def as_mysql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any) -> Any:
        if not is_mariadb(connection):
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
        parts: list[str] = []
        params: list[Any] = []
        for each in self.get_source_expressions():
            sql, its = compiler.compile(each)
            parts.append(f"SUBSTR({sql}, 2, LENGTH({sql}) - 2)")
            params += [*its, *its]
        joined = " || ',' || ".join(parts)
        return f"('{{' || {joined} || '}}')", tuple(params)


def _stored_type(field: Field[Any, Any]) -> Field[Any, Any]:
    """The field whose type the column has, also of one that the database computes."""
    computed = None if is_writable(field) else getattr(field, "output_field", None)
    return stored_field(cast("Field[Any, Any]", computed or field))


def _unhex(kind: str, held: Any) -> Any:
    """The bytes, or the text, that an element holds as hexadecimal: `{"text": "…"}`, or bare for a column of bytes."""
    if held is None:
        return None
    if not kind:
        [(kind, held)] = json.loads(held).items()
    value = bytes.fromhex(held)
    return value if kind == "blob" else value.decode()
