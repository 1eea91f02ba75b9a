"""What a repair would refuse, as far as a plan can tell: rows that others refer to, and records of circles.

A plan says what is written, and so it doesn't count them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from reconcile.core.finder import Finder
from reconcile.core.fixes import Heights
from reconcile.core.scopes import EVERYTHING, Keys, Scope, blocks
from reconcile.core.verbs import Written
from reconcile.core.wording.names import plural
from reconcile.remedies import Remedy
from reconcile.repair.caps import RulePlan

__all__ = ["without_refused"]


def without_refused(rule_plan: RulePlan, *, using: str, now: datetime, scope: Scope = EVERYTHING) -> RulePlan:
    """The plan without what would be refused, of which its check then has a note; `unrepairable` counts it.

    A few statements for each 5,000 records of a tree or rows to delete; none for other rules.
    """
    check = rule_plan.check
    for finder in check.rule.compile(using=using, now=now).finders:
        remedy = check.rule.remedy(finder.drift)
        if not check.tally[finder.drift] or not remedy.repairs:
            continue
        refused = dict(_refused(rule_plan, finder, remedy, scope))
        if not refused:
            continue
        planned = check.planned + Written()
        planned.add(remedy.verbs[0], -min(len(refused), planned[remedy.verbs[0]]))
        check = replace(
            check,
            planned=planned,
            unrepairable=check.unrepairable + len(refused),
            notes=(*check.notes, _in_words(refused)),
        )
    return replace(rule_plan, check=check, planned=check.planned)


def _refused(rule_plan: RulePlan, finder: Finder, remedy: Remedy, scope: Scope) -> Iterator[tuple[Any, str]]:
    if finder.levels is not None:
        heights = Heights()
        for block in blocks(finder.levels.ready(scope).values_list("pk", flat=True).iterator()):
            for key, circle in finder.levels.circles(block, heights).items():
                yield key, f"it is in a circle, {' → '.join(map(str, circle[:10]))}"
    elif remedy.deletes and finder.drift in rule_plan.check.kept:
        for block in blocks(rule_plan.check.kept[finder.drift].keys):
            yield from remedy.refused(finder, Keys(block)).items()


def _in_words(refused: Mapping[Any, str]) -> str:
    key, why = next(iter(refused.items()))
    first = "" if len(refused) == 1 else "The first: "
    return f"{plural(len(refused), 'record')} would be left as {'it is' if len(refused) == 1 else 'they are'}. {first}{key}: {why.rstrip('.')}."
