"""The audit of models: what happens when a record of each is written, and which rule covers it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import CodeType
from typing import Any

from django.apps import apps
from django.db.models import Model

from reconcile.audit.cache import open_cache
from reconcile.audit.cascades import Cascade, cascades_of
from reconcile.audit.dead import DeadReceiver, dead_receivers
from reconcile.audit.effects import Effect, audited_models, inherited_but_deaf
from reconcile.audit.files import own_files
from reconcile.audit.handlers import Handler, read_handler
from reconcile.audit.places import innermost
from reconcile.audit.ran import ModelRun
from reconcile.audit.reading import EffectReader
from reconcile.audit.resolver.evaluator import Evaluator
from reconcile.audit.resolver.project import Project
from reconcile.audit.resolver.relations import Registry
from reconcile.audit.sources import Sources, UnreadableSource, without_collecting
from reconcile.audit.writes import Doing, Reach
from reconcile.errors import UnknownNameError
from reconcile.rules.rule import Rule

__all__ = ["Audited", "ModelSignals", "SignalsAudit", "audit_signals", "code_of", "covered_by", "named_model"]


@dataclass(frozen=True, kw_only=True)
class Audited:
    """One effect, what its source says of it, and the names of the rules that cover it. doing: what it writes, if that was asked for."""

    effect: Effect
    handler: Handler
    rules: tuple[str, ...]
    doing: Doing | None = None


@dataclass(frozen=True, kw_only=True)
class ModelSignals:
    """What writing a record of the model sets off. deaf: receivers of a parent or concrete model that it does not set off.

    run: what saves of rows were seen to do, if that was asked for.
    """

    model: type[Model]
    effects: Sequence[Audited]
    cascades: Sequence[Cascade]
    deaf: Sequence[Effect]
    run: ModelRun | None = None

    @property
    def is_quiet(self) -> bool:
        """Whether there is nothing to say of it."""
        return not (self.effects or self.cascades or self.deaf)


@dataclass(frozen=True, kw_only=True)
class SignalsAudit:
    """The models in the order of their apps. dead: receivers that nothing connects. unreadable: files that could not be parsed. is_run: rows were to be saved."""

    models: Sequence[ModelSignals]
    dead: Sequence[DeadReceiver]
    unreadable: Sequence[UnreadableSource]
    is_run: bool = False


def named_model(label: str) -> type[Model]:
    """The model of the label `app.Model`, or of a name that one model has alone. Raises UnknownNameError."""
    models = {model._meta.label: model for model in apps.get_models(include_auto_created=True)}
    wanted = label.lower()
    found = [
        each for name, each in models.items() if wanted in {name.lower(), name.partition(".")[2].lower()}
    ]
    if len(found) != 1:
        raise UnknownNameError("model", label, models)
    return found[0]


def audit_signals(
    rules: Mapping[str, Rule],
    models: Iterable[type[Model]] | None = None,
    *,
    follow: bool = False,
    use_cache: bool = False,
    third_party: bool = False,
    with_names: bool = False,
) -> SignalsAudit:
    """Audit the models; unless they are given, those of the project's own apps. third_party: those of installed packages, too. follow: read what the effects write, too. Costs no statement.

    with_names: note all names in what the effects run, too. use_cache: use what earlier runs in this folder have found, and keep what this one finds.
    """
    with without_collecting():
        auditor = _Auditor(rules, follow=follow, use_cache=use_cache, with_names=with_names)
        chosen = audited_models(third_party=third_party) if models is None else models
        audited = [auditor.audit(model) for model in chosen]
        dead = list(dead_receivers(auditor.sources, auditor.cache)) if models is None else []
        if auditor.cache is not None:
            auditor.cache.write()
    return SignalsAudit(models=audited, dead=dead, unreadable=list(auditor.sources.unreadable.values()))


class _Auditor:
    """Audits one model after the other, and reads each file once."""

    def __init__(self, rules: Mapping[str, Rule], *, follow: bool, use_cache: bool, with_names: bool) -> None:
        self.sources = Sources()
        self.covered = covered_by(rules)
        project = Project(self.sources, own_files())
        evaluator = Evaluator(project, Registry())
        self.cache = open_cache(evaluator) if use_cache else None
        self.reader = EffectReader(evaluator, self.cache)
        self.reach = Reach(self.reader, with_names=with_names) if follow else None

    def audit(self, model: type[Model]) -> ModelSignals:
        """What writing a record of the model sets off."""
        return ModelSignals(
            model=model,
            effects=[self._effect(each) for each in self.reader.effects_of(model)],
            cascades=list(cascades_of(model)),
            deaf=inherited_but_deaf(model),
        )

    def _effect(self, effect: Effect) -> Audited:
        follows = self.reach is not None and not effect.third_party
        return Audited(
            effect=effect,
            handler=self._handler(effect),
            rules=tuple(self.covered.get(code_of(effect.function), ())),
            doing=self.reach.of(effect) if self.reach is not None and follows else None,
        )

    def _handler(self, effect: Effect) -> Handler:
        if self.cache is None:
            return read_handler(effect, self.sources)
        return Handler(
            **self.cache.once("handler", effect.key, lambda: asdict(read_handler(effect, self.sources)))
        )


def covered_by(rules: Mapping[str, Rule]) -> Mapping[CodeType, Sequence[str]]:
    """The names of the rules that stand in for each function."""
    found: dict[CodeType, list[str]] = {}
    for name, rule in rules.items():
        for function in rule.covers:
            if (code := code_of(function)) is not None:
                found.setdefault(code, []).append(name)
    return found


def code_of(function: Callable[..., Any]) -> Any:
    """What the function runs in the end, by which it is known under any name; None for what has no Python source."""
    found = innermost(function)
    return found.__code__ if found is not None else None
