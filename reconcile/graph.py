"""The order in which rules run: one that writes a column runs before those that read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from reconcile.finders import Finder
from reconcile.rules import Rule
from reconcile.sql.expressions import Column, columns_read
from reconcile.windows import EVERYTHING, Keys

__all__ = ["Order", "in_order"]

Waits = Mapping[str, set[str]]


@dataclass(frozen=True)
class Order:
    """Rules in the order in which they run.

    circles: rules that write what each other reads, by name, each circle in the order of its rules.
    """

    rules: Sequence[Rule]
    circles: Sequence[Sequence[str]]


def in_order(rules: Mapping[str, Rule], *, using: str, now: datetime) -> Order:
    """The rules, each after those whose repair changes what it reads; otherwise in the given order.

    Rules that depend on each other in a circle keep the given order among themselves. Costs no statement.
    """
    finders = {name: _finders(rule, using, now) for name, rule in rules.items()}
    writes = {name: _writes(rule, finders[name]) for name, rule in rules.items()}
    reads = {name: _reads(rule, finders[name]) for name, rule in rules.items()}
    waits_for = {
        name: {other for other in rules if other != name and writes[other] & reads[name]} for name in rules
    }
    ordered: list[str] = []
    circles = []
    while len(ordered) < len(rules):
        left = [name for name in rules if name not in ordered]
        ready = next(([name] for name in left if not waits_for[name] & set(left)), None)
        if ready is None:
            ready = list(_circle(left, waits_for))
            circles.append(tuple(_around(ready, waits_for)))
        ordered.extend(ready)
    return Order([rules[name] for name in ordered], circles)


def _circle(left: Sequence[str], waits_for: Waits) -> Sequence[str]:
    """The first circle of rules that wait for nothing but each other."""
    reach = {name: _reachable(name, waits_for, set(left)) for name in left}
    first = next(name for name in left if all(name in reach[other] for other in reach[name]))
    return [name for name in left if name in reach[first]]


def _reachable(name: str, waits_for: Waits, within: set[str]) -> set[str]:
    seen: set[str] = set()
    ahead = [name]
    while ahead:
        for other in waits_for[ahead.pop()] & within - seen:
            seen.add(other)
            ahead.append(other)
    return seen


def _around(circle: Sequence[str], waits_for: Waits) -> Iterator[str]:
    """The rules of the circle so that, where it can be, each is followed by one that reads what it writes."""
    left = list(circle)
    name = left[0]
    while left:
        left.remove(name)
        yield name
        followers = [other for other in left if name in waits_for[other]]
        name = next(iter(followers or left), "")


def _finders(rule: Rule, using: str, now: datetime) -> Sequence[Finder]:
    try:
        return rule.compile(using=using, now=now).finders
    except Exception:  # noqa: BLE001 - the rule's own check says so; it has no place in the order
        return ()


def _writes(rule: Rule, finders: Sequence[Finder]) -> frozenset[Column]:
    """The columns that a repair of the rule may write; none where it only reports."""
    columns: frozenset[Column] = frozenset()
    for finder in finders:
        remedy = rule.remedy(finder.drift)
        if remedy.verb:
            columns |= rule.must.writes(rule.model) | frozenset(remedy.writes(finder))
    return columns


def _reads(rule: Rule, finders: Sequence[Finder]) -> frozenset[Column]:
    columns: frozenset[Column] = frozenset()
    for finder in finders:
        # What a ranged finder looks for may be for the database to say; for no keys at all it isn't asked.
        scope = Keys(()) if finder.ranged else EVERYTHING
        columns |= columns_read(finder.reads(scope) if finder.reads else finder.find(scope))
        if finder.insertion is not None:
            columns |= columns_read(finder.insertion.owed(EVERYTHING))
    own: frozenset[Column] = rule.must.writes(rule.model)
    return columns - own
