"""What SQLite spells in words of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from django.db.models import DecimalField, Field

from reconcile.db.dialects.forms import Forms, ImageColumn
from reconcile.db.django_compat import SQL, connect, driver_connection
from reconcile.db.placeholders import one_parameter

__all__ = ["SQLiteForms"]

_UNHEX = "RECONCILE_UNHEX"


class SQLiteForms(Forms):
    """Texts are bytes, unless a column says otherwise; a column holds a value of any type."""

    title = "SQLite"
    differs = "{lhs} IS NOT {rhs}"
    differs_as_text = "{lhs} COLLATE BINARY IS NOT {rhs}"
    same_text = "{lhs} COLLATE BINARY = {rhs}"
    prefix_of = "SUBSTR({rhs}, 1, LENGTH({lhs})) = {lhs} COLLATE BINARY"
    exact_collated_text = "{text} COLLATE BINARY"

    keeps_decimals_as_floats = True
    keeps_times_as_texts = True
    casts_strictly = False
    strict_kinds = {
        "integer": "CAST({text} AS REAL) BETWEEN -9.2e18 AND 9.2e18",
        "number": "1 = 1",
        "date": "date({text}, '+0 days') IS {text}",
        "time": "date(substr({text}, 1, 10), '+0 days') IS substr({text}, 1, 10) AND time({text}) IS NOT NULL",
        "time of day": "time({text}) IS NOT NULL",
    }
    # A path that is none is one of the few things that SQLite takes for an error.
    refuse_cast = "json_extract('{{}}', 'no {kind}: ' || {text})"

    def difference(self, field: Field[Any, Any]) -> str:
        """Decimals are kept as floats, so their difference has digits that no decimal has."""
        if isinstance(field, DecimalField):
            return f"ROUND({{lhs}} - {{rhs}}, {field.decimal_places})"
        return super().difference(field)

    def number(self, value: Any) -> Any:
        """A float: it is compared with one."""
        return float(value)

    def whole_number(self) -> str:
        """The integer, but for a number beyond 64 bits, which stays the fraction that it is: a cast would give the largest integer."""
        return "CASE WHEN {number} > -9.2e18 AND {number} < 9.2e18 THEN CAST({number} AS INTEGER) ELSE {number} END"

    def prefix_range(self) -> str:
        """LIKE takes a letter for its capital, so the range goes from the capitals, which come first, to the small ones."""
        # No byte of a text is FF.
        return "{lhs} >= UPPER({rhs}) AND {lhs} < LOWER({rhs}) || CAST(x'FF' AS TEXT)"

    def among(
        self, keys: Any, *, integers: bool, prepare: Callable[[Iterable[Any]], list[Any]]
    ) -> SQL | None:
        """As one JSON document: a statement may have only so many parameters."""
        as_json = one_parameter(keys, lambda each: json.dumps(prepare(each), default=str))
        return "IN (SELECT value FROM json_each(%s))", (as_json,)

    def key_of_integer(self) -> str:
        """A cast takes whatever number a text begins with, and never fails."""
        return "CAST({text} AS INTEGER)"

    def key_of_uuid(self) -> str:
        """Its 32 digits."""
        return "REPLACE({text}, '-', '')"

    def element(self, column: ImageColumn) -> str:
        """By the type of the value, since a column holds any. JSON has no bytes, and no NUL can be read back out of it.

        Note [Exact reals on SQLite]: its JSON functions write 15 digits of a real number, which loses 0.1 + 0.2. QUOTE() writes as
        many as it takes, and only infinity, which JSON doesn't have, is a number that overflows.
        """
        if column.is_bytes:
            # HEX() makes an empty text of NULL.
            return "CASE WHEN {value} IS NOT NULL THEN HEX({value}) END"
        return (
            "JSON(CASE WHEN TYPEOF({value}) = 'integer' THEN {value} WHEN {value} = 9e999 THEN '9e999' "
            "WHEN {value} = -9e999 THEN '-9e999' WHEN TYPEOF({value}) = 'real' THEN QUOTE({value}) "
            "WHEN INSTR({value}, CHAR(0)) > 0 OR TYPEOF({value}) = 'blob' "
            "THEN JSON_OBJECT(TYPEOF({value}), HEX({value})) ELSE JSON_QUOTE({value}) END)"
        )

    def value_from_element(self, column: ImageColumn) -> str:
        """Hexadecimal needs a function of Python's: SQLite has none before 3.41."""
        connect(self.connection)
        driver_connection(self.connection).create_function(_UNHEX, 2, _unhex, deterministic=True)
        found = "JSON_EXTRACT({image}, {path})"
        if column.is_bytes:
            return f"{_UNHEX}('blob', {found})"
        return (
            f"CASE JSON_TYPE({{image}}, {{path}}) WHEN 'object' THEN {_UNHEX}('', {found}) ELSE {found} END"
        )

    def merged(self, number: int) -> str:
        """json_patch() would drop what is null; text surgery keeps it: '{' + '…' + ',' + '…' + '}'."""
        inner = " || ',' || ".join(
            f"SUBSTR({{o{each}}}, 2, LENGTH({{o{each}}}) - 2)" for each in range(number)
        )
        return f"('{{{{' || {inner} || '}}}}')"

    def image_columns(self) -> str:
        """Their keys."""
        return "(SELECT JSON_GROUP_ARRAY(key) FROM JSON_EACH({image}))"

    def analyze_all(self) -> str:
        """Of all tables."""
        return "ANALYZE"

    def throwaway_name(self, alias: str, token: str, test_name: str) -> str:
        """One in memory, which all threads share."""
        return f"file:fixtures_{alias}_{token}?mode=memory&cache=shared"


def _unhex(kind: str, held: Any) -> Any:
    """The bytes, or the text, that an element holds as hexadecimal: `{"text": "…"}`, or bare for a column of bytes."""
    if held is None:
        return None
    if not kind:
        [(kind, held)] = json.loads(held).items()
    value = bytes.fromhex(held)
    return value if kind == "blob" else value.decode()
