"""Which rules a test is about, and over which records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from django.db import DEFAULT_DB_ALIAS
from django.db.models import Model, QuerySet

from reconcile.errors import InvalidRulesError, UsageError
from reconcile.registry import select, valid_rules
from reconcile.rules import Rule

__all__ = ["Records", "chosen", "keys_of", "model_of"]

Records = type[Model] | Model | QuerySet[Any]


def chosen(
    rules: Iterable[str | Rule] | None, *, using: str, settled: bool, model: type[Model] | None = None
) -> Sequence[Rule]:
    """The rules, by name or as they are; without any, all of the project that are about `using`, and about `model`.

    `settled` makes them judge young records, too. Raises UsageError where no rule is left, a name is unknown, or a rule is
    about another model; InvalidRulesError with the faults of a rule that was given as it is.
    """
    if isinstance(rules, str | Rule):
        rules = [rules]
    found = _all(using, model) if rules is None else [_named(each, using) for each in rules]
    if not found:
        raise UsageError("rules= is empty. Name a rule, or leave rules= out.")
    for rule in found:
        if model is not None and not _is_about(rule, model):
            raise UsageError(
                f"Rule {rule.name!r} is about {rule.model._meta.label}, and the records are {model._meta.label}."
            )
    return [replace(rule, settle=None) if settled else rule for rule in found]


def _all(using: str, model: type[Model] | None) -> Sequence[Rule]:
    rules = [rule for rule in valid_rules().values() if rule.is_on(using)]
    found = [rule for rule in rules if model is None or _is_about(rule, model)]
    if not found and model is not None:
        raise UsageError(f"No rule is about {model._meta.label}. Give rules=, or write one.")
    return found


def _named(rule: str | Rule, using: str) -> Rule:
    if isinstance(rule, str):
        return select(valid_rules(), (rule,), using=using)[rule]
    if not isinstance(rule, Rule):
        raise UsageError(f"rules= has {rule!r}. Give the name of a rule, or a Rule.")
    rule = rule if rule.name else replace(rule, name="the rule")
    if faults := list(rule.faults()):
        listed = "\n".join(f"  {fault.id}  {fault}" for fault in faults)
        raise InvalidRulesError(f"The rule can't be used:\n{listed}")
    return rule


def _is_about(rule: Rule, model: type[Model]) -> bool:
    return rule.model._meta.concrete_model is model._meta.concrete_model


def model_of(records: Records) -> tuple[type[Model], str]:
    """The model of the records, and the database that they are on."""
    if isinstance(records, QuerySet):
        return records.model, records.db
    if isinstance(records, Model):
        return type(records), records._state.db or DEFAULT_DB_ALIAS
    if isinstance(records, type) and issubclass(records, Model):
        return records, DEFAULT_DB_ALIAS
    raise UsageError(f"{records!r} is neither a model, a queryset nor a record.")


def keys_of(records: Records, using: str) -> Sequence[Any] | None:
    """The records' keys; None for all of a model. One statement."""
    if isinstance(records, QuerySet):
        return list(dict.fromkeys(records.using(using).values_list("pk", flat=True)))
    return [records.pk] if isinstance(records, Model) else None
