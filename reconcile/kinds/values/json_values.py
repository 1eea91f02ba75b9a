"""JSON values as Python compares and changes them: type-strict, the order of keys aside."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from django.db.models import JSONField

from reconcile.db.columns import JSON_NULL
from reconcile.db.dialects import Forms

__all__ = ["InTheWayError", "as_json", "has_value_at", "same_json", "set_value_at", "with_keys"]


class InTheWayError(ValueError):
    """A value in the JSON document is in the way of the owed one. The message says which."""


def same_json(left: Any, right: Any) -> bool:
    """Whether both are the same JSON value: True is not 1, 1 is 1.0, the order of keys doesn't count."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(
            same_json(value, right[key]) for key, value in left.items()
        )
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same_json, left, right))
    if _is_number(left) and _is_number(right):
        return bool(left == right)
    return type(left) is type(right) and bool(left == right)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def as_json(value: Any, field: JSONField, *, forms: Forms) -> Any:
    """The value as reading the column would yield it. Raises TypeError or ValueError if JSON has no such value."""
    read = json.loads(json.dumps(value, cls=field.encoder, allow_nan=False), cls=field.decoder)
    for text in _texts(read):
        text.encode()
        if not forms.keeps_nul and "\0" in text:
            raise ValueError(f"{forms.title} keeps no NUL character")
    return read


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def has_value_at(document: Any, path: Sequence[str], value: Any) -> bool:
    """Whether the document has the value at the path."""
    for key in path:
        if isinstance(document, list) and key.isdecimal() and int(key) < len(document):
            document = document[int(key)]
        elif isinstance(document, dict) and key in document:
            document = document[key]
        else:
            return False
    return same_json(document, value)


def set_value_at(document: Any, keys: Sequence[str], value: Any) -> Any:
    """A copy of the document with the value at the path. What is missing on the way, or null, becomes an object.

    Raises InTheWayError if something else than an object stands in the way.
    """
    if not keys:
        return value
    key, *rest = keys
    if document is None or document is JSON_NULL:
        document = {}
    if isinstance(document, dict):
        return {**document, key: set_value_at(document.get(key), rest, value)}
    if isinstance(document, list) and key.isdecimal() and int(key) < len(document):
        position = int(key)
        return [
            *document[:position],
            set_value_at(document[position], rest, value),
            *document[position + 1 :],
        ]
    raise InTheWayError(f"{_describe_kind(document)} stands where an object with the key {key!r} is owed")


def with_keys(document: Any, keys: Mapping[str, Any], *, exact: bool) -> Any:
    """A copy of the document with each key that it lacks; with `exact`, without others. Raises InTheWayError."""
    if document is None or document is JSON_NULL:
        document = {}
    if not isinstance(document, dict):
        raise InTheWayError(f"{_describe_kind(document)} stands where an object is owed")
    kept = {key: value for key, value in document.items() if key in keys or not exact}
    return kept | {key: value for key, value in keys.items() if key not in document}


def _describe_kind(value: Any) -> str:
    kinds = {list: "a list", str: "a text", bool: "a truth value"}
    return kinds.get(type(value), "a number")
