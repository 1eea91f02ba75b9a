"""`Split`: a few records go one by one, the rest as a set, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Q

from reconcile.core.declaration import condition_faults
from reconcile.core.drift import Drift
from reconcile.core.finder import Finder
from reconcile.core.scopes import EVERYTHING, Keys, Scope
from reconcile.core.verbs import Written
from reconcile.db.expressions import Column
from reconcile.db.unexecuted import first_read
from reconcile.errors import Fault, NotRepairedError
from reconcile.remedies.base import Journal, Remedy, WriteResult, WriteStep

__all__ = ["Split"]


@dataclass(frozen=True, kw_only=True)
class Split(Remedy):
    """Of the locked records of a chunk, those that meet `when` go through `each` one by one, then the others through `rest`.

    A record for which `when` is unknown, because a column is NULL, belongs to the rest. One statement says which
    records are which; then come those of `each` for each of its records, and those of `rest` once. If either
    part fails, the whole chunk is rolled back and halved.

    when: a condition over the records whose keys are found; each, rest: remedies that write, other than Split.
    """

    when: Any
    each: Any
    rest: Any

    @property
    def verbs(self) -> Sequence[str]:  # type: ignore[override]
        """Those of both parts; each part counts its rows under its own."""
        return tuple(dict.fromkeys(verb for part in self.parts for verb in getattr(part, "verbs", ())))

    @property
    def deferred(self) -> bool:  # type: ignore[override]
        """Whether one part is deferred; the other part is then verified here."""
        return bool(self.each.deferred or self.rest.deferred)

    @property
    def chunk(self) -> int | None:
        """The smaller number of keys of the two parts."""
        return min((part.chunk for part in self.parts if part.chunk is not None), default=None)

    @property
    def parts(self) -> tuple[Remedy, Remedy]:  # type: ignore[override]
        """The two remedies."""
        return self.each, self.rest

    def writes(self, finder: Finder) -> Iterable[Column]:
        """The columns that the parts write."""
        return {*self.each.writes(finder), *self.rest.writes(finder)}

    def faults(self, drift: Drift, finder: Finder | None) -> Iterator[Fault]:
        """The faults of the condition and of both parts."""
        if finder is not None:
            yield from condition_faults(finder.model, self.when, "Split(when=…)")
        for option, part in (("each", self.each), ("rest", self.rest)):
            if isinstance(part, Split):
                hint = "Write a rule for each group of records, told apart in every=."
                yield Fault("reconcile.E012", f"Split: {option}= is another Split.", hint)
            elif not isinstance(part, Remedy):
                hint = "Give a remedy, such as each=Call(…), rest=Update()."
                yield Fault("reconcile.E012", f"Split: {option}= is {part!r}.", hint)
            elif not part.repairs:
                hint = "Write two rules, told apart in every=: one of them with this remedy."
                yield Fault("reconcile.E012", f"Split: {option}= is {part!r}, which writes nothing.", hint)
            else:
                yield from part.faults(drift, finder)

    def plan(self, finder: Finder, drifted: int, scope: Scope = EVERYTHING) -> Written:
        """The rows that both parts would write. One statement over the rows in scope if anything drifts."""
        single = min(self._number(finder, scope), drifted) if drifted else 0
        each, rest = self.parts
        return each.plan(finder, single, scope) + rest.plan(finder, drifted - single, scope)

    def spell(self, finder: Finder, keys: Keys) -> Iterator[WriteStep]:
        """Which records are which, what is done for the first of those that go one by one, and for the others at once."""
        read = first_read(lambda: self._single(finder, keys), using=finder.using)
        yield WriteStep("Read which records go one by one.", read)
        single = self._single(finder, keys)
        rest = [key for key in keys.values if key not in {*single}]
        for key in single[:1]:
            yield WriteStep(f"One by one, {len(single):,} of these records. The first:")
            yield from self.each.spell(finder, Keys([key]))
        if rest:
            yield WriteStep(f"The other {len(rest):,} at once:")
            yield from self.rest.spell(finder, Keys(rest))

    def write(self, finder: Finder, keys: Keys, journal: Journal) -> WriteResult:
        """Repair the locked records of `keys`: first those of `each`, then the rest."""
        single = self._single(finder, keys)
        apart = set(single)
        rest = Keys([key for key in keys.values if key not in apart])
        parts = [(self.each, Keys([key])) for key in single] + ([(self.rest, rest)] if rest.values else [])
        done = [self._write_and_verify(part, finder, some, journal) for part, some in parts]
        return WriteResult(
            written=sum((each.written for each in done), Written()),
            waiting=[key for each in done for key in each.waiting],
            waiting_rows=sum(each.waiting_rows for each in done),
            refused={key: why for each in done for key, why in each.refused.items()},
            messages=[message for each in done for message in each.messages],
            promised=all(
                each.promised or not part.deferred for (part, _), each in zip(parts, done, strict=True)
            ),
            keys=[
                key
                for (_, some), each in zip(parts, done, strict=True)
                for key in (some.values if each.keys is None else each.keys)
            ],
        )

    def _write_and_verify(self, part: Remedy, finder: Finder, keys: Keys, journal: Journal) -> WriteResult:
        wrote = part.write(finder, keys, journal)
        # The chunk verifies all its records at once, unless some of them are mended later.
        if self.deferred and not part.deferred:
            left = {*finder.keys(keys)} - {*wrote.refused} - {*wrote.waiting}
            if len(left) > wrote.waiting_rows:
                key = min(left, key=str)
                raise NotRepairedError(
                    f"{finder.model._meta.label} {key} is still {finder.drift} after the repair."
                )
        return wrote

    def _single(self, finder: Finder, keys: Keys) -> list[Any]:
        """The keys of the records for which the condition holds, in key order."""
        records = finder.model._base_manager.using(finder.using).filter(keys.on("pk")).filter(Q(self.when))
        return list(records.order_by("pk").values_list("pk", flat=True))

    def _number(self, finder: Finder, scope: Scope) -> int:
        records = finder.model._base_manager.using(finder.using).filter(Q(self.when))
        return records.filter(pk__in=finder.find(scope).order_by().values("pk")).count()
