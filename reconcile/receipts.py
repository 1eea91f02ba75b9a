"""Receipts: that an effect outside the database, a mail or a webhook, was done for a record.

    from reconcile import receipts

    receipts.record("welcome-mail", user)
    receipts.record("welcome-mail", User, keys=[17, 18])
    receipts.forget("welcome-mail", User.objects.filter(bounced=True))

They lie in the database of the records that they speak of. What a rule makes of them is in
`effects.have_receipt`; promises, and what becomes of them, are for `remedies.enqueue`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from django.core.exceptions import ValidationError
from django.db import Error, connections, router
from django.db.models import CharField, CompositePrimaryKey, DateTimeField, Exists, F, Field, Model, OuterRef, Q, QuerySet, Subquery, Value
from django.utils import timezone

from reconcile.errors import UsageError
from reconcile.models import Receipt
from reconcile.sql.dialects import dialect_of
from reconcile.sql.expressions import joins_to_many
from reconcile.sql.lookups import Same
from reconcile.sql.statements import insert_select, replace_select
from reconcile.sql.texts import AsText
from reconcile.windows import Keys

__all__ = ["LONGEST_KEY", "LONGEST_NAME", "PROMISE", "forget", "forsake", "label_of", "of_record", "promise", "record", "sent"]

PROMISE = timedelta(minutes=10)
"""How long a promise counts: whoever made it and hasn't sent by then, is dead."""

LONGEST_NAME = 100
LONGEST_KEY = 255
"""Characters that the table holds."""

_BLOCK = 5_000
"""Keys that one statement takes."""

_TRIES, _PAUSE = 5, 0.05
"""How often a statement is tried that the database gave up beside another, and the seconds in between at most."""

_Rows = QuerySet[Any, Any]
_NAMES = ("name", "model", "key", "state", "recorded_at")
_UNIQUE = ("name", "model", "key")


def record(name: str, objects: Any, *, keys: Iterable[Any] | None = None, using: str | None = None) -> int:
    """Note that the effect `name` was done for `objects`; for how many it hadn't been noted yet.

    objects: a record, an iterable of records (of several models, if you like), a queryset, or a model with `keys`.
    using: alias of the database; that of the records unless given.

    A promise becomes done, and what is done stays as it was: calling it twice changes nothing. Records that don't
    exist get no receipt. One statement for a queryset, else one for each model and 5,000 records; on MariaDB and
    MySQL two. It may be called inside a transaction and beside other callers. Raises UsageError for what is no record.
    """
    _examine(name)
    return sum(_record(name, rows) for rows in _each(objects, keys, using))


def forget(name: str, objects: Any, *, keys: Iterable[Any] | None = None, using: str | None = None) -> int:
    """Take receipts back, so that the effect is owed again; how many there were.

    Takes what `record` takes. Forget before you delete a record: afterwards it can't be found. One statement
    for a queryset and one more for each 5,000 receipts. Raises UsageError for what is no record.
    """
    _examine(name)
    return sum(_forget(name, rows) for rows in _each(objects, keys, using))


def label_of(model: type[Model]) -> str:
    """The label that receipts of `model` have: a proxy's are those of its table."""
    label: str = (model._meta.concrete_model or model)._meta.label
    return label


def of_record(name: str, model: type[Model], using: str, key: str = "pk") -> _Rows:
    """The receipt for the record of the outer query, which is one of `model` with its key at the path `key`."""
    text = AsText(OuterRef(key), field=model._meta.pk)
    return _named(name, model, using).filter(Same(F("key"), text, field=_field("key")))


def promise(name: str, records: _Rows, void: Q) -> list[tuple[Any, int]]:
    """Promise the effect for those of `records` that have no receipt that counts; their keys, and the receipts' numbers.

    `void` is true of a receipt that doesn't count. Four statements, five where old receipts count no more. The caller has locked the records, holds a
    transaction, and has to call `sent` or `forsake` after it.
    """
    model, using = records.model, records.db
    owing = Keys(list(records.order_by("pk").values_list("pk", flat=True)))
    if not owing.values:
        return []
    records = model._base_manager.using(using).filter(owing.on("pk"))
    mine = {"state": Receipt.State.PROMISED, "recorded_at": timezone.now()}
    old = of_record(name, model, using).filter(void)
    numbers = [*records.filter(Exists(old)).annotate(_receipt=_number(old)).values_list("_receipt", flat=True)]
    if numbers:
        _every(using).filter(Keys(numbers).on("pk")).filter(void).update(**mine)
    insert_select(
        Receipt, _fields(), _selected(name, records.filter(~Exists(of_record(name, model, using))), **mine)
    )
    promised = of_record(name, model, using).filter(**mine)
    found = records.filter(Exists(promised)).annotate(_receipt=_number(promised)).order_by("pk")
    return [*found.values_list("pk", "_receipt")]


def sent(numbers: Sequence[int], *, using: str) -> None:
    """Note that what was promised by these receipts is on its way; what is done already stays done. One statement."""
    _promised(numbers, using).update(state=Receipt.State.SENT, recorded_at=timezone.now())


def forsake(numbers: Sequence[int], *, using: str) -> None:
    """Take promises back that could not be kept, so that the effect is owed again. One statement."""
    _promised(numbers, using)._raw_delete(using)


