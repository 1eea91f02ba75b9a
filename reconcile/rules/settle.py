"""`Settle`: how long records are left alone, because their effects may still be in flight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from datetime import datetime, timedelta

from django.core.exceptions import FieldError
from django.db.models import DateField, Exists, F, Model, OuterRef, Q
from django.utils import timezone

from reconcile.core.declaration import field_named, resolution_fault
from reconcile.db.expressions import joins_to_many
from reconcile.errors import Fault

__all__ = ["Settle"]


@dataclass(frozen=True)
class Settle:
    """Leave records alone until `column` is this long past: their effects may still be in flight.

    `column` is a path to a date and time; a record where it is NULL counts as settled. A path to many rows, such as
    `"history__at"`, is as young as the newest of them, and a record without any counts as settled.
    """

    column: str
    _: KW_ONLY
    minutes: float = 0
    hours: float = 0
    days: float = 0

    @property
    def age(self) -> timedelta:
        """How old a record must be."""
        return timedelta(days=self.days, hours=self.hours, minutes=self.minutes)

    def condition(self, model: type[Model], now: datetime) -> Q:
        """True of the records of `model` that are old enough."""
        if self._leads_to_many(model):
            young = model._base_manager.filter(pk=OuterRef("pk"), **{f"{self.column}__gt": now - self.age})
            return ~Q(Exists(young))
        old_enough = Q(**{f"{self.column}__lte": now - self.age})
        field = field_named(model, self.column)
        if field is not None and not field.null:
            return old_enough
        return old_enough | Q(**{f"{self.column}__isnull": True})

    def _leads_to_many(self, model: type[Model]) -> bool:
        return joins_to_many(model._base_manager.annotate(_moment=F(self.column)).query)

    def faults(self, model: type[Model]) -> Iterator[Fault]:
        """A column that isn't there or is no date, and an age that is none."""
        column = field_named(model, self.column)
        if column is not None and not isinstance(column, DateField):
            hint = "Name a column that holds a date and time."
            yield Fault("reconcile.E012", f"settle: {self.column!r} is no date.", hint)
        if self.age <= timedelta(0):
            hint = 'Give one: Settle("created_at", minutes=15).'
            yield Fault("reconcile.E012", "settle= gives no time.", hint)
        try:
            model._base_manager.filter(self.condition(model, timezone.now()))
        except FieldError as error:
            yield resolution_fault(error, "settle")
