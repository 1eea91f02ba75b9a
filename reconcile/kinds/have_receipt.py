"""`HaveReceipt`: an effect outside the database was recorded as done, or is on its way.

MISSING is the only drift: the record has no receipt that counts. Receipts lie in the records' database.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Exists, Model, Q, QuerySet

from reconcile.core.declaration import field_named, field_names
from reconcile.core.drift import MISSING, Drift, Guarantee
from reconcile.core.finder import Finder, OwnRangeFinder, Rows, Source
from reconcile.core.fixes import Promise
from reconcile.core.options import Option, as_given, option_faults, or_none
from reconcile.core.scopes import Scope
from reconcile.db.columns import is_text, stored_field
from reconcile.db.expressions import Column, columns_read
from reconcile.errors import Fault, Refusal, UsageError, nearest
from reconcile.kinds.base import Effect
from reconcile.kinds.uniqueness import ConstraintAdvice
from reconcile.receipts import (
    LONGEST_KEY,
    LONGEST_NAME,
    PROMISE,
    Version,
    is_of_version,
    of_record,
    receipt,
    version_names,
    with_version,
)
from reconcile.remedies import Remedy, Report

__all__ = ["HaveReceipt"]

_OPTIONS = (
    Option(
        "name",
        lambda name: isinstance(name, str) and 0 < len(name) <= LONGEST_NAME,
        f"Give a text of 1 to {LONGEST_NAME} characters.",
        subject="its name",
    ),
    Option(
        "confirmed_within",
        or_none(lambda within: isinstance(within, timedelta) and within > timedelta(0)),
        "Give a timedelta: confirmed_within=timedelta(hours=1).",
    ),
)


def _version_faults(version: Any, model: type[Model]) -> Iterator[Fault]:
    try:
        names = version_names(version)
    except (TypeError, UsageError):
        hint = 'Give the name of a column, or a list of names: version="updated_at".'
        yield Fault("reconcile.E012", f"HaveReceipt: version= is {as_given(version)}.", hint)
        return
    for name in names:
        if field_named(model, name) is None:
            hint = (
                nearest(name, field_names(model)).strip() or f"Its columns: {', '.join(field_names(model))}."
            )
            yield Fault(
                "reconcile.E013", f"HaveReceipt(version=…): {model._meta.label} has no column {name!r}.", hint
            )


@dataclass(frozen=True)
class HaveReceipt(Effect):
    """Every record must have a receipt of `name`: `HaveReceipt("welcome-mail")`.

    A receipt counts if the effect is done, or was sent, or was promised less than ten minutes ago.
    confirmed_within: what was sent counts for only so long; if it isn't done by then, it is owed again.
    version: columns of the record that the effect depends on, such as "updated_at". A record in which they have changed owes it again.
    """

    name: str
    _: KW_ONLY
    confirmed_within: timedelta | None = None
    version: Version = ()

    def faults(self, model: type[Model]) -> Iterator[Fault]:
        """A name or a time that can't be used, and keys that the table of receipts doesn't hold."""
        yield from option_faults(self, _OPTIONS, "HaveReceipt")
        yield from _version_faults(self.version, model)
        key = stored_field(model._meta.pk)
        if is_text(key) and (key.max_length or LONGEST_KEY + 1) > LONGEST_KEY:
            message = f"HaveReceipt: keys of {model._meta.label} may have more than {LONGEST_KEY} characters."
            yield Fault("reconcile.E015", message, "Write the rule over a model with shorter keys.")

    def sentence(self, model: type[Model]) -> str:  # noqa: ARG002
        """`have a receipt of 'welcome-mail'`."""
        within = f", confirmed within {self.confirmed_within}" if self.confirmed_within else ""
        of = f" for its {', '.join(version_names(self.version))} as it is now" if self.version else ""
        return f"have a receipt of {self.name!r}{of}{within}"

    def guarantee(self, model: type[Model], using: str) -> Guarantee:  # noqa: ARG002
        """LOCK: a receipt is unique, but a handler that acts first and records later may act twice."""
        return Guarantee.LOCK

    def constraint_advice(self, every: QuerySet[Any], using: str) -> ConstraintAdvice:  # noqa: ARG002
        """None: the effect is outside the database."""
        return ConstraintAdvice(
            refusal=Refusal(
                "What is done outside the database is done before a receipt can tell of it, and a receipt is unique already."
            )
        )

    def writes(self, model: type[Model]) -> frozenset[Column]:  # noqa: ARG002
        """The receipts."""
        return frozenset((receipt(), each.attname) for each in receipt()._meta.concrete_fields)

    def reads_of_others(self, every: QuerySet[Any]) -> frozenset[Column]:
        """What tells which records there are: a receipt is another row."""
        return columns_read(every)

    def constants(self) -> Mapping[Column, Any]:
        """The receipt's name."""
        return {(receipt(), "name"): self.name}

    def remedies(self) -> Mapping[Drift, Remedy]:
        """Only the project knows how to do the effect, so MISSING is reported."""
        return {MISSING: Report()}

    def finders(self, source: Source) -> tuple[Finder, ...]:
        """One: the records without a receipt that counts."""
        version = version_names(self.version)
        counts = self._counting_condition(source.now) & is_of_version(version)

        def find(scope: Scope) -> Rows:
            receipts = of_record(self.name, source.model, source.using).filter(counts)
            return with_version(source.records(scope), version).filter(~Exists(receipts))

        promise = Promise(model=source.model, name=self.name, void=~counts, version=version)
        return (
            OwnRangeFinder(drift=MISSING, model=source.model, using=source.using, query=find, fix=promise),
        )

    def _counting_condition(self, now: datetime) -> Q:
        """True of a receipt that counts."""
        since = {} if self.confirmed_within is None else {"recorded_at__gt": now - self.confirmed_within}
        return (
            Q(state=receipt().State.DONE)
            | Q(state=receipt().State.SENT, **since)
            | Q(state=receipt().State.PROMISED, recorded_at__gt=now - PROMISE)
        )
