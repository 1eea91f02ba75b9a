"""Explaining a rule: its statements, the plans of the database for them, and missing indexes. Reads only.

The state of one record is in `inspecting`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from reconcile.core.drift import Drift, Guarantee
from reconcile.core.finder import Finder
from reconcile.core.scopes import EVERYTHING, Window, walk
from reconcile.db.indexes import Indexes, MissingIndex, links_of
from reconcile.db.printing import Symbol, statement_text
from reconcile.detect.checking import evaluation_errors
from reconcile.detect.examining import examine
from reconcile.detect.listing import keys_read
from reconcile.kinds import ConstraintAdvice
from reconcile.rules.rule import Rule
from reconcile.rules.settle import Settle
from reconcile.rules.unattended import unattended_refusal

__all__ = ["SYMBOLIC", "SYMBOLS", "Explanation", "Part", "explain"]

SYMBOLS = (Symbol(":after"), Symbol(":upto"))
SYMBOLIC = Window(*SYMBOLS)
"""Any window: for statements that are printed or examined, and never run."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One kind of drift of a rule, and the statement that finds it.

    windows: whether it is read in windows, of which `sql` is the first, or the whole table in one statement.
    sql: None if no row can drift (`nothing` says whether ever, or now), or where Python reads the records and the finder shows no statement.
    keys_from_python: only Python can tell which of the rows that `sql` reads drift. advice: what to do where these rows are no drift.
    """

    drift: Drift
    remedy: str
    windows: bool
    needs_python: bool
    sql: str | None
    plan: str
    unindexed: tuple[MissingIndex, ...]
    advice: str = ""
    nothing: str = "-- never any rows"


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What a rule means on one database.

    lift: the unique constraint that would lift it; None if none is needed, or its effect can't tell. in_vain: why the nightly job
    doesn't repair the rule although it is `unattended`; empty if it does, or if it isn't.
    """

    rule: str
    using: str
    sentence: str
    reason: str
    guarantee: Guarantee
    lift: ConstraintAdvice | None
    settle: Settle | None
    parts: tuple[Part, ...]
    remarks: tuple[str, ...]
    in_vain: str = ""


def explain(rule: Rule, *, using: str, now: datetime) -> Explanation:
    """Explain a rule by the database `using`.

    Three statements for the first window; then for each kind of drift one for its plan, and one for the indexes
    of each table that it looks rows up in. Raises EvaluationError if the database can't answer.
    """
    with evaluation_errors(using), examine(rule, using=using, now=now) as examined:
        window = next(walk(rule.model, using=using), EVERYTHING)
        indexes = Indexes(using)
        return Explanation(
            rule=rule.name,
            using=using,
            sentence=rule.sentence,
            reason=rule.reason,
            guarantee=examined.guarantee,
            lift=rule.lift(using),
            settle=rule.settle,
            parts=tuple(_part(rule, finder, window, indexes) for finder in examined.compiled.finders),
            remarks=examined.remarks,
            in_vain=_in_vain(rule, using),
        )


def _in_vain(rule: Rule, using: str) -> str:
    refusal = unattended_refusal(rule, using) if rule.unattended else None
    return refusal.reason if refusal else ""


def _part(rule: Rule, finder: Finder, window: Window, indexes: Indexes) -> Part:
    rows = finder.reads(window if finder.in_windows else EVERYTHING)
    rows = None if rows is None else keys_read(rows)
    sql = None if rows is None else statement_text(rows)
    return Part(
        drift=finder.drift,
        remedy=type(rule.remedy(finder.drift)).__name__,
        windows=finder.in_windows,
        needs_python=finder.needs_python,
        sql=sql,
        plan=rows.explain() if rows is not None and sql else "",
        unindexed=tuple(_find_missing_indexes(finder, indexes)) if sql else (),
        advice=finder.advice,
        nothing="-- no rows now" if finder.needs_database else "-- never any rows",
    )


def _find_missing_indexes(finder: Finder, indexes: Indexes) -> Iterator[MissingIndex]:
    rows = finder.reads(SYMBOLIC if finder.in_windows else EVERYTHING)
    for link in links_of(keys_read(rows)) if rows is not None else ():
        missing = indexes.missing(link)
        if missing is not None:
            yield missing
