"""Records that are computed from other records of the same rule: trees, and what keeps them from being one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db.models import Exists, F, Field, ForeignKey, Model, OuterRef
from django.db.models.constants import LOOKUP_SEP
from django.db.models.fields.reverse_related import ManyToOneRel

from reconcile.errors import Fault
from reconcile.finders import Levels, Rows
from reconcile.sql.lookups import Same
from reconcile.windows import EVERYTHING, Scope

__all__ = ["level_faults", "levels"]


@dataclass(frozen=True)
class _Step:
    """One step from a record to those that it is computed from: the column there, and the one here that it equals."""

    path: str
    there: Field[Any, Any]
    here: Field[Any, Any]


def levels(
    model: type[Model],
    written: Iterable[Field[Any, Any]],
    paths: Iterable[str],
    find: Callable[[Scope], Rows],
) -> Levels | None:
    """How the records depend on each other, where an expression reads a written column of other records; else None."""
    steps = {path: step for path in _back(model, set(written), paths) if (step := _step(model, path))}
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

    return Levels(
        ready=ready, sources=sources, path=", ".join(sorted({step.path for step in steps.values()}))
    )


def level_faults(
    model: type[Model], written: Iterable[Field[Any, Any]], paths: Iterable[str], where: str
) -> Iterator[Fault]:
    """A fault for each path that comes back to a written column by a way on which nothing can be first."""
    steps: set[_Step] = set()
    for path in _back(model, set(written), paths):
        step = _step(model, path)
        if step is not None:
            steps.add(step)
        else:
            hint = "Read it through one foreign key to the same model, or from the rows that refer by one."
            said = f"{where}: {path!r} reads a column that the rule writes in other records, and not in one step."
            yield Fault("reconcile.E015", said, hint)
    forth = {(step.there, step.here): step for step in steps}
    for step in steps:
        opposite = forth.get((step.here, step.there))
        if opposite is not None and step.path < opposite.path:
            hint = "Write two rules, one for each direction."
            said = (
                f"{where}: it reads what it writes through {step.path!r} and back through {opposite.path!r}"
            )
            yield Fault("reconcile.E015", f"{said}, so no record can be first.", hint)


def _back(model: type[Model], written: set[Field[Any, Any]], paths: Iterable[str]) -> Iterator[str]:
    """The paths of more than one part that end at a written column of the same model."""
    names = {name for field in written for name in (field.name, field.attname)}
    for path in paths:
        *way, last = path.split(LOOKUP_SEP)
        if way and last in names and _end(model, way) is (model._meta.concrete_model or model):
            yield path


def _end(model: type[Model], way: Iterable[str]) -> type[Model] | None:
    there: Any = model
    for name in way:
        try:
            there = there._meta.get_field(name).related_model
        except (FieldDoesNotExist, AttributeError):
            return None
    return there._meta.concrete_model if there is not None else None


def _step(model: type[Model], path: str) -> _Step | None:
    name, _, rest = path.partition(LOOKUP_SEP)
    relation = model._meta.get_field(name)
    if LOOKUP_SEP in rest:
        return None
    if isinstance(relation, ForeignKey):
        return _Step(name, relation.target_field, relation)
    if isinstance(relation, ManyToOneRel):
        return _Step(name, relation.field, relation.field.target_field)
    return None
