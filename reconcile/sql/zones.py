"""PostgreSQL's values whose text depends on the session's time zone: their text in UTC, and how that is read back."""

from __future__ import annotations

__all__ = ["from_text", "to_text"]

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
