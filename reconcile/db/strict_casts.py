"""Casts of texts that are none of what they are cast to: an error everywhere, as on PostgreSQL.

SQLite and MariaDB make 0 of `abc`, the largest integer of twenty nines, and NULL or a day that isn't there of 30 February. A rule would
write that, and verify it.
"""

from __future__ import annotations

from typing import Any

from django.db.models import (
    DateField,
    DateTimeField,
    DecimalField,
    Field,
    FloatField,
    Func,
    IntegerField,
    TimeField,
    Value,
)
from django.db.models.functions import Cast

from reconcile.db.columns import is_text
from reconcile.db.dialects import forms_of, spell
from reconcile.db.django_compat import SQL, BaseDatabaseWrapper, SQLCompiler, compile_expression

__all__ = ["StrictCast"]

_SPACE = "[ ]*"
_DAY = "[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}"
_HOUR = "[0-9]{{2}}:[0-9]{{2}}(:[0-9]{{2}}([.][0-9]+)?)?"
_KINDS: tuple[tuple[type[Field[Any, Any]], str, str], ...] = (
    (IntegerField, "integer", f"^{_SPACE}[-+]?[0-9]+{_SPACE}$"),
    (DecimalField, "number", f"^{_SPACE}[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]+)?{_SPACE}$"),
    (FloatField, "number", f"^{_SPACE}[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]+)?{_SPACE}$"),
    (DateTimeField, "time", f"^{_DAY}[ T]{_HOUR}$"),
    (DateField, "date", f"^{_DAY}$"),
    (TimeField, "time of day", f"^{_HOUR}$"),
)
"""For each kind of column the pattern of its texts, with braces doubled as in a form; what is inside may still be out of range."""


class _PlainCast(Cast):
    """The cast in a strict one, which `improves` knows by its class."""


class StrictCast(Func):
    """Django's `Cast`; but a text that isn't one of the type is an error of the record, which names the text."""

    def __init__(self, text: Any, output_field: Field[Any, Any]) -> None:
        super().__init__(_PlainCast(text, output_field), output_field=output_field)

    @classmethod
    def improves(cls, node: Any) -> bool:
        """Whether it is a cast of something that the database computes."""
        return type(node) is Cast and not isinstance(node.get_source_expressions()[0], Value)

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any
    ) -> SQL:
        (cast,) = self.get_source_expressions()
        (text,) = cast.get_source_expressions()
        sql, params = compile_expression(compiler, cast)
        forms, (kind, pattern) = forms_of(connection), _kind(text, self.output_field)
        if forms.casts_strictly or not kind:
            return sql, tuple(params)
        source = compile_expression(compiler, text)
        # Cast as well, since the case has the type of both; and with the text in it once, as in the cast.
        refused = spell(forms.refuse_cast, kind=(kind, ()), text=source)[0]
        return spell(
            f"CASE WHEN {{text}} REGEXP '{pattern}' AND {{fits}} THEN {{cast}} WHEN {{text}} IS NOT NULL THEN {{refused}} END",
            text=source,
            fits=spell(forms.strict_kinds[kind], text=source),
            cast=(sql, params),
            refused=(sql.replace(source[0], refused, 1), params),
        )


def _kind(text: Any, target: Field[Any, Any]) -> tuple[str, str]:
    """The word for what the text must be, and its pattern; empty for what is no text, or is cast to anything else."""
    if not is_text(text.output_field):
        return "", ""
    matching = (each[1:] for each in _KINDS if isinstance(target, each[0]))
    return next(matching, ("", ""))
