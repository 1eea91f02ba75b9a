"""Keys as text and back: how a key that is kept as text is compared with a key of any type.

Both sides go through the database, so they agree for every type of key. A UUID is its 36 characters with
dashes, as Django writes it into a text column, also where the database keeps 32 digits without.
"""

from __future__ import annotations

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import BooleanField, Field, Func, TextField
from django.db.models.functions import Cast
from django.db.models.lookups import Lookup
from django.db.models.sql.compiler import SQLCompiler

from reconcile.sql.lookups import INTEGERS, is_text, stored_field

__all__ = ["AsText", "EachItself", "KeyOf", "SameText", "has_key_of"]

_SQL = tuple[str, list[Any] | tuple[Any, ...]]

_DASHED = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
"""Where the groups of a UUID's digits begin, and how long they are."""

_COMMA, _PIPES = ", '-', ", " || '-' || "

_INTEGER = "^-?[0-9]{1,19}$"
_LEAST, _MOST = -(2**63), 2**63 - 1
_UUID = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"


def _kind(field: Field[Any, Any]) -> str:
    kind = stored_field(field).get_internal_type()
    return "integer" if kind in INTEGERS else kind


def has_key_of(field: Field[Any, Any]) -> bool:
    """True where `KeyOf` can make keys of `field`'s type."""
    return _kind(field) in {"integer", "UUIDField"}


class AsText(Func):
    """`expression`, a value of `field`, as the text that stands for it."""

    def __init__(self, expression: Any, *, field: Field[Any, Any]) -> None:
        super().__init__(expression, output_field=TextField())
        self.kind = stored_field(field)

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any
    ) -> _SQL:
        source: Any = self.get_source_expressions()[0]
        if is_text(self.kind):
            return compiler.compile(source)
        if _kind(self.kind) == "UUIDField" and not connection.features.has_native_uuid_field:
            return self._dashed(compiler, connection, source)
        return compiler.compile(Cast(source, TextField()))

    def _dashed(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, source: Any) -> _SQL:
        sql, params = compiler.compile(source)
        groups = [f"SUBSTR({sql}, {start}, {length})" for start, length in _DASHED]
        # CONCAT_WS would make an empty text of NULL.
        mysql = connection.vendor == "mysql"
        dashed = f"CONCAT({_COMMA.join(groups)})" if mysql else _PIPES.join(groups)
        return f"({dashed})", [*params] * len(groups)


class KeyOf(Func):
    """The key of `field`'s type that a text stands for; NULL where it stands for none, never an error.

    It leads to the row through the key's index. It is not exact ('007' stands for 7), so `SameText` has the last word.
    """

    def __init__(self, expression: Any, *, field: Field[Any, Any]) -> None:
        super().__init__(expression, output_field=stored_field(field))

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any
    ) -> _SQL:
        sql, params = compiler.compile(self.get_source_expressions()[0])
        integer = _kind(self.output_field) == "integer"
        if connection.vendor == "sqlite":
            return (f"CAST({sql} AS INTEGER)" if integer else f"REPLACE({sql}, '-', '')"), params
        postgresql = connection.vendor == "postgresql"
        matches = "~" if postgresql else "REGEXP"
        if not integer:
            key = (
                f"CAST({sql} AS UUID)"
                if connection.features.has_native_uuid_field
                else f"REPLACE({sql}, '-', '')"
            )
            return f"CASE WHEN {sql} {matches} '{_UUID}' THEN {key} END", [*params, *params]
        # What is no number, or beyond the largest, would be an error: the cases keep it from being cast.
        wide, narrow = ("numeric", "bigint") if postgresql else ("DECIMAL(20)", "SIGNED")
        key = f"CASE WHEN CAST({sql} AS {wide}) BETWEEN {_LEAST} AND {_MOST} THEN CAST({sql} AS {narrow}) END"
        return f"CASE WHEN {sql} {matches} '{_INTEGER}' THEN {key} END", [*params, *params, *params]


class EachItself(Func):
    """Always true; put on a subquery with the outer row's key, it makes the database answer for each row by itself.

    MariaDB keeps a subquery's answers by the outer row's text, which its collation folds: what it has found for 'a' it
    then says of 'A' and 'a ' too, whatever the subquery compares.
    """

    template = "LENGTH(CONCAT(%(expressions)s, '-')) > 0"
    output_field = BooleanField()
    conditional = True


class SameText(Lookup):
    """True where two texts are the same, to the character; no index is used on MariaDB and MySQL."""

    prepare_rhs = False

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper
    ) -> _SQL:
        lhs, lhs_params = self.process_lhs(compiler, connection)
        rhs, rhs_params = self.process_rhs(compiler, connection)
        # As bytes they may come from different collations, which can't be compared otherwise.
        template = {"mysql": "BINARY {} = BINARY {}", "sqlite": "{} COLLATE BINARY = {}"}
        return template.get(connection.vendor, "{} = {}").format(lhs, rhs), [*lhs_params, *rhs_params]
