"""The drafts tried: each as the rule that its code makes, checked on the whole table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.db.models import Model

from reconcile.audit.drafts.drafting import Draft, file_name
from reconcile.audit.drafts.writing import as_modules, names_of
from reconcile.core.drift import MISSING
from reconcile.db.clock import database_now
from reconcile.detect.checking import RuleCheck, check
from reconcile.errors import Fault, with_type
from reconcile.remedies.report import Report
from reconcile.rules.rule import Rule

__all__ = ["Tried", "try_drafts"]

NO_VALUE = "reconcile.E014"
"""The fault of a rule that inserts rows and doesn't say what one of their columns is to have."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A draft and what a check of it found. rule: its name, by module and variable."""

    draft: Draft
    rule: str
    check: RuleCheck


def try_drafts(drafts: Sequence[Draft], using: str) -> tuple[list[Tried], list[tuple[type[Model], str]]]:
    """Check each draft on all records. Returns those that can be checked, and of the others the model and the reason."""
    found: list[Tried] = []
    failed: list[tuple[type[Model], str]] = []
    texts = as_modules(drafts, {})
    now = database_now(using)
    for module, several in _by_file(drafts):
        try:
            made = _executed(texts[module])
        except Exception as error:  # noqa: BLE001 - importing a project's own names may raise anything
            failed.append((several[0].model, f"what was drafted can't be run: {with_type(error)}"))
            continue
        for draft, name in zip(several, names_of(several), strict=True):
            named = f"{module}.{name}"
            usable, rule, faults = _usable(draft, replace(made[name], name=named))
            checked = check(rule, using=using, now=now) if not faults else None
            if checked is None or checked.error:
                failed.append(
                    (
                        draft.model,
                        f"{named} can't be {'checked' if checked else 'used'}: {checked.error if checked else faults[0].message}",
                    )
                )
            else:
                found.append(Tried(draft=usable, rule=named, check=checked))
    return found, failed


def _usable(draft: Draft, rule: Rule) -> tuple[Draft, Rule, Sequence[Fault]]:
    """The draft as a rule without faults: one that lacks a column of the rows that it would insert only reports them."""
    faults = [*rule.faults()]
    if [each.id for each in faults] != [NO_VALUE]:
        return draft, rule, faults
    reporting = replace(draft, reports="MISSING", unsure=f"{faults[0].message} Say what it is.")
    rule = replace(rule, remedies={**rule.remedies, MISSING: Report()})
    return reporting, rule, [*rule.faults()]


def _by_file(drafts: Sequence[Draft]) -> Iterator[tuple[str, list[Draft]]]:
    found: dict[str, list[Draft]] = {}
    for each in drafts:
        found.setdefault(file_name(each.model), []).append(each)
    yield from found.items()


def _executed(text: str) -> Mapping[str, Any]:
    """What the module has, once it is run. It is text of our own, made of names that the project has."""
    made: dict[str, Any] = {"__name__": "reconcile_drafts"}
    exec(compile(text, "<drafts>", "exec"), made)  # noqa: S102
    return made
