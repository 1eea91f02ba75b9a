"""Assertions for tests: that rules are true of some records, of all records, or of what a block of code has written."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import StringIO
from typing import Any

import structlog
from django.db import DEFAULT_DB_ALIAS, transaction
from django.db.models import F, Model, QuerySet
from django.db.models.lookups import LessThan
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from reconcile.baseline import Rows, drifted_rows
from reconcile.core.drift import Drift, Status
from reconcile.core.finder import Finder
from reconcile.core.scopes import EVERYTHING, Keys, Scope, Window
from reconcile.db.clock import database_now
from reconcile.db.columns import concrete_model
from reconcile.detect.checking import check, evaluation_errors
from reconcile.detect.examining import examine
from reconcile.detect.inspecting import Inspection, inspect_record
from reconcile.errors import EvaluationError, InvalidRulesError, ReconcileError, UsageError
from reconcile.reports.facts import plural
from reconcile.reports.text_explain import subjects
from reconcile.rules.invalid import InvalidRule
from reconcile.rules.registry import project_rules, select
from reconcile.rules.rule import Rule

__all__ = [
    "SAMPLES",
    "FoundDrift",
    "Records",
    "Watch",
    "assert_consistent",
    "assert_rules",
    "choose_rules",
    "describe_drift",
    "find_drift",
    "find_drift_of",
    "keys_of",
    "model_of",
    "raise_if_drifted",
]

Records = type[Model] | Model | QuerySet[Any]


def choose_rules(
    rules: Iterable[str | Rule] | None, *, using: str, settled: bool, model: type[Model] | None = None
) -> Sequence[Rule]:
    """The given rules, each a name or a Rule. If none are given, all rules of the project about `using` and about `model`.

    With `settled`, the rules judge young records, too. Raises UsageError if no rule is left, if a name is unknown, or if a
    rule is about another model; InvalidRulesError if one of them can't be used.
    """
    if isinstance(rules, str | Rule):
        rules = [rules]
    chosen = _project_rules(using, model) if rules is None else [_find_rule(rule, using) for rule in rules]
    if not chosen:
        raise UsageError("rules= is empty. Name a rule, or leave rules= out.")
    for rule in chosen:
        if model is not None and not _is_about(rule, model):
            raise UsageError(
                f"Rule {rule.name!r} is about {rule.model._meta.label}, and the records are {model._meta.label}."
            )
    if invalid := [rule for rule in chosen if isinstance(rule, InvalidRule)]:
        listed = "\n".join(f"  {rule.name}: {rule.error}" for rule in invalid)
        raise InvalidRulesError(f"The rules can't be used:\n{listed}")
    if settled:
        return [replace(rule, settle=None) for rule in chosen]
    return chosen


def _project_rules(using: str, model: type[Model] | None) -> Sequence[Rule]:
    rules = [rule for rule in project_rules().values() if rule.is_on(using)]
    if model is None:
        return rules
    chosen = [rule for rule in rules if _is_about(rule, model)]
    if not chosen:
        raise UsageError(f"No rule is about {model._meta.label}. Give rules=, or write one.")
    return chosen


def _find_rule(rule: str | Rule, using: str) -> Rule:
    if isinstance(rule, str):
        return select(project_rules(), (rule,), using=using)[rule]
    if not isinstance(rule, Rule):
        raise UsageError(f"rules= has {rule!r}. Give the name of a rule, or a Rule.")
    rule = rule if rule.name else replace(rule, name="the rule")
    if faults := list(rule.faults()):
        listed = "\n".join(f"  {fault.id}  {fault}" for fault in faults)
        raise InvalidRulesError(f"The rule can't be used:\n{listed}")
    return rule


def _is_about(rule: Rule, model: type[Model]) -> bool:
    """Whether it is about the model; of a rule that can't be used, whether it may be."""
    if isinstance(rule, InvalidRule):
        return rule.label in {"", model._meta.label}
    return concrete_model(rule.model) is concrete_model(model)


def model_of(records: Records) -> tuple[type[Model], str]:
    """The model of the records, and the database that they are in. Raises UsageError for anything else."""
    if isinstance(records, QuerySet):
        return records.model, records.db
    if isinstance(records, Model):
        return type(records), records._state.db or DEFAULT_DB_ALIAS
    if isinstance(records, type) and issubclass(records, Model):
        return records, DEFAULT_DB_ALIAS
    raise UsageError(f"{records!r} is neither a model, a queryset nor a record.")


def keys_of(records: Records, using: str) -> Sequence[Any] | None:
    """The keys of the records; None if `records` is a model, which means all. Costs one statement for a queryset."""
    if isinstance(records, QuerySet):
        return list(dict.fromkeys(records.using(using).values_list("pk", flat=True)))
    return [records.pk] if isinstance(records, Model) else None


SAMPLES = 1_000
"""The number of keys of each kind of drift that are kept, to tell the drift from before a test from the drift of the test."""


