"""Promises: receipts of an effect that is about to be handed over."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.db.models import Exists, Q, Subquery
from django.utils import timezone

from reconcile.receipts._table import Rows, columns, every, of_record, receipt, selected
from reconcile.sql.statements import insert_select
from reconcile.windows import Keys

__all__ = ["PROMISE", "forsake", "promise", "sent"]

PROMISE = timedelta(minutes=10)
"""How long a promise counts: whoever made it and hasn't sent by then is dead."""


def promise(name: str, records: Rows, void: Q) -> list[tuple[Any, int]]:
    """Promise the effect for those of `records` that have no receipt that counts; their keys, and the receipts' numbers.

    `void` is true of a receipt that doesn't count. Four statements, five where old receipts count no more. The caller
    has locked the records, holds a transaction, and has to call `sent` or `forsake` after it.
    """
    model, using = records.model, records.db
    owing = Keys(list(records.order_by("pk").values_list("pk", flat=True)))
    if not owing.values:
        return []
    records = model._base_manager.using(using).filter(owing.on("pk"))
    mine: dict[str, Any] = {"state": receipt().State.PROMISED, "recorded_at": timezone.now()}
    old = of_record(name, model, using).filter(void)
    numbers = [
        *records.filter(Exists(old)).annotate(_receipt=_number(old)).values_list("_receipt", flat=True)
    ]
    if numbers:
        every(using).filter(Keys(numbers).on("pk")).filter(void).update(**mine)
    insert_select(
        receipt(), columns(), selected(name, records.filter(~Exists(of_record(name, model, using))), **mine)
    )
    promised = of_record(name, model, using).filter(**mine)
    found = records.filter(Exists(promised)).annotate(_receipt=_number(promised)).order_by("pk")
    return [*found.values_list("pk", "_receipt")]


def sent(numbers: Sequence[int], *, using: str) -> None:
    """Note that what was promised by these receipts is on its way; what is done already stays done. One statement."""
    _promised(numbers, using).update(state=receipt().State.SENT, recorded_at=timezone.now())


def forsake(numbers: Sequence[int], *, using: str) -> None:
    """Take promises back that could not be kept, so that the effect is owed again. One statement."""
    _promised(numbers, using)._raw_delete(using)


def _number(receipts: Rows) -> Subquery:
    return Subquery(receipts.values("pk")[:1])


def _promised(numbers: Sequence[int], using: str) -> Rows:
    return every(using).filter(Keys(list(numbers)).on("pk")).filter(state=receipt().State.PROMISED)
