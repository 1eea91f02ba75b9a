"""Whether the project's rules say already what a draft would."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from reconcile.audit.drafts.drafting import Draft
from reconcile.kinds.be_unique.declaration import BeUnique
from reconcile.kinds.have_row.declaration import HaveRow
from reconcile.kinds.have_rows.declaration import HaveRows
from reconcile.kinds.have_source.declaration import HaveSource
from reconcile.kinds.have_values.declaration import HaveValues
from reconcile.rules.invalid import InvalidRule
from reconcile.rules.rule import Rule

__all__ = ["with_rules"]


def with_rules(drafts: Iterable[Draft], rules: Iterable[Rule]) -> list[Draft]:
    """The drafts, each with the name of a rule that is about the same columns or rows of the same model."""
    usable = [each for each in rules if not isinstance(each, InvalidRule)]
    said = {(rule.model, about): rule.name for rule in usable for about in _about(rule)}
    return [replace(each, said_by=said.get((each.model, _about_of(each)), "")) for each in drafts]


def _about(rule: Rule) -> Iterator[tuple[str, ...]]:
    match rule.must:
        case HaveValues(columns=columns):
            yield from (("values", each) for each in columns)
        case HaveRow(model=model) | HaveRows(model=model):
            yield "rows", model._meta.label
        case BeUnique(columns=columns):
            yield "unique", *sorted(map(str, columns))
        case HaveSource(column=column):
            yield "source", column


def _about_of(draft: Draft) -> tuple[str, ...]:
    if draft.must.startswith("BeUnique"):
        return "unique", *sorted(re.findall(r'"(\w+)"', draft.must))
    if draft.must.startswith("HaveSource"):
        return "source", draft.column
    if draft.column:
        return "values", draft.column
    return "rows", draft.writes._meta.label if draft.writes else ""
