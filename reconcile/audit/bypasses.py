"""Which effects each call in the source skips, and whether that is worth saying: the calls beside the effects of their models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

from django.db.models import Model

from reconcile.audit.acts import Act, Acts, Does, Phase
from reconcile.audit.by_hand import called_in, is_same
from reconcile.audit.calls import Operation, Site, Write
from reconcile.audit.effects import OF_SAVES, SAVING, SIGNALS, Effect, On, inherited_but_deaf
from reconcile.audit.files import is_migration
from reconcile.audit.handlers import read_handler
from reconcile.audit.listing import code_of, covered_by
from reconcile.audit.places import innermost
from reconcile.audit.reading import EffectReader, scope_of
from reconcile.audit.resolver.evaluator import Evaluator
from reconcile.audit.resolver.scopes import Scope
from reconcile.core.declaration import shown_path
from reconcile.db.django_compat import many_to_many_owner
from reconcile.rules.rule import Rule

__all__ = ["Bypass", "Judge", "Level", "Skip", "Weighed"]


class Level(StrEnum):
    """How a skipped effect stands, the worst first."""

    UNCOVERED = "uncovered"
    COVERED = "covered"
    EXEMPT = "exempt"
    BY_HAND = "by_hand"
    LOW = "low"
    THIRD_PARTY = "third_party"
    UNKNOWN = "unknown"


RAW_DELETING = frozenset({On.DELETE, On.PRE_DELETE, On.POST_DELETE, On.M2M_CHANGED})

SKIPS = {
    Operation.BULK_CREATE: SAVING | {On.M2M_CHANGED},
    Operation.BULK_UPDATE: OF_SAVES,
    Operation.UPDATE: OF_SAVES,
    Operation.KEY: OF_SAVES,
    Operation.DELETE: frozenset({On.DELETE}),
    Operation.RAW_DELETE: RAW_DELETING,
    Operation.THROUGH_INSERT: SAVING,
    Operation.THROUGH_DELETE: frozenset({On.DELETE}),
    Operation.SAVE_PAST: frozenset({On.SAVE}),
    Operation.LOAD: SAVING,
    Operation.PROXY: frozenset({On.PRE_SAVE, On.POST_SAVE}),
    Operation.SQL_INSERT: OF_SAVES | {On.M2M_CHANGED},
    Operation.SQL_UPDATE: OF_SAVES,
    Operation.SQL_DELETE: RAW_DELETING,
}
"""The effects that do not run. A field's pre_save runs for what is created in bulk, and receivers of a delete for a queryset's."""

PHASES = {
    Operation.BULK_CREATE: Phase.CREATE, Operation.THROUGH_INSERT: Phase.CREATE, Operation.SQL_INSERT: Phase.CREATE,
    Operation.BULK_UPDATE: Phase.UPDATE, Operation.UPDATE: Phase.UPDATE, Operation.KEY: Phase.UPDATE, Operation.SQL_UPDATE: Phase.UPDATE,
}  # fmt: skip
THROUGH = frozenset({Operation.THROUGH_INSERT, Operation.THROUGH_DELETE})
DELETING = frozenset({Operation.DELETE, Operation.RAW_DELETE, Operation.THROUGH_DELETE, Operation.SQL_DELETE})


@dataclass(frozen=True, kw_only=True)
class Skip:
    """One effect that a call skips. reason: why it is exempt, low or done by hand."""

    effect: Effect
    state: Level
    rules: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Bypass:
    """One call and what it skips, for one model. model: `app.Model`, None where it can't be told which. times: how often tests ran it, None if nobody
    has watched them.
    """

    site: Site
    model: str | None
    skips: tuple[Skip, ...] = ()
    reason: str = ""
    by_name: bool = False
    times: int | None = None

    @property
    def state(self) -> Level:
        """The worst of what it skips."""
        order = [*Level]
        return min((each.state for each in self.skips), key=order.index, default=Level.UNKNOWN)


Weighed = tuple[Effect, Level, str]
"""An effect that a write skips, the level, and the reason where it isn't worth saying."""


