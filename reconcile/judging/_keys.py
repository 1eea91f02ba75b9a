"""From what somebody typed to a record: which keys it can be, and where there is one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.db import connections
from django.db.models import F, Field, Model, UUIDField
from django.db.models.lookups import GreaterThan, LessThan

from reconcile.errors import UsageError
from reconcile.sql.lookups import INTEGERS, stored_field
from reconcile.windows import Keys

__all__ = ["located"]


def located(models: Iterable[type[Model]], text: str, *, using: str) -> Mapping[type[Model], Any]:
    """The models that have a row of this key, with the key as they read it. One statement a model.

    Raises UsageError where `text` can't be a key of any, and where there is no such row.
    """
    possible, refusals = {}, []
    for model in models:
        try:
            possible[model] = _key(model, text, using)
        except ValueError:
            refusals.append(f"{model._meta.label}, which is {_kind(model)}")
    if not possible:
        raise UsageError(f"{text!r} can't be a key of {' or '.join(refusals)}.")
    found = {model: key for model, key in possible.items() if _is_there(model, key, using)}
    if not found:
        labels = " and no ".join(model._meta.label for model in possible)
        raise UsageError(f"There is no {labels} with the key {text!r}.{_near(possible, using)}")
    return found


def _key(model: type[Model], text: str, using: str) -> Any:
    """`text` as the model's key; raises ValueError where it can't be one."""
    field: Field[Any, Any] = stored_field(model._meta.pk)
    kind = field.get_internal_type()
    if kind in INTEGERS:
        # Python's int() also takes 1_000 and digits of other scripts.
        if not re.fullmatch(r"-?[0-9]{1,30}", text):
            raise ValueError(text)
        least, most = connections[using].ops.integer_field_range(kind)
        if (least is not None and int(text) < least) or (most is not None and int(text) > most):
            raise ValueError(text)
    text.encode()
    if "\0" in text and connections[using].vendor == "postgresql":
        raise ValueError(text)
    try:
        key = field.to_python(text)
    except (ValidationError, ArithmeticError, TypeError) as error:
        raise ValueError(text) from error
    if key is None:
        raise ValueError(text)
    return key


def _kind(model: type[Model]) -> str:
    kind = stored_field(model._meta.pk).get_internal_type()
    return "a whole number" if kind in INTEGERS else "a UUID" if kind == "UUIDField" else f"a {kind}"


def _is_there(model: type[Model], key: Any, using: str) -> bool:
    rows = model._base_manager.using(using).filter(Keys([key]).on("pk"))
    # A collation may take another text for this one; Python doesn't.
    return key in rows.values_list("pk", flat=True)


def _near(possible: Mapping[type[Model], Any], using: str) -> str:
    """The keys around it. Of random keys none is near another."""
    said = []
    for model, key in possible.items():
        if isinstance(stored_field(model._meta.pk), UUIDField):
            continue
        keys = model._base_manager.using(using).values_list("pk", flat=True)
        below = keys.filter(LessThan(F("pk"), key)).order_by("-pk").first()
        above = keys.filter(GreaterThan(F("pk"), key)).order_by("pk").first()
        around = [str(each) for each in (below, above) if each is not None]
        said.append(
            f" Nearest in {model._meta.label}: {' and '.join(around)}."
            if around
            else f" {model._meta.label} is empty."
        )
    return "".join(said) or " `reconcile check` shows the keys that drift."