@dataclass(frozen=True, kw_only=True)
class FoundDrift:
    """The drift of one rule in a test. `status` takes account of what the rule tolerates; it is ERROR if `error` is set."""

    rule: Rule
    using: str
    drifted: Mapping[Drift, Rows] = field(default_factory=dict)
    status: Status = Status.PASS
    error: str | None = None


@contextmanager
def _mute_log() -> Iterator[None]:
    """Log nothing during the block, since structlog would print into the output of the test.

    A project's own structlog configuration is left as it is.
    """
    if structlog.is_configured():
        yield
        return
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.reset_defaults()


def find_drift(rule: Rule, *, using: str) -> FoundDrift:
    """The drift of the rule in the whole database. Costs the statements of a check, in a savepoint. Nothing is written."""
    with _mute_log(), transaction.atomic(using=using):
        result = check(rule, using=using, now=database_now(using), samples=SAMPLES)
        if result.error:
            # Otherwise the failed statement would break the transaction of the test.
            transaction.set_rollback(True, using=using)
    return FoundDrift(
        rule=rule, using=using, drifted=drifted_rows(result), status=result.status, error=result.error
    )


def find_drift_of(rule: Rule, keys: Sequence[Any], *, using: str) -> FoundDrift:
    """The drift of the records with these keys, and of the extra rows that are linked to them.

    If the link of the rule does not lead from a row to a range of records, all extra rows of the table are found. Costs a
    statement or two for each kind of drift; for extra rows, one for each sequence of adjacent keys.
    """
    try:
        with (
            _mute_log(), transaction.atomic(using=using), evaluation_errors(using),
            examine(rule, using=using, now=database_now(using)) as examined,
        ):  # fmt: skip
            drifted = {
                finder.drift: rows
                for finder in examined.compiled.finders
                if (rows := _drifted_rows(finder, rule.model, keys)).number
            }
    except EvaluationError as error:
        return FoundDrift(rule=rule, using=using, status=Status.ERROR, error=str(error))
    return FoundDrift(rule=rule, using=using, drifted=drifted, status=Status.FAIL if drifted else Status.PASS)


def _drifted_rows(finder: Finder, model: type[Model], keys: Sequence[Any]) -> Rows:
    found = [str(key) for scope in _scopes(finder, model, keys) for key in finder.keys(scope)]
    return Rows(number=len(found), keys=tuple(found))


def _scopes(finder: Finder, model: type[Model], keys: Sequence[Any]) -> Iterator[Scope]:
    """The scopes in which the finder looks for drift of these records. A scope of keys names the rows that it finds."""
    if not keys:
        return
    if finder.model is model:
        yield Keys(keys)
    elif finder.in_windows:
        yield from _windows(model, keys, finder.using)
    else:
        yield EVERYTHING


def _windows(model: type[Model], keys: Sequence[Any], using: str) -> Iterator[Window]:
    """Windows that have these records and no others. Costs one statement for each key that is not an integer."""
    if all(isinstance(key, int) for key in keys):
        yield from _integer_windows(sorted(keys))
        return
    for key in keys:
        below = model._base_manager.using(using).filter(LessThan(F("pk"), key)).order_by("-pk")
        yield Window(below.values_list("pk", flat=True).first(), key)


def _integer_windows(keys: Sequence[int]) -> Iterator[Window]:
    """One window for each sequence of adjacent keys."""
    after = upto = keys[0] - 1
    for key in keys:
        if key > upto + 1:
            yield Window(after, upto)
            after = key - 1
        upto = key
    yield Window(after, upto)


WIDTH = 100
"""The width of the message, in columns."""
_KEYS = 10
"""The number of keys of one kind of drift that the message names."""
_INSPECTED = 5
"""The number of records that the message inspects. More would say the same: a faulty function leaves many that are alike."""


def raise_if_drifted(found: Sequence[FoundDrift], noun: str = "drifted row") -> None:
    """Raise AssertionError if one of the rules has drift, or could not be evaluated."""
    __tracebackhide__ = True
    if any(of_rule.drifted or of_rule.error for of_rule in found):
        raise AssertionError(describe_drift(found, noun))


def describe_drift(found: Sequence[FoundDrift], noun: str = "drifted row") -> str:
    """The message: the sum, then each rule that is not true. Costs a few statements for each record that it inspects."""
    console = Console(file=StringIO(), width=WIDTH, highlight=False, no_color=True, force_terminal=False)
    with console.capture() as captured:
        console.print(Group(Text(_sum(found, noun)), *_rule_parts(found)), crop=False)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _sum(found: Sequence[FoundDrift], noun: str) -> str:
    drifted = [of_rule for of_rule in found if of_rule.drifted]
    failed = [of_rule for of_rule in found if of_rule.error]
    number = sum(rows.number for of_rule in drifted for rows in of_rule.drifted.values())
    sentences = []
    if drifted:
        sentences.append(f"{plural(number, noun)} in {len(drifted)} of {plural(len(found), 'rule')}.")
    if failed:
        sentences.append(f"{plural(len(failed), 'rule')} could not be evaluated.")
    return " ".join(sentences)


