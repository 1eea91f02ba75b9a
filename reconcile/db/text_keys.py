"""Primary keys as text and back: how a key that is kept as text is compared with a key of any type.

Both sides go through the database, so they agree for every type of key. A UUID is its 36 characters with
dashes, as Django writes it into a text column, also where the database keeps 32 digits without.
"""

from __future__ import annotations

from typing import Any

from django.db.models import BooleanField, F, Field, Func, Model, OuterRef, Q, TextField
from django.db.models.functions import Cast
from django.db.models.lookups import Lookup

from reconcile.db.columns import INTEGERS, is_text, stored_field
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import SQL, BaseDatabaseWrapper, SQLCompiler, compile_expression, is_mariadb

__all__ = ["AsText", "EachItself", "KeyOf", "SameText", "has_key_of", "is_key", "key_from_text"]

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
    """True if `KeyOf` can make keys of `field`'s type."""
    return _kind(field) in {"integer", "UUIDField"}


class AsText(Func):
    """`expression`, a value of `field`, as the text that stands for it."""

    def __init__(self, expression: Any, *, field: Field[Any, Any]) -> None:
        super().__init__(expression, output_field=TextField())
        self.kind = stored_field(field)

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any
    ) -> SQL:
        source: Any = self.get_source_expressions()[0]
        if is_text(self.kind):
            return compile_expression(compiler, source)
        if _kind(self.kind) == "UUIDField" and not connection.features.has_native_uuid_field:
            return self._add_dashes(compiler, connection, source)
        return compile_expression(compiler, Cast(source, TextField()))

    def _add_dashes(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, source: Any) -> SQL:
        sql, params = compile_expression(compiler, source)
        groups = [f"SUBSTR({sql}, {start}, {length})" for start, length in _DASHED]
        # CONCAT_WS would make an empty text of NULL.
        mysql = connection.vendor == "mysql"
        dashed = f"CONCAT({_COMMA.join(groups)})" if mysql else _PIPES.join(groups)
        return f"({dashed})", params * len(groups)


class KeyOf(Func):
    """The key of `field`'s type that a text stands for; NULL where it stands for none, never an error.

    It leads to the row through the key's index. It is not exact ('007' stands for 7), so `SameText` has the last word.
    """

    def __init__(self, expression: Any, *, field: Field[Any, Any]) -> None:
        super().__init__(expression, output_field=stored_field(field))

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any
    ) -> SQL:
        sql, params = compile_expression(compiler, self.get_source_expressions()[0])
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
            return f"CASE WHEN {sql} {matches} '{_UUID}' THEN {key} END", params * 2
        # What is no number, or beyond the largest, would be an error: the cases keep it from being cast.
        wide, narrow = ("numeric", "bigint") if postgresql else ("DECIMAL(20)", "SIGNED")
        key = f"CASE WHEN CAST({sql} AS {wide}) BETWEEN {_LEAST} AND {_MOST} THEN CAST({sql} AS {narrow}) END"
        return f"CASE WHEN {sql} {matches} '{_INTEGER}' THEN {key} END", params * 3


class EachItself(Func):
    """Always true; put on a subquery with the outer row's key, it makes the database answer for each row by itself.

    MariaDB keeps a subquery's answers by the outer row's text, which its collation folds: what it has found for 'a' it
    then says of 'A' and 'a ' too, whatever the subquery compares.
    """

    template = "LENGTH(CONCAT(%(expressions)s, '-')) > 0"
    output_field = BooleanField()
    conditional = True


class SameText(Lookup):
    """True if two texts are the same, to the character; no index is used on MariaDB and MySQL."""

    prepare_rhs = False

    def as_sql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> SQL:
        lhs, lhs_params = self.process_lhs(compiler, connection)
        rhs, rhs_params = self.process_rhs(compiler, connection)
        # As bytes they may come from different collations, which can't be compared otherwise.
        template = {"mysql": "BINARY {} = BINARY {}", "sqlite": "{} COLLATE BINARY = {}"}
        return template.get(connection.vendor, "{} = {}").format(lhs, rhs), (*lhs_params, *rhs_params)


_DATED = frozenset({"DateField", "DateTimeField", "TimeField"})


def key_from_text(model: type[Model], text: Any) -> Any:
    """The primary key that `text` names, such that the key's own index and collation are used.

    A collation may take another key for it, so where that counts `is_key` has the last word.
    """
    key = stored_field(model._meta.pk)
    return _TextKey(text) if is_text(key) else _Key(text, key)


def is_key(model: type[Model], text: Any, *, using: str) -> Q:
    """In a subquery: whether the row's primary key is `text`, a column of the outer query, to the character."""
    if not is_text(stored_field(model._meta.pk)):
        return Q()
    exactly = Q(SameText(F("pk"), text))
    return exactly & Q(EachItself(OuterRef("pk"))) if dialect_of(using).caches_folded_texts else exactly


class _TextKey(Func):
    """A text in whatever collation it is compared with."""

    template = "%(expressions)s"

    def __init__(self, text: Any) -> None:
        super().__init__(text, output_field=TextField())

    def as_mysql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any) -> Any:
        """MariaDB compares no columns of two collations; what JSON is unquoted takes the other's, and its index."""
        template = "JSON_UNQUOTE(JSON_QUOTE(%(expressions)s))" if is_mariadb(connection) else self.template
        return super().as_sql(compiler, connection, template=template)


class _Key(Cast):
    """A text as a key of another type."""

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **context: Any) -> Any:
        """Days and moments are texts there, of which a cast would take the year."""
        if self.output_field.get_internal_type() in _DATED:
            return compile_expression(compiler, self.get_source_expressions()[0])
        return super().as_sqlite(compiler, connection, **context)