@dataclass(kw_only=True)
class Judge:
    """Weighs calls against the effects of their models. exempt: reasons by the name of an effect."""

    reader: EffectReader
    rules: Mapping[str, Rule]
    exempt: Mapping[str, str]
    known: dict[tuple[Site, Write], Sequence[Weighed]] = field(default_factory=dict)

    @property
    def evaluator(self) -> Evaluator:
        """What expressions stand for."""
        return self.reader.evaluator

    def judge_all(self, sites: Iterable[Site]) -> list[Bypass]:
        """What each call skips."""
        return [_exempted(each) for site in sites for each in self.judge(site)]

    @cached_property
    def covered(self) -> Mapping[Any, Sequence[str]]:
        """The rules that cover each function."""
        return covered_by(self.rules)

    def judge(self, site: Site) -> Iterator[Bypass]:
        """What the call skips, for each model that it may write; nothing where it skips nothing."""
        if not site.writes:
            if site.candidates or site.historical:
                reason = site.why or (
                    _one_of(site.candidates) if site.candidates else "a model that a migration has"
                )
                yield Bypass(site=site, model=None, reason=reason)
            return
        found: dict[str, Bypass] = {}
        for write in site.writes:
            skips = tuple(self._skips(site, write))
            if skips:
                before = found.get(write.model)
                together = _worst_of((*(before.skips if before else ()), *skips))
                found[write.model] = Bypass(
                    site=site, model=write.model, skips=together, by_name=write.by_name
                )
        yield from found.values()

    def _skips(self, site: Site, write: Write) -> Iterator[Skip]:
        for effect, level, reason in self.weigh(site, write):
            yield self._skip(effect, level, reason)

    def weigh(self, site: Site, write: Write) -> Sequence[Weighed]:
        """The effects that the write skips, each with whether that is worth saying, and why if it isn't; before rules and exemptions."""
        key = (site, write)
        if key not in self.known:
            found = ((each, *self._weigh(each, site, write)) for each in self.effects_of(write))
            self.known[key] = [(each, level, reason) for each, level, reason in found if level is not None]
        return self.known[key]

    def know(self, site: Site, write: Write, weighed: Sequence[Weighed]) -> None:
        """Take from an earlier run what the write skips."""
        self.known[site, write] = weighed

    def _skip(self, effect: Effect, level: Level, reason: str) -> Skip:
        rules = tuple(self.covered.get(code_of(effect.function), ()))
        if level is not Level.UNCOVERED:
            return Skip(effect=effect, state=level, rules=rules, reason=reason)
        if rules:
            return Skip(effect=effect, state=Level.COVERED, rules=rules)
        if effect.name in self.exempt:
            return Skip(effect=effect, state=Level.EXEMPT, reason=self.exempt[effect.name])
        if effect.third_party:
            return Skip(effect=effect, state=Level.THIRD_PARTY)
        return Skip(effect=effect, state=Level.UNCOVERED)

    def effects_of(self, write: Write) -> Iterable[Effect]:
        """The effects that such a write skips, whatever they do."""
        model = self._model(write.model)
        if write.operation is Operation.PROXY:
            return [each for each in inherited_but_deaf(model) if each.on in SKIPS[Operation.PROXY]]
        wanted = SKIPS[write.operation]
        if many_to_many_owner(model) is None:
            # Rows of the record's own many-to-many fields are another table's.
            wanted -= {On.M2M_CHANGED}
        elif write.operation in THROUGH:
            # Django makes and deletes the rows of its own tables in bulk, whoever asks for it.
            return []
        found = [each for each in self.reader.effects_of(model) if each.on in wanted]
        if write.operation is Operation.LOAD:
            found = [
                each
                for each in found
                if each.on is On.SAVE or read_handler(each, self.evaluator.project.sources).honours_raw
            ]
        return found

    def _model(self, label: str) -> type[Model]:
        model = self.evaluator.registry.model(label)
        assert model is not None
        return model

    # What is worth saying.

    def _weigh(self, effect: Effect, site: Site, write: Write) -> tuple[Level | None, str]:
        """The level of a skipped effect, and why; none where it would have done nothing."""
        if write.overridden:
            file, _, line = write.overridden.rpartition(":")
            return (
                Level.LOW,
                f"the project's own {site.operation}() at {shown_path(file)}:{line} runs instead of Django's",
            )
        if site.historical and not is_migration(site.path):
            return Level.LOW, "a migration that calls it has models of its own, which set nothing off"
        acts = self.reader.acts_of(effect)
        if not acts.is_read:
            return Level.UNCOVERED, ""
        relevant = _relevant(acts, effect, write)
        if effect.of_all and any(_is_undecided(each) for each in relevant):
            return (
                Level.LOW,
                "it listens to every model, and whether it does anything for this one can't be told",
            )
        weighed = [(each, _weigh_act(each, write)) for each in relevant]
        said = [each for each, level in weighed if level is Level.UNCOVERED]
        if said:
            return self._said(said, effect, site)
        low = [each for each, level in weighed if level is Level.LOW]
        return (Level.LOW, _why_low(low)) if low else (None, "")

    def _said(self, acts: Sequence[Act], effect: Effect, site: Site) -> tuple[Level, str]:
        if self._is_inside((site.path, site.function)):
            return Level.LOW, "the call is part of an effect itself"
        lines = self._by_hand(acts, effect, site)
        if lines:
            return Level.BY_HAND, f"seems done by hand, line {', '.join(map(str, lines))}"
        return Level.UNCOVERED, ""

    def _by_hand(self, acts: Sequence[Act], effect: Effect, site: Site) -> list[int]:
        """The lines on which the function around the call does what the effect would have done; none unless it does all."""
        scope = self._scope(site)
        if scope is None:
            return []
        calls = [each for each in called_in(self.evaluator, scope) if each.line != site.line]
        signals = {f"{effect.on}.send", f"{effect.on}.send_robust"}
        own = self._target(effect)
        label = effect.model._meta.label
        sent = [
            each.line
            for each in calls
            if (each.name in signals and each.sender <= {label}) or own in each.targets
        ]
        if sent or not all(each.is_outside for each in acts):
            return sent
        lines = []
        for act in acts:
            found = [each.line for each in calls if is_same(act, each)]
            if not found:
                return []
            lines.append(found[-1])
        return sorted(set(lines))

    def _target(self, effect: Effect) -> str:
        """As what a call of the receiver itself is known; empty for an override, since other records may be saved one by one."""
        scope = scope_of(self.evaluator, effect) if effect.on in SIGNALS else None
        return f"{scope.module.name}.{scope.name}" if scope is not None else ""

    def _scope(self, site: Site) -> Scope | None:
        module = self.evaluator.project.sources.of_file(site.path)
        return self.evaluator.project.scope_named(module, site.function) if module and site.function else None

    def _is_inside(self, function: tuple[str, str], asked: frozenset[tuple[str, str]] = frozenset()) -> bool:
        """Whether the function, by file and qualified name, is an effect's own, or a helper that nothing but effects calls."""
        if function in self.own_functions:
            return True
        name = function[1].rpartition(".")[2]
        if not name or function in asked:
            return False
        callers = [*self.evaluator.callers(name)]
        return bool(callers) and all(self._is_inside(each, asked | {function}) for each in callers)

    @cached_property
    def own_functions(self) -> set[tuple[str, str]]:
        """The functions of the project's effects."""
        effects = [
            each
            for model in self.evaluator.registry.models
            for each in self.reader.effects_of(model)
            if not each.third_party
        ]
        functions = ((each.place, innermost(each.function)) for each in effects)
        return {(place.file, function.__qualname__) for place, function in functions if place and function}


