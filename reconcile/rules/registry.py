"""Finding the project's rules, naming them, and selecting some.

The rules are the module-level `Rule`s of the modules in the packages that `settings.RECONCILE["RULES"]`
names. Importing happens when somebody asks, and leaves no state here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from reconcile.conf import rule_packages, setting_faults
from reconcile.errors import Fault, InvalidRulesError, UnknownNameError, UsageError
from reconcile.rules.rule import Rule
from reconcile.rules.rule_files import import_package, rule_files, rules_of

__all__ = ["Registry", "load", "select", "valid_rules"]

_SELECTORS = ("tag", "owner", "model")


@dataclass(frozen=True)
class Registry:
    """The rules by name, in the order of their modules, and what was wrong with some."""

    rules: Mapping[str, Rule]
    faults: Sequence[Fault]


def load() -> Registry:
    """Import all rule modules and validate every rule. Touches no database; idempotent."""
    faults = [*setting_faults()]
    rules: dict[str, Rule] = {}
    for name in rule_packages():
        package = import_package(name, faults)
        if package is None:
            continue
        for rule in rules_of(list(rule_files(package, faults)), package.__name__):
            if rule.name in rules:
                hint = "Rename one, or give it name=."
                faults.append(Fault("reconcile.E003", f"There are two rules named {rule.name!r}.", hint))
            rules[rule.name] = rule
    for rule in rules.values():
        faults.extend(_faults_of(rule))
    return Registry(rules, list(dict.fromkeys(faults)))


def valid_rules() -> Mapping[str, Rule]:
    """The project's rules; raises InvalidRulesError with every fault, or UsageError where there are no rules."""
    registry = load()
    if registry.faults:
        listed = "\n".join(f"  {fault.id}  {fault}" for fault in registry.faults)
        raise InvalidRulesError(f"The rules can't be used:\n{listed}")
    if not registry.rules:
        packages = ", ".join(map(repr, rule_packages()))
        where = (
            f"There are no rules in {packages}." if packages else "settings.RECONCILE names no rule packages."
        )
        raise UsageError(
            f'{where} Set RECONCILE = {{"RULES": ["rules"]}} and write a module-level Rule in a module of rules/.'
        )
    return registry.rules


def select(
    rules: Mapping[str, Rule],
    names: Sequence[str] = (),
    selectors: Sequence[str] = (),
    *,
    using: str | None = None,
) -> Mapping[str, Rule]:
    """The rules of these names that match all selectors (`tag:…`, `owner:…`, `model:app.Model`), on one database.

    Raises UnknownNameError for a name or a selector that nothing has, and UsageError where nothing is left or a
    rule that is named is not about the database `using`.
    """
    for name in names:
        if name not in rules:
            raise UnknownNameError("rule", name, rules, instead=" `reconcile rules` lists them.")
    chosen = {name: rule for name, rule in rules.items() if not names or name in names}
    for selector in selectors:
        kind, value = _parse_selector(selector, rules)
        chosen = {name: rule for name, rule in chosen.items() if value in _traits(rule, kind)}
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
        selection = " ".join([*names, *(f"--select {each}" for each in selectors)])
        raise UsageError(
            f"No rule matches {selection}. `reconcile rules` lists them with their tags and owners."
        )
    return chosen


def _parse_selector(selector: str, rules: Mapping[str, Rule]) -> tuple[str, str]:
    kind, colon, value = selector.partition(":")
    if not colon or kind not in _SELECTORS:
        raise UsageError(f"--select {selector!r} is none of tag:NAME, owner:NAME and model:APP.MODEL.")
    known = {trait for rule in rules.values() for trait in _traits(rule, kind)}
    if kind == "model":
        by_lower = {label.lower(): label for label in known}
        value = by_lower.get(value.lower(), value)
    if value not in known:
        raise UnknownNameError(kind, value, known, instead=" `reconcile rules` lists them.")
    return kind, value


def _traits(rule: Rule, kind: str) -> Sequence[str]:
    return {"tag": rule.tags, "owner": [rule.owner] if rule.owner else [], "model": [rule.model._meta.label]}[
        kind
    ]


def _faults_of(rule: Rule) -> Iterator[Fault]:
    try:
        yield from rule.faults()
    except Exception as error:  # noqa: BLE001 - a fault in one rule must not hide those of the others
        message = f"Rule {rule.name!r}: it can't be examined: {type(error).__name__}: {error}."
        yield Fault("reconcile.E012", message, "Check the types of its options.")
