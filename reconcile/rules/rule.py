"""`Rule`: *every X must Y*. A frozen value; building one touches nothing. Also what can be wrong with `every=`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import CompositePrimaryKey, Model, Q, QuerySet
from django.db.models.manager import BaseManager
from django.utils import timezone, translation

from reconcile.core.declaration import Place
from reconcile.core.drift import EXTRA, MISSING, STALE, Drift, Guarantee, Status, Tally
from reconcile.core.finder import Finder, Source
from reconcile.core.options import (
    Option,
    as_given,
    is_list,
    is_list_of,
    is_mapping,
    is_one_of,
    option_faults,
    or_none,
)
from reconcile.core.scopes import EVERYTHING
from reconcile.core.wording.names import model_in_words
from reconcile.core.wording.terms import queryset_in_words
from reconcile.db.columns import concrete_model
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import is_migrated, is_swapped, managers_of, ordering_of, shape_of
from reconcile.db.expressions import columns_read
from reconcile.errors import EvaluationError, Fault, nearest
from reconcile.kinds import ConstraintAdvice, Effect
from reconcile.remedies import Insert, Remedy, Report, Update
from reconcile.rules.settle import Settle
from reconcile.rules.thresholds import Tolerance, is_limit, is_tolerance, limit_of, status_of

__all__ = ["CompiledRule", "Rule", "every_faults"]


def every_faults(every: Any) -> Iterator[Fault]:
    """A fault for each reason why `every` can't be walked in key order. Costs no statement."""
    if isinstance(every, type) and issubclass(every, Model):
        model = every
    elif isinstance(every, QuerySet):
        model = every.model
        yield from _queryset_faults(every)
    else:
        is_manager = isinstance(every, BaseManager)
        hint = "Give its queryset: add .all()." if is_manager else "Give a model or a queryset."
        yield Fault("reconcile.E011", f"every= is {as_given(every)}.", hint)
        return
    if model._meta.abstract or is_swapped(model):
        hint = "Give a model that has a table of its own."
        yield Fault("reconcile.E011", f"every= is {model.__name__}, which has no table.", hint)
    elif isinstance(model._meta.pk, CompositePrimaryKey):
        hint = "Keys of several columns are not served yet."
        yield Fault("reconcile.E015", f"every= is {model._meta.label}, whose primary key is composite.", hint)


def _queryset_faults(every: QuerySet[Any]) -> Iterator[Fault]:
    shape = shape_of(every)
    walks = "a check walks all records in key order."
    keys = (
        "Its value depends on the records that are read together, and a check reads a few at a time. Filter by the keys that it finds: "
        'every=Model.objects.filter(pk__in=queryset.values("pk")).'
    )
    refusals = (
        (shape.sliced, "sliced", f"Remove the slice; {walks}"),
        (shape.ordered and not _is_ordered_by_manager(every), "ordered", f"Remove order_by(); {walks}"),
        (shape.combined, "a union, intersection or difference", "Filter with Q objects instead."),
        (shape.distinct_on, "distinct on fields", "Filter for the records that you mean."),
        (shape.locking, "locking", "Remove select_for_update(); a repair locks by itself."),
        (shape.values, "a values() queryset", "Remove values(); a check needs records."),
        (shape.grouped, "aggregated", "Filter with Exists(…) instead."),
        (shape.windowed, "with a window function", keys),
        (shape.extended, "extended by extra()", "Use expressions instead."),
    )
    for refused, what, hint in refusals:
        if refused:
            yield Fault("reconcile.E011", f"every= is {what}.", hint)


def _is_ordered_by_manager(every: QuerySet[Any]) -> bool:
    """Whether a manager of the model orders, and not whoever has written the rule: a check takes that away."""
    managers = (manager.get_queryset() for manager in managers_of(every.model))
    return any(ordering_of(each.query) == ordering_of(every.query) for each in managers if each.ordered)


_DEFAULT_REMEDIES: Mapping[Drift, Remedy] = {MISSING: Insert(), STALE: Update(), EXTRA: Report()}
MAX_DELETES = "10%"
"""What a repair may delete where the rule says nothing."""
LONGEST_NAME = 200
"""Characters that the tables of runs hold."""
_LIMIT_HINT = "Give a count of rows such as 10, or a percent such as '0.5%'."
_TOLERANCE_HINT = f"{_LIMIT_HINT} By kind of drift, it is a dictionary: {{EXTRA: 10}}."


def _is_factory(value: object) -> bool:
    """Whether it is a function, or names where one stands; nothing is imported for that."""
    return callable(value) or (
        isinstance(value, str) and (not value or bool(re.fullmatch(r"[\w.]+:[\w.]+", value)))
    )


