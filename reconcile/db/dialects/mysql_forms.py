"""What MariaDB and MySQL spell in words of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import Field

from reconcile.db.columns import INTEGERS
from reconcile.db.dialects.forms import Forms, ImageColumn
from reconcile.db.django_compat import is_mariadb

__all__ = ["MySQLForms"]

_INTEGER = "^-?[0-9]{{1,19}}$"
_UUID = "^[0-9a-f]{{8}}-[0-9a-f]{{4}}-[0-9a-f]{{4}}-[0-9a-f]{{4}}-[0-9a-f]{{12}}$"
_LEAST, _MOST = -(2**63), 2**63 - 1
_TIMES = frozenset({"DateField", "DateTimeField", "TimeField"})


class MySQLForms(Forms):
    """A collation folds texts; as bytes they are told apart, and may come from different collations, which can't be compared otherwise."""

    title = "MariaDB"
    differs = "NOT ({lhs} <=> {rhs})"
    differs_as_text = "NOT (BINARY {lhs} <=> BINARY {rhs})"
    # The folded comparison can use the index; the exact one has the last word.
    links_as_text = "({lhs} = {rhs} AND BINARY {lhs} = BINARY {rhs})"
    same_text = "BINARY {lhs} = BINARY {rhs}"
    prefix_of = "LEFT(BINARY {rhs}, LENGTH({lhs})) = BINARY {lhs}"
    exact_text = "CAST({text} AS BINARY)"
    exact_collated_text = "CAST({text} AS BINARY)"

    most_digits = 65
    divides_integers_to_fractions = True
    counts_rows_left_alone = True
    exact_collation = "utf8mb4_bin"
    casts_strictly = False
    strict_kinds = {
        "integer": "CAST({text} AS DECIMAL(65)) BETWEEN -9223372036854775808 AND 9223372036854775807",
        "number": "1 = 1",
        "date": "CAST({text} AS DATE) IS NOT NULL",
        "time": "CAST({text} AS DATETIME) IS NOT NULL",
        "time of day": "HOUR(CAST({text} AS TIME)) < 24",
    }
    # Too large for a double, whatever the text: the server's message has the expression.
    refuse_cast = "EXP(99999 + CHAR_LENGTH(CONCAT('no {kind}: ', {text})))"

    def untyped_constant_is_text(self, kind: str) -> bool:
        """A date or a time is, when it is read back."""
        return kind in _TIMES

    def difference(self, field: Field[Any, Any]) -> str:
        """A difference of unsigned integers below 0 is an error."""
        if field.get_internal_type() in INTEGERS:
            return "(CAST({lhs} AS DECIMAL(65, 0)) - {rhs})"
        return super().difference(field)

    def concatenated(self, parts: Sequence[str]) -> str:
        """|| is OR; CONCAT_WS would make an empty text of NULL."""
        return f"(CONCAT({', '.join(parts)}))"

    def key_of_integer(self) -> str:
        """What is no number, or beyond the largest, would be an error: the cases keep it from being cast."""
        within = f"CAST({{text}} AS DECIMAL(20)) BETWEEN {_LEAST} AND {_MOST}"
        key = f"CASE WHEN {within} THEN CAST({{text}} AS SIGNED) END"
        return f"CASE WHEN {{text}} REGEXP '{_INTEGER}' THEN {key} END"

    def key_of_uuid(self) -> str:
        """As its own type where the server has one, else its 32 digits."""
        native = self.connection.features.has_native_uuid_field
        key = "CAST({text} AS UUID)" if native else "REPLACE({text}, '-', '')"
        return f"CASE WHEN {{text}} REGEXP '{_UUID}' THEN {key} END"

    def text_of_any_collation(self) -> str:
        """MariaDB compares no columns of two collations; what JSON is unquoted takes the other's, and its index."""
        return "JSON_UNQUOTE(JSON_QUOTE({text}))" if is_mariadb(self.connection) else "{text}"

    def element(self, column: ImageColumn) -> str:
        """As text all that isn't exact in JSON, documents among them: MySQL sorts the keys of what is in a document."""
        if column.is_bytes:
            return "HEX({value})"
        return "{value}" if column.is_plain else "CAST({value} AS CHAR)"

    def value_from_element(self, column: ImageColumn) -> str:
        """Unquoted, the JSON value null would be the text `null`."""
        found = "JSON_EXTRACT({image}, {path})"
        value = f"UNHEX(JSON_UNQUOTE({found}))" if column.is_bytes else f"JSON_UNQUOTE({found})"
        return f"CASE WHEN JSON_TYPE({found}) = 'NULL' THEN NULL ELSE {value} END"

    def merged(self, number: int) -> str:
        """Keys that two have would both be kept; no two objects here have one in common."""
        return f"JSON_MERGE_PRESERVE({', '.join(f'{{o{each}}}' for each in range(number))})"

    def image_columns(self) -> str:
        """In the image's order."""
        return "JSON_KEYS({image})"

    def same_image(self) -> str:
        """On MariaDB JSON is text, which a collation might fold."""
        if is_mariadb(self.connection):
            return "COALESCE(BINARY {one} = BINARY {other}, FALSE)"
        return super().same_image()
