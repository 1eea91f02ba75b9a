"""The drafts tried: each as the rule that its code makes, checked on the whole table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconcile.audit.drafts.drafting import Draft, file_name
from reconcile.audit.drafts.writing import as_modules, names_of
from reconcile.db.clock import database_now
from reconcile.detect.checking import RuleCheck, check
from reconcile.rules.rule import Rule

__all__ = ["Tried", "try_drafts"]


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A draft and what a check of it found. rule: its name, by module and variable."""

    draft: Draft
    rule: str
    check: RuleCheck


def try_drafts(drafts: Sequence[Draft], using: str) -> list[Tried]:
    """Check each draft on all records. One that can't be evaluated has its error."""
    found = []
    texts = as_modules(drafts, {})
    now = database_now(using)
    for module, several in _by_file(drafts):
        made = _executed(texts[module])
        for draft, name in zip(several, names_of(several), strict=True):
            rule: Rule = made[name]
            named = f"{module}.{name}"
            found.append(
                Tried(draft=draft, rule=named, check=check(_named(rule, named), using=using, now=now))
            )
    return found


def _named(rule: Rule, name: str) -> Rule:
    from dataclasses import replace

    return replace(rule, name=name)


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
