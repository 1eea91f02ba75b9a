"""For commands that tell why records drift: the culprits of checks, and the calls that may have caused them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from django.apps import apps
from django.db.models import Model

from reconcile.detect.checking import RuleCheck
from reconcile.detect.culprit import Culprit, find_culprits, written_columns
from reconcile.rules.invalid import InvalidRule
from reconcile.rules.registry import project_rules
from reconcile.rules.rule import Rule

if TYPE_CHECKING:
    from reconcile.audit.skipping import Suspects

__all__ = ["culprits_of", "suspects_named", "without_receivers"]


def culprits_of(checks: Sequence[RuleCheck], *, using: str, now: datetime) -> Mapping[str, Sequence[Culprit]]:
    """For the name of each rule that drifts what sets its drifted records apart. Columns that rules and receivers write are left out."""
    from reconcile.audit.skipping import columns_of_receivers

    drifted = [each for each in checks if each.tally.total and not each.error]
    if not drifted:
        return {}
    rules = project_rules()
    models = {model for each in drifted for model in _models_of(each.rule)}
    left_out = written_columns([*rules.values()]) | columns_of_receivers(rules, models)
    return {
        each.rule.name: find_culprits(each.rule, each, using=using, now=now, left_out=left_out)
        for each in drifted
    }


def _models_of(rule: Rule) -> set[type[Model]]:
    """The models whose rows may drift by the rule: its records, and the rows that it writes."""
    return {rule.model, *(model for model, _ in rule.must.writes(rule.model))}


def suspects_named(names: Collection[str]) -> Mapping[str, Suspects]:
    """For each of these rules the calls that skip what it covers; rules that are there no more, or can't be used, are left out."""
    from reconcile.audit.skipping import suspects_of
    from reconcile.conf import exempt_effects

    rules = project_rules()
    drifted = [rules[name] for name in names if name in rules and not isinstance(rules[name], InvalidRule)]
    return suspects_of(drifted, rules, exempt_effects()) if drifted else {}


def without_receivers(culprits: Mapping[str, Sequence[Culprit]]) -> Mapping[str, Sequence[Culprit]]:
    """What a night has found, without the columns that receivers write: a night doesn't read the source."""
    from reconcile.audit.skipping import columns_of_receivers

    rules = {name: rule for name, rule in project_rules().items() if not isinstance(rule, InvalidRule)}
    telling = {name for name, found in culprits.items() if any(each.clues for each in found)} & rules.keys()
    if not telling:
        return culprits
    models = {apps.get_model(each.model) for name in telling for each in culprits[name] if each.model}
    written = {(model._meta.label, column) for model, column in columns_of_receivers(rules, models)}
    return {
        name: [_without(each, written) for each in found] if name in telling else found
        for name, found in culprits.items()
    }


def _without(culprit: Culprit, written: Collection[tuple[str, str]]) -> Culprit:
    """The culprit without clues of columns that a receiver of the same model's records sets."""
    fields = apps.get_model(culprit.model)._meta.concrete_fields if culprit.model else ()
    columns = {each.name for each in fields if (culprit.model, each.attname) in written}
    left = tuple(each for each in culprit.clues if each.column not in columns)
    if culprit.clues and not left:
        named = ", ".join(each.column for each in culprit.clues)
        return replace(
            culprit,
            clues=(),
            why_not=f"Only what receivers write stands out, which follows from a save that ran or didn't: {named}.",
        )
    return replace(culprit, clues=left)
