"""Leading from changed records to the records of a rule of another model, through the foreign keys that the rule reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Field, ForeignKey, Model

from reconcile.core.scopes import blocks
from reconcile.db.columns import concrete_model
from reconcile.db.django_compat import parents_of, referred_field
from reconcile.db.expressions import Column, columns_read
from reconcile.errors import Refusal
from reconcile.rules.rule import Rule

__all__ = ["Lead", "lead_of"]

HOPS = 3
"""Most foreign keys that one way leads through."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One foreign key that a rule reads, from the rows that refer to those that they refer to, or back."""

    key: ForeignKey[Any, Any]
    back: bool

    @property
    def start(self) -> type[Model]:
        return self._referred if self.back else concrete_model(self.key.model)

    @property
    def end(self) -> type[Model]:
        return concrete_model(self.key.model) if self.back else self._referred

    @property
    def is_circle(self) -> bool:
        """Whether it leads from a model to itself."""
        return self.start is self.end

    @property
    def _referred(self) -> type[Model]:
        return concrete_model(referred_field(self.key).model)

    def follow(self, keys: Sequence[Any], using: str) -> Iterator[Any]:
        """The primary keys that these lead to. One statement for each 5,000."""
        target = referred_field(self.key)
        for block in blocks(keys):
            if self.back:
                values = self._rows(target.model, using).filter(pk__in=block).values(target.attname)
                rows = self._rows(self.key.model, using).filter(**{f"{self.key.attname}__in": values})
            else:
                referring = self._rows(self.key.model, using).filter(pk__in=block)
                values = referring.exclude(**{self.key.attname: None}).values(self.key.attname)
                if target.primary_key:
                    # Also the key of a record that is gone: rows may be left that refer to it.
                    yield from (
                        values.order_by(self.key.attname).values_list(self.key.attname, flat=True).distinct()
                    )
                    continue
                rows = self._rows(target.model, using).filter(**{f"{target.attname}__in": values})
            yield from rows.order_by("pk").values_list("pk", flat=True)

    @staticmethod
    def _rows(model: type[Model], using: str) -> Any:
        return model._base_manager.using(using)


@dataclass(frozen=True, kw_only=True)
class Lead:
    """How records of one model lead to those of a rule: the rule's own records, or through foreign keys, each way apart.

    concerns: whether the rule reads the model at all. refusal: why there is no way although it does.
    """

    concerns: bool
    ways: Sequence[Sequence[_Step]] = ()
    refusal: Refusal | None = None

    def keys(self, keys: Sequence[Any], using: str) -> Sequence[Any]:
        """The keys of the rule's records that the records of `keys` lead to. One statement for each foreign key and 5,000 keys."""
        found: dict[Any, None] = {}
        for way in self.ways:
            there = keys
            for step in way:
                there = list(dict.fromkeys(step.follow(there, using)))
            found |= dict.fromkeys(there)
        return list(found)


def lead_of(rule: Rule, model: type[Model], *, using: str, now: datetime) -> Lead:
    """How records of `model` lead to those of the rule. Costs no statement. Raises what compiling the rule raises."""
    # Before anything is asked of the rule's model, which a rule that can't be used doesn't have.
    selects = rule.compile(using=using, now=now).selects()
    read = frozenset[Column]().union(*map(columns_read, selects)) - rule.must.values_of_others()
    model, target = concrete_model(model), concrete_model(rule.model)
    steps = list(_steps(read))
    if issubclass(model, target):
        return Lead(concerns=True, ways=[[], *_ways(target, target, steps)])
    # A row of an inherited model is a row of its parents, too, with the same key.
    starts = [
        each for each in (model, *_parents(model)) if any(concrete_model(one) is each for one, _ in read)
    ]
    if not starts:
        return Lead(concerns=False)
    if ways := [way for start in starts for way in _ways(start, target, steps)]:
        return Lead(concerns=True, ways=ways)
    reason = (
        f"Rule {rule.name!r} reads {model._meta.label}, and no foreign key that it reads leads from there to {target._meta.label}. "
        "Look at its own records instead."
    )
    return Lead(concerns=True, refusal=Refusal(reason))


def _steps(read: frozenset[Column]) -> Iterator[_Step]:
    """Both directions of each foreign key among the columns."""
    for model, attname in sorted(read, key=lambda column: (column[0]._meta.label, column[1])):
        field = _field(model, attname)
        if isinstance(field, ForeignKey) and isinstance(field.related_model, type):
            yield _Step(field, back=False)
            yield _Step(field, back=True)


def _field(model: type[Model], attname: str) -> Field[Any, Any] | None:
    return next((each for each in model._meta.concrete_fields if each.attname == attname), None)


def _ways(start: type[Model], target: type[Model], steps: Sequence[_Step]) -> Iterator[Sequence[_Step]]:
    """All ways from one model to the other that come to no model twice, but by a key from a model to itself.

    From a model to itself they lead through no other, unless that refers to it by two keys.
    """
    ahead: list[tuple[type[Model], tuple[_Step, ...]]] = [(start, ())]
    while ahead:
        here, way = ahead.pop()
        for step in steps:
            if step.start is not here or (way and way[-1].key is step.key and way[-1].back is not step.back):
                continue
            if step.end is target:
                yield [*way, step]
            if len(way) + 1 < HOPS and (step.is_circle or _leads_on(start, target, way, step)):
                ahead.append((step.end, (*way, step)))


def _leads_on(start: type[Model], target: type[Model], way: Sequence[_Step], step: _Step) -> bool:
    if start is target:
        return not way and step.back
    return step.end not in {start, target, *(each.end for each in way)}


def _parents(model: type[Model]) -> Iterator[type[Model]]:
    """The models that it inherits from by a table of its own."""
    return map(concrete_model, parents_of(model))
