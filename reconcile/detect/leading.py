"""Leading from changed records to the records of a rule of another model, through the foreign keys by which the rule reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Model, QuerySet

from reconcile.core.scopes import blocks
from reconcile.db.columns import concrete_model
from reconcile.db.django_compat import parents_of, referred_field
from reconcile.db.expressions import Column, columns_read
from reconcile.db.ties import KeyStep, TableRead, ties_of
from reconcile.errors import Refusal
from reconcile.rules.rule import Rule

__all__ = ["Lead", "lead_of"]


def _follow(step: KeyStep, keys: Sequence[Any], using: str) -> Iterator[Any]:
    """The primary keys that these lead to. One statement for each 5,000."""
    key, target = step.key, referred_field(step.key)
    for block in blocks(keys):
        if step.back:
            values = _rows(target.model, using).filter(pk__in=block).values(target.attname)
            rows = _rows(key.model, using).filter(**{f"{key.attname}__in": values})
        else:
            referring = _rows(key.model, using).filter(pk__in=block)
            values = referring.exclude(**{key.attname: None}).values(key.attname)
            if target.primary_key:
                # Also the key of a record that is gone: rows may be left that refer to it.
                yield from values.order_by(key.attname).values_list(key.attname, flat=True).distinct()
                continue
            rows = _rows(target.model, using).filter(**{f"{target.attname}__in": values})
        yield from rows.order_by("pk").values_list("pk", flat=True)


def _rows(model: type[Model], using: str) -> Any:
    return model._base_manager.using(using)


@dataclass(frozen=True, kw_only=True)
class Lead:
    """How records of one model lead to those of a rule: the rule's own records, or through foreign keys, each way apart.

    concerns: whether the rule reads the model at all. refusal: why there is no way to some of its records although it does.
    """

    concerns: bool
    ways: Sequence[Sequence[KeyStep]] = ()
    refusal: Refusal | None = None

    def keys(self, keys: Sequence[Any], using: str) -> Sequence[Any]:
        """The keys of the rule's records that the records of `keys` lead to. One statement for each foreign key and 5,000 keys."""
        found: dict[Any, None] = {}
        for way in self.ways:
            there = keys
            for step in way:
                there = list(dict.fromkeys(_follow(step, there, using)))
            found |= dict.fromkeys(there)
        return list(found)


def lead_of(rule: Rule, model: type[Model], *, using: str, now: datetime) -> Lead:
    """How records of `model` lead to those of the rule. Costs no statement. Raises what compiling the rule raises."""
    # Before anything is asked of the rule's model, which a rule that can't be used doesn't have.
    selects = list(rule.compile(using=using, now=now).selects())
    read = frozenset[Column]().union(*map(columns_read, selects)) - rule.must.values_of_others()
    model, target = concrete_model(model), concrete_model(rule.model)
    own = issubclass(model, target)
    # A row of an inherited model is a row of its parents, too, with the same key.
    models = {
        each
        for each in (model, *map(concrete_model, parents_of(model)))
        if any(concrete_model(one) is each for one, _ in read)
    }
    if not models and not own:
        return Lead(concerns=False)
    ways = [list(table.ways_to(goals)) for table, goals in _tables(selects, models, target)]
    found = dict.fromkeys(tuple(way) for those in ways for way in those)
    if own:
        return Lead(concerns=True, ways=[*dict.fromkeys([(), *found])])
    if ways and all(ways):
        return Lead(concerns=True, ways=[*found])
    reason = (
        f"Rule {rule.name!r} reads {model._meta.label}, and no foreign key that it reads leads from {'there' if not found else 'all of it'} to "
        f"{target._meta.label}. Look at its own records instead."
    )
    return Lead(concerns=True, ways=[*found], refusal=Refusal(reason))


def _tables(
    selects: Sequence[QuerySet[Any]], models: set[type[Model]], target: type[Model]
) -> Iterator[tuple[TableRead, Sequence[TableRead]]]:
    """Each place in which the rule reads one of the models, and where its SELECT reads the rule's own records."""
    for select in selects:
        tables = ties_of(select).tables
        base = tables[0]
        goals = [base] if base.model is target else [each for each in tables if each.model is target]
        yield from ((each, goals) for each in tables if each.model in models)