def _rule_parts(found: Sequence[FoundDrift]) -> Iterator[RenderableType]:
    inspections_left = _INSPECTED
    for of_rule in found:
        head = f"\n{of_rule.rule.name}  {of_rule.rule.sentence}"
        if of_rule.error:
            yield Text(f"{head}\n  could not be evaluated: {of_rule.error}")
        if not of_rule.drifted:
            continue
        yield Text(head)
        for drift, rows in of_rule.drifted.items():
            yield Text(f"  {drift:<8}{_keys_text(rows)}")
        for rows in of_rule.drifted.values():
            if inspections_left and rows.keys:
                inspections_left -= 1
                yield Padding(_inspect_in_words(of_rule, rows.keys[0]), (0, 0, 0, 2), expand=False)


def _keys_text(rows: Rows) -> str:
    if not rows.keys:
        return f"{rows.number:,}"
    more = rows.number - len(rows.keys[:_KEYS])
    return ", ".join(rows.keys[:_KEYS]) + (f" and {more:,} more" if more else "")


def _inspect_in_words(found: FoundDrift, key: str) -> RenderableType:
    try:
        inspected = inspect_record(found.rule, key, using=found.using, now=database_now(found.using))
        return subjects(_without_fine_verdicts(inspected))
    except ReconcileError as error:
        return Text(f"\n{key}: {error}")


def _without_fine_verdicts(inspected: Inspection) -> Inspection:
    """The inspection without the verdicts that are fine, and without the subjects that have no other.

    One key may be that of a record and, by chance, that of a row of another model. The one that is fine is left out.
    """
    subjects_left = []
    for subject in inspected.subjects:
        verdicts = tuple(verdict for verdict in subject.verdicts if verdict.state != "fine")
        if verdicts:
            subjects_left.append(replace(subject, verdicts=verdicts))
    return replace(inspected, subjects=tuple(subjects_left))


@dataclass(frozen=True)
class Watch:
    """The drift of some rules at the moment at which the watch began. It lives as long as the block that is watched."""

    before: Sequence[FoundDrift]

    @classmethod
    def begin(
        cls, rules: Iterable[str | Rule] | None = None, *, using: str = DEFAULT_DB_ALIAS, settled: bool = True
    ) -> Watch:
        """Check the given rules; if none are given, all rules of the project. Costs a check, as `end` does."""
        return cls(
            [find_drift(rule, using=using) for rule in choose_rules(rules, using=using, settled=settled)]
        )

    def end(self) -> None:
        """Check the rules again. Raises AssertionError if there is drift that was not there at the beginning."""
        __tracebackhide__ = True
        raise_if_drifted([_find_new_drift(before) for before in self.before], "new drifted row")


def _find_new_drift(before: FoundDrift) -> FoundDrift:
    """Check the rule again; the drift that was not there before. Costs a check."""
    after = find_drift(before.rule, using=before.using)
    new: Mapping[Drift, Rows] = {
        drift: rows.without(before.drifted.get(drift, Rows())) for drift, rows in after.drifted.items()
    }
    return replace(after, drifted={drift: rows for drift, rows in new.items() if rows.number})


def assert_consistent(
    records: Records,
    rules: Iterable[str | Rule] | None = None,
    *,
    using: str | None = None,
    settled: bool = True,
) -> None:
    """Assert that the rules are true of these records: a model, a queryset, or one record.

    rules: names of rules, or rules; if they are not given, all rules whose `every=` is over the model. using: the database;
    if it is not given, the database of the records. settled: judge young records, too, as the records of a test are young.
    Any drift fails, whatever `warn_if` and `error_if` tolerate.

    Raises AssertionError with the rule, the keys, and what is there beside what is owed; UsageError if a rule does not exist,
    or if none is about the model. Costs the statements of a check; for a queryset, one more to read its keys.
    """
    __tracebackhide__ = True
    model, database = model_of(records)
    using = using or database
    keys = keys_of(records, using)
    found = [
        find_drift(rule, using=using) if keys is None else find_drift_of(rule, keys, using=using)
        for rule in choose_rules(rules, using=using, settled=settled, model=model)
    ]
    raise_if_drifted(found)


def assert_rules(*rules: str | Rule, using: str = DEFAULT_DB_ALIAS, settled: bool = True) -> None:
    """Assert that the given rules are true of every record in the database; if none are given, all rules of the project.

    The errors, the options and the costs are those of `assert_consistent`.
    """
    __tracebackhide__ = True
    raise_if_drifted(
        [find_drift(rule, using=using) for rule in choose_rules(rules or None, using=using, settled=settled)]
    )
