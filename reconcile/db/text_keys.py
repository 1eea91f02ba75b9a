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
from reconcile.db.dialects import dialect_of, forms_of, spell
from reconcile.db.django_compat import SQL, BaseDatabaseWrapper, SQLCompiler, compile_expression

__all__ = ["AsText", "EachItself", "KeyOf", "SameText", "has_key_of", "is_key", "key_from_text"]

_DASHED = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
"""Where the groups of a UUID's digits begin, and how long they are."""


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
        dashed = [each for group in groups for each in ("'-'", group)][1:]
        return forms_of(connection).concatenated(dashed), params * len(groups)


class KeyOf(Func):
    """The key of `field`'s type that a text stands for; NULL where it stands for none, never an error.

    It leads to the row through the key's index. It is not exact ('007' stands for 7), so `SameText` has the last word.
    """

    def __init__(self, expression: Any, *, field: Field[Any, Any]) -> None:
        super().__init__(expression, output_field=stored_field(field))

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any
    ) -> SQL:
        text, forms = compile_expression(compiler, self.get_source_expressions()[0]), forms_of(connection)
        integer = _kind(self.output_field) == "integer"
        return spell(forms.key_of_integer() if integer else forms.key_of_uuid(), text=text)


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
        lhs, rhs = self.process_lhs(compiler, connection), self.process_rhs(compiler, connection)
        return spell(forms_of(connection).same_text, lhs=lhs, rhs=rhs)


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

    def __init__(self, text: Any) -> None:
        super().__init__(text, output_field=TextField())

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any
    ) -> SQL:
        text = compile_expression(compiler, self.get_source_expressions()[0])
        return spell(forms_of(connection).text_of_any_collation(), text=text)


class _Key(Func):
    """A text as a key of another type."""

    def __init__(self, text: Any, key: Field[Any, Any]) -> None:
        super().__init__(text, output_field=key)

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any
    ) -> SQL:
        text, key = self.get_source_expressions()[0], self.output_field
        plain = forms_of(connection).keeps_times_as_texts and key.get_internal_type() in _DATED
        return compile_expression(compiler, text if plain else Cast(text, key))
