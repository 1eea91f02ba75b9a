"""What PostgreSQL spells in words of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from reconcile.db.dialects.forms import Forms, ImageColumn
from reconcile.db.django_compat import SQL, is_utf8
from reconcile.db.placeholders import one_parameter

__all__ = ["PostgreSQLForms", "from_text", "to_text"]

_PLAIN = "({0})::text"

_MOMENT = "timestamp with time zone"

_LAST = "repeat(chr(1114111), 8)"
"""The last character that there is, which stands for none, more often than any text has it."""

_INTEGER = "^-?[0-9]{{1,19}}$"
_UUID = "^[0-9a-f]{{8}}-[0-9a-f]{{4}}-[0-9a-f]{{4}}-[0-9a-f]{{4}}-[0-9a-f]{{12}}$"
_LEAST, _MOST = -(2**63), 2**63 - 1


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
    """Template of the text of a value, `{0}`, of the declared type; any type will do. A moment in UTC, whatever the session's time zone is."""
    return _TO.get(declared, _PLAIN)


def from_text(declared: str, cast: str) -> str:
    """Template of the value whose text is `{0}`; `cast` is the type that it is cast to where no time zone matters."""
    return _FROM.get(declared, f"({{0}})::{cast}")


class PostgreSQLForms(Forms):
    """Texts are told apart to the character, unless a column has a collation of its own. Untyped parameters are texts."""

    title = "PostgreSQL"
    exact_collated_text = '{text} COLLATE "C"'
    keeps_any_date = True
    keeps_nul = False
    keeps_infinity = True

    def untyped_constant_is_text(self, kind: str) -> bool:
        """Any is."""
        return True

    def prefix_range(self) -> str:
        """By bytes, as the index orders that Django makes for patterns beside each index on a text."""
        if not is_utf8(self.connection):
            return ""
        return f"{{lhs}} ~>=~ ({{rhs}})::text AND {{lhs}} ~<=~ (({{rhs}})::text || {_LAST})"

    def among(
        self, keys: Any, *, integers: bool, prepare: Callable[[Iterable[Any]], list[Any]]
    ) -> SQL | None:
        """As an array; of integers as its text, which is one parameter to adapt, and not one for each key."""
        if integers:
            return "= ANY(%s::bigint[])", (one_parameter(keys, _array),)
        return "= ANY(%s)", (one_parameter(keys, prepare),)

    def key_of_integer(self) -> str:
        """What is no number, or beyond the largest, would be an error: the cases keep it from being cast."""
        within = f"CAST({{text}} AS numeric) BETWEEN {_LEAST} AND {_MOST}"
        return (
            f"CASE WHEN {{text}} ~ '{_INTEGER}' THEN CASE WHEN {within} THEN CAST({{text}} AS bigint) END END"
        )

    def key_of_uuid(self) -> str:
        """As its own type."""
        return f"CASE WHEN {{text}} ~ '{_UUID}' THEN CAST({{text}} AS UUID) END"

    def element(self, column: ImageColumn) -> str:
        """As text all that isn't exact in JSON."""
        if column.is_bytes:
            return "ENCODE({value}, 'hex')"
        if column.is_integral or column.is_textual:
            return "{value}"
        return to_text(column.declared).replace("{0}", "{value}")

    def value_from_element(self, column: ImageColumn) -> str:
        """A text stays one: a cast to `varchar(n)` would cut what no longer fits, where storing it fails."""
        found = "({image} ->> {name})"
        if column.is_bytes:
            return f"DECODE({found}, 'hex')"
        return found if column.is_textual else from_text(column.declared, column.cast).replace("{0}", found)

    def merged(self, number: int) -> str:
        """By jsonb's own operator."""
        return f"({' || '.join(f'{{o{each}}}' for each in range(number))})"

    def image_columns(self) -> str:
        """In no order: jsonb has its own."""
        return "(SELECT JSONB_AGG(each_key) FROM JSONB_OBJECT_KEYS({image}) AS each_key)"

    def analyze_all(self) -> str:
        """A server does so only some time later, and until then it plans for empty tables."""
        return "ANALYZE"


def _array(keys: Iterable[int]) -> str:
    return f"{{{','.join(map(str, keys))}}}"
