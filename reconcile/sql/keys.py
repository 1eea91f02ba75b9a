"""Primary keys by their texts: the journal keeps each key as one, whatever its type is."""

from __future__ import annotations

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F, Func, Model, OuterRef, Q, TextField
from django.db.models.functions import Cast
from django.db.models.sql.compiler import SQLCompiler

from reconcile.sql.columns import is_text, stored_field
from reconcile.sql.dialects import dialect_of
from reconcile.sql.texts import EachItself, SameText

__all__ = ["is_key", "key_from_text"]

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
    return exactly & Q(EachItself(OuterRef("pk"))) if dialect_of(using).remembers_folded else exactly


class _TextKey(Func):
    """A text in whatever collation it is compared with."""

    template = "%(expressions)s"

    def __init__(self, text: Any) -> None:
        super().__init__(text, output_field=TextField())

    def as_mysql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any) -> Any:
        """MariaDB compares no columns of two collations; what JSON is unquoted takes the other's, and its index."""
        wrapper: Any = connection
        template = "JSON_UNQUOTE(JSON_QUOTE(%(expressions)s))" if wrapper.mysql_is_mariadb else self.template
        return super().as_sql(compiler, connection, template=template)


class _Key(Cast):
    """A text as a key of another type."""

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **context: Any) -> Any:
        """Days and moments are texts there, of which a cast would take the year."""
        if self.output_field.get_internal_type() in _DATED:
            return compiler.compile(self.get_source_expressions()[0])
        return super().as_sqlite(compiler, connection, **context)
