"""Receipts: the record that an effect outside the database, a mail or a webhook, was done.

    from reconcile import receipts

    receipts.record("welcome-mail", user)
    receipts.record("welcome-mail", User, keys=[17, 18])
    receipts.record("search", article, version=["title", "body"])
    receipts.forget("welcome-mail", User.objects.filter(bounced=True))

A receipt lies in the database of its record. The kind of rule that reads receipts is in `kinds.have_receipt`; the remedy that
makes promises and keeps them is in `remedies.enqueue`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import connections, router
from django.db.models import (
    Case,
    CharField,
    CompositePrimaryKey,
    DateTimeField,
    Exists,
    Expression,
    F,
    Field,
    Model,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    TextField,
    Value,
    When,
)
from django.db.models.functions import MD5, Cast

from reconcile.core.declaration import field_named, known_field
from reconcile.core.scopes import Keys, blocks
from reconcile.db.clock import database_now
from reconcile.db.columns import concrete_model, label_of, stored_field
from reconcile.db.comparisons import AsReadBack, Same
from reconcile.db.dialects import forms_of
from reconcile.db.django_compat import raw_delete, shape_of
from reconcile.db.expressions import joins_to_many, path_of
from reconcile.db.images import image
from reconcile.db.retry import retry
from reconcile.db.statements import insert_select, upsert_select
from reconcile.db.text_keys import AsText
from reconcile.errors import UsageError

if TYPE_CHECKING:
    from reconcile.models import Receipt

__all__ = [
    "LONGEST_KEY",
    "LONGEST_NAME",
    "PROMISE",
    "UNIQUE",
    "Rows",
    "columns",
    "every",
    "forget",
    "forsake",
    "is_of_version",
    "mark_sent",
    "of_record",
    "promise",
    "receipt",
    "receipts_of",
    "record",
    "records_of",
    "select_receipts",
    "version_names",
    "with_version",
]

Rows = QuerySet[Any, Any]
_NAMES = ("name", "model", "key", "state", "recorded_at")
_OF_VERSION = ("name", "model", "key", "recorded_at", "state", "version")
UNIQUE = ("name", "model", "key")
"""The columns that are unique together."""


def receipt() -> type[Receipt]:
    """The model. It is imported late, since rule files import this module before Django has loaded its models."""
    from reconcile.models import Receipt

    return Receipt


def of_record(name: str, model: type[Model], using: str, key: str = "pk") -> Rows:
    """The receipt for the record of the outer query, which is one of `model` with its key at the path `key`."""
    text = AsText(OuterRef(key), field=model._meta.pk)
    return receipts_of(name, model, using).filter(Same(F("key"), text, field=_field("key")))


def with_version(rows: Rows, names: Sequence[str], read: Sequence[Model] = ()) -> Rows:
    """`rows` with the version of each, which `is_of_version` compares: a hash of its columns of these names, as they are or as they were `read`."""
    if not names:
        return rows
    fields = [known_field(rows.model, name) for name in names]
    hashed = [When(pk=each.pk, then=_hash(image(fields, partial(_as_read, each)))) for each in read]
    versions: Rows = rows.alias(**{_VERSION: Case(*hashed) if hashed else _hash(image(fields))})
    return versions


def _hash(of: Expression) -> Expression:
    return MD5(Cast(of, TextField()))


def is_of_version(names: Sequence[str]) -> Q:
    """True of a receipt of the outer record's version; of every receipt if there are no names."""
    return Q(Same(F("version"), OuterRef(_VERSION), field=_field("version"))) if names else Q()


_VERSION = "_receipt_of_version"


def _as_read(record: Model, field: Field[Any, Any]) -> Any:
    value = getattr(record, field.attname)
    if hasattr(value, "resolve_expression"):
        raise UsageError(
            f"{record!r}: {field.name} is an expression. Read the record again: refresh_from_db()."
        )
    return AsReadBack(Value(value, output_field=stored_field(field)), field=field)


def select_receipts(
    name: str, rows: Rows, *, state: str, recorded_at: datetime, version: bool = False
) -> Rows:
    """Select a receipt for each of `rows`, in key order, so that two callers wait for each other and don't deadlock.

    version: whether the rows have one, which becomes the receipt's.
    """
    values: dict[str, Any] = {
        "name": Value(name, output_field=CharField()),
        "model": Value(label_of(rows.model), output_field=CharField()),
        "key": AsText(F("pk"), field=rows.model._meta.pk),
        "state": Value(str(state), output_field=CharField()),
        "recorded_at": Value(recorded_at, output_field=DateTimeField()),
        **({"version": F(_VERSION)} if version else {}),
    }
    values = {each.name: values[each.name] for each in columns(version=version)}
    aliased = {f"_receipt_{column}": value for column, value in values.items()}
    receipts: Rows = rows.order_by("pk").annotate(**aliased).values_list(*aliased)
    return receipts


