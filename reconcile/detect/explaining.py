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
from reconcile.kinds import ConstraintAdvice
from reconcile.rules.rule import Rule
from reconcile.rules.settle import Settle

__all__ = ["SYMBOLIC", "SYMBOLS", "Explanation", "Part", "explain"]

SYMBOLS = (Symbol(":after"), Symbol(":upto"))
SYMBOLIC = Window(*SYMBOLS)
"""Any window: for statements that are printed or examined, and never run."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One kind of drift of a rule, and the statement that finds it.

    windows: whether it is read in windows, of which `sql` is the first, or the whole table in one statement.
    sql: None if no row can ever drift, or where Python reads the records and the finder shows no statement.
    keys_from_python: only Python can tell which of the rows that `sql` reads drift.
    """

    drift: Drift
    remedy: str
    windows: bool
    needs_python: bool
    sql: str | None
    plan: str
    unindexed: tuple[MissingIndex, ...]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What a rule means on one database.

    lift: the unique constraint that would lift it; None if none is needed, or its effect can't tell.
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
        )


def _part(rule: Rule, finder: Finder, window: Window, indexes: Indexes) -> Part:
    rows = finder.reads(window if finder.in_windows else EVERYTHING)
    rows = None if rows is None else rows.values("pk")
    sql = None if rows is None else statement_text(rows)
    return Part(
        drift=finder.drift,
        remedy=type(rule.remedy(finder.drift)).__name__,
        windows=finder.in_windows,
        needs_python=finder.needs_python,
        sql=sql,
        plan=rows.explain() if rows is not None and sql else "",
        unindexed=tuple(_find_missing_indexes(finder, indexes)) if sql else (),
    )


def _find_missing_indexes(finder: Finder, indexes: Indexes) -> Iterator[MissingIndex]:
    rows = finder.reads(SYMBOLIC if finder.in_windows else EVERYTHING)
    for link in links_of(rows.values("pk")) if rows is not None else ():
        missing = indexes.missing(link)
        if missing is not None:
            yield missing
