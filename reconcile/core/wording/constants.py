"""Constants in words: each as Python writes it, or as people do where that is as plain; a choice with its label behind."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from django.db.models import NOT_PROVIDED, Field, FloatField, Model
from django.utils.functional import Promise

from reconcile.db.django_compat import flat_choices

__all__ = ["constant_in_words", "field_in_words"]

_MANY = 20
"""Of more constants in a list only the first and the last are named."""
_BARE = (date, datetime, time, timedelta, Decimal, UUID)


def constant_in_words(value: Any, field: Field[Any, Any] | None = None) -> str:
    """`'A' (active)`, `7`, `NULL`, `['x', 'y']`: a constant that a column, if one is given, is compared with or gets."""
    if isinstance(value, list | tuple | set | frozenset) or _is_view(value):
        return _list_in_words(value, field)
    text = _plain(value, field)
    label = _label(value, field)
    return f"{text} ({label})" if label else text


def _is_view(value: Any) -> bool:
    return isinstance(value, Collection) and not isinstance(value, str | bytes | bytearray | dict)


def _list_in_words(values: Collection[Any], field: Field[Any, Any] | None) -> str:
    texts = [constant_in_words(each, field) for each in values]
    if isinstance(values, set | frozenset):
        # A set has another order in each process; a sentence has one.
        texts.sort()
    if len(texts) > _MANY:
        mark = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:8]
        texts = [*texts[:3], f"… {len(texts):,} values in all (sha256 {mark}…)", texts[-1]]
    return f"[{', '.join(texts)}]"


def _plain(value: Any, field: Field[Any, Any] | None) -> str:
    if isinstance(value, Enum):
        value = value.value
    if value is None:
        return "NULL"
    if isinstance(value, Model):
        value = value.pk
    if isinstance(value, str | Promise):
        return repr(str(value))
    if isinstance(value, float) and not isinstance(field, FloatField):
        # 0.1 is another number than the decimal 0.1, and databases know it.
        return f"float({value!r})"
    if isinstance(value, memoryview | bytearray):
        value = bytes(value)
    if isinstance(value, _BARE):
        return str(value)
    return repr(value)


def _label(value: Any, field: Field[Any, Any] | None) -> str:
    """What people are shown for a choice; empty where it says no more than the value."""
    given = value.value if isinstance(value, Enum) else value
    label = next((str(label) for choice, label in flat_choices(field) if choice == given), "")
    return "" if label.casefold() == str(given).casefold() else label


def field_in_words(field: Field[Any, Any]) -> str:
    """A type as models spell it: `DecimalField(max_digits=8, decimal_places=2)`."""
    _, path, args, options = field.deconstruct()
    given = [repr(each) for each in args]
    given += [f"{name}={value!r}" for name, value in options.items() if value is not NOT_PROVIDED]
    return f"{path.rpartition('.')[2]}({', '.join(given)})"
