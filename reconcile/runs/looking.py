"""`look`: check some records, and repair them, through the guards, the chunks and the journal of any other repair.

It is the door for events: whoever has written past the handlers, by a bulk path or by a message from elsewhere, has just these records
looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS
from django.db.models import Field, ForeignKey, Model, QuerySet

from reconcile.core.scopes import Keys, blocks
from reconcile.core.verbs import DELETE, UPDATE, verbs_of
from reconcile.core.wording.names import plural
from reconcile.db.clock import database_now
from reconcile.db.columns import concrete_model
from reconcile.db.django_compat import is_nested_in_transaction, referred_field
from reconcile.detect.checking import RuleCheck, check, evaluation_errors
from reconcile.detect.leading import Lead, lead_of
from reconcile.errors import EvaluationError, UsageError
from reconcile.models import Change, Run
from reconcile.rules.order import sort_rules
from reconcile.rules.rule import Rule
from reconcile.rules.unattended import unattended_refusal
from reconcile.runs.given import Changed, Given, Records, rules_of
from reconcile.runs.results import RuleRepair
from reconcile.runs.running import repair as repair_rules, repair_unattended

__all__ = ["LookResult", "look", "look_at"]

ROUNDS = 10
"""Most times that rows which a repair has written lead to further records."""


@dataclass(frozen=True, kw_only=True)
class LookResult:
    """What a look at some records has found, and what was repaired.

    checks: of each rule that concerns the records, what was found in the end, after all repairs. repairs: what became of those that were
    repaired, in the order of the runs. refused: by the name of a rule, why it was not looked at, or why it drifts still. young: by the
    name of a rule, the number of records that it leaves alone because they are too young. runs: the runs that have repaired.
    """

    checks: Sequence[RuleCheck] = ()
    repairs: Sequence[RuleRepair] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    young: Mapping[str, int] = field(default_factory=dict)
    runs: Sequence[Run] = ()

    @property
    def clean(self) -> bool:
        """Whether no drift is left in these records, and all rules that concern them could be looked at, and have judged them."""
        return (
            not self.refused
            and not self.young
            and not any(each.error or each.tally.total for each in self.checks)
        )


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

    A rule with a settle time leaves young records alone, as ever. What is deleted needs a run of the whole rule that has found it before.
    While nothing drifts, the number of statements is the same for one record as for 5,000; a repair adds those of its chunks.

    Raises UsageError if it is to repair inside a transaction of the caller's (a chunk has a transaction of its own: use
    `transaction.on_commit`), and EvaluationError if the database doesn't answer.
    """
    with evaluation_errors(using or DEFAULT_DB_ALIAS):
        given = Given.of(records, using, door="look")
    if repair is not False and is_nested_in_transaction(given.using):
        raise UsageError(
            "look() repairs in transactions of its own, and was called inside another. Call it after that: "
            "transaction.on_commit(lambda: look(…)); or only check: look(…, repair=False)."
        )
    with evaluation_errors(given.using):
        return look_at(given, rules, repair=repair)


def look_at(
    given: Given, rules: Sequence[Rule | str] | None, *, repair: bool | None, of_any_age: bool = False
) -> LookResult:
    """`look` at keys that are known. of_any_age: settle times leave no record alone."""
    looking = _Looking(given, rules, repair=repair)
    if of_any_age:
        looking.rules = {name: replace(rule, settle=None) for name, rule in looking.rules.items()}
    return looking.through()


