"""The act itself: one key, put to each of the rule's finders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Any

from django.db.models import Model, Q, QuerySet
from django.db.models.sql.where import AND, WhereNode

from reconcile.checking import evaluated
from reconcile.drift import EXTRA, Written
from reconcile.finders import Finder, Source
from reconcile.judging._keys import located
from reconcile.judging._rows import Wanted, linked_rows, new_rows, row, wanted_values
from reconcile.judging._values import Judgement, Row, State, Subject, Verdict
from reconcile.rules import Rule
from reconcile.sql.expressions import pinned_queryset
from reconcile.sql.wording import queryset_in_words
from reconcile.windows import Keys

__all__ = ["judge"]


def judge(rule: Rule, key: str, *, using: str, now: datetime) -> Judgement:
    """How the record, or the extra row, of this key stands under `rule` on the database `using`.

    A few statements for each kind of drift, all by key. Raises UsageError where `key` can't be a key or there is
    no such record, and EvaluationError where the database can't answer.
    """
    with evaluated(using):
        source = rule.compile(using=using, now=now).source
        # A young record is judged as if it were old, to say what will be found once it is.
        finders = rule.must.finders(replace(source, settled=Q()))
        models = dict.fromkeys([source.model, *(each.model for each in finders)])
        found = located(models, key, using=using)
        return Judgement(
            rule=rule.name,
            using=using,
            key=key,
            sentence=rule.sentence,
            guarantee=rule.guarantee(using),
            settles=rule.settle is not None,
            subjects=tuple(_subject(rule, source, model, each, finders) for model, each in found.items()),
        )


def _subject(rule: Rule, source: Source, model: type[Model], key: Any, finders: Sequence[Finder]) -> Subject:
    scope = Keys([key])
    of_model = [each for each in finders if each.model is model]
    is_record = model is source.model
    named = key in source.owing(scope).values_list("pk", flat=True) if is_record else None
    until = _young_until(rule, source, key) if named else None
    wanted = wanted_values(of_model, scope)
    judged = bool(named)
    rows, more = (
        linked_rows(finders, scope, wanted, using=source.using, judged=judged) if is_record else ((), 0)
    )
    return Subject(
        row=row(model, key, finders, wanted, using=source.using, judged=judged),
        named=named,
        unmet=tuple(_unmet(source, key)) if named is False else (),
        young_until=until,
        linked=rows,
        more=more,
        verdicts=tuple(_verdict(rule, each, key, wanted, young=until is not None) for each in of_model),
    )


def _verdict(rule: Rule, finder: Finder, key: Any, wanted: Wanted, *, young: bool) -> Verdict:
    remedy = rule.remedy(finder.drift)
    drifts = key in finder.keys(Keys([key]))
    state: State = "fine"
    would = Written()
    owed: tuple[Row, ...] = ()
    if drifts:
        state = "young" if young and finder.drift is not EXTRA else "drifted"
        would = remedy.planned(finder, 1)
        owed = new_rows(finder.insertion, Keys([key])) if finder.insertion is not None else ()
        if remedy.verb == "insert" and finder.insertion is not None:
            would = remedy.planned(finder, len(owed))
        if remedy.verb == "update" and finder.correction is not None:
            would = remedy.planned(finder, len(wanted[finder.correction.model]))
    return Verdict(drift=finder.drift, state=state, remedy=type(remedy).__name__, would=would, owed=owed)


def _young_until(rule: Rule, source: Source, key: Any) -> date | None:
    """When the record will be old enough; None where it is."""
    scope = Keys([key])
    if rule.settle is None or key in source.records(scope).values_list("pk", flat=True):
        return None
    made: date | None = source.owing(scope).values_list(rule.settle.column, flat=True).first()
    return made + rule.settle.age if made is not None else None


def _unmet(source: Source, key: Any) -> Iterator[str]:
    """The conditions of `every` that aren't true of the record, each in words.

    One by one where they are about one table; where the filter joins, all of them together.
    """
    for part in _parts(pinned_queryset(source.every, source.now)):
        rows = part.using(source.using).filter(Keys([key]).on("pk"))
        if key not in rows.values_list("pk", flat=True):
            yield queryset_in_words(part)


def _parts(every: QuerySet[Any]) -> Iterator[QuerySet[Any]]:
    query = every.query
    tables = [alias for alias in query.alias_map if query.alias_refcount.get(alias)]
    if len(tables) > 1 or query.where.negated or query.where.connector != AND:
        yield every
        return
    for child in query.where.children:
        part = every.all()
        part.query.where = WhereNode([child])
        yield part
