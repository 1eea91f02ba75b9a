"""`Rule`: *every X must Y*. A frozen value; building one touches nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections, router
from django.db.models import Model, Q, QuerySet
from django.utils import timezone

from reconcile.declaring import Declaration
from reconcile.drift import EXTRA, MISSING, STALE, Drift, Guarantee, Status, Tally
from reconcile.effects import Effect, Lift, Liftable, OverRecords, OwesRows
from reconcile.errors import Fault, nearest
from reconcile.finders import Finder, Source
from reconcile.limits import is_limit, share
from reconcile.locking import holds
from reconcile.records import every_faults
from reconcile.remedies import Insert, Remedy, Report, Update
from reconcile.settling import Settle
from reconcile.sql.dialects import dialect_of
from reconcile.sql.wording import queryset_in_words

__all__ = ["CompiledRule", "Rule"]

_DEFAULT_REMEDIES: Mapping[Drift, Remedy] = {MISSING: Insert(), STALE: Update(), EXTRA: Report()}
MAX_DELETES = "10%"
"""What a repair may delete where the rule says nothing."""
LONGEST_NAME = 200
"""Characters that the tables of runs hold."""

_EFFECT_API = ("faults", "sentence", "finders", "guarantee", "writes", "remedies")
_REMEDY_API = ("faults", "planned", "write", "writes", "verb")


@dataclass(frozen=True, kw_only=True)
class Rule(Declaration):
    """Every record of `every` must `must`.

    every: a model, or a queryset without order, limit, values or locks.
    must: an effect, such as HaveRow or HaveValues.
    settle: leave young records alone.
    warn_if, error_if: how much drift is tolerated, as a count of rows or a percent of the checked records
        ('0.5%'). More than `warn_if` is a warning, more than `error_if` a failure; unless given, any drift fails.
    max_repairs: a repair that would write more rows than this (count or percent) stops before its first write.
    max_deletes: the same for the rows that it would delete; unless given, a tenth of the checked records. A percent lets
        ten rows through in any case.
    unattended: the nightly job may repair the rule.
    remedies: other than the default remedy for a kind of drift.
    covers: the receivers that the rule stands in for.
    databases: aliases of the databases that the rule is about; unless given, each on which the router keeps the
        records' model.
    owner, tags, reason: for people, and for `--select`.
    name: identity of the rule's history; its module and variable unless given.
    """

    every: Any = None
    must: Any = None
    settle: Settle | None = None
    warn_if: int | str | None = None
    error_if: int | str | None = None
    max_repairs: int | str | None = None
    max_deletes: int | str | None = MAX_DELETES
    unattended: bool = False
    remedies: Mapping[Drift, Remedy] = field(default_factory=dict)
    covers: Sequence[Callable[..., Any]] = ()
    databases: Sequence[str] = ()
    owner: str = ""
    tags: Sequence[str] = ()
    reason: str = ""
    name: str = ""

    @property
    def queryset(self) -> QuerySet[Any]:
        """The records, as `every=` names them; for a model all, whatever its default manager hides."""
        if isinstance(self.every, QuerySet):
            return self.every
        return self.every._base_manager.all()  # type: ignore[no-any-return]

    @property
    def model(self) -> type[Model]:
        """The records' model."""
        return self.queryset.model

    def is_on(self, using: str) -> bool:
        """Whether the rule is about the database behind the alias `using`."""
        if self.databases:
            return using in self.databases
        return router.allow_migrate_model(using, self.model)

    @property
    def sentence(self) -> str:
        """`Every order (not (status = 'draft')) must have exactly 1 Invoice with order = pk`."""
        which = queryset_in_words(self.queryset)
        subject = f"{self.model._meta.verbose_name}{f' with {which}' if which else ''}"
        effect: Effect = self.must
        return f"Every {subject} must {effect.sentence(self.model)}."

    def remedy(self, drift: Drift) -> Remedy:
        """What a repair does about this kind of drift."""
        effect: Effect = self.must
        return self.remedies.get(drift) or effect.remedies().get(drift) or _DEFAULT_REMEDIES[drift]

    def guarantee(self, using: str) -> Guarantee:
        """How safe a repair is beside live writers; docs/rules.md says when which level is given.

        Costs no statement, but where a constraint says how NULL counts: Django asks PostgreSQL for its version then.
        """
        level = self._level(using)
        if level == "A":
            return level
        if self._handlers_hold():
            return "B"
        return "C" if self._exclusive(using) else level

    def lift(self, using: str) -> Lift | None:
        """What would lift the rule to A; None where it is, or where its effect can't tell."""
        effect: Effect = self.must
        if self.guarantee(using) == "A" or not isinstance(effect, Liftable):
            return None
        return effect.lift(self.queryset, using)

    def _level(self, using: str) -> Guarantee:
        """The guarantee by constraints and the locks on records."""
        effect: Effect = self.must
        if isinstance(effect, OverRecords):
            return effect.guarantee_over(self.queryset, using)
        return effect.guarantee(self.model, using)

    def _handlers_hold(self) -> bool:
        """Whether all that the rule stands in for takes the lock that a chunk takes, and no task acts after it."""
        tied = isinstance(self.must, OwesRows) and self.must.is_tied(self.model)
        held = bool(self.covers) and all(holds(each, self.model) for each in self.covers)
        return tied and held and not self.remedy(MISSING).deferred

    def _exclusive(self, using: str) -> tuple[type[Model], ...]:
        """The tables that a chunk must lock, since nothing else keeps a handler in flight from inserting its rows too.

        Only for an INSERT of its own: a function of the project's would keep live writers waiting while it works.
        """
        if not isinstance(self.must, OwesRows) or not isinstance(self.remedy(MISSING), Insert):
            return ()
        if not dialect_of(using).locks_tables or self._handlers_hold() or self._level(using) == "A":
            return ()
        return self.must.inserted()

    def status(self, tally: Tally) -> Status:
        """Whether this much drift passes, warns or fails."""
        if not tally.total:
            return Status.PASS
        if self.error_if is not None and tally.total <= share(self.error_if, tally.checked):
            warned = self.warn_if is None or tally.total > share(self.warn_if, tally.checked)
            return Status.WARN if warned else Status.PASS
        if self.error_if is None and self.warn_if is not None:
            return Status.WARN if tally.total > share(self.warn_if, tally.checked) else Status.PASS
        return Status.FAIL

    def compile(self, *, using: str, now: datetime) -> CompiledRule:
        """The rule's finders for one database at one pinned moment. Costs no statement."""
        settled = self.settle.condition(self.model, now) if self.settle else Q()
        source = Source(every=self.queryset, using=using, now=now, settled=settled)
        effect: Effect = self.must
        exclusive = self._exclusive(using)
        finders = tuple(
            replace(each, exclusive=exclusive) if each.drift is MISSING and exclusive else each
            for each in effect.finders(source)
        )
        return CompiledRule(rule=self, source=source, finders=finders)

    def faults(self) -> Iterator[Fault]:
        """Everything that is wrong with the declaration, each fault with the way out. Costs no statement."""
        for fault in self._faults():
            yield Fault(fault.id, f"Rule {self.name!r}: {fault.message}", fault.hint)

    def _faults(self) -> Iterator[Fault]:
        yield from self.option_faults()
        yield from self._type_faults()
        yield from self._database_faults()
        unusable = list(every_faults(self.every))
        yield from unusable
        if not _has(self.must, _EFFECT_API):
            hint = "Give an effect: must=HaveRow(…) or must=HaveValues(…)."
            yield Fault("reconcile.E012", f"must= is {self.must!r}.", hint)
        elif not unusable:
            effect_faults = list(self.must.faults(self.model))
            if not effect_faults and isinstance(self.must, OverRecords):
                effect_faults = list(self.must.faults_over(self.queryset))
            yield from effect_faults
            if isinstance(self.settle, Settle):
                yield from self.settle.faults(self.model)
            if not effect_faults:
                yield from self._remedy_faults()

    def _remedy_faults(self) -> Iterator[Fault]:
        """A remedy for a drift that the effect never has, or that can't do anything about it."""
        if not isinstance(self.remedies, Mapping):
            return
        effect: Effect = self.must
        source = Source(every=self.queryset, using=DEFAULT_DB_ALIAS, now=timezone.now())
        finders = {each.drift: each for each in effect.finders(source)}
        for drift, remedy in self.remedies.items():
            if drift not in set(Drift) or not _has(remedy, _REMEDY_API):
                hint = "Map MISSING, STALE or EXTRA to a remedy."
                yield Fault("reconcile.E012", f"remedies= has {drift!r}: {remedy!r}.", hint)
            elif drift not in finders:
                known = ", ".join(each.upper() for each in finders)
                yield Fault(
                    "reconcile.E012", f"remedies= has {drift.upper()}.", f"This rule finds {known} alone."
                )
            else:
                yield from remedy.option_faults() if isinstance(remedy, Declaration) else ()
                yield from remedy.faults(drift, finders[drift])
        for drift in finders.keys() - self.remedies.keys():
            yield from self.remedy(drift).faults(drift, finders[drift])

    def _type_faults(self) -> Iterator[Fault]:
        if not (self.settle is None or isinstance(self.settle, Settle)):
            yield Fault(
                "reconcile.E012", f"settle= is {self.settle!r}.", 'Give Settle("created_at", minutes=15).'
            )
        if not isinstance(self.remedies, Mapping):
            yield Fault(
                "reconcile.E012", f"remedies= is {self.remedies!r}.", "Give a dictionary by kind of drift."
            )
        for option in ("warn_if", "error_if", "max_repairs", "max_deletes"):
            if not is_limit(getattr(self, option)):
                hint = "Give a count of rows such as 10, or a percent such as '0.5%'."
                yield Fault("reconcile.E012", f"{option}= is {getattr(self, option)!r}.", hint)
        for option, kind in (("owner", str), ("reason", str), ("name", str), ("unattended", bool)):
            if not isinstance(getattr(self, option), kind):
                hint = f"Give a {kind.__name__}."
                yield Fault("reconcile.E012", f"{option}= is {getattr(self, option)!r}.", hint)
        if isinstance(self.name, str) and len(self.name) > LONGEST_NAME:
            hint = f"Give it a name= of at most {LONGEST_NAME} characters."
            yield Fault("reconcile.E012", f"its name has {len(self.name)} characters.", hint)
        for option in ("tags", "covers", "databases"):
            if isinstance(getattr(self, option), str) or not isinstance(getattr(self, option), Sequence):
                yield Fault("reconcile.E012", f"{option}= is {getattr(self, option)!r}.", "Give a list.")

    def _database_faults(self) -> Iterator[Fault]:
        known = f"The settings have {', '.join(connections)}."
        for alias in self.databases if isinstance(self.databases, Sequence) else ():
            if alias not in connections:
                hint = nearest(str(alias), connections).strip() or known
                yield Fault("reconcile.E012", f"databases= has {alias!r}, which is no database.", hint)


def _has(value: Any, names: Sequence[str]) -> bool:
    return not isinstance(value, type) and all(hasattr(value, name) for name in names)


@dataclass(frozen=True, kw_only=True)
class CompiledRule:
    """A rule with its finders, for one database at one moment."""

    rule: Rule
    source: Source
    finders: tuple[Finder, ...]