def _worst_of(skips: Iterable[Skip]) -> tuple[Skip, ...]:
    """Each effect once, as it stands where it stands worst: the call may write one thing or another."""
    order = [*Level]
    found: dict[Effect, Skip] = {}
    for each in skips:
        before = found.get(each.effect)
        if before is None or order.index(each.state) < order.index(before.state):
            found[each.effect] = each
    return tuple(found.values())


def _one_of(candidates: int) -> str:
    return (
        f"one of {candidates:,} models" if candidates > 1 else "perhaps the one model that has such columns"
    )


def _relevant(acts: Acts, effect: Effect, write: Write) -> list[Act]:
    """The acts that would have run for the write. What only the record in memory is given is gone with it."""
    phase = PHASES.get(write.operation, Phase.BOTH)
    columns = {each.name for each in effect.model._meta.concrete_fields}
    return [
        each for each in acts.acts if each.phase & phase and (each.does is not Does.ASSIGN or each.name in columns)
    ]  # fmt: skip


def _is_undecided(act: Act) -> bool:
    """Whether it depends on the model what the act does, or nobody knows what it calls."""
    return act.undecided or not act.resolved


def _why_low(acts: Sequence[Act]) -> str:
    if all(each.does is Does.VALIDATE for each in acts):
        return "validation is skipped"
    if all(each.changed is not None for each in acts):
        return "it does something only where other columns have changed"
    if any(each.empty for each in acts):
        return "it fills in what is empty"
    return "it reads none of the columns that are written"


