"""Finding the project's rules, naming them, and selecting some.

The rules are the module-level `Rule`s of the modules in the packages that `settings.RECONCILE["RULES"]`
names. Importing happens when somebody asks, and leaves no state here.
"""

from __future__ import annotations

import importlib
import pkgutil
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from django.conf import settings
from django.core.exceptions import FieldError, ImproperlyConfigured

from reconcile.declaring import resolution_fault
from reconcile.errors import Fault, InvalidRulesError, UnknownNameError, UsageError, nearest
from reconcile.pacing import MOST, REST, chunk_faults, rest_faults
from reconcile.rules import Rule
from reconcile.throttling import throttle_faults

__all__ = ["Registry", "load", "select", "valid_rules"]

_PACKAGE = Path(__file__).resolve().parent
_SETTINGS = ("RULES", "THROTTLES", "CHUNK", "REST")
_SELECTORS = ("tag", "owner", "model")


@dataclass(frozen=True)
class Registry:
    """The rules by name, in the order of their modules, and what was wrong with some."""

    rules: Mapping[str, Rule]
    faults: Sequence[Fault]


def load() -> Registry:
    """Import all rule modules and validate every rule. Touches no database; idempotent."""
    found, faults = _setting_packages()
    rules: dict[str, Rule] = {}
    for package in found:
        modules = list(_modules(package, faults))
        homes = {module.__name__: {id(value) for value in vars(module).values()} for module in modules}
        for module in modules:
            for rule in _rules_of(module, package, homes):
                if rule.name in rules:
                    hint = "Rename one, or give it name=."
                    faults.append(Fault("reconcile.E003", f"There are two rules named {rule.name!r}.", hint))
                rules[rule.name] = rule
    for rule in rules.values():
        faults.extend(_faults_of(rule))
    return Registry(rules, faults)


def valid_rules() -> Mapping[str, Rule]:
    """The project's rules; raises InvalidRulesError with every fault, or UsageError where there are no rules."""
    registry = load()
    if registry.faults:
        listed = "\n".join(f"  {fault.id}  {fault}" for fault in registry.faults)
        raise InvalidRulesError(f"The rules can't be used:\n{listed}")
    if not registry.rules:
        packages = ", ".join(map(repr, _configured().get("RULES", ())))
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
        kind, value = _parsed(selector, rules)
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
        asked = " ".join([*names, *(f"--select {each}" for each in selectors)])
        raise UsageError(f"No rule matches {asked}. `reconcile rules` lists them with their tags and owners.")
    return chosen


def _parsed(selector: str, rules: Mapping[str, Rule]) -> tuple[str, str]:
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


def _configured() -> Mapping[str, Any]:
    configured = getattr(settings, "RECONCILE", {})
    return configured if isinstance(configured, Mapping) else {}


def _setting_packages() -> tuple[list[ModuleType], list[Fault]]:
    configured = getattr(settings, "RECONCILE", {})
    shape = 'Set RECONCILE = {"RULES": ["rules"]}.'
    if not isinstance(configured, Mapping):
        return [], [
            Fault("reconcile.E001", f"settings.RECONCILE is {configured!r}, not a dictionary.", shape)
        ]
    faults = [
        Fault(
            "reconcile.E001",
            f"settings.RECONCILE has an unknown key {key!r}.",
            nearest(key, _SETTINGS).strip() or shape,
        )
        for key in configured
        if key not in _SETTINGS
    ]
    faults += chunk_faults(configured.get("CHUNK", MOST))
    faults += rest_faults(configured.get("REST", REST))
    faults += throttle_faults(configured.get("THROTTLES", ()))
    names = configured.get("RULES", [])
    if isinstance(names, str) or not isinstance(names, Sequence):
        return [], [*faults, Fault("reconcile.E001", f"settings.RECONCILE['RULES'] is {names!r}.", shape)]
    packages = [package for name in names if (package := _imported(name, faults)) is not None]
    return packages, faults


def _modules(package: ModuleType, faults: list[Fault]) -> Iterator[ModuleType]:
    yield package
    for info in pkgutil.walk_packages(
        getattr(package, "__path__", ()), f"{package.__name__}.", onerror=lambda _: None
    ):
        module = _imported(info.name, faults)
        if module is not None:
            yield module


def _imported(name: str, faults: list[Fault]) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except FieldError as error:
        faults.append(replace(resolution_fault(error, f"Rule module {name!r}"), id="reconcile.E002"))
    except ImproperlyConfigured:
        raise
    except Exception as error:  # noqa: BLE001 - a rule file may raise anything; it is reported with its name
        # Where the file calls this package, the file's own line is the one to be looked at.
        calls = traceback.extract_tb(error.__traceback__)
        place = [each for each in calls if not Path(each.filename).is_relative_to(_PACKAGE)][-1]
        what = str(error).rstrip(".")
        said = f"Rule module {name!r} can't be imported: {type(error).__name__}: {what} ({place.filename}:{place.lineno})."
        faults.append(
            Fault("reconcile.E002", said, "Mend the module, or take it out of settings.RECONCILE['RULES'].")
        )
    return None


def _rules_of(module: ModuleType, package: ModuleType, homes: Mapping[str, set[int]]) -> Iterator[Rule]:
    """The module's rules under their names: `orders.invoice` for `invoice` in `rules/orders.py`.

    A rule that the module has only imported from another rule module is that one's.
    """
    prefix = module.__name__.removeprefix(package.__name__).lstrip(".")
    for variable, value in vars(module).items():
        imported = isinstance(value, Rule) and value.declared_in != module.__name__
        if isinstance(value, Rule) and not (imported and id(value) in homes.get(value.declared_in, ())):
            name = (
                value.name
                if isinstance(value.name, str) and value.name
                else ".".join(filter(None, (prefix, variable)))
            )
            yield _named(value, name)


def _named(rule: Rule, name: str) -> Rule:
    named = replace(rule, name=name)
    for kept in ("unknown_options", "declared_in", "declared_at"):
        object.__setattr__(named, kept, getattr(rule, kept))
    return named


def _faults_of(rule: Rule) -> Iterator[Fault]:
    try:
        yield from rule.faults()
    except Exception as error:  # noqa: BLE001 - a fault in one rule must not hide those of the others
        said = f"Rule {rule.name!r}: it can't be examined: {type(error).__name__}: {error}."
        yield Fault("reconcile.E012", said, "Check the types of its options.")
