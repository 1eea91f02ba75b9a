"""Drafts of what saves were seen to write: what is left of the guesses, told apart by asking, with the condition under which it is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

from django.db import DatabaseError, transaction
from django.db.models import ForeignKey, Model, Q

from reconcile.audit.cost.classes import Presence
from reconcile.audit.drafts.candidates import Candidate, plural_of
from reconcile.audit.drafts.drafting import Draft, import_of
from reconcile.audit.drafts.scoring import Score, sample_of, score
from reconcile.audit.drafts.watched.guessing import Guesses, same_values
from reconcile.audit.drafts.watched.observing import MOST_SAVED, Observer, Seen, Target
from reconcile.conf import lock_wait
from reconcile.core.wording.names import plural
from reconcile.db.dialects import dialect_of

__all__ = ["Watching", "watch_saves"]

ASKED = 5
"""Rows that are saved to tell two guesses apart, for one column."""
FEWEST = 2
"""Rows that must have been seen to get the one value, for a draft to be sure."""
TRIED = 12
"""Conditions that are compared with existing rows."""
VALUES = 3
"""Different values that must have been seen, for a draft to be sure."""
SHOWN = 500
"""Keys among which a row is looked for that tells two guesses apart."""


@dataclass(kw_only=True)
class Watching:
    """What was watched. drafts: by column. unexplained: columns that saves write, and nobody knows by what expression. saves: how many were rolled back.

    faults: records whose save failed, each with the reason.
    """

    drafts: list[Draft] = field(default_factory=list)
    unexplained: list[Target] = field(default_factory=list)
    saves: int = 0
    faults: Mapping[str, str] = field(default_factory=dict)


def watch_saves(model: type[Model], using: str) -> Watching:
    """Save up to 20 records of the model again and again, after their columns and those of rows near them were disturbed, and draft what comes back.

    Each save is rolled back, locks its rows for as long as it takes, and lets nothing out; nothing is deleted, and no callback of COMMIT is run. Raises CommittedError if
    project code has ended a transaction.
    """
    observer = Observer(model, using)
    found = Watching()
    with dialect_of(using).limit_lock_waits(lock_wait(), lambda: None):
        targets = observer.targets()
        for target in targets:
            beside: Sequence[Target] = ()
            seen, guesses = _observed(observer, target, beside, using)
            fellows = [each for each in targets if each.model is target.model and each != target]
            if not any(each.written for each in seen) and target.model is not observer.model and fellows:
                beside = fellows
                seen, guesses = _observed(observer, target, beside, using)
            if any(each.written for each in seen):
                draft = _drafted(observer, target, seen, guesses, beside, using)
                if draft is None:
                    found.unexplained.append(target)
                else:
                    found.drafts.append(draft)
    found.saves, found.faults = observer.saves, observer.faults
    return found


def _observed(
    observer: Observer, target: Target, beside: Sequence[Target], using: str
) -> tuple[list[Seen], Guesses]:
    """Save record after record; give up where the first few have not written the column."""
    guesses = Guesses(target, using)
    seen: list[Seen] = []
    for number, row in enumerate(observer.rows):
        seen += observer.observe(row, target, guesses.judge, beside)
        if number >= GIVE_UP and not any(each.written for each in seen):
            break
    return seen, guesses


GIVE_UP = MOST_SAVED - 1
"""Records after which a column that none has written isn't looked at any more: they have each choice, truth and NULL among them."""


def _drafted(
    observer: Observer,
    target: Target,
    seen: list[Seen],
    guesses: Guesses,
    beside: Sequence[Target],
    using: str,
) -> Draft | None:
    keys = sample_of(target.model, using)
    left = [*(guesses.left or ())]
    if len(left) > 1:
        left = _told_apart(observer, target, guesses, keys, using)
    scores = [each for one in left if (each := _scored(one, keys, using)) is not None]
    best = max(scores, key=lambda each: each.rank, default=None)
    condition = _condition(target, seen)
    constant = guesses.constant
    if best is None or (constant is not None and best.share < LIKELY):
        seen += _more_of(observer, target, condition, guesses, beside, using)
        constant = guesses.constant
        if constant is None:
            return None
        return _draft(observer, target, constant, None, seen, _fits_data(target, constant, seen, using))
    return _draft(observer, target, best.candidate, best, seen, condition)


def _scored(each: Candidate, keys: Sequence[Any], using: str) -> Score | None:
    try:
        with transaction.atomic(using=using):
            return score(each, keys, using)
    except (DatabaseError, ArithmeticError, TypeError, ValueError):
        return None


