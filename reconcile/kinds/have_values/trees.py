"""Trees: records that are computed from other records of the same rule, level by level."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db.models import Exists, F, Field, ForeignKey, Model, OuterRef

from reconcile.core.finder import Levels, Rows
from reconcile.core.scopes import EVERYTHING, Scope, blocks
from reconcile.db.columns import concrete_model
from reconcile.db.comparisons import Same
from reconcile.db.django_compat import LOOKUP_SEP, ManyToOneRel, referred_field
from reconcile.errors import Fault

__all__ = ["level_faults", "levels"]


@dataclass(frozen=True)
class _Step:
    """One step from a record to those that it is computed from: the column there, and the one here that it equals.

    key: the foreign key, which is one of the two.
    """

    path: str
    there: Field[Any, Any]
    here: Field[Any, Any]
    key: ForeignKey[Any, Any]


def levels(
    model: type[Model],
    written: Iterable[Field[Any, Any]],
    paths: Iterable[str],
    find: Callable[[Scope], Rows],
) -> Levels | None:
    """How the records depend on each other, where an expression reads a written column of other records; else None."""
    steps = {
        path: step for path in _paths_to_written(model, set(written), paths) if (step := _step(model, path))
    }
    if not steps:
        return None

    def ready(scope: Scope) -> Rows:
        rows = find(scope)
        for step in steps.values():
            sources = find(EVERYTHING).filter(
                Same(F(step.there.attname), OuterRef(step.here.attname), field=step.there)
            )
            rows = rows.filter(~Exists(sources))
        return rows

    def sources(key: Any) -> Rows:
        found: Rows = find(EVERYTHING).none()
        for step in steps.values():
            here = model._base_manager.using(found.db).filter(pk=key).values(step.here.attname)
            found = found | find(EVERYTHING).filter(**{f"{step.there.attname}__in": here})
        return found

    def circles(keys: Sequence[Any], apart: set[Any]) -> Mapping[Any, Sequence[Any]]:
        by = {step.key for step in steps.values()}
        rows = model._base_manager.using(find(EVERYTHING).db)
        return _circles(rows, by.pop(), keys, apart) if len(by) == 1 else {}

    path = ", ".join(sorted({step.path for step in steps.values()}))
    return Levels(ready=ready, sources=sources, circles=circles, path=path)


def _circles(
    rows: Rows, key: ForeignKey[Any, Any], keys: Sequence[Any], apart: set[Any]
) -> dict[Any, Sequence[Any]]:
    """Those of the records that come back to themselves by the foreign key, each with its circle.

    A circle is the same in both directions, so the key is followed also where values come from the rows that refer by it. One
    statement for each level above the records, up to those `apart`, which are in no circle; what it passes is added to them.
    """
    above: dict[Any, Any] = {}
    ahead = {*keys} - apart
    while ahead:
        for block in blocks(ahead):
            above |= dict.fromkeys(block)
            above |= dict(rows.filter(pk__in=block).order_by().values_list("pk", f"{key.name}__pk"))
        ahead = {above[each] for each in ahead} - above.keys() - {None} - apart
    found = {each: way for circle in _circles_in(above, apart) for each, way in circle.items()}
    apart |= above.keys() - found.keys()
    return {each: found[each] for each in keys if each in found}


def _circles_in(above: Mapping[Any, Any], apart: set[Any]) -> Iterator[dict[Any, Sequence[Any]]]:
    """Each circle of a mapping from records to those above them: its records, each with the way from it back to it."""
    passed = {None, *apart}
    for start in above:
        # A dictionary, for its order and for the places in it.
        way: dict[Any, int] = {}
        at = start
        while at not in passed:
            passed.add(at)
            way[at] = len(way)
            at = above[at]
        if at in way:
            circle = [*way][way[at] :]
            yield {each: [*circle[place:], *circle[:place], each] for place, each in enumerate(circle)}


def level_faults(
    model: type[Model], written: Iterable[Field[Any, Any]], paths: Iterable[str], where: str
) -> Iterator[Fault]:
    """A fault for each path that comes back to a written column by a way on which nothing can be first."""
    steps: set[_Step] = set()
    for path in _paths_to_written(model, set(written), paths):
        step = _step(model, path)
        if step is not None:
            steps.add(step)
        else:
            hint = "Read it through one foreign key to the same model, or from the rows that refer by one."
            message = f"{where}: {path!r} reads a column that the rule writes in other records, and not in one step."
            yield Fault("reconcile.E015", message, hint)
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
    model: type[Model], written: set[Field[Any, Any]], paths: Iterable[str]
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