def _record(name: str, rows: _Rows) -> int:
    now = timezone.now()
    done = of_record(name, rows.model, rows.db).filter(state=Receipt.State.DONE)
    selected = _selected(name, rows.filter(~Exists(done)), state=Receipt.State.DONE, recorded_at=now)
    written = _patiently(rows.db, lambda: replace_select(Receipt, _fields(), selected, unique=_UNIQUE))
    if connections[rows.db].vendor != "mysql":
        return written
    # Its count of affected rows takes those that were left alone, too; ours are known by their moment.
    return rows.filter(Exists(done.filter(recorded_at=now))).count()


def _forget(name: str, rows: _Rows) -> int:
    keys = rows.order_by().annotate(_key=AsText(F("pk"), field=rows.model._meta.pk)).values("_key")
    # Their numbers are read first: MySQL's DELETE would look at all receipts of this name, one by one.
    found = [*_named(name, rows.model, rows.db).filter(key__in=keys).order_by("pk").values_list("pk", flat=True)]
    every = _every(rows.db)
    blocks = (found[start : start + _BLOCK] for start in range(0, len(found), _BLOCK))
    return sum(every.filter(Keys(block).on("pk"))._raw_delete(rows.db) for block in blocks)


def _patiently(using: str, act: Callable[[], int]) -> int:
    """Do `act`, again if the database gave it up beside another session; inside a transaction that is the caller's."""
    for _ in range(_TRIES - 1):
        try:
            return act()
        except Error as error:
            if connections[using].in_atomic_block or not dialect_of(using).is_transient(error):
                raise
        time.sleep(random.uniform(0, _PAUSE))  # noqa: S311
    return act()


def _selected(name: str, rows: _Rows, *, state: str, recorded_at: datetime) -> _Rows:
    """A receipt for each of `rows`, in key order, so that two callers wait for each other and don't deadlock."""
    columns = {
        "name": Value(name, output_field=CharField()),
        "model": Value(label_of(rows.model), output_field=CharField()),
        "key": AsText(F("pk"), field=rows.model._meta.pk),
        "state": Value(str(state), output_field=CharField()),
        "recorded_at": Value(recorded_at, output_field=DateTimeField()),
    }
    aliased = {f"_receipt_{column}": value for column, value in columns.items()}
    selected: _Rows = rows.order_by("pk").annotate(**aliased).values_list(*aliased)
    return selected


def _number(receipts: _Rows) -> Subquery:
    return Subquery(receipts.values("pk")[:1])


def _named(name: str, model: type[Model], using: str) -> _Rows:
    return _every(using).filter(name=name, model=label_of(model))


def _promised(numbers: Sequence[int], using: str) -> _Rows:
    return _every(using).filter(Keys(list(numbers)).on("pk")).filter(state=Receipt.State.PROMISED)


def _every(using: str) -> _Rows:
    return Receipt._base_manager.using(using).order_by()


def _fields() -> list[Field[Any, Any]]:
    return [_field(name) for name in _NAMES]


def _field(name: str) -> Field[Any, Any]:
    return next(each for each in Receipt._meta.concrete_fields if each.name == name)


def _examine(name: Any) -> None:
    if not (isinstance(name, str) and 0 < len(name) <= LONGEST_NAME):
        raise UsageError(f"Receipt {name!r} has no name. Give a text of 1 to {LONGEST_NAME} characters.")


def _each(objects: Any, keys: Iterable[Any] | None, using: str | None) -> Iterator[_Rows]:
    """The records, as querysets that one statement takes, each record once."""
    for rows in _querysets(objects, keys, using):
        if isinstance(rows.model._meta.pk, CompositePrimaryKey):
            raise UsageError(f"{rows.model._meta.label} has a composite primary key, which receipts don't serve.")
        yield rows


def _querysets(objects: Any, keys: Iterable[Any] | None, using: str | None) -> Iterator[_Rows]:
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


def _of_queryset(rows: _Rows, using: str | None) -> Iterator[_Rows]:
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


def _of_instances(objects: Any, using: str | None) -> Iterator[_Rows]:
    if not isinstance(objects, Iterable) or isinstance(objects, str | bytes):
        raise UsageError(f"{objects!r} is no record. Give a record, several, a queryset, or a model with keys=[…].")
    groups: dict[tuple[type[Model], str], list[Any]] = {}
    for each in objects:
        if not isinstance(each, Model) or each.pk is None:
            raise UsageError(f"{each!r} is no saved record. Give a model with keys=[…] where you have keys alone.")
        alias = using or each._state.db or router.db_for_write(type(each))
        groups.setdefault((each._meta.concrete_model or type(each), alias), []).append(each.pk)
    for (model, alias), keys in groups.items():
        yield from _by_keys(model, keys, alias)


def _by_keys(model: type[Model], keys: Iterable[Any], using: str) -> Iterator[_Rows]:
    try:
        known = iter(dict.fromkeys(model._meta.pk.to_python(key) for key in keys))
    except (ValidationError, TypeError) as error:
        raise UsageError(f"A key can't be one of {model._meta.label}: {error}.") from None
    while block := list(islice(known, _BLOCK)):
        yield model._base_manager.using(using).filter(Keys(block).on("pk"))
