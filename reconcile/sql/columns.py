"""What a column holds, by the type that it has in the database."""

from __future__ import annotations

from typing import Any

from django.db.models import Field, Model

__all__ = ["INTEGERS", "TEXTS", "inherited", "is_text", "stored_field"]

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


def inherited(model: type[Model]) -> list[str]:
    """A column of each other table that a row of the model is spread over, so that a SELECT of them reads all of it.

    Keys and what links the tables are none: the ORM takes them from the row's own table.
    """
    own = (
        next(
            (
                each.name
                for each in parent._meta.local_concrete_fields
                if each.remote_field is None and not each.primary_key
            ),
            "",
        )
        for parent in (model._meta.concrete_model or model)._meta.get_parent_list()
    )
    return [name for name in own if name]
