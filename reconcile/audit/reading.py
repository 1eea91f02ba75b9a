"""What the function of an effect does, act by act: the columns it sets, what it calls, and of which records it does so.

Whoever skips the function wants to know whether it would have done anything. So each act knows in which phase it runs, which columns of the
record it reads, and by which conditions it is guarded.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Iterator, Sequence
from functools import partial, reduce
from typing import Any

from django.db.models import Model

from reconcile.audit.acts import Act, Acts, Does, as_plain, from_plain
from reconcile.audit.cache import AuditCache
from reconcile.audit.effects import Effect, On, effects_of
from reconcile.audit.function_reader import Bare, FunctionReader
from reconcile.audit.memo import Memo
from reconcile.audit.places import innermost
from reconcile.audit.record import (
    DEEPEST,
    EVERYWHERE,
    NoRecord,
    Phase,
    Record,
    Run,
    Stash,
    State,
    both,
)
from reconcile.audit.resolver.evaluator import Evaluator
from reconcile.audit.resolver.kept import from_plain as types_of_plain, to_plain
from reconcile.audit.resolver.scopes import Scope
from reconcile.audit.resolver.types import NOTHING, FunctionType, Instance, Types
from reconcile.audit.syntax import always_deletes
from reconcile.audit.trail import Asked

__all__ = ["EffectReader", "scope_of"]


class EffectReader:
    """Looks up the effects of each model, and reads the function of each effect, once."""

    def __init__(self, evaluator: Evaluator, cache: AuditCache | None = None) -> None:
        self.evaluator = evaluator
        self.cache = cache
        self._trail = evaluator.project.trail
        self._effects: dict[type[Model], list[Effect]] = {}
        self._by_key: dict[str, Effect] | None = None
        if cache is not None:
            cache.acts_of, cache.bare_of = partial(self._acts_of_key, cache), self._bare_of_name
        self._names: dict[Any, str | None] = {}
        self._told: dict[str, Bare] = {}
        self._kept: dict[str, Acts] = {}
        # What effects do, and what they leave on the record for each other, is read for one another.
        self._memo = Memo[Any](Stash(reads=frozenset(), is_set=True), evaluator.project.trail)
        self._bare = Memo[Bare](Bare(), evaluator.project.trail)

    def effects_of(self, model: type[Model]) -> list[Effect]:
        """What runs for a record of the model."""
        if model not in self._effects:
            self._effects[model] = effects_of(model)
        return self._effects[model]

    def acts_of(self, effect: Effect) -> Acts:
        """What the function of the effect does for a record of its model."""
        cache = self.cache
        if cache is None or self._memo.depth:
            return self._acts(effect)
        # Whoever asks depends on what the effect does, and not on all that this was read from.
        if effect.key not in self._kept:
            plain, _ = self._trail.apart(lambda: self._plain(cache, effect))
            self._kept[effect.key] = from_plain(plain)
        self._trail.note(Asked.ACTS, effect.key)
        return self._kept[effect.key]

    def _acts(self, effect: Effect) -> Acts:
        # It is read within itself, too, for what it leaves on the record: only what a stash lacks cuts it short.
        found: Acts = self._memo.once(object(), effect.key, lambda: self._read(effect))
        return found

    def _plain(self, cache: AuditCache, effect: Effect) -> Any:
        return cache.once("acts", effect.key, lambda: as_plain(self._acts(effect)))

    def _acts_of_key(self, cache: AuditCache, key: str) -> Any:
        """What the effect of the key does, as a plain value; None if there is no such effect now."""
        if self._by_key is None:
            models = self.evaluator.registry.models
            self._by_key = {each.key: each for model in models for each in self.effects_of(model)}
        effect = self._by_key.get(key)
        return None if effect is None else self._plain(cache, effect)

    def _read(self, effect: Effect) -> Acts:
        if effect.on is On.FIELD:
            return Acts(acts=(_of_field(effect),))
        scope = scope_of(self.evaluator, effect)
        if scope is None:
            if effect.place is not None:
                self._trail.note(Asked.FILE, effect.place.file)
            # What another revision didn't have did nothing there.
            return Acts(
                is_read=bool(effect.place and effect.place.file in self.evaluator.project.sources.texts)
            )
        instance = _instance_name(effect, scope)
        given = (
            ((instance, frozenset({Instance(model=effect.model)})),) if instance in scope.parameters else ()
        )
        record = Record(self.evaluator, effect.model, partial(self._stash, effect.model))
        record.is_saved = effect.on is On.POST_SAVE
        reader = FunctionReader(record, self.bare)
        phases = {"created": Phase.CREATE} if effect.on is On.POST_SAVE else {}
        if effect.on in {On.SAVE, On.DELETE} and not instance:
            # `def save(*args, **kwargs)`: nobody can tell what it does to the record.
            return Acts(acts=(Act(does=Does.CALL, name=effect.name, reads=None),))
        aliases = {instance} if instance else set[str]()
        acts = reader.read(Run(scope=scope, given=given, aliases=aliases, phases=phases))
        if effect.on is On.DELETE and not always_deletes(scope.function.body):
            # It may leave the record where it is: a mark in its place, or a guard.
            acts.append(Act(does=Does.CALL, name=effect.name, reads=None))
        return Acts(acts=tuple(dict.fromkeys(acts)), functions=frozenset(reader.functions))

    def bare(self, run: Run) -> Bare:
        """What a function does that isn't handed the record."""
        if not run.scope.is_function:
            return Bare()
        if run.depth > DEEPEST:
            return Bare(acts=(Act(does=Does.CALL, name=run.scope.name, reads=None),))
        name = self._name_of(run) if self.cache is not None else None
        if name is None:
            return self._read_bare(run)
        (text,) = self.evaluator.answer(
            (Asked.BARE, name), lambda: frozenset({self._read_bare(run).as_text}), self._bare
        )
        if text not in self._told:
            self._told[text] = Bare.of_text(text)
        return self._told[text]

    def _read_bare(self, run: Run) -> Bare:
        def read() -> Bare:
            reader = FunctionReader(NoRecord(self.evaluator), self.bare)
            acts = tuple(one for one in reader.read(run) if one.is_outside)
            return Bare(acts=acts, functions=frozenset(reader.functions), names=frozenset(reader.names))

        return self._bare.once(run.scope, (run.scope, run.given, run.depth), read)

    def _name_of(self, run: Run) -> str | None:
        """What a later run knows such a reading by: the function, what it is given, and how deep it is."""
        key = (run.scope, run.given, run.depth)
        if key not in self._names:
            self._names[key], _ = self._trail.apart(lambda: self._named(run))
        return self._names[key]

    def _named(self, run: Run) -> str | None:
        given = [[name, to_plain(self.evaluator, types)] for name, types in run.given]
        is_named = to_plain(self.evaluator, frozenset({FunctionType(scope=run.scope)})) is not None
        parts = [run.scope.module.path, run.scope.name, given, run.depth]
        return json.dumps(parts) if is_named and all(each for _, each in given) else None

    def _bare_of_name(self, name: str) -> Types:
        path, function, given, depth = json.loads(name)
        module = self.evaluator.project.sources.parsed(path)
        scope = self.evaluator.project.scope_named(module, function) if module is not None else None
        types = [(one, types_of_plain(self.evaluator, plain)) for one, plain in given]
        if scope is None or not scope.is_function or any(each is None for _, each in types):
            return NOTHING
        run = Run(
            scope=scope,
            given=tuple((one, each or NOTHING) for one, each in types),
            aliases=set(),
            depth=depth,
        )
        return frozenset({self.bare(run).as_text})

    # What the effects of one model leave on the record for each other: attributes that are no columns.

    def _stash(self, model: type[Model], attribute: str) -> Stash:
        """What an attribute that is no column says of the record."""
        key = (model, attribute)
        found: Stash = self._memo.once(key, key, lambda: self._read_setters(model, attribute))
        return found

    def _read_setters(self, model: type[Model], attribute: str) -> Stash:
        by_methods = [*self._by_methods(model, attribute)]
        acts = [*self._by_effects(model, attribute)]
        is_set = bool(by_methods or acts)
        reads = reduce(both, [*by_methods, *(each.reads for each in acts)]) if is_set else None
        return Stash(reads=reads, where=EVERYWHERE if by_methods else _where(acts), is_set=is_set)

    def _by_methods(self, model: type[Model], attribute: str) -> Iterator[frozenset[str] | None]:
        record = Record(self.evaluator, model, partial(self._stash, model))
        info = self.evaluator.class_of_live(model)
        for scope, _, value in self.evaluator.assigned(info, attribute):
            yield record.reads(value, Run(scope=scope, given=(), aliases={scope.first_parameter}))

    def _by_effects(self, model: type[Model], attribute: str) -> Iterator[Act]:
        for effect in self.effects_of(model):
            if effect.on in {On.PRE_SAVE, On.PRE_DELETE} and not effect.of_all:
                for act in self.acts_of(effect).acts:
                    if act.does is Does.ASSIGN and act.name == attribute and not act.sets_empty:
                        yield act


