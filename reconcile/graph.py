"""The order in which rules run: one that writes a column runs before those that read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from reconcile.finders import Finder
from reconcile.rules import Rule
from reconcile.sql.expressions import Column, columns_read
from reconcile.windows import EVERYTHING

__all__ = ["in_order"]


def in_order(rules: Mapping[str, Rule], *, using: str, now: datetime) -> Sequence[Rule]:
    """The rules, each after those whose repair changes what it reads; otherwise in the given order.

    Rules that depend on each other in a circle keep the given order among themselves. Costs no statement.
    """
    writes = {name: rule.must.writes(rule.model) for name, rule in rules.items()}
    reads = {name: _reads(rule, using, now) for name, rule in rules.items()}
    waits_for = {
        name: {other for other in rules if other != name and writes[other] & reads[name]} for name in rules
    }
    ordered: list[str] = []
    while len(ordered) < len(rules):
        left = [name for name in rules if name not in ordered]
        ready = next(([name] for name in left if not waits_for[name] & set(left)), None)
        ordered.extend(ready or _circle(left, waits_for))
    return [rules[name] for name in ordered]


def _circle(left: Sequence[str], waits_for: Mapping[str, set[str]]) -> Sequence[str]:
    """The first circle of rules that wait for nothing but each other."""
    reach = {name: _reachable(name, waits_for, set(left)) for name in left}
    first = next(name for name in left if all(name in reach[other] for other in reach[name]))
    return [name for name in left if name in reach[first]]


def _reachable(name: str, waits_for: Mapping[str, set[str]], within: set[str]) -> set[str]:
    seen: set[str] = set()
    ahead = [name]
    while ahead:
        for other in waits_for[ahead.pop()] & within - seen:
            seen.add(other)
            ahead.append(other)
    return seen


def _reads(rule: Rule, using: str, now: datetime) -> frozenset[Column]:
    try:
        finders: Sequence[Finder] = rule.compile(using=using, now=now).finders
    except Exception:  # noqa: BLE001 - the rule's own check says so; it has no place in the order
        return frozenset()
    columns: frozenset[Column] = frozenset()
    own: frozenset[Column] = rule.must.writes(rule.model)
    for finder in finders:
        columns |= columns_read(finder.find(EVERYTHING))
        if finder.insertion is not None:
            columns |= columns_read(finder.insertion.owed(EVERYTHING))
    return columns - own
