"""`Resend`: call one receiver for the records that it never saw."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from django.db.models import Field, Model
from django.db.models.signals import m2m_changed, pre_save
from django.dispatch import Signal

from reconcile.drift import EXTRA, Drift, Written
from reconcile.errors import Fault
from reconcile.finders import Finder
from reconcile.remedies._base import Journal, Mending, Wrote
from reconcile.remedies._calling import batch_faults, blamed, called, name_of, still_drifting
from reconcile.remedies._receivers import (
    DELETES,
    SERVED,
    as_sent,
    connections_of,
    is_connected,
    links_through,
    name_of_signal,
)
from reconcile.remedies._writing_back import changes, columns_of, write_back
from reconcile.windows import Keys

__all__ = ["Resend"]


@dataclass(frozen=True)
class Resend(Mending):
    """The receiver is called once a record, with what its signal would have sent, and no other receiver is.

    The signal is the one that it is connected to, for the record's model: post_save, or pre_save, or m2m_changed
    for the rows of a many-to-many field. What a pre_save receiver changed on a record is written, those columns
    alone. It may be `async`. Errors are those of `Call`. Three statements, and the receiver's own for each record;
    for pre_save two, and three for each set of columns that it changed.

    signal: which one, where it is connected to several and the first of these isn't meant.
    created: what a post_save receiver is told. batch: most records in one transaction.
    """

    receiver: Any = None
    signal: Signal | None = None
    created: bool = True
    batch: int = 100

    verb: ClassVar[str] = "called"

    @property
    def chunk(self) -> int:
        """Few: each record costs the receiver's own statements, while all of them are locked."""
        return self.batch

    def faults(self, drift: Drift, finder: Finder | None) -> Iterator[Fault]:
        """What isn't a receiver of the records' model, and signals of records that are gone."""
        yield from batch_faults("Resend", self.batch)
        if not isinstance(self.created, bool):
            yield Fault("reconcile.E012", f"Resend: created= is {self.created!r}.", "Give True or False.")
        if not callable(self.receiver):
            hint = "Give the function that is connected to the signal."
            yield Fault("reconcile.E012", f"Resend: receiver= is {self.receiver!r}.", hint)
        elif self.signal is not None and self.signal not in SERVED:
            yield self._unserved_signal()
        elif drift is EXTRA:
            hint = "Use Report(), or Call(…) with a function that takes these rows."
            yield Fault("reconcile.E012", "Resend() does not mend extra drift.", hint)
        elif finder is not None:
            yield from self._connection_faults(finder.model)

    def _unserved_signal(self) -> Fault:
        said = f"Resend: signal= is {name_of_signal(self.signal)}."
        if self.signal in DELETES:
            return Fault(
                "reconcile.E012", said, "It is sent for records that are gone; these are there. Use Call(…)."
            )
        return Fault("reconcile.E012", said, f"Give {', '.join(map(name_of_signal, SERVED))}.")

    def _connection_faults(self, model: type[Model]) -> Iterator[Fault]:
        signal = self._signal(model)
        if signal is m2m_changed and len(links_through(model)) > 1:
            hint = "Use Call(…) with the function that the receiver wraps."
            said = f"Resend: {model._meta.label} holds the rows of several many-to-many fields."
            yield Fault("reconcile.E015", said, hint)
        if signal is not None:
            return
        known = ", ".join(connections_of(self.receiver)) or "no signal of a model"
        wanted = name_of_signal(self.signal) if self.signal else "post_save, pre_save or m2m_changed"
        said = f"Resend: {name_of(self.receiver)} is connected to {known}; not to {wanted} of {model._meta.label}."
        hint = "Write the rule over a model that it is connected to, or use Call(…) with the function that it wraps."
        yield Fault("reconcile.E012", said, hint)

    def _signal(self, model: type[Model]) -> Signal | None:
        """The signal that reaches the receiver from `model`; None where none does."""
        candidates = SERVED if self.signal is None else (self.signal,)
        return next((each for each in candidates if is_connected(self.receiver, each, model)), None)

    def planned(self, finder: Finder, drifted: int) -> Written:
        """One call a record; of a pre_save receiver, one update."""
        planned = Written()
        planned.add("update" if self._signal(finder.model) is pre_save else self.verb, drifted)
        return planned

    def write(self, finder: Finder, keys: Keys, journal: Journal) -> Wrote:
        """Call the receiver for the records of `keys` that drift still."""
        model, using = finder.model, finder.using
        signal = self._signal(model)
        if signal is None:
            raise TypeError(f"{name_of(self.receiver)} is not connected to {model._meta.label} any more.")
        related = links_through(model)[0].m2m_field_name() if signal is m2m_changed else ""
        records = still_drifting(finder, keys, with_related=related)
        if not records:
            return Wrote()
        drifted = [record.pk for record in records]
        arguments = as_sent(signal, model, using=using, created=self.created)
        if signal is pre_save:
            sent = [arguments(each) for each in records]
            return Wrote.of("update", self._save(records, sent, journal, finder), keys=drifted)
        noted = journal.handed_over(self.verb, model, Keys(drifted))
        with blamed(self.receiver, using):
            for record in records:
                called(self.receiver, **arguments(record))
        return Wrote.of(self.verb, noted, keys=drifted)

    def _save(
        self, records: Sequence[Any], sent: Sequence[dict[str, Any]], journal: Journal, finder: Finder
    ) -> int:
        """Call the pre_save receiver, and write what it changed on the records."""
        changed: dict[tuple[Field[Any, Any], ...], list[Any]] = defaultdict(list)
        with blamed(self.receiver, finder.using):
            for record, arguments in zip(records, sent, strict=True):
                before = columns_of(record)
                called(self.receiver, **arguments)
                changed[changes(record, before)].append(record)
            changed.pop((), None)
            return sum(
                write_back(finder.model, fields, group, journal, using=finder.using)
                for fields, group in changed.items()
            )
