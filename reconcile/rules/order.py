"""The order of rules: a rule that writes a column runs before the rules that read it.

Where there is no such order, rules form a circle: they write what each other reads, or one of them writes what it reads in
other records. Two rules that write the same column read it, too, to see whether it has drifted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from heapq import heapify, heappop, heappush

from reconcile.core.declaration import field_named
from reconcile.core.drift import MISSING
from reconcile.core.finder import Finder
from reconcile.db.columns import are_told_apart, concrete_model
from reconcile.db.expressions import Column, columns_of, columns_read, names_in
from reconcile.rules.rule import Rule

__all__ = ["Order", "makes_own_records", "sort_rules"]

Waits = Mapping[str, Mapping[str, Collection[Column]]]
"""For each rule the rules that write what it reads, with these columns."""


@dataclass(frozen=True)
class Order:
    """Rules in the order in which they run.

    circles: rules that write what each other reads, by name, each circle in the order of its rules; a rule that writes what it
    reads in other records is a circle of its own, or part of one. waits_for: what each rule comes after.
    """

    rules: Sequence[Rule]
    circles: Sequence[Sequence[str]]
    waits_for: Waits

    def before(self, name: str) -> Iterator[tuple[str, Sequence[Column]]]:
        """The rules that this one comes after, in their order, each with the columns that it writes and this one reads, by name."""
        for before in sorted(self.waits_for[name], key=self._places.__getitem__):
            columns = self.waits_for[name][before]
            yield before, sorted(columns, key=lambda column: (column[0]._meta.label, column[1]))

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {rule.name: place for place, rule in enumerate(self.rules)}


def sort_rules(rules: Mapping[str, Rule], *, using: str, now: datetime) -> Order:
    """Sort the rules: each comes after the rules whose repair changes what it reads; else the given order stays.

    Rules that depend on each other in a circle keep the given order among themselves. Costs no statement.
    """
    waits_for = _dependencies(rules, using=using, now=now)
    ordered: list[str] = []
    circles = []
    for group in _in_order(list(rules), waits_for):
        if len(group) > 1 or group[0] in waits_for[group[0]]:
            circles.append(tuple(_order_circle(group, waits_for)))
        ordered.extend(group)
    return Order([rules[name] for name in ordered], circles, waits_for)


def _dependencies(rules: Mapping[str, Rule], *, using: str, now: datetime) -> Waits:
    """For each rule the rules that write what it reads; itself, if that stands in other records."""
    finders = {name: _finders_of(rule, using, now) for name, rule in rules.items()}
    writes = {name: _columns_written(rule, finders[name]) for name, rule in rules.items()}
    # A rule that is alone, as most are that somebody names, waits for none: what it reads need not be known.
    reads = {name: _columns_read(finders[name]) if len(rules) > 1 else frozenset[Column]() for name in rules}
    of_others = {name: _columns_read_of_others(rule, finders[name]) for name, rule in rules.items()}
    writers: dict[Column, list[str]] = {}
    for name, columns in writes.items():
        for column in columns:
            writers.setdefault(column, []).append(name)
    waits_for: dict[str, dict[str, set[Column]]] = {}
    for name in rules:
        shared = dict[str, set[Column]]()
        for column in reads[name] | of_others[name]:
            for other in writers.get(column, ()):
                if column in (of_others[name] if other == name else reads[name]):
                    shared.setdefault(other, set()).add(column)
        waits_for[name] = {
            other: together
            for other, columns in shared.items()
            if (together := columns - (_columns_apart(rules[name], rules[other]) - of_others[name]))
        }
    return waits_for


def makes_own_records(rule: Rule) -> bool:
    """Whether the rows that a repair inserts are of the model whose records the rule is about."""
    made = {concrete_model(model) for model in rule.must.inserted_models()}
    return concrete_model(rule.model) in made and bool(rule.remedy(MISSING).repairs)


def _in_order(names: Sequence[str], waits_for: Waits) -> Iterator[Sequence[str]]:
    """The names so that each comes after those that it waits for, else as they stand. Names that wait for each other come together.

    A circle comes when nothing else can.
    """
    place = {name: number for number, name in enumerate(names)}
    groups = [sorted(group, key=place.__getitem__) for group in _circles(names, waits_for)]
    group_of = {name: number for number, group in enumerate(groups) for name in group}
    needs = [
        {group_of[other] for name in group for other in waits_for[name]} - {group_of[group[0]]}
        for group in groups
    ]
    needed_by: dict[int, list[int]] = {}
    for number, others in enumerate(needs):
        for other in others:
            needed_by.setdefault(other, []).append(number)
    open_needs = [*map(len, needs)]
    ready = [_turn(group, place) for group, number in zip(groups, open_needs, strict=True) if not number]
    heapify(ready)
    while ready:
        *_, first = heappop(ready)
        number = group_of[first]
        yield groups[number]
        for waiting in needed_by.get(number, ()):
            open_needs[waiting] -= 1
            if not open_needs[waiting]:
                heappush(ready, _turn(groups[waiting], place))


def _turn(group: Sequence[str], place: Mapping[str, int]) -> tuple[bool, int, str]:
    """When the group has its turn among those that are ready: a circle last, else by the place of its first name."""
    return len(group) > 1, place[group[0]], group[0]


def _circles(names: Sequence[str], waits_for: Waits) -> Iterator[Sequence[str]]:
    """The strongly connected components, each name in one, by Tarjan's algorithm without recursion (SIAM J. Comput. 1, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    for root in names:
        ahead = [] if root in index else [(root, iter(waits_for[root]))]
        while ahead:
            name, others = ahead[-1]
            if name not in index:
                index[name] = low[name] = len(index)
                stack.append(name)
                on_stack.add(name)
            for other in others:
                if other not in index:
                    ahead.append((other, iter(waits_for[other])))
                    break
                if other in on_stack:
                    low[name] = min(low[name], index[other])
            else:
                ahead.pop()
                if ahead:
                    low[ahead[-1][0]] = min(low[ahead[-1][0]], low[name])
                if low[name] == index[name]:
                    cut = stack.index(name)
                    group, stack = stack[cut:], stack[:cut]
                    on_stack.difference_update(group)
                    yield group


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
