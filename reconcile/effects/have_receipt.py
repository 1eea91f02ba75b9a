"""`HaveReceipt`: an effect outside the database was recorded as done, or is on its way.

MISSING is the only drift: the record has no receipt that counts. Receipts lie in the records' database.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Exists, Model, Q, QuerySet

from reconcile.declaring import Declaration
from reconcile.drift import MISSING, Drift, Guarantee
from reconcile.effects._lifting import Lift
from reconcile.errors import Fault
from reconcile.finders import Finder, Promise, Rows, Source
from reconcile.receipts import LONGEST_KEY, LONGEST_NAME, PROMISE, of_record, receipt
from reconcile.remedies import Remedy, Report
from reconcile.sql.expressions import Column
from reconcile.sql.lookups import is_text, stored_field
from reconcile.windows import Scope

__all__ = ["HaveReceipt"]


@dataclass(frozen=True)
class HaveReceipt(Declaration):
    """Every record must have a receipt of `name`: `HaveReceipt("welcome-mail")`.

    A receipt counts if the effect is done, or was sent, or was promised less than ten minutes ago.
    confirmed_within: what was sent counts for only so long; if it isn't done by then, it is owed again.
    """

    name: str
    confirmed_within: timedelta | None = None

    def faults(self, model: type[Model]) -> Iterator[Fault]:
        """A name or a time that can't be used, and keys that the table of receipts doesn't hold."""
        yield from self.option_faults()
        if not (isinstance(self.name, str) and 0 < len(self.name) <= LONGEST_NAME):
            hint = f"Give a text of 1 to {LONGEST_NAME} characters."
            yield Fault("reconcile.E012", f"HaveReceipt: its name is {self.name!r}.", hint)
        within = self.confirmed_within
        if within is not None and not (isinstance(within, timedelta) and within > timedelta(0)):
            hint = "Give a timedelta: confirmed_within=timedelta(hours=1)."
            yield Fault("reconcile.E012", f"HaveReceipt: confirmed_within= is {within!r}.", hint)
        key = stored_field(model._meta.pk)
        if is_text(key) and (key.max_length or LONGEST_KEY + 1) > LONGEST_KEY:
            said = f"HaveReceipt: keys of {model._meta.label} may have more than {LONGEST_KEY} characters."
            yield Fault("reconcile.E015", said, "Write the rule over a model with shorter keys.")

    def sentence(self, model: type[Model]) -> str:  # noqa: ARG002
        """`have a receipt of 'welcome-mail'`."""
        within = f", confirmed within {self.confirmed_within}" if self.confirmed_within else ""
        return f"have a receipt of {self.name!r}{within}"

    def guarantee(self, model: type[Model], using: str) -> Guarantee:  # noqa: ARG002
        """C: a receipt is there once, but who acts first and records later isn't kept from acting twice."""
        return "C"

    def lift(self, every: QuerySet[Any], using: str) -> Lift:  # noqa: ARG002
        """None: the effect is outside the database."""
        return Lift(
            why_not="What is done outside the database is done before a receipt can tell of it, and a receipt is "
            "unique already."
        )

    def writes(self, model: type[Model]) -> frozenset[Column]:  # noqa: ARG002
        """The receipts."""
        return frozenset((receipt(), each.attname) for each in receipt()._meta.concrete_fields)

    def remedies(self) -> Mapping[Drift, Remedy]:
        """Only the project knows how to do the effect, so MISSING is reported."""
        return {MISSING: Report()}

    def finders(self, source: Source) -> tuple[Finder, ...]:
        """One: the records without a receipt that counts."""
        counts = self._counts(source.now)

        def find(scope: Scope) -> Rows:
            receipts = of_record(self.name, source.model, source.using).filter(counts)
            return source.records(scope).filter(~Exists(receipts))

        promise = Promise(name=self.name, void=~counts)
        return (
            Finder(drift=MISSING, model=source.model, carried=False, find=find, ranged=True, promise=promise),
        )

    def _counts(self, now: datetime) -> Q:
        """True of a receipt that counts."""
        since = {} if self.confirmed_within is None else {"recorded_at__gt": now - self.confirmed_within}
        return (
            Q(state=receipt().State.DONE)
            | Q(state=receipt().State.SENT, **since)
            | Q(state=receipt().State.PROMISED, recorded_at__gt=now - PROMISE)
        )
