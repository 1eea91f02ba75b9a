"""The order of rules: a rule that writes a column runs before the rules that read it.

Where there is no such order, rules form a circle: they write what each other reads, or one of them writes what it reads in
other records. Two rules that write the same column read it, too, to see whether it has drifted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import product

from reconcile.core.declaration import field_named
from reconcile.core.drift import MISSING
from reconcile.core.finder import Finder
from reconcile.db.columns import are_told_apart, concrete_model
from reconcile.db.expressions import Column, columns_of, columns_read, names_in
from reconcile.rules.rule import Rule

__all__ = ["Order", "makes_own_records", "sort_rules"]

Waits = Mapping[str, set[str]]


@dataclass(frozen=True)
class Order:
    """Rules in the order in which they run.

    circles: rules that write what each other reads, by name, each circle in the order of its rules; a rule that writes what it
    reads in other records is a circle of its own, or part of one.
    """

    rules: Sequence[Rule]
    circles: Sequence[Sequence[str]]


def sort_rules(rules: Mapping[str, Rule], *, using: str, now: datetime) -> Order:
    """Sort the rules: each comes after the rules whose repair changes what it reads; else the given order stays.

    Rules that depend on each other in a circle keep the given order among themselves. Costs no statement.
    """
    waits_for = _dependencies(rules, using=using, now=now)
    ordered: list[str] = []
    circles = []
    while len(ordered) < len(rules):
        left = [name for name in rules if name not in ordered]
        ready = next(([name] for name in left if not waits_for[name] & set(left) - {name}), None)
        if ready is None:
            ready = list(_first_circle(left, waits_for))
        if len(ready) > 1 or ready[0] in waits_for[ready[0]]:
            circles.append(tuple(_order_circle(ready, waits_for)))
        ordered.extend(ready)
    return Order([rules[name] for name in ordered], circles)


def _dependencies(rules: Mapping[str, Rule], *, using: str, now: datetime) -> Waits:
    """For each rule the rules that write what it reads; itself, if that stands in other records."""
    finders = {name: _finders_of(rule, using, now) for name, rule in rules.items()}
    writes = {name: _columns_written(rule, finders[name]) for name, rule in rules.items()}
    reads = {name: _columns_read(finders[name]) for name in rules}
    of_others = {name: _columns_read_of_others(rule, finders[name]) for name, rule in rules.items()}
    waits_for: dict[str, set[str]] = {name: set() for name in rules}
    for name, other in product(rules, repeat=2):
        shared = writes[other] & (reads[name] if other != name else of_others[name])
        if shared and shared - (_columns_apart(rules[name], rules[other]) - of_others[name]):
            waits_for[name].add(other)
    return waits_for


def makes_own_records(rule: Rule) -> bool:
    """Whether the rows that a repair inserts are of the model whose records the rule is about."""
    made = {concrete_model(model) for model in rule.must.inserted_models()}
    return concrete_model(rule.model) in made and bool(rule.remedy(MISSING).repairs)


def _first_circle(left: Sequence[str], waits_for: Waits) -> Sequence[str]:
    """Find the first circle of rules that wait for each other alone."""
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


def _order_circle(circle: Sequence[str], waits_for: Waits) -> Iterator[str]:
    """Order the circle so that each rule is followed by one that reads what it writes, where that is possible."""
    left = list(circle)
    name = left[0]
    while left:
        left.remove(name)
        yield name
        followers = [other for other in left if name in waits_for[other]]
        name = next(iter(followers or left), "")


def _finders_of(rule: Rule, using: str, now: datetime) -> Sequence[Finder]:
    try:
        return rule.compile(using=using, now=now).finders
    except Exception:  # noqa: BLE001 - the check of the rule reports it; the order leaves the rule out
        return ()


def _columns_read_of_others(rule: Rule, finders: Sequence[Finder]) -> frozenset[Column]:
    return rule.must.reads_of_others(rule.queryset) if finders else frozenset()


def _columns_apart(rule: Rule, other: Rule) -> frozenset[Column]:
    """The columns of the tables in which the effects of the two rules are different rows, told apart by a constant."""
    one, two = rule.must.constants(), other.must.constants()
    shared = one.keys() & two.keys()
    apart = {
        model
        for model, name in shared
        if (field := field_named(model, name)) is not None
        and are_told_apart(field, one[model, name], two[model, name])
    }
    return frozenset().union(*map(columns_of, apart))


def _columns_written(rule: Rule, finders: Sequence[Finder]) -> frozenset[Column]:
    """The columns that a repair of the rule may write; none if it only reports."""
    columns: frozenset[Column] = frozenset()
    for finder in finders:
        remedy = rule.remedy(finder.drift)
        if remedy.repairs:
            columns |= rule.must.writes(rule.model) | frozenset(remedy.writes(finder))
    return columns | {column for column, read in _generated(columns) if read & columns}


def _generated(columns: frozenset[Column]) -> Iterator[tuple[Column, frozenset[Column]]]:
    """The columns that the database computes from others of the row, in the models of `columns`, each with what it reads."""
    for model in {model for model, _ in columns}:
        for field in model._meta.concrete_fields:
            if field.generated:
                read = (field_named(model, name) for name in names_in(field.expression))  # type: ignore[attr-defined]
                yield (model, field.attname), frozenset((model, each.attname) for each in read if each)


def _columns_read(finders: Sequence[Finder]) -> frozenset[Column]:
    selects = (rows for finder in finders for rows in finder.selects())
    return frozenset().union(*map(columns_read, selects))