def receipts_of(name: str, model: type[Model], using: str) -> Rows:
    """The receipts of the effect for records of `model`."""
    return every(using).filter(name=name, model=label_of(model))


def every(using: str) -> Rows:
    """All receipts on the database."""
    return receipt()._base_manager.using(using).order_by()


def columns(*, version: bool = False) -> list[Field[Any, Any]]:
    """The columns that a receipt is written with. The first that isn't unique decides whether it is written anew: of a version, its time."""
    return [_field(name) for name in (_OF_VERSION if version else _NAMES)]


def _field(name: str) -> Field[Any, Any]:
    return next(each for each in receipt()._meta.concrete_fields if each.name == name)


PROMISE = timedelta(minutes=10)
"""How long a promise counts. A worker that has not sent its message by then is dead."""


def promise(name: str, records: Rows, void: Q, version: Sequence[str] = ()) -> list[tuple[Any, int]]:
    """Promise the effect for the records without a receipt that counts. Returns their keys, and the ids of the receipts.

    `void` is true of a receipt that doesn't count. version: names of the columns that it depends on. Four statements, five where old
    receipts count no more. The caller has locked the records, holds a transaction, and has to call `sent` or `forsake` after it.
    """
    model, using = records.model, records.db
    owing = Keys(list(records.order_by("pk").values_list("pk", flat=True)))
    if not owing.values:
        return []
    records = with_version(model._base_manager.using(using).filter(owing.on("pk")), version)
    mine: dict[str, Any] = {"state": receipt().State.PROMISED, "recorded_at": database_now(using)}
    old = of_record(name, model, using).filter(void)
    numbers = [
        *records.filter(Exists(old)).annotate(_receipt=_number(old)).values_list("_receipt", flat=True)
    ]
    if numbers and version:
        # Each has another version; what somebody has recorded meanwhile stays.
        raw_delete(every(using).filter(Keys(numbers).on("pk"), recorded_at__lt=mine["recorded_at"]), using)
    elif numbers:
        every(using).filter(Keys(numbers).on("pk")).filter(void).update(**mine)
    unpromised = records.filter(~Exists(of_record(name, model, using)))
    news = select_receipts(name, unpromised, **mine, version=bool(version))
    insert_select(receipt(), columns(version=bool(version)), news)
    promised = of_record(name, model, using).filter(**mine)
    found = records.filter(Exists(promised)).annotate(_receipt=_number(promised)).order_by("pk")
    return [*found.values_list("pk", "_receipt")]


def mark_sent(numbers: Sequence[int], *, using: str) -> None:
    """Mark promised receipts as sent; a receipt that is done stays done. One statement."""
    _promises(numbers, using).update(state=receipt().State.SENT, recorded_at=database_now(using))


def forsake(numbers: Sequence[int], *, using: str) -> None:
    """Delete promises that could not be kept, so that the effect is owed again. One statement."""
    raw_delete(_promises(numbers, using), using)


def _number(receipts: Rows) -> Subquery:
    return Subquery(receipts.values("pk")[:1])


def _promises(numbers: Sequence[int], using: str) -> Rows:
    return every(using).filter(Keys(list(numbers)).on("pk")).filter(state=receipt().State.PROMISED)


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
        yield from _of_instances(objects, using)


def _of_queryset(rows: Rows, using: str | None) -> Iterator[Rows]:
    alias = using or rows.db
    shape = shape_of(rows)
    if shape.sliced or shape.combined or shape.distinct_on or shape.locking:
        # MySQL takes no LIMIT inside IN, and a union takes no further condition.
        yield from _by_keys(rows.model, list(rows.using(alias).values_list("pk", flat=True)), alias)
    elif joins_to_many(rows.query) or shape.grouped or shape.values:
        keys = rows.using(alias).order_by().values("pk")
        yield rows.model._base_manager.using(alias).filter(pk__in=keys)
    else:
        yield rows.using(alias).order_by()


def _of_instances(objects: Any, using: str | None) -> Iterator[Rows]:
    for (model, alias), records in _groups(objects, using).items():
        yield from _by_keys(model, [each.pk for each in records], alias)


def _groups(objects: Any, using: str | None) -> Mapping[tuple[type[Model], str], Sequence[Model]]:
    """A record, or several, by their model and database."""
    objects = [objects] if isinstance(objects, Model) else objects
    if not isinstance(objects, Iterable) or isinstance(objects, str | bytes):
        raise UsageError(
            f"{objects!r} is no record. Give a record, several, a queryset, or a model with keys=[…]."
        )
    groups: dict[tuple[type[Model], str], list[Model]] = {}
    for each in objects:
        if not isinstance(each, Model) or each.pk is None:
            raise UsageError(
                f"{each!r} is no saved record. Give a model with keys=[…] where you have keys alone."
            )
        alias = using or each._state.db or router.db_for_write(type(each))
        groups.setdefault((concrete_model(type(each)), alias), []).append(each)
    return groups


