"""What somebody hands over to have looked at: records, as keys by model, and rules, by name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import DEFAULT_DB_ALIAS, router
from django.db.models import Model, QuerySet

from reconcile.db.columns import concrete_model, stored_field
from reconcile.db.django_compat import explicit_alias
from reconcile.errors import UsageError
from reconcile.rules.invalid import InvalidRule
from reconcile.rules.registry import project_rules, unknown_rule
from reconcile.rules.rule import Rule

__all__ = ["Changed", "Given", "Records", "rules_of"]

Changed = Mapping[type[Model], Sequence[Any]]
"""Keys of records, by model."""

Records = Model | Iterable[Model] | QuerySet[Any]


@dataclass(frozen=True)
class Given:
    """The records by model, as keys, on one database."""

    keys: Changed
    using: str

    @classmethod
    def of(cls, records: Records, using: str | None, *, door: str) -> Given:
        """Raises UsageError for anything that is no saved record. door: the function that was given them."""
        if isinstance(records, QuerySet):
            # Not where a router reads: what is written there is lost.
            alias = using or explicit_alias(records) or router.db_for_write(records.model)
            keys = list(dict.fromkeys(records.using(alias).values_list("pk", flat=True)))
            # As the database has them already.
            return cls({concrete_model(records.model): keys}, alias)
        listed = [records] if isinstance(records, Model) else _listed(records, door)
        keys_by_model: dict[type[Model], list[Any]] = {}
        for each in listed:
            if not isinstance(each, Model):
                raise UsageError(f"{door}() takes records or a queryset, and not {each!r}.")
            if each.pk is None or each._state.adding:
                raise UsageError(
                    f"{each._meta.label} {each.pk} is not saved, so there is nothing in the database to look at."
                )
            key = stored_field(each._meta.pk).to_python(each.pk)
            keys_by_model.setdefault(concrete_model(type(each)), []).append(key)
        unique = {model: list(dict.fromkeys(its)) for model, its in keys_by_model.items()}
        return cls(unique, using or _alias_of(listed))


def _listed(records: Any, door: str) -> Sequence[Any]:
    if isinstance(records, type) or not isinstance(records, Iterable):
        raise UsageError(f"{door}() takes records or a queryset, and not {records!r}.")
    return list(records)


def _alias_of(records: Sequence[Model]) -> str:
    """The database that the records are written to. Raises UsageError for records of several."""
    aliases = {router.db_for_write(type(each), instance=each) for each in records}
    if len(aliases) > 1:
        named = ", ".join(sorted(aliases))
        raise UsageError(f"The records are on several databases: {named}. Look at those of each by itself.")
    return next(iter(aliases), DEFAULT_DB_ALIAS)


def rules_of(
    given: Sequence[Rule | str] | None, using: str, *, about: Collection[str] | None = None
) -> tuple[Mapping[str, Rule], dict[str, str]]:
    """The rules by name, and why others can't be looked at. Raises UnknownNameError for a name that no rule has.

    about: the labels of models; of rules that can't be used, and that nobody has named, those of other models are passed over.
    """
    if given is None:
        found = {name: rule for name, rule in project_rules().items() if rule.is_on(using)}
    else:
        listed = [given] if isinstance(given, str | Rule) else given
        found = {rule.name: rule for rule in map(_rule, listed)}
    unusable = {name: rule for name, rule in found.items() if isinstance(rule, InvalidRule)}
    if given is None and about is not None:
        # Nobody knows what a rule is about that has no model.
        others = [name for name, rule in unusable.items() if rule.label and rule.label not in about]
        found = {name: rule for name, rule in found.items() if name not in others}
    refused = {name: rule.error for name, rule in unusable.items() if name in found}
    refused |= {
        name: f"Rule {name!r} is not about database {using!r}."
        for name, rule in found.items()
        if not rule.is_on(using)
    }
    return {name: rule for name, rule in found.items() if name not in refused}, refused


def _rule(given: Rule | str) -> Rule:
    """The rule. Raises UnknownNameError for a name that none has, and UsageError for a rule without one, or with faults."""
    if isinstance(given, str):
        known = project_rules()
        if given not in known:
            raise unknown_rule(given, known)
        return known[given]
    rule = given if given.name else _of_project(given)
    if rule is None:
        raise UsageError("A rule that is none of the project's needs a name=, under which its runs are kept.")
    if faults := list(rule.faults()):
        raise UsageError(f"The rule can't be used: {' '.join(map(str, faults))}")
    return rule


def _of_project(rule: Rule) -> Rule | None:
    """The project's rule of this declaration, which has its name."""
    same = (each for each in project_rules().values() if each.must is rule.must and each.every is rule.every)
    return next(same, None)
