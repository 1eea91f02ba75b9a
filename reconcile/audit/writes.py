"""What an effect writes, and what the effects of that write in turn: three hops and more, read from the source."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from django.db.models import CASCADE, Model

from reconcile.audit.acts import Acts, Does
from reconcile.audit.effects import SAVING, Effect, On
from reconcile.audit.orm import CHANGES, DELETES, SAVES
from reconcile.audit.reading import EffectReader
from reconcile.db.django_compat import reverse_relations

__all__ = ["Doing", "Reach", "Written"]

DELETING = frozenset({On.PRE_DELETE, On.POST_DELETE, On.DELETE})


@dataclass(frozen=True, kw_only=True)
class Written:
    """Rows of another model that are written. how: the method. through: the effects between, nearest first; none if the effect itself writes them."""

    model: str
    how: str
    through: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Doing:
    """What an effect does. names: all that the functions which it runs mention, if that was asked for. sets: columns of the record itself. writes: rows of models. calls: what else it calls. is_read: its source was read."""

    sets: Sequence[str] = ()
    writes: Sequence[Written] = ()
    calls: Sequence[str] = ()
    is_read: bool = True
    names: frozenset[str] = frozenset()


class Reach:
    """Follows effects from model to model."""

    def __init__(self, reader: EffectReader, *, with_names: bool = False) -> None:
        self.reader = reader
        self.with_names = with_names

    def of(self, effect: Effect) -> Doing:
        """What the effect does, with all that follows."""
        acts = self.reader.acts_of(effect)
        return Doing(
            sets=[*dict.fromkeys(each.name for each in acts.acts if each.does is Does.ASSIGN)],
            writes=[*dict.fromkeys(self._writes(effect))],
            calls=sorted({name for each in acts.acts for name in each.called}),
            is_read=acts.is_read,
            names=frozenset(self._names(acts)) if self.with_names else frozenset(),
        )

    def _names(self, acts: Acts) -> Iterator[str]:
        """The names of attributes and arguments in the functions that are run, and the texts that these hand on."""
        project = self.reader.evaluator.project
        for path, name in acts.functions:
            module = project.sources.parsed(path)
            scope = project.scope_named(module, name) if module is not None else None
            if scope is not None:
                yield from scope.mentions | scope.texts

    def _writes(self, effect: Effect) -> Iterator[Written]:
        """The writes of the effect, then those of the effects that these set off, nearest first. Each effect is followed once."""
        waiting: deque[tuple[Effect, tuple[str, ...]]] = deque([(effect, ())])
        followed = {(effect.name, effect.on, effect.model)}
        while waiting:
            each, through = waiting.popleft()
            pairs = sorted({pair for act in self.reader.acts_of(each).acts for pair in act.written})
            for label, how in pairs:
                yield Written(model=label, how=how, through=through)
            for found in (one for label, how in pairs for one in self._effects_set_off(label, how)):
                key = (found.name, found.on, found.model)
                if key not in followed:
                    followed.add(key)
                    waiting.append((found, (*through, found.name)))

    def _effects_set_off(self, label: str, how: str) -> Iterator[Effect]:
        """The project's effects that a write runs."""
        for model, on in self._set_off(label, how):
            yield from (
                each for each in self.reader.effects_of(model) if each.on in on and not each.third_party
            )

    def _set_off(self, label: str, how: str) -> Iterator[tuple[type[Model], frozenset[On]]]:
        """The models whose effects a write runs, and which: bulk ways run none."""
        model = self.reader.evaluator.registry.model(label)
        if model is None:
            return
        if how in SAVES:
            yield model, SAVING
        elif how in DELETES:
            for each in _cascading(model):
                yield each, DELETING if each is model else frozenset({On.PRE_DELETE, On.POST_DELETE})
        elif how in CHANGES:
            yield model, frozenset({On.M2M_CHANGED})


def _cascading(model: type[Model], seen: frozenset[type[Model]] = frozenset()) -> Iterator[type[Model]]:
    """The model and all whose records go with its."""
    if model in seen:
        return
    yield model
    for relation in reverse_relations(model):
        child = relation.related_model
        if (
            getattr(relation, "on_delete", None) is CASCADE
            and isinstance(child, type)
            and issubclass(child, Model)
        ):
            yield from _cascading(child, seen | {model})
