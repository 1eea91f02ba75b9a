"""`look`: check some records, and repair them, through the guards, the chunks and the journal of any other repair.

It is the door for events: whoever has written past the handlers, by a bulk path or by a message from elsewhere, has just these records
looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, router
from django.db.models import Model, QuerySet

from reconcile.core.drift import Status
from reconcile.core.scopes import Keys
from reconcile.db.clock import database_now
from reconcile.db.columns import concrete_model
from reconcile.db.django_compat import is_nested_in_transaction
from reconcile.detect.checking import RuleCheck, check, evaluation_errors
from reconcile.detect.leading import lead_of
from reconcile.errors import EvaluationError, UnknownNameError, UsageError
from reconcile.models import Change, Run
from reconcile.rules.order import sort_rules
from reconcile.rules.registry import project_rules
from reconcile.rules.rule import Rule
from reconcile.runs.guards import unattended_refusal
from reconcile.runs.results import RuleRepair
from reconcile.runs.running import repair as repair_rules, repair_unattended

__all__ = ["LookResult", "look"]

ROUNDS = 10
"""Most times that rows which a repair has written lead to further records."""

Changed = Mapping[type[Model], Sequence[Any]]
"""Keys of records, by model."""

Records = Model | Iterable[Model] | QuerySet[Any]


@dataclass(frozen=True, kw_only=True)
class LookResult:
    """What a look at some records has found, and what was repaired.

    checks: of each rule that concerns the records, before anything was repaired. repairs: what became of those that were repaired.
    refused: by the name of a rule, why it was not looked at, or not repaired although it drifts. runs: the runs that have repaired.
    """

    checks: Sequence[RuleCheck] = ()
    repairs: Sequence[RuleRepair] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    runs: Sequence[Run] = ()

    @property
    def clean(self) -> bool:
        """Whether no drift is left in these records, as far as all rules that concern them could be looked at."""
        mended = {each.rule: not (each.left or each.error or each.incomplete) for each in self.repairs}
        fine = (mended.get(each.rule.name, not (each.error or each.tally.total)) for each in self.checks)
        return not self.refused and all(fine)


def look(
    records: Records,
    rules: Sequence[Rule | str] | None = None,
    *,
    repair: bool | None = None,
    using: str | None = None,
) -> LookResult:
    """Check these records under the rules that concern them, and repair what drifts.

    records: one or several instances, or a queryset. Only their keys count: what is in the database is looked at. They must be saved.
    rules: rules, or their names; unless given, all rules of the project that read the records' model. A rule of another model is led to
        its records through the foreign keys that it reads; a rule that reads the model, and has no such way, is in `refused`.
    repair: None repairs what the nightly job may repair by itself; True all; False nothing.
    using: alias of the database; unless given, that of the records.

    A rule with a settle time leaves young records alone, as ever. What is deleted needs a run of the whole rule that has found it before. The
    number of statements doesn't depend on the number of records, up to 5,000. Raises UsageError if it is to repair inside a transaction
    of the caller's (a chunk has a transaction of its own: use `transaction.on_commit`), and EvaluationError if the database doesn't answer.
    """
    given = _Given.of(records, using)
    if repair is not False and is_nested_in_transaction(given.using):
        raise UsageError(
            "look() repairs in transactions of its own, and was called inside another. Call it after that: "
            "transaction.on_commit(lambda: look(…)); or only check: look(…, repair=False)."
        )
    with evaluation_errors(given.using):
        return _Looking(given, rules, repair=repair).through()


@dataclass(frozen=True)
class _Given:
    """The records by model, as keys, on one database."""

    keys: Mapping[type[Model], Sequence[Any]]
    using: str

    @classmethod
    def of(cls, records: Records, using: str | None) -> _Given:
        """Raises UsageError for anything that is no saved record."""
        if isinstance(records, QuerySet):
            rows = records if using is None else records.using(using)
            # Ordered and sliced querysets stay what they are.
            return cls({concrete_model(rows.model): list(rows.values_list("pk", flat=True))}, rows.db)
        listed = [records] if isinstance(records, Model) else list(records)
        keys: dict[type[Model], list[Any]] = {}
        for each in listed:
            if not isinstance(each, Model):
                raise UsageError(f"look() takes records or a queryset, and not {each!r}.")
            if each.pk is None or each._state.adding:
                raise UsageError(
                    f"{each._meta.label} {each.pk} is not saved, so there is nothing in the database to look at."
                )
            keys.setdefault(concrete_model(type(each)), []).append(each.pk)
        return cls(
            {model: list(dict.fromkeys(its)) for model, its in keys.items()}, using or _alias_of(listed)
        )


def _alias_of(records: Sequence[Model]) -> str:
    """The database that the records are on. Raises UsageError for records of several."""
    aliases = {each._state.db or router.db_for_write(type(each)) for each in records}
    if len(aliases) > 1:
        named = ", ".join(sorted(aliases))
        raise UsageError(f"The records are on several databases: {named}. Look at those of each by itself.")
    return next(iter(aliases), DEFAULT_DB_ALIAS)


class _Looking:
    """One look, from the records to the last round of repairs."""

    def __init__(self, given: _Given, rules: Sequence[Rule | str] | None, *, repair: bool | None) -> None:
        self.given, self.repair, self.named = given, repair, rules is not None
        self.using, self.now = given.using, database_now(given.using)
        self.rules = _rules_of(rules, self.using)
        self.refused: dict[str, str] = {}
        self.checks: dict[str, RuleCheck] = {}
        self.repairs: dict[str, RuleRepair] = {}
        self.runs: list[Run] = []
        self.seen: dict[str, set[Any]] = {name: set() for name in self.rules}
        self.concerned: set[str] = set()

    def through(self) -> LookResult:
        """Look, repair, and look at what the repairs have written, and at what that leads to."""
        changed: Changed = self.given.keys
        for _ in range(ROUNDS):
            ahead = self._new_keys(changed)
            if not ahead or not self._look(ahead):
                break
            changed = self._written()
        else:
            self._refuse_the_rest(self._new_keys(changed))
        if self.named:
            self._refuse_unconcerned()
        return LookResult(
            checks=[*self.checks.values()],
            repairs=[*self.repairs.values()],
            refused=self.refused,
            runs=self.runs,
        )

    def _new_keys(self, changed: Changed) -> dict[str, Sequence[Any]]:
        """For each rule the keys of its records that the changed ones lead to, and that were not looked at yet."""
        found: dict[str, Sequence[Any]] = {}
        for name, rule in self.rules.items():
            keys = [key for key in self._led(name, rule, changed) if key not in self.seen[name]]
            self.seen[name].update(keys)
            if keys:
                found[name] = keys
        return found

    def _led(self, name: str, rule: Rule, changed: Changed) -> list[Any]:
        keys: dict[Any, None] = {}
        for model, its in changed.items():
            try:
                lead = lead_of(rule, model, using=self.using, now=self.now)
            except EvaluationError as error:
                self.refused[name] = str(error)
                continue
            if lead.concerns:
                self.concerned.add(name)
            if lead.refusal is not None:
                self.refused[name] = lead.refusal.reason
            keys |= dict.fromkeys(lead.keys(its, self.using))
        return list(keys)

    def _written(self) -> Changed:
        """The rows that the last run has written, by model. One statement."""
        changes = Change._base_manager.using(self.using).filter(work_item__outcome__run=self.runs[-1])
        texts: dict[type[Model], list[str]] = {}
        for label, key in changes.values_list("model", "key"):
            texts.setdefault(concrete_model(apps.get_model(label)), []).append(key)
        return {
            model: [model._meta.pk.to_python(text) for text in dict.fromkeys(its)]
            for model, its in texts.items()
        }

    def _refuse_the_rest(self, ahead: Mapping[str, Sequence[Any]]) -> None:
        for name, keys in ahead.items():
            self.refused[name] = (
                f"{len(keys):,} more records were reached after {ROUNDS} rounds. Look at them: reconcile check {name}"
            )

    def _refuse_unconcerned(self) -> None:
        labels = ", ".join(model._meta.label for model in self.given.keys)
        for name in self.rules.keys() - self.concerned - self.refused.keys() if labels else ():
            self.refused[name] = f"Rule {name!r} doesn't read {labels}."

    def _look(self, ahead: Mapping[str, Sequence[Any]]) -> bool:
        """Check the rules for these keys, and repair those that drift and may be repaired. Returns whether anything was written."""
        order = sort_rules({name: self.rules[name] for name in ahead}, using=self.using, now=self.now)
        drifting = False
        for rule in order.rules:
            found = check(rule, using=self.using, now=self.now, only=Keys(ahead[rule.name]))
            self.checks.setdefault(rule.name, found)
            drifting = drifting or bool(found.planned.total)
            self._refuse_unless_repairable(rule, found)
        chosen = {rule.name: rule for rule in order.rules if self._may_repair(rule)}
        if not drifting or not chosen:
            return False
        only = {name: ahead[name] for name in chosen}
        return self._repair(chosen, only)

    def _repair(self, rules: Mapping[str, Rule], only: Mapping[str, Sequence[Any]]) -> bool:
        if self.repair:
            run, results = repair_rules(rules, using=self.using, only=only)
        else:
            run, results = repair_unattended(rules, using=self.using, only=only)
        if run is not None:
            self.runs.append(run)
        self.repairs |= {each.rule: each for each in results}
        return any(each.written.total for each in results)

    def _may_repair(self, rule: Rule) -> bool:
        if self.repair is None:
            return rule.unattended and unattended_refusal(rule, self.using) is None
        return self.repair

    def _refuse_unless_repairable(self, rule: Rule, found: RuleCheck) -> None:
        if (
            found.status is Status.ERROR
            or not found.planned.total
            or self.repair is False
            or self._may_repair(rule)
        ):
            return
        reason = unattended_refusal(rule, self.using) if rule.unattended else None
        self.refused[rule.name] = str(
            reason or "It drifts, and it is not unattended: look(…, repair=True) repairs it."
        )


def _rules_of(given: Sequence[Rule | str] | None, using: str) -> Mapping[str, Rule]:
    """The rules by name. Raises UnknownNameError for a name that no rule has."""
    if given is None:
        return {name: rule for name, rule in project_rules().items() if rule.is_on(using)}
    if isinstance(given, str | Rule):
        given = [given]
    found: dict[str, Rule] = {}
    for each in given:
        if isinstance(each, Rule):
            found[each.name] = _named(each)
        elif each in (known := project_rules()):
            found[each] = known[each]
        else:
            raise UnknownNameError("rule", each, known, instead=" `reconcile rules` lists them.")
    return found


def _named(rule: Rule) -> Rule:
    """The rule. Raises UsageError if it has no name, under which its runs could be kept, or faults."""
    if not rule.name:
        raise UsageError(
            "A rule that is given to look() needs a name: give its name as a text, or name= to the rule."
        )
    if faults := list(rule.faults()):
        raise UsageError(f"The rule can't be used: {' '.join(map(str, faults))}")
    return rule
