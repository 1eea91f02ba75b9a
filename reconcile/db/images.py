"""Images: a row's columns as a JSON object that the database makes, and how a value is read back from it.

Both directions are lossless: what `value_from_image` reads is stored again as it was, to the byte. Integers and booleans are
themselves, texts and documents are texts, bytes are hexadecimal; of anything else an image holds the text that the
database itself reads back (on SQLite the value as it is stored, whatever the column was declared as).

Note [Exact reals on SQLite]: its JSON functions write 15 digits of a real number, which loses 0.1 + 0.2. QUOTE() writes as
many as it takes, and only infinity, which JSON doesn't have, is a number that overflows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, cast

from django.db.models import BinaryField, BooleanField, Expression, F, Field, Func, JSONField, TextField
from django.db.models.functions import JSONObject

from reconcile.db.columns import INTEGERS, TEXTS, stored_field
from reconcile.db.dialects import ImageColumn, forms_of, spell
from reconcile.db.django_compat import SQL, BaseDatabaseWrapper, SQLCompiler, cast_type, compile_expression

__all__ = ["Columns", "SameImage", "image", "is_writable", "value_from_image"]

_BYTES = ("bytea", "blob", "binary")
"""What the declared types of bytes have in their names."""

_PAIRS = 40
"""Columns in one JSON object; the databases' functions take about 100 arguments."""

_ITSELF = INTEGERS | {"BooleanField"}
"""Kinds of columns whose values JSON has."""

_INTEGRAL = re.compile(r"((small|big)?(int|serial)|integer|bool(ean)?)(?![\w\[])")
_TEXTUAL = re.compile(r"((var)?char|character|citext|text)(?![\w\[])")
"""Declared types that PostgreSQL's integers and booleans have, and its texts; fields of these names may have others."""


def image(
    fields: Sequence[Field[Any, Any]], source: Callable[[Field[Any, Any]], Any] | None = None
) -> Expression:
    """The row's columns, by attname, as a JSON object. The same fields in the same order give comparable images.

    source: the expression whose value is taken for a column's, in place of the column itself.
    """
    groups = [fields[start : start + _PAIRS] for start in range(0, len(fields), _PAIRS)]
    objects = [
        JSONObject(**{field.attname: _Element(field, source(field) if source else None) for field in group})
        for group in groups
    ]
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

    def _column(self, connection: BaseDatabaseWrapper) -> ImageColumn:
        kind, declared = str(self.stored.get_internal_type()), str(self.stored.db_type(connection))
        small = declared.lower()
        return ImageColumn(
            attname=self.attname,
            kind=kind,
            declared=declared,
            cast=cast_type(self.stored, connection),
            is_bytes=isinstance(self.stored, BinaryField) or any(each in small for each in _BYTES),
            is_integral=kind in _ITSELF and bool(_INTEGRAL.match(small)),
            is_textual=kind in TEXTS and bool(_TEXTUAL.match(small)),
        )


class _Element(_OfField):
    """A column's value as an element of an image."""

    def __init__(self, field: Field[Any, Any], source: Any = None) -> None:
        super().__init__(F(field.attname) if source is None else source, field)

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any
    ) -> SQL:
        value = compile_expression(compiler, self.get_source_expressions()[0])
        return spell(forms_of(connection).element(self._column(connection)), value=value)


class _Imaged(_OfField):
    """An element of an image as the column's value."""

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any
    ) -> SQL:
        return spell(
            forms_of(connection).value_from_element(self._column(connection)),
            image=compiler.compile(self.get_source_expressions()[0]),
            name=("%s", (self.attname,)),
            path=("%s", (f'$."{self.attname}"',)),
        )


class Columns(Func):
    """The names of an image's columns, as a JSON array; in the order in which the image has them, if it has one."""

    output_field = JSONField()

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any
    ) -> SQL:
        image_sql = compile_expression(compiler, self.get_source_expressions()[0])
        return spell(forms_of(connection).image_columns(), image=image_sql)


class SameImage(Func):
    """Whether two images say the same of the same columns; false if one is NULL."""

    output_field = BooleanField()

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any
    ) -> SQL:
        one, other = (compile_expression(compiler, each) for each in self.get_source_expressions())
        return spell(forms_of(connection).same_image(), one=one, other=other)


class _Merged(Func):
    """Several JSON objects as one."""

    output_field = JSONField()

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any
    ) -> SQL:
        objects = [compiler.compile(each) for each in self.get_source_expressions()]
        return spell(
            forms_of(connection).merged(len(objects)), **{f"o{n}": each for n, each in enumerate(objects)}
        )


def _stored_type(field: Field[Any, Any]) -> Field[Any, Any]:
    """The field whose type the column has, also of one that the database computes."""
    computed = None if is_writable(field) else getattr(field, "output_field", None)
    return stored_field(cast("Field[Any, Any]", computed or field))
