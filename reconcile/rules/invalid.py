"""Rules that can't be used: they stand among the others, so that whoever checks them all is told of each as an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from reconcile.core.drift import Drift, Guarantee
from reconcile.errors import EvaluationError, Fault
from reconcile.kinds import ConstraintAdvice
from reconcile.remedies import Remedy, Report
from reconcile.rules.rule import CompiledRule, Rule, every_faults

__all__ = ["InvalidRule"]

_FOR_PEOPLE = ("owner", "reason", "tags")


COMPOSITE_KEY = "reconcile.E015"
"""The fault of an every= whose model is known, and whose key can't be served."""


@dataclass(frozen=True, kw_only=True)
class InvalidRule(Rule):
    """A rule with faults, or a file of which not even the names of the rules are known. It never passes, and repairs nothing."""

    every: Any = None
    must: Any = None
    faults_found: Sequence[Fault] = ()
    label: str = ""
    subject: str = "It"
    """What can't be used: `It`, the rule; `Its file`, by the fault of another statement; `The file`, whose rules nobody knows."""
    is_declared: bool = True
    """Whether the declaration has been read, and says whose the rule is, and what its tags are."""

    @classmethod
    def of(cls, rule: Rule, faults: Sequence[Fault], *, subject: str = "It") -> InvalidRule:
        """The rule with its name, its place, and what is for people, as far as that is what it should be."""
        given = {name: getattr(rule, name) for name in _FOR_PEOPLE}
        usable = {each.name for each in fields(Rule) if each.name in given and _is_usable(given[each.name])}
        kept = {name: given[name] for name in usable}
        label = "" if any(each.id != COMPOSITE_KEY for each in every_faults(rule.every)) else rule.model_label
        return cls(
            name=rule.name,
            declared_at=rule.declared_at,
            faults_found=tuple(faults),
            label=label,
            subject=subject,
            **kept,
        )

    @property
    def is_file(self) -> bool:
        """Whether it stands for a file whose rules nobody knows."""
        return self.subject == "The file"

    @property
    def sentence(self) -> str:
        """`It can't be used.`, and `error` says why."""
        return f"{self.subject} can't be used."

    @property
    def error(self) -> str:
        """`It can't be used: every= is sliced. …`"""
        return f"{self.subject} can't be used: {' '.join(map(str, self.faults_found))}"

    @property
    def model_label(self) -> str:
        """The records' model, as far as `every=` is what it should be; else empty."""
        return self.label

    def is_on(self, using: str) -> bool:  # noqa: ARG002
        """Whether it is about a database isn't known, so it is told of on each."""
        return True

    def remedy(self, drift: Drift) -> Remedy:  # noqa: ARG002
        """None that writes."""
        return Report()

    def guarantee(self, using: str) -> Guarantee:  # noqa: ARG002
        """None."""
        return Guarantee.NONE

    def lift(self, using: str) -> ConstraintAdvice | None:  # noqa: ARG002
        """None."""
        return None

    def compile(self, *, using: str, now: datetime) -> CompiledRule:  # noqa: ARG002
        """Raises EvaluationError with all faults."""
        raise EvaluationError(self.error)


def _is_usable(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
    )
