"""The act of explaining: a rule becomes its statements, the database's plans for them, and what slows them down.

Reads only. What one record's state is, is worked out in `judging`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from reconcile.checking import evaluated
from reconcile.drift import Drift, Guarantee
from reconcile.effects import Lift
from reconcile.finders import Finder
from reconcile.rules import Rule
from reconcile.settling import Settle
from reconcile.sql.indexes import Indexes, MissingIndex
from reconcile.sql.links import links_of
from reconcile.sql.printing import Symbol, printed
from reconcile.windows import EVERYTHING, Window, walk

__all__ = ["SYMBOLIC", "SYMBOLS", "Explanation", "Part", "explain"]

SYMBOLS = (Symbol(":after"), Symbol(":upto"))
SYMBOLIC = Window(*SYMBOLS)
"""Any window: for statements that are printed or examined, and never run."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One kind of drift of a rule, and the statement that finds it.

    windows: whether it is read in windows, of which `sql` is the first, or the whole table in one statement.
    sql: None where no row can ever drift, or where Python reads the records and the finder shows no statement.
    sifted: only Python can tell which of the rows that `sql` reads drift.
    """

    drift: Drift
    remedy: str
    windows: bool
    sifted: bool
    sql: str | None
    plan: str
    unindexed: tuple[MissingIndex, ...]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What a rule means on one database.

    lift: what would lift it to guarantee A; None where it has that, or its effect can't tell.
    """

    rule: str
    using: str
    sentence: str
    reason: str
    guarantee: Guarantee
    lift: Lift | None
    settle: Settle | None
    parts: tuple[Part, ...]


def explain(rule: Rule, *, using: str, now: datetime) -> Explanation:
    """Explain a rule by the database `using`.

    Three statements for the first window; then for each kind of drift one for its plan, and one for the indexes
    of each table that it looks rows up in. Raises EvaluationError where the database can't answer.
    """
    with evaluated(using):
        compiled = rule.compile(using=using, now=now)
        window = next(walk(rule.model, using=using), EVERYTHING)
        indexes = Indexes(using)
        return Explanation(
            rule=rule.name,
            using=using,
            sentence=rule.sentence,
            reason=rule.reason,
            guarantee=rule.guarantee(using),
            lift=rule.lift(using),
            settle=rule.settle,
            parts=tuple(_part(rule, finder, window, indexes) for finder in compiled.finders),
        )


def _part(rule: Rule, finder: Finder, window: Window, indexes: Indexes) -> Part:
    rows = finder.read(window if finder.carried else EVERYTHING)
    rows = None if rows is None else rows.values("pk")
    sql = None if rows is None else printed(rows)
    return Part(
        drift=finder.drift,
        remedy=type(rule.remedy(finder.drift)).__name__,
        windows=finder.carried,
        sifted=finder.sifted is not None,
        sql=sql,
        plan=rows.explain() if rows is not None and sql else "",
        unindexed=tuple(_unindexed(finder, indexes)) if sql else (),
    )


def _unindexed(finder: Finder, indexes: Indexes) -> Iterator[MissingIndex]:
    rows = finder.read(SYMBOLIC if finder.carried else EVERYTHING)
    for link in links_of(rows.values("pk")) if rows is not None else ():
        missing = indexes.missing(link)
        if missing is not None:
            yield missing
