"""`Split`: the few records that need it are treated one by one, the rest as a set, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import Q

from reconcile.declaring import Declaration, condition_faults
from reconcile.drift import Drift, Written
from reconcile.errors import Fault, NotMendedError
from reconcile.finders import Finder
from reconcile.remedies._base import Journal, Remedy, Wrote
from reconcile.sql.expressions import Column
from reconcile.windows import EVERYTHING, Keys

__all__ = ["Split"]

_API = ("faults", "planned", "write", "writes", "verb", "deferred", "chunk")


@dataclass(frozen=True, kw_only=True)
class Split(Declaration):
    """Of a chunk's locked records those for which `when` holds go through `each`, one by one; then the rest, through `rest`.

    A record for which `when` is unknown, because a column is NULL, belongs to the rest. One statement says which
    records are which; then come those of `each` for each of its records, and those of `rest` once. If either
    part fails, the whole chunk is rolled back and halved.

    when: a condition over the records whose keys are found; each, rest: remedies that write, other than Split.
    """

    when: Any = None
    each: Any = None
    rest: Any = None

    @property
    def verb(self) -> str:
        """That of the first part; what was written is counted under each part's own."""
        return str(getattr(self.each, "verb", ""))

    @property
    def deferred(self) -> bool:
        """Whether one part is; the other is then verified in here."""
        return bool(self.each.deferred or self.rest.deferred)

    @property
    def chunk(self) -> int | None:
        """As many keys as the part that takes fewer."""
        return min((part.chunk for part in self.parts if part.chunk is not None), default=None)

    @property
    def parts(self) -> tuple[Remedy, Remedy]:
        """The remedies between which the records are split."""
        return self.each, self.rest

    def writes(self, finder: Finder) -> Iterable[Column]:
        """What either part writes."""
        return {*self.each.writes(finder), *self.rest.writes(finder)}

    def faults(self, drift: Drift, finder: Finder | None) -> Iterator[Fault]:
        """Those of the condition and of both parts."""
        if finder is not None:
            yield from condition_faults(finder.model, self.when, "Split(when=…)")
        for option, part in (("each", self.each), ("rest", self.rest)):
            if isinstance(part, Split):
                hint = "Write a rule for each group of records, told apart in every=."
                yield Fault("reconcile.E012", f"Split: {option}= is another Split.", hint)
            elif isinstance(part, type) or not all(hasattr(part, name) for name in _API):
                hint = "Give a remedy, such as each=Call(…), rest=Update()."
                yield Fault("reconcile.E012", f"Split: {option}= is {part!r}.", hint)
            elif not part.verb:
                hint = "Write two rules, told apart in every=: one of them with this remedy."
                yield Fault("reconcile.E012", f"Split: {option}= is {part!r}, which writes nothing.", hint)
            else:
                yield from part.option_faults() if isinstance(part, Declaration) else ()
                yield from part.faults(drift, finder)

    def planned(self, finder: Finder, drifted: int) -> Written:
        """What both parts would write. One statement over the whole table where anything has drifted."""
        single = self._number(finder) if drifted else 0
        each, rest = self.parts
        return each.planned(finder, single) + rest.planned(finder, max(drifted - single, 0))

    def write(self, finder: Finder, keys: Keys, journal: Journal) -> Wrote:
        """Treat the records of `keys`, which are locked: first those of `each`, then the rest."""
        single = self._single(finder, keys)
        apart = set(single)
        rest = Keys([key for key in keys.values if key not in apart])
        parts = [(self.each, Keys([key])) for key in single] + ([(self.rest, rest)] if rest.values else [])
        done = [self._verified(part, finder, some, journal) for part, some in parts]
        return Wrote(
            written=sum((each.written for each in done), Written()),
            busy=[key for each in done for key in each.busy],
            held=sum(each.held for each in done),
            refused={key: why for each in done for key, why in each.refused.items()},
            sending=[message for each in done for message in each.sending],
            promised=all(
                each.promised or not part.deferred for (part, _), each in zip(parts, done, strict=True)
            ),
            keys=[
                key
                for (_, some), each in zip(parts, done, strict=True)
                for key in (some.values if each.keys is None else each.keys)
            ],
        )

    def _verified(self, part: Remedy, finder: Finder, keys: Keys, journal: Journal) -> Wrote:
        wrote = part.write(finder, keys, journal)
        # The chunk verifies all its records at once, unless some of them are mended later.
        if self.deferred and not part.deferred:
            left = {*finder.keys(keys)} - {*wrote.refused} - {*wrote.busy}
            if len(left) > wrote.held:
                key = min(left, key=str)
                raise NotMendedError(
                    f"{finder.model._meta.label} {key} is still {finder.drift} after the repair."
                )
        return wrote

    def _single(self, finder: Finder, keys: Keys) -> list[Any]:
        """The keys of the records for which the condition holds, in key order."""
        records = finder.model._base_manager.using(finder.using).filter(keys.on("pk")).filter(Q(self.when))
        return list(records.order_by("pk").values_list("pk", flat=True))

    def _number(self, finder: Finder) -> int:
        records = finder.model._base_manager.using(finder.using).filter(Q(self.when))
        if finder.sifted is not None:
            return records.filter(Keys(finder.keys(EVERYTHING)).on("pk")).count()
        return records.filter(pk__in=finder.find(EVERYTHING).order_by().values("pk")).count()
