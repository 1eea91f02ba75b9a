"""What a column holds, by the type that it has in the database."""

from __future__ import annotations

from typing import Any

from django.db.models import Field

__all__ = ["INTEGERS", "TEXTS", "is_text", "stored_field"]

INTEGERS = frozenset(
    {
        "AutoField", "BigAutoField", "SmallAutoField", "IntegerField", "BigIntegerField", "SmallIntegerField",
        "PositiveIntegerField", "PositiveBigIntegerField", "PositiveSmallIntegerField",
    }
)  # fmt: skip
TEXTS = frozenset(
    {"CharField", "TextField", "SlugField", "EmailField", "URLField", "FileField", "FilePathField"}
)


def stored_field(field: Field[Any, Any]) -> Field[Any, Any]:
    """The field whose type the column has: for a foreign key the (last) field that it points at."""
    while field.remote_field is not None and hasattr(field, "target_field"):
        field = field.target_field
    return field


def is_text(field: Field[Any, Any]) -> bool:
    """True where the column holds characters, which a collation might fold."""
    return stored_field(field).get_internal_type() in TEXTS
