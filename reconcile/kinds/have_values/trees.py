"""Trees: records that are computed from other records of the same rule, level by level."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from math import inf
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db.models import Exists, Field, ForeignKey, Model, OuterRef, Subquery

from reconcile.core.finder import Rows, Source
from reconcile.core.fixes import Heights, Levels
from reconcile.core.scopes import EVERYTHING, Scope, blocks
from reconcile.db.columns import concrete_model
from reconcile.db.django_compat import LOOKUP_SEP, ManyToOneRel, referred_field
from reconcile.errors import Fault
from reconcile.kinds.have_values.first_rows import FirstRow

__all__ = ["Firsts", "Reads", "is_upward", "level_columns", "level_faults", "levels"]

Reads = Mapping["Field[Any, Any]", Sequence[str]]
"""For each written column the paths that its value reads."""

Firsts = Mapping["Field[Any, Any]", "Sequence[FirstRow]"]
"""For each written column the subqueries that read a written column of one other record."""

Node = tuple[Any, str]
"""A column of a record, by the record's key: what is computed from others of its kind."""

_ABOVE = "reconcile_above"


@dataclass(frozen=True)
class _Step:
    """One step from a record to those that it is computed from: the column there, and the one here that it equals.

    path: how the rule names it. key: the foreign key, which is one of the two.
    """

    path: str
    there: Field[Any, Any]
    here: Field[Any, Any]
    key: ForeignKey[Any, Any]

    @property
    def up(self) -> bool:
        """Whether it leads from the row that refers to the one that is referred to."""
        return self.key is self.here

    def without(self, records: Rows, drifted: Rows) -> Rows:
        """Those of the records that are computed from none of the drifted ones."""
        # As the JOIN compares them by which the value is read: that of the database.
        return records.filter(~Exists(drifted.filter(**{self.there.attname: OuterRef(self.here.attname)})))


