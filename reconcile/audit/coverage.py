"""Which effects the rules cover, which are exempt, and which nobody checks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from reconcile.audit.accepted import Changed
from reconcile.audit.effects import Effect, On
from reconcile.audit.listing import Audited, SignalsAudit, code_of
from reconcile.audit.places import name_of, place_of
from reconcile.core.declaration import shown_path
from reconcile.rules.invalid import InvalidRule
from reconcile.rules.rule import Rule

__all__ = ["Coverage", "EffectCoverage", "State", "coverage_of", "wrong_names"]

WRITING = frozenset({On.PRE_SAVE, On.SAVE, On.FIELD})
"""What decides what is written: where it is skipped, wrong data is there, and not only something missing."""


class State(StrEnum):
    """How an effect stands, the worst first."""

    UNCOVERED = "uncovered"
    EXEMPT = "exempt"
    COVERED = "covered"


@dataclass(frozen=True, kw_only=True)
class EffectCoverage:
    """One effect of one model. reason: why it is exempt."""

    effect: Effect
    state: State
    rules: tuple[str, ...] = ()
    reason: str = ""

    @property
    def is_error(self) -> bool:
        """Whether nobody checks what a skipped effect would have written into the record itself."""
        return self.state is State.UNCOVERED and self.effect.on in WRITING


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """The effects, those that nobody checks first. faults: what rules and settings name that is no effect. changed: what is no more as it was accepted."""

    effects: Sequence[EffectCoverage]
    faults: Sequence[str]
    changed: Sequence[Changed] = ()

    @property
    def covered(self) -> int:
        """Effects that a rule covers."""
        return sum(each.state is State.COVERED for each in self.effects)

    @property
    def total(self) -> int:
        """Effects that a rule should cover: those that are exempt don't count."""
        return sum(each.state is not State.EXEMPT for each in self.effects)

    @property
    def percent(self) -> float:
        """How many of a hundred are covered; all, if there are none."""
        return 100 * self.covered / self.total if self.total else 100.0

    @property
    def status(self) -> str:
        """`error`, `warn` or `clean`."""
        if self.faults or self.changed or any(each.is_error for each in self.effects):
            return "error"
        return "warn" if any(each.state is State.UNCOVERED for each in self.effects) else "clean"


def coverage_of(
    audit: SignalsAudit,
    rules: Mapping[str, Rule],
    exempt: Mapping[str, str],
    *,
    third_party: bool = False,
    changed: Sequence[Changed] = (),
) -> Coverage:
    """The coverage of the audited effects. exempt: reasons by the name of an effect. third_party: count those of Django and of packages, too."""
    audited = [each for model in audit.models for each in model.effects]
    shown = [each for each in audited if third_party or not each.effect.third_party]
    order = [*State]
    effects = sorted((_covered(each, exempt) for each in shown), key=lambda each: order.index(each.state))
    names = {each.effect.name for each in audited}
    unreadable = (f"{shown_path(each.path)} can't be read: {each.why}" for each in audit.unreadable)
    return Coverage(
        effects=effects,
        changed=changed,
        faults=[*_faults(audited, rules), *wrong_names(rules, exempt, names), *unreadable],
    )


def _covered(each: Audited, exempt: Mapping[str, str]) -> EffectCoverage:
    name = each.effect.name
    if each.rules:
        return EffectCoverage(effect=each.effect, state=State.COVERED, rules=each.rules)
    if name in exempt:
        return EffectCoverage(effect=each.effect, state=State.EXEMPT, reason=exempt[name])
    return EffectCoverage(effect=each.effect, state=State.UNCOVERED)


def _faults(audited: Sequence[Audited], rules: Mapping[str, Rule]) -> Iterator[str]:
    """What rules say they cover, and nothing connects: it was renamed, or never was an effect."""
    known = {code_of(each.effect.function) for each in audited}
    for name, rule in rules.items():
        for function in rule.covers:
            is_task = hasattr(function, "delay") and hasattr(function, "name")
            if not is_task and (place_of(function) is None or code_of(function) not in known):
                yield f"Rule {name!r} covers {name_of(function)}, which is connected to no signal and is no model's save() or delete()."


def wrong_names(
    rules: Mapping[str, Rule], exempt: Mapping[str, str], known: Collection[str]
) -> Iterator[str]:
    """Rules of which nobody knows what they cover, and exemptions of what isn't there. known: the names of all effects."""
    for name, rule in rules.items():
        if isinstance(rule, InvalidRule):
            yield f"Rule {name!r} can't be used, so nobody knows what it covers: {rule.error}"
    for name in exempt:
        if name not in known:
            yield f"settings.RECONCILE['EXEMPT'] names {name}, and there is no such effect."
