"""The culprit: what the drifted records of a rule have in common, and its clean ones don't. Reads only.

A sample of the drifted records and one of the others are read, and Python counts in both what may set a record apart: a value, a
day, an hour, a range of keys or of times. The G-test tells what is over-represented, and when nothing is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db.models import CompositePrimaryKey

from reconcile.conf import lock_wait
from reconcile.core.drift import EXTRA, Drift
from reconcile.core.finder import Finder
from reconcile.db.columns import concrete_model
from reconcile.db.dialects import dialect_of
from reconcile.db.expressions import Column
from reconcile.detect.checking import RuleCheck, evaluation_errors
from reconcile.detect.culprit.sampling import DRIFTED as KEPT, Samples, read_samples
from reconcile.detect.culprit.scoring import FEWEST, Clue, clues_in
from reconcile.detect.culprit.traits import observed_columns
from reconcile.detect.examining import Examination, examine
from reconcile.errors import EvaluationError
from reconcile.rules.invalid import InvalidRule
from reconcile.rules.rule import Rule

__all__ = ["KEPT", "Clue", "Culprit", "as_plain", "find_culprits", "from_plain", "written_columns"]


@dataclass(frozen=True, kw_only=True)
class Culprit:
    """What sets the records of one kind of drift apart; nothing stands out if there are no clues.

    clues: the strongest first. drifted, others: how many of each were compared. number: how many drift. model: of the rows that were compared. why_not: why nothing was
    compared, as a sentence; empty if it was. unread: names of columns that could not be read.
    """

    drift: Drift
    number: int
    model: str = ""
    clues: tuple[Clue, ...] = ()
    drifted: int = 0
    others: int = 0
    why_not: str = ""
    unread: tuple[str, ...] = ()

    @property
    def sentences(self) -> Iterator[str]:
        """What every report says of it."""
        if self.why_not:
            yield self.why_not
        elif not self.clues:
            yield f"Nothing stands out among {self._compared}."
        else:
            yield from (f"{clue}." for clue in self.clues)
            if self.drifted < self.number:
                yield f"A sample: {self._compared}."
        if self.unread:
            yield f"Not compared, since what stands in them can't be read: {', '.join(self.unread)}."

    @property
    def _compared(self) -> str:
        of = f" of the {self.number:,}" if self.drifted < self.number else ""
        return f"{self.drifted:,}{of} {_named(self.drift)}, compared with {self.others:,} that {'is' if self.others == 1 else 'are'} as it must be"


def _named(drift: Drift) -> str:
    """`missing`, `stale`, `extra rows`: the records that lack a row, or rows of their own."""
    return "extra rows" if drift is EXTRA else str(drift)


def written_columns(rules: Collection[Rule]) -> frozenset[Column]:
    """The columns that these rules set. What they hold follows from drift, and doesn't cause it.

    A rule that deletes whole rows sets none of their columns.
    """
    written: set[Column] = set()
    for rule in rules:
        if isinstance(rule, InvalidRule):
            continue
        columns = rule.must.writes(rule.model)
        by_model: dict[Any, set[str]] = {}
        for model, name in columns:
            by_model.setdefault(model, set()).add(name)
        for model, names in by_model.items():
            if not names.issuperset(each.attname for each in model._meta.concrete_fields):
                written |= {(model, name) for name in names}
    return frozenset(written)


def find_culprits(
    rule: Rule, found: RuleCheck, *, using: str, now: datetime, left_out: Collection[Column] = ()
) -> tuple[Culprit, ...]:
    """Look for what sets the drifted records apart that a check has found, for each kind of drift.

    left_out: columns that can't be the culprit, such as those that rules and receivers write. Two statements for each kind of drift;
    one more for rows that nothing owes, and one where Python tells what drifts. Reads at most 100,000 rows of each. Never raises for an error of the database: the
    culprit says why it was not found.
    """
    drifted = {drift: number for drift, number in found.tally.drifted.items() if number}
    if not drifted or found.error:
        return ()
    try:
        with (
            evaluation_errors(using),
            dialect_of(using).protect_transaction(),
            dialect_of(using).limit_lock_waits(lock_wait(), lambda: None),
            examine(rule, using=using, now=now) as examined,
        ):
            own = frozenset(left_out) | rule.must.decides(rule.model)
            return tuple(
                _look(finder, examined, found, drifted[finder.drift], own)
                for finder in examined.compiled.finders
                if finder.drift in drifted
            )
    except EvaluationError as error:
        why = f"What sets them apart could not be looked for: {error}"
        return tuple(Culprit(drift=drift, number=number, why_not=why) for drift, number in drifted.items())


def _look(
    finder: Finder, examined: Examination, found: RuleCheck, number: int, left_out: Collection[Column]
) -> Culprit:
    if number < FEWEST:
        why = f"Too few to tell what sets them apart: {number:,} {_named(finder.drift)}, and {FEWEST} are needed."
        return Culprit(drift=finder.drift, number=number, why_not=why)
    if isinstance(finder.model._meta.pk, CompositePrimaryKey):
        why = (
            f"What sets them apart is not looked for: {finder.model._meta.label} has a composite primary key."
        )
        return Culprit(drift=finder.drift, number=number, why_not=why)
    concrete = concrete_model(finder.model)
    names = {name for model, name in left_out if issubclass(concrete, model)}
    columns = observed_columns(finder.model, names - {concrete._meta.pk.attname})
    samples = read_samples(finder, examined.compiled.source, columns, found, number)
    drifted, others = samples.drifted, samples.others
    culprit = Culprit(
        drift=finder.drift,
        number=number,
        model=concrete._meta.label,
        drifted=len(drifted),
        others=len(others),
        unread=samples.unread,
    )
    if why := _why_nothing_to_compare(samples, f"{number:,} {_named(finder.drift)}"):
        return replace(culprit, why_not=why)
    clues = clues_in(samples.columns, drifted, others, f"{_named(finder.drift)}")
    return replace(culprit, clues=clues)


def _why_nothing_to_compare(samples: Samples, named: str) -> str:
    """Why nothing can set the drifted rows apart; empty if something can."""
    if not samples.columns:
        return f"Nothing can set the {named} apart: the rule decides each column, or what writes them does."
    if not samples.all_others:
        return f"Nothing can set the {named} apart: all of them drift."
    if samples.all_others < FEWEST:
        are = "row is" if samples.all_others == 1 else "rows are"
        return f"Nothing can set the {named} apart: {samples.all_others} {are} as it must be."
    if min(len(samples.others), len(samples.drifted)) < FEWEST:
        return f"What sets the {named} apart can't be told: too few of them, or of the others, are in the sample."
    return ""


def as_plain(culprit: Culprit) -> Mapping[str, Any]:
    """The culprit as values that JSON has."""
    return {
        "drift": str(culprit.drift),
        "model": culprit.model,
        "unread": list(culprit.unread),
        "clues": [
            {"column": each.column, "has": each.has, "share": each.share, "share_of_others": each.of_others, "score": each.score}
            for each in culprit.clues
        ],
        "drifted": culprit.number,
        "compared": culprit.drifted,
        "others": culprit.others,
        "why_not": culprit.why_not,
    }  # fmt: skip


def from_plain(plain: Mapping[str, Any]) -> Culprit:
    """The culprit that such values say."""
    drift = Drift(plain["drift"])
    clues = tuple(
        Clue(
            column=each["column"], has=each["has"], share=each["share"], of_others=each["share_of_others"],
            score=each["score"], rows=_named(drift),
        )
        for each in plain["clues"]
    )  # fmt: skip
    return Culprit(
        drift=drift, model=plain["model"], unread=tuple(plain["unread"]), number=plain["drifted"], clues=clues, drifted=plain["compared"], others=plain["others"], why_not=plain["why_not"]
    )  # fmt: skip