def _weigh_act(act: Act, write: Write) -> Level | None:
    """Whether skipping one act is worth saying for the write."""
    if write.operation is Operation.DELETE and act.by_keys:
        return None
    if write.operation in DELETING:
        return {Does.ASSIGN: None, Does.VALIDATE: Level.LOW}.get(act.does, Level.UNCOVERED)
    if act.does is Does.VALIDATE:
        return Level.LOW
    if act.does is Does.ASSIGN:
        return _weigh_assignment(act, write)
    updates = PHASES.get(write.operation) is Phase.UPDATE
    if updates and (_fills(act, write) or _is_unchanged(act, write)):
        return Level.LOW
    harmless = updates and act.reads is not None and not _depends(act.reads, write)
    return Level.LOW if harmless else Level.UNCOVERED


def _depends(reads: frozenset[str], write: Write) -> bool:
    """Whether an update may change one of these columns; one of which it isn't known what it writes may change any."""
    return bool(reads if write.columns is None else reads & {*write.columns})


def _weigh_assignment(act: Act, write: Write) -> Level | None:
    """An own column that the effect would have set: nothing is missing where the caller sets it, or where nothing changes of what it depends on."""
    reads_itself = act.reads is not None and act.name in act.reads
    if PHASES.get(write.operation) is not Phase.UPDATE:
        sets_it = write.passed is not None and act.name in write.passed and not reads_itself
        return None if act.sets_empty or sets_it else Level.UNCOVERED
    if write.columns is None:
        return Level.LOW if _fills(act, write) else Level.UNCOVERED
    columns = {*write.columns}
    if _is_unchanged(act, write):
        return Level.LOW
    if act.name in columns and not reads_itself:
        return None
    if act.reads is not None and not act.reads & columns:
        return None
    return Level.LOW if _fills(act, write) else Level.UNCOVERED


def _is_unchanged(act: Act, write: Write) -> bool:
    """Whether it runs only where columns have changed that an update leaves as they are."""
    return act.changed is not None and write.columns is not None and not act.changed & {*write.columns}


def _fills(act: Act, write: Write) -> bool:
    """Whether it runs only where a column is empty that an update leaves as it is: a row that is there has been filled already."""
    return bool(act.empty) and not act.empty & {*(write.columns or ())}


def _exempted(bypass: Bypass) -> Bypass:
    reason = bypass.site.exempt
    if not reason:
        return bypass
    skips = tuple(
        replace(each, state=Level.EXEMPT, reason=reason) if each.state is Level.UNCOVERED else each
        for each in bypass.skips
    )
    return replace(bypass, skips=skips)
