"""Finding the project's rules, naming them, and selecting some.

The rules are the module-level `Rule`s of the modules in the packages that `settings.RECONCILE["RULES"]`
names. They are imported and examined when somebody asks, and kept as long as the process has these modules and settings.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import RLock
from types import ModuleType
from typing import Any

from django.core.signals import setting_changed
from django.dispatch import receiver

from reconcile.conf import rule_packages, setting_faults
from reconcile.errors import Fault, InvalidRulesError, NoRulesError, UnknownNameError, UsageError
from reconcile.rules.invalid import InvalidRule
from reconcile.rules.rule import Rule
from reconcile.rules.rule_files import (
    FileState,
    RuleFile,
    file_state,
    is_missing,
    module_names,
    rule_files,
    rules_of,
)

__all__ = ["Registry", "load", "project_rules", "rules_if_any", "select", "unknown_rule", "valid_rules"]

_SELECTORS = ("tag", "owner", "model", "app")


@dataclass(frozen=True)
class Registry:
    """The rules by name, in the order of their modules.

    invalid: those that can't be used, under the names that they have, or else their file has. faults: everything that is wrong.
    settings: faults of the settings, with which no rule can be used. modules: those that were imported. broken: the files that were
    not, as they were then.
    """

    rules: Mapping[str, Rule]
    invalid: Mapping[str, InvalidRule] = field(default_factory=dict)
    faults: Sequence[Fault] = ()
    settings: Sequence[Fault] = ()
    modules: Mapping[str, ModuleType] = field(default_factory=dict)
    broken: Mapping[str, FileState] = field(default_factory=dict)

    def is_current(self) -> bool:
        """Whether the same modules are imported, and no other has come to be in the packages."""
        if any(sys.modules.get(name) is not module for name, module in self.modules.items()):
            return False
        if any(state is None or file_state(name) != state for name, state in self.broken.items()):
            return False
        packages = [self.modules[name] for name in rule_packages() if name in self.modules]
        return {*self.modules, *self.broken} == {
            *rule_packages(), *(name for package in packages for name in module_names(package)),
        }  # fmt: skip


_last: list[Registry] = []
"""The last registry."""
_LOADING = RLock()
"""A file that can't be imported is run statement by statement, and another thread must not take half of it for the whole."""


@receiver(setting_changed)
def _forget(**_: Any) -> None:
    _last.clear()


def load() -> Registry:
    """Import all rule modules and validate every rule, once for each process, and again if a faulty file has changed. Touches no database."""
    with _LOADING:
        if not (_last and _last[0].is_current()):
            _last[:] = [_load()]
        return _last[0]


def _load() -> Registry:
    loading = _Loading(settings=[*setting_faults()])
    for package in rule_packages():
        loading.read(package)
    loading.examine()
    return loading.registry()


@dataclass
class _Loading:
    """The rules and their faults, as the packages are read one after the other; the names are as in `Registry`.

    unmade: what stands for rules that a failed statement would have made. stopped: the rules that only their file's faults stop.
    """

    settings: list[Fault]
    rules: dict[str, Rule] = field(default_factory=dict)
    unmade: dict[str, InvalidRule] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)
    invalid: defaultdict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    faults: list[Fault] = field(default_factory=list)
    modules: dict[str, ModuleType] = field(default_factory=dict)
    broken: dict[str, FileState] = field(default_factory=dict)

    def read(self, package: str) -> None:
        """Import the package, and take its rules."""
        if is_missing(package):
            self.settings.append(_no_package(package))
            self.broken[package] = None
            return
        files = list(rule_files(package))
        for file in files:
            self.faults += file.faults
            if file.faults:
                self.broken[file.name] = file_state(file.name)
            elif file.module is not None:
                self.modules[file.name] = file.module
        for each in [*_rules_not_made(files), *_nameless_rules(files)]:
            self.unmade[each.name] = each
            self.invalid[each.name] += each.faults_found
            self.faults += [fault for fault in each.faults_found if fault not in self.faults]
        for file, rule in rules_of(files):
            self._take(rule, file)

    def _take(self, rule: Rule, file: RuleFile) -> None:
        if rule.name in self.rules:
            twice = Fault(
                "reconcile.E003", f"There are two rules named {rule.name!r}.", "Rename one, or give it name=."
            )
            self.invalid[rule.name].append(twice)
            self.faults.append(twice)
        elif file.faults:
            self.stopped.add(rule.name)
            self.invalid[rule.name] += file.faults
        self.rules[rule.name] = rule

    def examine(self) -> None:
        """Ask each rule for its faults."""
        for rule in self.rules.values():
            if found := list(_faults_of(rule)):
                self.invalid[rule.name] += found
                self.faults += found

    def registry(self) -> Registry:
        """What was read."""
        invalid = {
            name: _invalid(self.rules.get(name) or self.unmade[name], found, stopped=name in self.stopped)
            for name, found in self.invalid.items()
        }
        return Registry(
            {name: rule for name, rule in self.rules.items() if name not in invalid},
            invalid,
            list(dict.fromkeys([*self.settings, *self.faults])),
            self.settings,
            self.modules,
            self.broken,
        )


