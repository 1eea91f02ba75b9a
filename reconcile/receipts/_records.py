"""The records that a caller means, as querysets that one statement takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from django.core.exceptions import ValidationError
from django.db import router
from django.db.models import CompositePrimaryKey, Model, QuerySet

from reconcile.errors import UsageError
from reconcile.receipts._table import Rows
from reconcile.sql.expressions import joins_to_many
from reconcile.windows import Keys

__all__ = ["BLOCK", "records_of"]

BLOCK = 5_000
"""Keys that one statement takes."""


def records_of(objects: Any, keys: Iterable[Any] | None, using: str | None) -> Iterator[Rows]:
    """The records, as querysets that one statement takes, each record once."""
    for rows in _querysets(objects, keys, using):
        if isinstance(rows.model._meta.pk, CompositePrimaryKey):
            raise UsageError(
                f"{rows.model._meta.label} has a composite primary key, which receipts don't serve."
            )
        yield rows


def _querysets(objects: Any, keys: Iterable[Any] | None, using: str | None) -> Iterator[Rows]:
    if isinstance(objects, type) and issubclass(objects, Model):
        if keys is None:
            raise UsageError(f"{objects.__name__} is a model. Give keys=[…] with it, or a queryset.")
        yield from _by_keys(objects, keys, using or router.db_for_write(objects))
    elif keys is not None:
        raise UsageError(f"keys= goes with a model, not with {objects!r}.")
    elif isinstance(objects, QuerySet):
        yield from _of_queryset(objects, using)
    else:
        yield from _of_instances([objects] if isinstance(objects, Model) else objects, using)


def _of_queryset(rows: Rows, using: str | None) -> Iterator[Rows]:
    alias = using or rows.db
    query = rows.query
    if query.is_sliced or query.combinator or query.distinct_fields or query.select_for_update:
        # MySQL takes no LIMIT inside IN, and a union takes no further condition.
        yield from _by_keys(rows.model, list(rows.using(alias).values_list("pk", flat=True)), alias)
    elif joins_to_many(query) or query.group_by is not None or getattr(rows, "_fields", None) is not None:
        keys = rows.using(alias).order_by().values("pk")
        yield rows.model._base_manager.using(alias).filter(pk__in=keys)
    else:
        yield rows.using(alias).order_by()


def _of_instances(objects: Any, using: str | None) -> Iterator[Rows]:
    if not isinstance(objects, Iterable) or isinstance(objects, str | bytes):
        raise UsageError(
            f"{objects!r} is no record. Give a record, several, a queryset, or a model with keys=[…]."
        )
    groups: dict[tuple[type[Model], str], list[Any]] = {}
    for each in objects:
        if not isinstance(each, Model) or each.pk is None:
            raise UsageError(
                f"{each!r} is no saved record. Give a model with keys=[…] where you have keys alone."
            )
        alias = using or each._state.db or router.db_for_write(type(each))
        groups.setdefault((each._meta.concrete_model or type(each), alias), []).append(each.pk)
    for (model, alias), keys in groups.items():
        yield from _by_keys(model, keys, alias)


def _by_keys(model: type[Model], keys: Iterable[Any], using: str) -> Iterator[Rows]:
    try:
        known = iter(dict.fromkeys(model._meta.pk.to_python(key) for key in keys))
    except (ValidationError, TypeError) as error:
        raise UsageError(f"A key can't be one of {model._meta.label}: {error}.") from None
    while block := list(islice(known, BLOCK)):
        yield model._base_manager.using(using).filter(Keys(block).on("pk"))