_OPTIONS = (
    Option("settle", or_none(is_one_of(Settle)), 'Give Settle("created_at", minutes=15).'),
    Option("remedies", is_mapping, "Give a dictionary by kind of drift."),
    Option("warn_if", is_tolerance, _TOLERANCE_HINT),
    Option("error_if", is_tolerance, _TOLERANCE_HINT),
    Option("max_repairs", is_limit, _LIMIT_HINT),
    Option("max_deletes", is_limit, _LIMIT_HINT),
    Option("owner", is_one_of(str), "Give a str."),
    Option("reason", is_one_of(str), "Give a str."),
    Option("name", is_one_of(str), "Give a str."),
    Option("unattended", is_one_of(bool), "Give a bool."),
    Option("views_show_all", is_one_of(bool), "Give a bool."),
    Option("tags", is_list_of(is_one_of(str)), "Give a list of texts."),
    Option("covers", is_list_of(callable), "Give a list of functions."),
    Option("factory", _is_factory, "Give a function, or where it stands: 'tests.factories:orders'."),
    Option("databases", is_list_of(is_one_of(str)), "Give a list of aliases."),
    Option("silence", is_list_of(is_one_of(str)), 'Give a list of ids: silence=["reconcile.W002"].'),
)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Every record of `every` must `must`.

    every: a model, or a queryset without order, limit, values or locks.
    must: an effect, such as HaveRow or HaveValues.
    settle: leave young records alone.
    warn_if, error_if: how much drift is tolerated, as a count of rows or a percent of the checked records
        ('0.5%'), or as a dictionary of these by kind of drift. More than `warn_if` is a warning, more than `error_if` a failure; unless
        given, any drift fails, so does that of a kind which a dictionary doesn't name.
    max_repairs: a repair that would write more rows than this (count or percent) stops before its first write.
    max_deletes: the same for the rows that it would delete; unless given, a tenth of the checked records. A percent lets
        ten rows through in any case.
    unattended: the nightly job may repair the rule.
    views_show_all: a view or foreign table that the rule reads shows all rows, so that what isn't there is missing.
    remedies: other than the default remedy for a kind of drift.
    covers: the receivers that the rule stands in for.
    factory: makes unsaved records, on which `reconcile signals parity` shows that the rule does what these do; a function, or where it stands:
        'tests.factories:orders'.
    databases: aliases of the databases that the rule is about; unless given, each on which the router keeps the
        records' model.
    owner, tags, reason: for people, and for `--select`.
    silence: ids of warnings that are right about the rule, and not wanted.
    name: identity of the rule's history; its module and variable unless given.
    declared_at: where it stands in its file, as the registry has found it.
    """

    every: type[Model] | QuerySet[Any]
    must: Effect
    settle: Settle | None = None
    warn_if: Tolerance = None
    error_if: Tolerance = None
    max_repairs: int | str | None = None
    max_deletes: int | str | None = MAX_DELETES
    unattended: bool = False
    views_show_all: bool = False
    remedies: Mapping[Drift, Remedy] = field(default_factory=dict)
    covers: Sequence[Callable[..., Any]] = ()
    factory: Callable[[], Any] | str = ""
    databases: Sequence[str] = ()
    owner: str = ""
    tags: Sequence[str] = ()
    silence: Sequence[str] = ()
    reason: str = ""
    name: str = ""
    declared_at: Place | None = field(default=None, repr=False, compare=False)

    @property
    def queryset(self) -> QuerySet[Any]:
        """The records, as `every=` names them; for a model all, whatever its default manager hides."""
        if isinstance(self.every, QuerySet):
            return self.every
        return self.every._base_manager.all()

    @property
    def model(self) -> type[Model]:
        """The records' model."""
        return self.queryset.model

    @property
    def model_label(self) -> str:
        """`shop.Order`."""
        return self.model._meta.label

    def is_on(self, using: str) -> bool:
        """Whether the rule is about the database behind the alias `using`."""
        if self.databases:
            return using in self.databases
        return is_migrated(self.model, using)

    @property
    def sentence(self) -> str:
        """`Every order with not (status = 'draft') must have exactly 1 Invoice with order = pk`, in whichever language is in use."""
        with translation.override(None):
            which = queryset_in_words(self.queryset)
            subject = f"{model_in_words(self.model)}{f' with {which}' if which else ''}"
            return f"Every {subject} must {self.must.sentence(self.model)}."

    def remedy(self, drift: Drift) -> Remedy:
        """What a repair does about this kind of drift."""
        return self.remedies.get(drift) or self.must.remedies().get(drift) or _DEFAULT_REMEDIES[drift]

    def guarantee(self, using: str) -> Guarantee:
        """What keeps a repair and live writers apart; docs/rules.md says when which guarantee is given.

        Costs no statement, but where a constraint says how NULL counts: Django asks PostgreSQL for its version then.
        """
        if self._tables_to_lock(using):
            return Guarantee.LOCK
        guarantee = self._without_table_lock(using)
        return (
            Guarantee.REPEATABLE if guarantee is not Guarantee.CONSTRAINT and self._may_repeat else guarantee
        )

    @property
    def _may_repeat(self) -> bool:
        """Whether all that it does about drift may be done twice."""
        if not any(isinstance(each, Remedy) and each.repeatable for each in self.remedies.values()):
            return False
        repairing = [remedy for drift in self._finders_to_examine if (remedy := self.remedy(drift)).repairs]
        return all(each.repeatable for each in repairing)

    def lift(self, using: str) -> ConstraintAdvice | None:
        """The unique constraint that would lift the rule; None if none is needed, or its effect can't tell."""
        if self.guarantee(using) in {Guarantee.CONSTRAINT, Guarantee.REPEATABLE}:
            return None
        return self.must.constraint_advice(self.queryset, using)

    def _without_table_lock(self, using: str) -> Guarantee:
        """The guarantee by constraints and the locks on records alone."""
        return self.must.guarantee_over(self.queryset, using)

    def _tables_to_lock(self, using: str) -> tuple[type[Model], ...]:
        """The tables that a chunk must lock, since nothing else keeps a handler in flight from inserting its rows too.

        Only for an INSERT of its own: a function of the project's would keep live writers waiting while it works.
        """
        remedy = self.remedy(MISSING)
        if remedy.calls or not remedy.inserts:
            return ()
        if not dialect_of(using).locks_tables or self._without_table_lock(using) is Guarantee.CONSTRAINT:
            return ()
        return self.must.inserted_models()

    def status(self, tally: Tally) -> Status:
        """Whether this much drift passes, warns or fails; by kind, the worst of the kinds."""
        if not (isinstance(self.warn_if, Mapping) or isinstance(self.error_if, Mapping)):
            return status_of(tally.total, tally.checked, warn_if=self.warn_if, error_if=self.error_if)
        found = {
            status_of(
                number,
                tally.checked,
                warn_if=limit_of(self.warn_if, drift),
                error_if=limit_of(self.error_if, drift),
            )
            for drift, number in tally.drifted.items()
        }
        return next((each for each in (Status.FAIL, Status.WARN) if each in found), Status.PASS)

    def compile(self, *, using: str, now: datetime) -> CompiledRule:
        """The rule's finders for one database at one pinned moment.

        Costs a statement for each table whose constraints a finder trusts, if a schema is in use; else none.
        """
        settled = self.settle.condition(self.model, now) if self.settle else Q()
        source = Source(every=self.queryset, using=using, now=now, settled=settled)
        tables = self._tables_to_lock(using)
        finders = tuple(
            replace(each, lock=replace(each.lock, tables=tables))
            if each.drift is MISSING and tables
            else each
            for each in self.must.finders(source)
        )
        return CompiledRule(rule=self, source=source, finders=finders)

    def faults(self) -> Iterator[Fault]:
        """Everything that is wrong with the declaration, each fault with the way out. Costs no statement."""
        for fault in self._faults():
            yield Fault(fault.id, f"Rule {as_given(self.name)}: {fault.message}", fault.hint)

    def _faults(self) -> Iterator[Fault]:
        yield from option_faults(self, _OPTIONS)
        if isinstance(self.name, str) and len(self.name) > LONGEST_NAME:
            hint = f"Give it a name= of at most {LONGEST_NAME} characters."
            yield Fault("reconcile.E012", f"its name has {len(self.name)} characters.", hint)
        if isinstance(self.name, str) and not self.name.isprintable():
            hint = "Give it a name= in one line."
            yield Fault("reconcile.E012", "its name has characters that can't be printed.", hint)
        yield from self._database_faults()
        unusable = list(every_faults(self.every))
        yield from unusable
        if not isinstance(self.must, Effect):
            hint = "Give an effect: must=HaveRow(…) or must=HaveValues(…)."
            if isinstance(self.must, type) and issubclass(self.must, Effect):
                hint = f"Give one of it: must={self.must.__name__}(…)."
            yield Fault("reconcile.E012", f"must= is {as_given(self.must)}.", hint)
        elif not unusable:
            effect_faults = list(self.must.faults(self.model)) or list(self.must.faults_over(self.queryset))
            yield from effect_faults
            if isinstance(self.settle, Settle):
                yield from self.settle.faults(self.model)
            if not effect_faults:
                yield from self._insertion_faults()
                yield from self._remedy_faults()
                yield from self._deleted_row_faults()

    def _insertion_faults(self) -> Iterator[Fault]:
        """What a missing row lacks, where the rule inserts it; one that the project's code makes, or a person, is none of its business."""
        remedy = self.remedy(MISSING) if isinstance(self.remedies, Mapping) else None
        if isinstance(remedy, Remedy) and remedy.inserts:
            yield from self.must.insertion_faults()

    def rows_that_every_reads(self) -> type[Model] | None:
        """The model whose rows the rule makes and `every=` reads, so that a record leaves `every=` once it has its row.

        Its row is EXTRA then. None for any other rule. Costs no statement.
        """
        inserted = self.must.inserted_models()
        read = {model for model, _ in columns_read(self.queryset)} if inserted else set()
        read -= {concrete_model(self.model)}
        made = next((each for each in inserted if concrete_model(each) in read), None)
        return made if made is not None and EXTRA in self._finders_to_examine else None

    @cached_property
    def _finders_to_examine(self) -> Mapping[Drift, Finder]:
        """The finders by drift, for the faults of the rule, which no database is asked for."""
        source = Source(every=self.queryset, using=DEFAULT_DB_ALIAS, now=timezone.now())
        return {each.drift: each for each in self.must.finders(source)}

    def _deleted_row_faults(self) -> Iterator[Fault]:
        """A rule that would delete the rows that it has made, and make them anew."""
        if not isinstance(self.remedies, Mapping):
            return
        remedy = self.remedy(EXTRA)
        made = self.rows_that_every_reads() if isinstance(remedy, Remedy) and remedy.deletes else None
        if made is not None:
            message = f"every= reads {made._meta.label}, whose rows the rule makes: a repair would delete them, and make them anew."
            hint = f"Leave that out: every={self.model.__name__}."
            yield Fault("reconcile.E012", message, hint)

    def _remedy_faults(self) -> Iterator[Fault]:
        """A remedy for a drift that the effect never has, or that can't do anything about it."""
        if not isinstance(self.remedies, Mapping) or not self._names_remedies:
            return
        finders = self._finders_to_examine
        for drift, remedy in self.remedies.items():
            if drift not in set(Drift) or not isinstance(remedy, Remedy):
                hint = "Map MISSING, STALE or EXTRA to a remedy."
                if isinstance(remedy, type) and issubclass(remedy, Remedy):
                    hint = f"Give one of it: {remedy.__name__}(…)."
                yield Fault("reconcile.E012", f"remedies= has {as_given(drift)}: {as_given(remedy)}.", hint)
            elif drift not in finders:
                known = ", ".join(each.upper() for each in finders)
                yield Fault(
                    "reconcile.E012",
                    f"remedies= has {drift.upper()}.",
                    f"This rule finds {known or 'none'} alone.",
                )
            else:
                yield from remedy.faults(drift, finders[drift])
        for drift in finders.keys() - self.remedies.keys():
            yield from self.remedy(drift).faults(drift, finders[drift])

    @property
    def _names_remedies(self) -> bool:
        """Whether the rule or its effect names a remedy that writes; the default ones mend the drift that they are the default for."""
        return bool(self.remedies) or any(each.repairs for each in self.must.remedies().values())

    def _database_faults(self) -> Iterator[Fault]:
        known = f"The settings have {', '.join(connections)}."
        for alias in self.databases if is_list(self.databases) else ():
            if isinstance(alias, str) and alias not in connections:
                hint = nearest(alias, connections).strip() or known
                yield Fault("reconcile.E012", f"databases= has {alias!r}, which is no database.", hint)


@dataclass(frozen=True, kw_only=True)
class CompiledRule:
    """A rule with its finders, for one database at one moment."""

    rule: Rule
    source: Source
    finders: tuple[Finder, ...]

    def refuse_wrong_answers(self) -> None:
        """Raise EvaluationError if the database would answer a statement of the rule wrongly, and without an error."""
        if refusal := dialect_of(self.source.using).refuse(self.selects()):
            raise EvaluationError(refusal.reason)

    def selects(self) -> Iterator[QuerySet[Any, Any]]:
        """The SELECTs by which a check and a repair read, over all records."""
        yield self.source.records(EVERYTHING)
        for finder in self.finders:
            yield from finder.selects()