def _told_apart(
    observer: Observer, target: Target, guesses: Guesses, keys: Sequence[Any], using: str
) -> list[Candidate]:
    """Save records of rows for which two guesses differ, until none do."""
    for _ in range(ASKED):
        left = guesses.left or []
        asked = next((row for one, other in pairwise(left) if (row := _asking(observer, target, one, other, keys, using))), None)  # fmt: skip
        if asked is None:
            break
        before = len(left)
        observer.observe(asked, target, guesses.judge)
        if len(guesses.left or ()) == before:
            break
    return guesses.left or []


def _asking(
    observer: Observer, target: Target, one: Candidate, other: Candidate, keys: Sequence[Any], using: str
) -> Model | None:
    """A record whose save writes a row for which the two differ; None if there is none."""
    try:
        with transaction.atomic(using=using):
            key = same_values(one, other, keys[:SHOWN], using)
    except (DatabaseError, ArithmeticError, TypeError, ValueError):
        return None
    rows = observer.model._base_manager.using(using)
    if key is None:
        return None
    if target.model is observer.model:
        return rows.filter(pk=key).first()
    for each in (one for one in observer.model._meta.concrete_fields if isinstance(one, ForeignKey)):
        if each.related_model is target.model and (found := rows.filter(**{each.attname: key}).first()):
            return found
    return None


def _more_of(
    observer: Observer,
    target: Target,
    condition: _Condition,
    guesses: Guesses,
    beside: Sequence[Target],
    using: str,
) -> list[Seen]:
    """What saves of other records do of the few that the condition is about, and of those that hold something else although it is: one row alone shows nothing."""
    constant = guesses.constant
    if not condition.terms or constant is None:
        return []
    rows = condition.rows(target.model, using)
    others = rows.exclude(_held(target, constant)) if constant.expected is not None else rows
    keys = [
        *rows.order_by("-pk").values_list("pk", flat=True)[:ASKED],
        *others.order_by("pk").values_list("pk", flat=True)[:ASKED],
    ]
    found: list[Seen] = []
    for row in _saved_for(observer, target, keys):
        found += observer.observe(row, target, guesses.judge, beside)
    return found


def _saved_for(observer: Observer, target: Target, keys: Sequence[Any]) -> Iterator[Model]:
    """The records whose save may write these rows: they themselves, or those that they refer to."""
    known = {each.pk for each in observer.rows}
    rows = observer.model._base_manager.using(observer.using)
    if target.model is observer.model:
        yield from rows.filter(pk__in=set(keys) - known)
        return
    for each in (one for one in target.model._meta.concrete_fields if isinstance(one, ForeignKey)):
        if each.related_model is observer.model:
            referring = target.model._base_manager.using(observer.using).filter(pk__in=keys)
            wanted = {*referring.values_list(each.attname, flat=True)} - known - {None}
            yield from rows.filter(pk__in=wanted)


def _held(target: Target, constant: Candidate) -> Q:
    """Holds for the rows in which the constant stands."""
    value = constant.expected.value
    return Q(**{f"{target.column}__isnull": True}) if value is None else Q(**{target.column: value})


# Conditions.


@dataclass(frozen=True, kw_only=True)
class _Condition:
    """Which rows are written. terms: `filter` or `exclude`, a lookup and its value, each. unsure: why that isn't known."""

    terms: tuple[tuple[str, str, Any], ...] = ()
    unsure: str = ""

    @property
    def code(self) -> str:
        """`.objects.filter(status="archived")`; empty for all rows."""
        calls = "".join(f".{verb}({name}={value!r})" for verb, name, value in self.terms).replace("'", '"')
        return f".objects{calls}" if calls else ""

    @property
    def told(self) -> str:
        """` where status = 'archived'`; empty for all rows."""
        said = [
            f"{'not ' if verb == 'exclude' else ''}{name} = {value!r}" for verb, name, value in self.terms
        ]
        return f" where {' and '.join(said)}" if said else ""

    def rows(self, model: type[Model], using: str) -> Any:
        """The rows of the model."""
        rows = model._base_manager.using(using).all()
        for verb, name, value in self.terms:
            rows = getattr(rows, verb)(**{name: value})
        return rows


def _decisive(seen: Sequence[Seen]) -> Sequence[Seen]:
    """What tells which rows are written: what a save does to its own record, if it does; others may just not be among those that it writes."""
    return (
        [each for each in seen if each.is_own] if any(each.is_own and each.written for each in seen) else seen
    )


def _condition(target: Target, seen: Sequence[Seen]) -> _Condition:
    """The simplest condition that separates the rows that were written from those that weren't; one that is unsure, if there is none."""
    decisive = _decisive(seen)
    spared = sum(not each.written for each in decisive)
    why = f"{spared:,} of {len(decisive):,} rows of {plural_of(target.model)} were not written, and no choice, truth or NULL tells which."
    return next(_conditions(seen), _Condition(unsure=why))