def _by_keys(model: type[Model], keys: Iterable[Any], using: str) -> Iterator[Rows]:
    try:
        known = dict.fromkeys(model._meta.pk.to_python(key) for key in keys)
    except (ValidationError, TypeError) as error:
        raise UsageError(f"A key can't be one of {model._meta.label}: {error}.") from None
    for block in blocks(known):
        yield model._base_manager.using(using).filter(Keys(block).on("pk"))


LONGEST_NAME = 100
LONGEST_KEY = 255
"""Most characters that the table stores."""


def record(
    name: str,
    objects: Any,
    *,
    keys: Iterable[Any] | None = None,
    using: str | None = None,
    version: Version = (),
) -> int:
    """Record that the effect `name` was done for `objects`. Returns the number of new receipts.

    objects: a record, an iterable of records (of several models, if you like), a queryset, or a model with `keys`.
    using: alias of the database; that of the records unless given.
    version: for a `HaveReceipt` with a version, the same columns. Of records their values are taken as they were read, in a
        statement for each 100, so that one that changed meanwhile is owed again; of a queryset or keys as they are now. Without it a
        receipt keeps the version for which it was promised.

    A promise becomes done, and what is done stays as it was: calling it twice changes nothing. Records that don't
    exist get no receipt. One statement for a queryset, else one for each model and 5,000 records; on MariaDB and
    MySQL two. It may be called inside a transaction and beside other callers. Raises UsageError for what is no record.
    """
    _examine(name)
    names = version_names(version)
    if not names or keys is not None or isinstance(objects, type | QuerySet):
        return sum(_record(name, rows, names) for rows in records_of(objects, keys, using))
    return sum(_record(name, rows, names, read) for rows, read in _as_they_were_read(objects, using))


def forget(name: str, objects: Any, *, keys: Iterable[Any] | None = None, using: str | None = None) -> int:
    """Delete receipts, so that the effect is owed again. Returns their number.

    Takes what `record` takes. Forget before you delete a record: afterwards it can't be found. One statement
    for a queryset and one more for each 5,000 receipts. Raises UsageError for what is no record.
    """
    _examine(name)
    return sum(_forget(name, rows) for rows in records_of(objects, keys, using))


Version = str | F | Iterable[str | F]


def version_names(version: Version) -> tuple[str, ...]:
    """The names of the columns. Raises UsageError for anything else."""
    given = [version] if isinstance(version, str | F) else list(version)
    names = tuple(path_of(each) if isinstance(each, F) else each for each in given)
    if not all(isinstance(each, str) and each for each in names):
        raise UsageError(f"version= is {version!r}. Give the name of a column, or several.")
    return names


_READ_AT_ONCE = 100
"""Records whose values as they were read go into one statement."""


def _as_they_were_read(objects: Any, using: str | None) -> Iterator[tuple[Rows, Sequence[Model]]]:
    """The records, as querysets that one statement takes, with the objects that their values are read from."""
    for (model, alias), records in _groups(objects, using).items():
        for some in blocks(records, _READ_AT_ONCE):
            for rows in records_of(model, [each.pk for each in some], alias):
                yield rows, some


def _record(name: str, rows: Rows, names: Sequence[str] = (), read: Sequence[Model] = ()) -> int:
    now = database_now(rows.db)
    unknown = [each for each in names if field_named(rows.model, each) is None]
    if unknown:
        raise UsageError(f"{rows.model._meta.label} has no column {unknown[0]!r} for version=.")
    rows = with_version(rows, names, read)
    done = of_record(name, rows.model, rows.db).filter(is_of_version(names), state=receipt().State.DONE)
    news = select_receipts(
        name, rows.filter(~Exists(done)), state=receipt().State.DONE, recorded_at=now, version=bool(names)
    )
    written = retry(rows.db)(upsert_select, receipt(), columns(version=bool(names)), news, unique=UNIQUE)
    if not forms_of(connections[rows.db]).counts_rows_left_alone:
        return written
    # Its count of affected rows takes those that were left alone, too; ours are known by their moment.
    return rows.filter(Exists(done.filter(recorded_at=now))).count()


def _forget(name: str, rows: Rows) -> int:
    keys = rows.order_by().annotate(_key=AsText(F("pk"), field=rows.model._meta.pk)).values("_key")
    # Their numbers are read first: MySQL's DELETE would look at all receipts of this name, one by one.
    found = [
        *receipts_of(name, rows.model, rows.db)
        .filter(key__in=keys)
        .order_by("pk")
        .values_list("pk", flat=True)
    ]
    return sum(raw_delete(every(rows.db).filter(Keys(block).on("pk")), rows.db) for block in blocks(found))


def _examine(name: Any) -> None:
    if not (isinstance(name, str) and 0 < len(name) <= LONGEST_NAME):
        raise UsageError(f"Receipt {name!r} has no name. Give a text of 1 to {LONGEST_NAME} characters.")
