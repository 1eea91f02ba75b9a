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
    IntegerField,
    TimeField,
    Value,
)
from django.db.models.functions import Cast

from reconcile.db.columns import is_text
from reconcile.db.django_compat import SQL, BaseDatabaseWrapper, SQLCompiler, compile_expression

__all__ = ["StrictCast"]

_SPACE = "[ ]*"
_DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_HOUR = "[0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]+)?)?"
_KINDS: tuple[tuple[type[Field[Any, Any]], str, str], ...] = (
    (IntegerField, "integer", f"^{_SPACE}[-+]?[0-9]+{_SPACE}$"),
    (DecimalField, "number", f"^{_SPACE}[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]+)?{_SPACE}$"),
    (FloatField, "number", f"^{_SPACE}[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]+)?{_SPACE}$"),
    (DateTimeField, "time", f"^{_DAY}[ T]{_HOUR}$"),
    (DateField, "date", f"^{_DAY}$"),
    (TimeField, "time of day", f"^{_HOUR}$"),
)
"""For each kind of column the pattern of its texts; what is inside may still be out of range."""

_FITS_SQLITE = {
    "integer": "CAST({sql} AS REAL) BETWEEN -9.2e18 AND 9.2e18",
    "number": "1 = 1",
    "date": "date({sql}, '+0 days') IS {sql}",
    "time": "date(substr({sql}, 1, 10), '+0 days') IS substr({sql}, 1, 10) AND time({sql}) IS NOT NULL",
    "time of day": "time({sql}) IS NOT NULL",
}
_FITS_MYSQL = {
    "integer": "CAST({sql} AS DECIMAL(65)) BETWEEN -9223372036854775808 AND 9223372036854775807",
    "number": "1 = 1",
    "date": "CAST({sql} AS DATE) IS NOT NULL",
    "time": "CAST({sql} AS DATETIME) IS NOT NULL",
    "time of day": "CAST({sql} AS TIME) IS NOT NULL",
}


class StrictCast(Cast):
    """Django's `Cast`; but a text that isn't one of the type is an error of the record, which names the text."""

    @classmethod
    def improves(cls, node: Any) -> bool:
        """Whether it is a cast of something that the database computes."""
        return type(node) is Cast and not isinstance(node.get_source_expressions()[0], Value)

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **extra: Any) -> SQL:
        # A path that is none is one of the few things that SQLite takes for an error.
        refuse = "json_extract('{{}}', 'no {kind}: ' || {sql})"
        return self._strict(compiler, super().as_sqlite(compiler, connection, **extra), _FITS_SQLITE, refuse)

    def as_mysql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **extra: Any) -> SQL:
        # Too large for a double, whatever the text: the server's message has the expression.
        refuse = "EXP(99999 + CHAR_LENGTH(CONCAT('no {kind}: ', {sql})))"
        return self._strict(compiler, super().as_mysql(compiler, connection, **extra), _FITS_MYSQL, refuse)

    def _strict(self, compiler: SQLCompiler, cast: Any, fits: dict[str, str], refuse: str) -> SQL:
        sql, params = cast
        kind, pattern = self._kind()
        if not kind:
            return sql, tuple(params)
        source, more = compile_expression(compiler, self.get_source_expressions()[0])
        test = f"{source} REGEXP '{pattern}' AND {fits[kind].format(sql=source)}"
        # Cast as well, since the case has the type of both.
        refused = sql.replace(source, refuse.format(kind=kind, sql=source), 1)
        strict = f"CASE WHEN {test} THEN {sql} WHEN {source} IS NOT NULL THEN {refused} END"
        return strict, (*more * test.count(source), *params, *more, *params)

    def _kind(self) -> tuple[str, str]:
        """The word for what the text must be, and its pattern; empty for what is no text, or is cast to anything else."""
        if not is_text(self.get_source_expressions()[0].output_field):
            return "", ""
        matching = (each[1:] for each in _KINDS if isinstance(self.output_field, each[0]))
        return next(matching, ("", ""))