def _conditions(seen: Sequence[Seen]) -> Iterator[_Condition]:
    """The conditions that separate them, by one column or by two: choices first, then truths, then NULLs."""
    decisive = _decisive(seen)
    written, spared = ([each for each in decisive if each.written is wanted] for wanted in (True, False))
    if not spared:
        yield _Condition()
        return
    names = [*dict.fromkeys(name for each in seen for name in each.facts)]
    names.sort(key=lambda name: (isinstance(written[0].facts.get(name), Presence), name.count("__")))
    for name in names:
        if term := _term(name, written, spared):
            yield _Condition(terms=(term,))
    for name in names:
        have = {each.facts.get(name) for each in written}
        alike = [each for each in spared if {each.facts.get(name)} == have]
        if len(have) == 1 and len(alike) < len(spared):
            seconds = (term for one in names if one != name and (term := _term(one, written, alike)))
            yield from (_Condition(terms=(("filter", *_lookup(name, *have)), second)) for second in seconds)


def _fits_data(target: Target, constant: Candidate, seen: Sequence[Seen], using: str) -> _Condition:
    """Of the conditions the one that most existing rows agree with: under which fewest hold something else than the constant."""
    found = [*islice(_conditions(seen), TRIED)]
    return min(
        found,
        key=lambda each: _others_in_data(target, constant, each, using),
        default=_condition(target, seen),
    )


def _term(name: str, written: Sequence[Seen], spared: Sequence[Seen]) -> tuple[str, str, Any] | None:
    """The filter or exclusion by one column that separates them; None if none does."""
    have, lack = ({each.facts.get(name) for each in those} for those in (written, spared))
    if not have.isdisjoint(lack) or min(len(have), len(lack)) != 1:
        return None
    verb, values = ("filter", have) if len(have) == 1 else ("exclude", lack)
    return verb, *_lookup(name, *values)


def _lookup(name: str, value: Any) -> tuple[str, Any]:
    if isinstance(value, Presence):
        return f"{name}__isnull", value.is_null
    return name, getattr(value, "value", value)


# Drafts.


def _draft(
    observer: Observer, target: Target, candidate: Candidate, found: Score | None, seen: Sequence[Seen], condition: _Condition
) -> Draft:  # fmt: skip
    is_own = target.model is observer.model
    others = 0 if found is not None else _others_in_data(target, candidate, condition, observer.using)
    unsure = " ".join(_doubts(found, seen, condition, others))
    evidence = [_seen_in_words(observer, seen, condition)]
    if found is not None and found.looked:
        evidence.append(
            f"{found.holds:,} of {found.looked:,} {plural_of(target.model)} have {candidate.told}."
        )
    return Draft(
        model=target.model, name=target.column, every=f"{target.model.__name__}{condition.code}", must=candidate.must, column=target.column,
        imports=candidate.imports | {import_of(target.model)}, evidence=tuple(evidence), unsure=unsure, reports="STALE" if unsure else "",
        share=found.holds / found.looked if found is not None and found.looked else 1.0, writes=target.model,
        source=None if is_own else observer.model,
    )  # fmt: skip


def _seen_in_words(observer: Observer, seen: Sequence[Seen], condition: _Condition) -> str:
    written = sum(each.written for each in seen)
    spared = sum(not each.written for each in _decisive(seen))
    saves = plural_of(observer.model)
    left = f", and left {spared:,}{' that are not so' if condition.code else ''}" if spared else ""
    return f"Saves of {saves} put {written:,} disturbed {plural(written, 'row').partition(' ')[2]} right{condition.told}{left}."


def _others_in_data(target: Target, constant: Candidate, condition: _Condition, using: str) -> int:
    """How many rows that the condition is about hold something else than the constant. One statement."""
    if constant.expected is None:
        return 0
    number: int = condition.rows(target.model, using).exclude(_held(target, constant)).count()
    return number


def _doubts(found: Score | None, seen: Sequence[Seen], condition: _Condition, others: int) -> Iterator[str]:
    """What a person has to decide before the draft may repair."""
    values = {repr(each.value) for each in seen if each.written}
    is_constant = found is None
    if condition.unsure:
        yield condition.unsure
    if is_constant and not condition.code:
        yield "One value was written each time: is it always that?"
    elif is_constant and sum(each.written for each in seen) < FEWEST:
        yield "It was seen for one row alone."
    if others:
        yield f"{plural(others, 'row')} of these {'holds' if others == 1 else 'hold'} something else: bulk paths, or it is not about all of them."
    if not is_constant and len(values) < VALUES:
        yield f"Only {plural(len(values), 'value')} {'was' if len(values) == 1 else 'were'} seen."
    if found is not None and found.telling and found.share < LIKELY and not condition.code:
        yield f"It holds for {found.share:.0%} of those with something to compare: bulk paths, or it means something else."


LIKELY = 0.9