class _Looking:
    """One look, from the records to the last round of repairs."""

    def __init__(self, given: Given, rules: Sequence[Rule | str] | None, *, repair: bool | None) -> None:
        self.given, self.repair, self.named = given, repair, rules is not None
        self.using, self.now = given.using, database_now(given.using)
        self.rules, self.refused = rules_of(rules, self.using)
        self.checks: dict[str, RuleCheck] = {}
        self.repairs: list[RuleRepair] = []
        self.runs: list[Run] = []
        self.keys: dict[str, dict[Any, None]] = {}
        self.concerned: set[str] = set()
        self._leads: dict[tuple[str, type[Model]], Lead] = {}

    def through(self) -> LookResult:
        """Look, repair, and look again at all that the rows which were written lead to, until nothing is written."""
        ahead = {name: self._led(name, self.given.keys) for name in self.rules}
        self._refuse_gone()
        for _ in range(ROUNDS):
            ahead = {name: keys for name, keys in ahead.items() if keys}
            for name, keys in ahead.items():
                self.keys.setdefault(name, {}).update(dict.fromkeys(keys))
            if not ahead or not self._look(ahead):
                break
            ahead = self._led_from_written()
        else:
            self._refuse_the_rest(ahead)
        return self._result()

    def _lead(self, name: str, model: type[Model]) -> Lead:
        """How records of the model lead to those of the rule, for which the rule is compiled once in a look."""
        if (name, model) not in self._leads:
            lead = lead_of(self.rules[name], model, using=self.using, now=self.now)
            self._leads[name, model] = lead
        return self._leads[name, model]

    def _led(self, name: str, changed: Changed, *, own: Changed | None = None) -> list[Any]:
        """The keys of the rule's records that the changed ones lead to. own: changed ones that the rule has written itself, for its records."""
        keys: dict[Any, None] = {}
        for model, its in changed.items():
            try:
                lead = self._lead(name, model)
            except EvaluationError as error:
                self.refused[name] = str(error)
                return []
            if lead.concerns:
                self.concerned.add(name)
            if lead.refusal is not None and {*its} - {*(own or {}).get(model, ())}:
                self.refused[name] = lead.refusal.reason
            keys |= dict.fromkeys(lead.keys(its, self.using))
        return list(keys)

    def _led_from_written(self) -> dict[str, list[Any]]:
        """For each rule the keys that the rows lead to which the last run has written."""
        written = self._written()
        changed, left = _merge(written.values()), self._left_behind()
        ahead = {}
        for name in self.rules:
            keys = dict.fromkeys(self._led(name, changed, own=written.get(name)))
            keys |= dict.fromkeys(self._led(name, left, own=left))
            ahead[name] = list(keys)
        return ahead

    def _changes(self) -> QuerySet[Change]:
        """The changes of the last run."""
        return Change._base_manager.using(self.using).filter(work_item__outcome__run=self.runs[-1])

    def _written(self) -> Mapping[str, Changed]:
        """The rows that the last run has written, by rule and model. One statement."""
        found: dict[str, dict[type[Model], list[Any]]] = {}
        for rule, label, text in self._changes().values_list("work_item__outcome__rule", "model", "key"):
            model = concrete_model(apps.get_model(label))
            found.setdefault(rule, {}).setdefault(model, []).append(model._meta.pk.to_python(text))
        return found

    def _left_behind(self) -> Changed:
        """The rows that deleted and changed rows referred to before. One statement, and one for each key to a column of its own."""
        found: dict[Field[Any, Any], dict[Any, None]] = {}
        with_images = self._changes().filter(verb__in=[*verbs_of(DELETE), *verbs_of(UPDATE)])
        for label, before in with_images.values_list("model", "before").iterator():
            for column in apps.get_model(label)._meta.concrete_fields:
                value = (before or {}).get(column.attname)
                if isinstance(column, ForeignKey) and value is not None:
                    target = referred_field(column)
                    found.setdefault(target, {})[target.to_python(value)] = None
        return _merge(self._keys_of(target, list(values)) for target, values in found.items())

    def _keys_of(self, target: Field[Any, Any], values: Sequence[Any]) -> Changed:
        """The keys of the rows that have these values in the column."""
        model = concrete_model(target.model)
        if target.primary_key:
            return {model: values}
        rows = model._base_manager.using(self.using)
        found = [rows.filter(**{f"{target.attname}__in": block}) for block in blocks(values)]
        return {model: [key for each in found for key in each.values_list("pk", flat=True)]}

    def _look(self, ahead: Mapping[str, Sequence[Any]]) -> bool:
        """Check the rules for these keys, and repair those that drift and may be repaired. Returns whether anything was written."""
        order = sort_rules({name: self.rules[name] for name in ahead}, using=self.using, now=self.now)
        found = {rule.name: self._check(rule, ahead[rule.name]) for rule in order.rules}
        self.checks |= found
        chosen = {rule.name: rule for rule in order.rules if self._may_repair(rule)}
        if not any(found[name].planned_records.total for name in chosen):
            return False
        only = {name: ahead[name] for name in chosen}
        if self.repair:
            run, results = repair_rules(chosen, using=self.using, only=only)
        else:
            run, results = repair_unattended(chosen, using=self.using, only=only)
        self.repairs += [
            each for each in results if each.written.total or each.left or each.error or each.why_stopped
        ]
        if run is None:
            return False
        self.runs.append(run)
        return any(each.written.total for each in results)

    def _check(self, rule: Rule, keys: Iterable[Any]) -> RuleCheck:
        return check(rule, using=self.using, now=self.now, only=Keys(list(keys)))

    def _may_repair(self, rule: Rule) -> bool:
        if self.repair is None:
            return rule.unattended and unattended_refusal(rule, self.using) is None
        return self.repair

    def _result(self) -> LookResult:
        """What there is in the end: if anything was written, all that was looked at is checked once more."""
        if self.runs:
            self.checks = {name: self._check(self.rules[name], keys) for name, keys in self.keys.items()}
        if self.named:
            self._refuse_unconcerned()
        for name, found in self.checks.items():
            if found.tally.total and self.repair is not False:
                self.refused.setdefault(name, self._why_left(self.rules[name], found))
        young = {name: each.tally.settling for name, each in self.checks.items() if each.tally.settling}
        return LookResult(
            checks=[*self.checks.values()],
            repairs=self.repairs,
            refused=self.refused,
            young=young,
            runs=self.runs,
        )

    def _why_left(self, rule: Rule, found: RuleCheck) -> str:
        """Why the rule drifts still although a repair was wanted."""
        said = [each.why_stopped for each in self.repairs if each.rule == rule.name and each.why_stopped]
        if said:
            return said[-1]
        if not found.planned_records.total:
            return "It drifts, and leaves that to people."
        if not self._may_repair(rule):
            reason = unattended_refusal(rule, self.using) if rule.unattended else None
            return str(reason or "It drifts, and it is not unattended: look(…, repair=True) repairs it.")
        return "It drifts still, or again: others write these records meanwhile. Look again."

    def _refuse_gone(self) -> None:
        """Say of rules of other models that records which are gone lead nowhere."""
        for model, keys in self.given.keys.items():
            rows = model._base_manager.using(self.using)
            there = sum(rows.filter(Keys(block).on("pk")).count() for block in blocks(keys))
            gone = len(keys) - there
            for name in self.concerned if gone else ():
                rule = self.rules[name]
                if not issubclass(model, concrete_model(rule.model)):
                    self.refused[name] = (
                        f"{plural(gone, 'record')} of {model._meta.label} {'is' if gone == 1 else 'are'} gone, so nothing leads from them to {rule.model_label}. Look at its "
                        "own records instead."
                    )

    def _refuse_the_rest(self, ahead: Mapping[str, Sequence[Any]]) -> None:
        for name, keys in ahead.items():
            if keys:
                self.refused[name] = (
                    f"{plural(len(keys), 'record')} had to be written again after {ROUNDS} rounds. See: reconcile check {name}"
                )

    def _refuse_unconcerned(self) -> None:
        """Say of rules that they read neither these records nor what the others of the rules may write."""
        labels = ", ".join(model._meta.label for model in self.given.keys)
        rules = [self.rules[name] for name in self.concerned]
        written = {concrete_model(model) for rule in rules for model, _ in rule.must.writes(rule.model)}
        for name in self.rules.keys() - self.concerned - self.refused.keys() if labels else ():
            if not any(self._lead(name, model).concerns for model in written):
                self.refused[name] = f"Rule {name!r} doesn't read {labels}."


def _merge(several: Iterable[Changed]) -> Changed:
    merged: dict[type[Model], dict[Any, None]] = {}
    for each in several:
        for model, keys in each.items():
            merged.setdefault(model, {}).update(dict.fromkeys(keys))
    return {model: list(keys) for model, keys in merged.items()}