def _where(acts: Sequence[Act]) -> State:
    """What is known wherever one of the acts runs."""
    if not acts:
        return EVERYWHERE
    phase = reduce(operator.or_, (each.phase for each in acts))
    changed = [each.changed for each in acts]
    known = frozenset(name for each in changed for name in each or ()) if None not in changed else None
    return State(phase=phase, changed=known)


def _of_field(effect: Effect) -> Act:
    """A field that makes its value itself: what from can't be told, but for a date that only notes when the record was made."""
    column = effect.name.rpartition(".")[2]
    phase = _phase_of_date(effect.model, column)
    reads = None if phase is Phase.BOTH else frozenset[str]()
    return Act(does=Does.ASSIGN, name=column, reads=reads, phase=phase)


def _phase_of_date(model: type[Model], column: str) -> Phase:
    field_: Any = model._meta.get_field(column)
    only_once = getattr(field_, "auto_now_add", False) and not getattr(field_, "auto_now", False)
    return Phase.CREATE if only_once else Phase.BOTH


def scope_of(evaluator: Evaluator, effect: Effect) -> Scope | None:
    """The function of the effect in the source; None where it isn't."""
    module = evaluator.project.sources.parsed(effect.place.file) if effect.place else None
    if module is None or effect.place is None:
        return None
    if module.path in evaluator.project.sources.texts:
        # Its lines are those of another revision.
        function = innermost(effect.function)
        return evaluator.project.scope_named(module, function.__qualname__) if function else None
    return evaluator.project.scope_at(module, effect.place.line)


def _instance_name(effect: Effect, scope: Scope) -> str:
    if effect.on in {On.SAVE, On.DELETE}:
        return next(iter(scope.parameters), "")
    return "instance" if "instance" in scope.parameters else ""