@dataclass(frozen=True)
class _Edge:
    """A column of a record is computed from a column of other records, by a foreign key.

    up: the others are those that the record refers to, and not those that refer to it.
    """

    computed: str
    read: str
    key: ForeignKey[Any, Any]
    up: bool

    def flipped(self) -> _Edge:
        """The same way, from its end."""
        return _Edge(self.read, self.computed, self.key, not self.up)

    def followed(self, rows: Rows, keys: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        """Each of the keys with each key to which it leads. Only among `rows`: what the rule doesn't write stays as it is."""
        referred = referred_field(self.key).attname
        # The key itself and not the column that refers: where the database folds case, they may be spelt differently.
        above = Subquery(rows.filter(**{referred: OuterRef(self.key.attname)}).values("pk")[:1])
        for block in blocks(keys):
            scope: dict[str, Any] = {"pk__in": block}
            if not self.up:
                scope = {f"{self.key.attname}__in": rows.filter(pk__in=block).values(referred)}
            pairs = rows.filter(**scope).annotate(**{_ABOVE: above}).values_list("pk", _ABOVE)
            yield from (pair if self.up else pair[::-1] for pair in pairs if None not in pair)


@dataclass(frozen=True)
class _FirstEdge:
    """A column of a record is computed from a column of the one other record that a subquery finds."""

    computed: str
    read: str
    first: FirstRow

    up = True

    def followed(self, rows: Rows, keys: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        """Each of the keys with that of the other record."""
        return self.first.followed(rows, keys)


def levels(source: Source, reads: Reads, firsts: Firsts, find: Callable[[Scope], Rows]) -> Levels | None:
    """How the records depend on each other, where an expression reads a written column of other records; else None."""
    by_path = {step.path: step for _, step, _ in _steps(source.model, reads)}
    steps: list[_Step | FirstRow] = [*by_path.values()]
    for each in (each for some in firsts.values() for each in some):
        if not any(each.finds_as(other) for other in steps):
            steps.append(each)
    if not steps:
        return None

    def ready(scope: Scope) -> Rows:
        rows = find(scope)
        for step in steps:
            rows = step.without(rows, find(EVERYTHING))
        return rows

    edges = _edges(source.model, reads, firsts)
    backwards = not any(step.up for step in steps)
    # By several steps a record waits for more than its columns do, so their heights say nothing of its turn.
    one_way = len(steps) == 1

    def circles(keys: Sequence[Any], heights: Heights) -> Mapping[Any, Sequence[Any]]:
        rows = source.records_of_any_age(EVERYTHING)
        return _circles(rows, edges, keys, heights, step=(-1 if backwards else 1) if one_way else 0)

    return Levels(ready=ready, circles=circles, path=", ".join(sorted({step.path for step in steps})))


def level_columns(model: type[Model], reads: Reads, firsts: Firsts) -> frozenset[str]:
    """The columns, by attname, that the values read in other records by one step: the order of levels sees to them."""
    by_path = (read.attname for _, _, read in _steps(model, reads))
    return frozenset(by_path).union(*(first.reads for some in firsts.values() for first in some))


def _steps(model: type[Model], reads: Reads) -> Iterator[tuple[Field[Any, Any], _Step, Field[Any, Any]]]:
    """Each step by which a written column is computed from a written column of other records: the column, the step, the column read."""
    named = {name: field for field in reads for name in (field.name, field.attname)}
    for computed, paths in reads.items():
        for path in _paths_to_written(model, reads, paths):
            if step := _step(model, path):
                yield computed, step, named[path.rpartition(LOOKUP_SEP)[2]]


def _edges(model: type[Model], reads: Reads, firsts: Firsts) -> Sequence[_Edge | _FirstEdge]:
    """All ways from a column to those that it is computed from. If each leads to the rows that refer, all of them backwards.

    A circle is the same in both directions, and a row refers to one, but may be referred to by many.
    """
    edges = {_Edge(one.attname, read.attname, step.key, step.up) for one, step, read in _steps(model, reads)}
    found = [
        _FirstEdge(field.attname, read, first)
        for field, some in firsts.items()
        for first in some
        for read in first.reads
    ]
    if found or any(edge.up for edge in edges):
        return [*edges, *found]
    return [edge.flipped() for edge in edges]


def _circles(
    rows: Rows, edges: Sequence[_Edge | _FirstEdge], keys: Sequence[Any], heights: Heights, *, step: int
) -> dict[Any, Sequence[Any]]:
    """Those of the records of `keys` that are computed from themselves in the end, each with its circle.

    One statement for each edge and each level above the records, up to columns whose height is known, which are in no circle;
    the heights of those that it passes are added.
    """
    graph: dict[Node, list[Node]] = {}
    columns = {name for edge in edges for name in (edge.computed, edge.read)}
    ahead = {(key, column) for key in keys for column in columns} - heights.of.keys()
    while ahead:
        graph |= {node: [] for node in ahead}
        for edge in edges:
            for here, there in edge.followed(rows, [key for key, column in ahead if column == edge.computed]):
                graph[here, edge.computed].append((there, edge.read))
        ahead = {above for node in ahead for above in graph[node]} - graph.keys() - heights.of.keys()
    found: dict[Any, Sequence[Any]] = {}
    for circle in _circles_in(graph):
        found |= _ways(circle)
    heights.add({node: each for node, each in _heights(graph, heights, step).items() if node[0] not in found})
    return {key: found[key] for key in keys if key in found}


def _heights(graph: Mapping[Node, Sequence[Node]], known: Heights, step: int) -> dict[Node, float]:
    """How many columns each leads to, one after the other, by the step: 1, or -1 for the way back. Without an end if the step is 0, and for
    one that hangs on a circle.
    """
    if not step:
        return dict.fromkeys(graph, inf)
    furthest = min if step < 0 else max
    found: dict[Node, float] = {}
    for node in _ordered(graph):
        if node in graph:
            above = (found.get(each, known.of.get(each, 0)) for each in graph[node])
            found[node] = furthest((each + step for each in above), default=0)
    return {node: found.get(node, inf) for node in graph}


def _circles_in(graph: Mapping[Node, Sequence[Node]]) -> Iterator[Sequence[Node]]:
    """Circles of the graph, so that each node that comes back to itself is in at least one."""
    left = _tangled(graph)
    backwards: dict[Node, list[Node]] = {node: [] for node in left}
    for node in left:
        for above in graph[node]:
            if above in left:
                backwards[above].append(node)
    left = _tangled(backwards)
    passed: set[Node] = set()
    for node in left:
        if node not in passed and (circle := _way_back(node, graph, left)):
            passed |= {*circle}
            yield circle


def _tangled(graph: Mapping[Node, Sequence[Node]]) -> set[Node]:
    """The nodes that have no place in an order: those of circles, and those that lead to one."""
    return graph.keys() - {*_ordered(graph)}


def _ordered(graph: Mapping[Node, Sequence[Node]]) -> Iterator[Node]:
    """The nodes after those that they lead to, as far as there is an order."""
    order = TopologicalSorter(graph)
    with suppress(CycleError):
        order.prepare()
    while ready := order.get_ready():
        yield from ready
        order.done(*ready)


def _way_back(start: Node, graph: Mapping[Node, Sequence[Node]], within: set[Node]) -> Sequence[Node]:
    """The shortest way from the node back to it, without its second coming; empty if there is none."""
    came: dict[Node, Node] = {}
    ahead = [start]
    while ahead and start not in came:
        further = []
        for node in ahead:
            for above in graph[node]:
                if above in within and above not in came:
                    came[above] = node
                    further.append(above)
        ahead = further
    if start not in came:
        return []
    way = [came[start]]
    while way[-1] != start:
        way.append(came[way[-1]])
    return way[::-1]


def _ways(circle: Sequence[Node]) -> dict[Any, Sequence[Any]]:
    """For each record of the circle the way from it back to it, by keys."""
    keys = [circle[0][0], *(there[0] for here, there in pairwise(circle) if here[0] != there[0])]
    if len(keys) > 1 and keys[-1] == keys[0]:
        keys.pop()
    return {key: [*keys[place:], *keys[:place], key] for place, key in enumerate(keys)}


def is_upward(model: type[Model], reads: Reads) -> bool:
    """Whether no path leads from a record to those that refer to it, so that its turn can come after that of a single other."""
    return all(step.up for _, step, _ in _steps(model, reads))


def level_faults(model: type[Model], reads: Reads, where: str) -> Iterator[Fault]:
    """A fault for each path that comes back to a written column by a way on which nothing can be first."""
    steps: set[_Step] = set()
    for path in _paths_to_written(model, reads, (path for paths in reads.values() for path in paths)):
        step = _step(model, path)
        if step is not None:
            steps.add(step)
        else:
            hint = "Read it through one foreign key to the same model, or from the rows that refer by one."
            message = f"{where}: {path!r} reads a column that the rule writes in other records, and not in one step."
            yield Fault("reconcile.E015", message, hint)
    ups, downs = ([step for step in steps if step.up is up] for up in (True, False))
    opposite_ups = {(step.there, step.here) for step in downs} & {(step.here, step.there) for step in ups}
    if ups and downs and not opposite_ups:
        paths = " and ".join(repr(min(step.path for step in each)) for each in (ups, downs))
        hint = "Write a rule for each column."
        message = f"{where}: it reads what it writes up and down, through {paths}"
        yield Fault("reconcile.E015", f"{message}, so a record may wait for one that waits for it.", hint)
        return
    forth = {(step.there, step.here): step for step in steps}
    for step in steps:
        opposite = forth.get((step.here, step.there))
        if opposite is not None and step.path < opposite.path:
            hint = "Write two rules, one for each direction."
            message = (
                f"{where}: it reads what it writes through {step.path!r} and back through {opposite.path!r}"
            )
            yield Fault("reconcile.E015", f"{message}, so no record can be first.", hint)


def _paths_to_written(
    model: type[Model], written: Iterable[Field[Any, Any]], paths: Iterable[str]
) -> Iterator[str]:
    """The paths of more than one part that end at a written column of the same model."""
    names = {name for field in written for name in (field.name, field.attname)}
    for path in paths:
        *way, last = path.split(LOOKUP_SEP)
        if way and last in names and _model_at_end(model, way) is concrete_model(model):
            yield path


def _model_at_end(model: type[Model], way: Iterable[str]) -> type[Model] | None:
    there: Any = model
    for name in way:
        try:
            there = there._meta.get_field(name).related_model
        except (FieldDoesNotExist, AttributeError):
            return None
    return concrete_model(there) if there is not None else None


def _step(model: type[Model], path: str) -> _Step | None:
    name, _, rest = path.partition(LOOKUP_SEP)
    relation = model._meta.get_field(name)
    if LOOKUP_SEP in rest:
        return None
    if isinstance(relation, ForeignKey):
        return _Step(name, referred_field(relation), relation, relation)
    if isinstance(relation, ManyToOneRel):
        return _Step(name, relation.field, referred_field(relation.field), relation.field)
    return None