def _no_package(name: str) -> Fault:
    return Fault(
        "reconcile.E001",
        f"settings.RECONCILE['RULES'] names {name!r}, and there is no such package.",
        "Correct the name, or make the package: a folder with an empty __init__.py.",
    )


def _rules_not_made(files: Sequence[RuleFile]) -> Iterator[InvalidRule]:
    """What stands for the rules that a failed statement would have made: each by its name, others by that of the file."""
    for file in files:
        for variable, fault in file.lost.items():
            yield _not_made(file, variable, [fault])
        if file.has_unknown_rules:
            named = file.lost.values()
            nameless = [fault for fault in file.faults if fault not in named]
            yield _not_made(file, "", nameless or file.faults, subject="The file")


def _nameless_rules(files: Sequence[RuleFile]) -> Iterator[InvalidRule]:
    """What stands for rules in a list or dictionary that no variable names: they would be left out, and nobody would notice."""
    named = {id(value) for file in files if file.module for value in vars(file.module).values()}
    for file in files:
        for variable, value in vars(file.module).items() if file.module else ():
            inside = value.values() if isinstance(value, dict) else value
            if isinstance(value, list | tuple | set | frozenset | dict) and any(
                isinstance(each, Rule) and id(each) not in named for each in inside
            ):
                message = f"{variable} in {file.name} holds rules that have no variable of their own."
                hint = "Assign each to a variable: that is its name."
                yield _not_made(file, variable, [Fault("reconcile.E003", message, hint)], subject="It")


def _not_made(file: RuleFile, variable: str, faults: Sequence[Fault], subject: str = "It") -> InvalidRule:
    return InvalidRule(
        name=file.rule_name(variable),
        declared_at=file.place(variable),
        faults_found=tuple(faults),
        subject=subject,
        is_declared=False,
    )


def _invalid(rule: Rule, faults: Sequence[Fault], *, stopped: bool) -> InvalidRule:
    found = tuple(dict.fromkeys(faults))
    if isinstance(rule, InvalidRule):
        return replace(rule, faults_found=found)
    return InvalidRule.of(rule, found, subject="Its file" if stopped else "It")


def valid_rules() -> Mapping[str, Rule]:
    """The project's rules; raises InvalidRulesError with every fault, or UsageError where there are no rules."""
    registry = load()
    if registry.faults:
        raise _invalid_rules(registry.faults)
    return _some(registry.rules)


def project_rules() -> Mapping[str, Rule]:
    """The project's rules; one that can't be used is among them as an `InvalidRule`, an error for whoever checks it.

    Raises InvalidRulesError if the settings have faults, and UsageError where there are no rules.
    """
    registry = load()
    if registry.settings:
        raise _invalid_rules(registry.settings)
    return _some({**registry.rules, **registry.invalid})


def rules_if_any() -> Mapping[str, Rule]:
    """The project's rules, as `project_rules`; none where it has none yet, for whoever may be about to write the first."""
    try:
        return project_rules() if rule_packages() else {}
    except NoRulesError:
        return {}


def _invalid_rules(faults: Sequence[Fault]) -> InvalidRulesError:
    listed = "\n".join(f"  {fault.id}  {fault}" for fault in faults)
    return InvalidRulesError(f"The rules can't be used:\n{listed}")


def _some(rules: Mapping[str, Rule]) -> Mapping[str, Rule]:
    """The rules. Raises NoRulesError if there are none."""
    if rules:
        return rules
    packages = ", ".join(map(repr, rule_packages()))
    where = f"There are no rules in {packages}." if packages else "settings.RECONCILE names no rule packages."
    raise NoRulesError(
        f'{where} Set RECONCILE = {{"RULES": ["rules"]}} and write a module-level Rule in a module of rules/.'
    )


