"""Receipts: that an effect outside the database, a mail or a webhook, was done for a record.

    from reconcile import receipts

    receipts.record("welcome-mail", user)
    receipts.record("welcome-mail", User, keys=[17, 18])
    receipts.forget("welcome-mail", User.objects.filter(bounced=True))

They lie in the database of the records that they speak of. What a rule makes of them is in
`effects.have_receipt`; promises, and what becomes of them, are `remedies.enqueue`'s.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from typing import Any

from django.db import Error, connections
from django.db.models import Exists, F
from django.utils import timezone

from reconcile.errors import UsageError
from reconcile.receipts._promises import PROMISE, forsake, promise, sent
from reconcile.receipts._records import BLOCK, records_of
from reconcile.receipts._table import UNIQUE, Rows, columns, every, named, of_record, receipt, selected
from reconcile.sql.dialects import dialect_of
from reconcile.sql.statements import replace_select
from reconcile.sql.texts import AsText
from reconcile.windows import Keys

__all__ = [
    "LONGEST_KEY",
    "LONGEST_NAME",
    "PROMISE",
    "forget",
    "forsake",
    "of_record",
    "promise",
    "receipt",
    "record",
    "sent",
]

LONGEST_NAME = 100
LONGEST_KEY = 255
"""Characters that the table holds."""

_TRIES, _PAUSE = 5, 0.05
"""How often a statement is tried that the database gave up beside another, and the seconds in between at most."""


def record(name: str, objects: Any, *, keys: Iterable[Any] | None = None, using: str | None = None) -> int:
    """Note that the effect `name` was done for `objects`; for how many it hadn't been noted yet.

    objects: a record, an iterable of records (of several models, if you like), a queryset, or a model with `keys`.
    using: alias of the database; that of the records unless given.

    A promise becomes done, and what is done stays as it was: calling it twice changes nothing. Records that don't
    exist get no receipt. One statement for a queryset, else one for each model and 5,000 records; on MariaDB and
    MySQL two. It may be called inside a transaction and beside other callers. Raises UsageError for what is no record.
    """
    _examine(name)
    return sum(_record(name, rows) for rows in records_of(objects, keys, using))


def forget(name: str, objects: Any, *, keys: Iterable[Any] | None = None, using: str | None = None) -> int:
    """Take receipts back, so that the effect is owed again; how many there were.

    Takes what `record` takes. Forget before you delete a record: afterwards it can't be found. One statement
    for a queryset and one more for each 5,000 receipts. Raises UsageError for what is no record.
    """
    _examine(name)
    return sum(_forget(name, rows) for rows in records_of(objects, keys, using))


def _record(name: str, rows: Rows) -> int:
    now = timezone.now()
    done = of_record(name, rows.model, rows.db).filter(state=receipt().State.DONE)
    news = selected(name, rows.filter(~Exists(done)), state=receipt().State.DONE, recorded_at=now)
    written = _patiently(rows.db, lambda: replace_select(receipt(), columns(), news, unique=UNIQUE))
    if connections[rows.db].vendor != "mysql":
        return written
    # Its count of affected rows takes those that were left alone, too; ours are known by their moment.
    return rows.filter(Exists(done.filter(recorded_at=now))).count()


def _forget(name: str, rows: Rows) -> int:
    keys = rows.order_by().annotate(_key=AsText(F("pk"), field=rows.model._meta.pk)).values("_key")
    # Their numbers are read first: MySQL's DELETE would look at all receipts of this name, one by one.
    found = [
        *named(name, rows.model, rows.db).filter(key__in=keys).order_by("pk").values_list("pk", flat=True)
    ]
    blocks = (found[start : start + BLOCK] for start in range(0, len(found), BLOCK))
    return sum(every(rows.db).filter(Keys(block).on("pk"))._raw_delete(rows.db) for block in blocks)


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


def _examine(name: Any) -> None:
    if not (isinstance(name, str) and 0 < len(name) <= LONGEST_NAME):
        raise UsageError(f"Receipt {name!r} has no name. Give a text of 1 to {LONGEST_NAME} characters.")