def select(
    rules: Mapping[str, Rule],
    names: Sequence[str] = (),
    selectors: Sequence[str] = (),
    *,
    exclude: Sequence[str] = (),
    using: str | None = None,
) -> Mapping[str, Rule]:
    """The rules of these names that match all selectors (`tag:…`, `owner:…`, `model:app.Model`, `app:…`), on one database.

    exclude: names and selectors of rules that are left out.

    Raises UnknownNameError for a name or a selector that nothing has, and UsageError where nothing is left or a
    rule that is named is not about the database `using`.
    """
    for name in names:
        if name not in rules:
            raise unknown_rule(name, rules)
    chosen = {name: rule for name, rule in rules.items() if not names or name in names}
    for selector in selectors:
        kind, value = _parse_selector(selector, rules)
        chosen = {name: rule for name, rule in chosen.items() if _may_have(rule, kind, value)}
    chosen = _without(chosen, exclude, rules)
    if using is not None:
        elsewhere = [name for name in names if name in chosen and not chosen[name].is_on(using)]
        if elsewhere:
            raise UsageError(
                f"Rule {elsewhere[0]!r} is not about database {using!r}. Give another --database."
            )
        chosen = {name: rule for name, rule in chosen.items() if rule.is_on(using)}
        if not chosen and not names and not selectors:
            raise UsageError(
                f"No rule is about database {using!r}: the router keeps none of their models there."
            )
    if not chosen:
        words = [*(f"--select {each}" for each in selectors), *(f"--exclude {each}" for each in exclude)]
        selection = " ".join([*names, *words])
        raise UsageError(
            f"No rule matches {selection}. `reconcile rules` lists them with their tags and owners."
        )
    return chosen


def _without(
    chosen: Mapping[str, Rule], exclude: Sequence[str], rules: Mapping[str, Rule]
) -> dict[str, Rule]:
    """The chosen rules without those that a name or a selector leaves out. Of a rule that can't be used nobody knows that it may go."""
    left = dict(chosen)
    for each in exclude:
        if ":" not in each and each not in rules:
            raise unknown_rule(each, rules)
        kind, value = _parse_selector(each, rules, option="--exclude") if ":" in each else ("", each)
        left = {
            name: rule
            for name, rule in left.items()
            if not (name == value if not kind else value in _traits(rule, kind))
        }
    return left


def unknown_rule(name: str, rules: Mapping[str, Rule]) -> UnknownNameError:
    """The error that there is no such rule, with the files in which it may be, if their rules can't be known."""
    files = [each for each in rules.values() if isinstance(each, InvalidRule) and each.is_file]
    if not files:
        return UnknownNameError("rule", name, rules, instead=" `reconcile rules` lists them.")
    named = "; ".join(f"{each.name}: {each.error}" for each in files)
    return UnknownNameError("rule", name, (), instead=f" It may be in a file that can't be used. {named}")


def _may_have(rule: Rule, kind: str, value: str) -> bool:
    """Whether the rule has what is selected; of a rule that can't be used, whether it may have."""
    unknown = isinstance(rule, InvalidRule) and (
        not rule.is_declared or (kind in {"model", "app"} and not rule.label)
    )
    return unknown or value in _traits(rule, kind)


def _parse_selector(selector: str, rules: Mapping[str, Rule], option: str = "--select") -> tuple[str, str]:
    kind, colon, value = selector.partition(":")
    if not colon or kind not in _SELECTORS:
        raise UsageError(
            f"{option} {selector!r} is none of tag:NAME, owner:NAME, model:APP.MODEL and app:APP."
        )
    known = {trait for rule in rules.values() for trait in _traits(rule, kind) if trait}
    if kind == "model":
        by_lower = {label.lower(): label for label in known}
        value = by_lower.get(value.lower(), value)
    if value not in known:
        what = f"rule about {kind}" if kind in {"model", "app"} else kind
        raise UnknownNameError(what, value, known, instead=" `reconcile rules` lists them.")
    return kind, value


def _traits(rule: Rule, kind: str) -> Sequence[str]:
    if kind == "tag":
        return rule.tags
    if kind == "owner":
        return [rule.owner] if rule.owner else []
    labels = list(dict.fromkeys([rule.model_label, *_written_labels(rule)]))
    return (
        labels if kind == "model" else [app for app in (label.partition(".")[0] for label in labels) if app]
    )


def _written_labels(rule: Rule) -> Iterator[str]:
    """The models whose rows the rule is about beside its records: a rule on invoices is about invoices, too."""
    if isinstance(rule, InvalidRule):
        return
    for model in sorted(
        {model for model, _ in rule.must.writes(rule.model)}, key=lambda each: each._meta.label
    ):
        if model._meta.app_label != "reconcile":
            yield model._meta.label


def _faults_of(rule: Rule) -> Iterator[Fault]:
    try:
        yield from rule.faults()
    except Exception as error:  # noqa: BLE001 - a fault in one rule must not hide those of the others
        message = f"Rule {rule.name!r}: it can't be examined: {type(error).__name__}: {error}."
        yield Fault("reconcile.E012", message, "Check the types of its options.")
