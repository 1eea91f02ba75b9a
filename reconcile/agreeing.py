"""Deletes need two runs that agree: what a run would delete is noted as a finding, and the next run may delete it.

A row that drifts because of a mistake in a rule, or because an import is half done, is thereby seen by a person, or
not found a second time, before it is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any
from uuid import UUID

from django.db.models import CharField, DateTimeField, F, UUIDField, Value
from django.utils import timezone

from reconcile.drift import Drift
from reconcile.finders import Finder
from reconcile.models import Finding
from reconcile.remedies import Remedy
from reconcile.sql.statements import execute_select_into
from reconcile.sql.texts import AsText
from reconcile.windows import Keys

__all__ = ["agreed", "agreed_number", "deletes", "forget", "remember"]

BLOCK = 5_000
"""Keys that are noted at once."""


def deletes(remedy: Remedy) -> bool:
    """Whether the remedy, or one that it is made of, deletes rows."""
    return remedy.verb == "delete" or any(map(deletes, getattr(remedy, "parts", ())))


def remember(rule: str, finder: Finder, keys: Iterable[Any], *, run: UUID, using: str) -> None:
    """Note the rows of `keys` as found by `run`; forget those of the rule that were found before and are not now.

    Three statements for 5,000 keys, and one in the end.
    """
    findings = Finding._base_manager.using(using).filter(rule=rule, drift=str(finder.drift))
    began = timezone.now()
    for block in _blocks(keys):
        told = [str(key) for key in block]
        known = {*findings.filter(key__in=told).values_list("key", flat=True)}
        findings.filter(key__in=told).update(found_at=timezone.now())
        _note(rule, finder, Keys([key for key in block if str(key) not in known]), run, using)
    # What another run is finding at this moment stays.
    findings.filter(found_at__lt=began)._raw_delete(using)


def forget(rule: str, *, using: str) -> None:
    """Forget what was found for the rule: two runs have to agree anew. One statement."""
    Finding._base_manager.using(using).filter(rule=rule)._raw_delete(using)


def agreed(rule: str, finder: Finder, keys: Sequence[Any], *, run: UUID, using: str) -> Sequence[Any]:
    """Those of `keys` that a run before `run` had found, too; of a merge, whose whole group it had found.

    One statement, two for a merge.
    """
    if not keys:
        return ()
    groups: Mapping[Any, Any] = {}
    if finder.merging is not None and finder.survivors is not None:
        groups = {key: stays for key, stays in finder.survivors(Keys(keys)) if key != stays}
    before = _before(rule, finder.drift, {*keys, *groups}, run, using)
    unseen = {stays for key, stays in groups.items() if str(key) not in before}
    return [key for key in keys if str(key) in before and groups.get(key) not in unseen]


def agreed_number(rule: str, drift: Drift, *, using: str) -> int:
    """How many rows the last run noted; what the next may delete at most. One statement."""
    return Finding._base_manager.using(using).filter(rule=rule, drift=str(drift)).count()


def _note(rule: str, finder: Finder, keys: Keys, run: UUID, using: str) -> None:
    if not keys.values:
        return
    # In the order of the model.
    columns = {
        "rule": Value(rule, output_field=CharField()),
        "drift": Value(str(finder.drift), output_field=CharField()),
        "key": AsText(F("pk"), field=finder.model._meta.pk),
        "first_run": Value(run, output_field=UUIDField()),
        "found_at": Value(timezone.now(), output_field=DateTimeField()),
    }
    fields = [field for field in Finding._meta.concrete_fields if field.name in columns]
    selected = {f"_column_{name}": value for name, value in columns.items()}
    rows = finder.model._base_manager.using(using).filter(keys.on("pk"))
    execute_select_into(Finding, fields, rows.annotate(**selected).values_list(*selected))


def _before(rule: str, drift: Drift, keys: Iterable[Any], run: UUID, using: str) -> set[str]:
    findings = Finding._base_manager.using(using).filter(rule=rule, drift=str(drift)).exclude(first_run=run)
    return {*findings.filter(key__in=[str(key) for key in keys]).values_list("key", flat=True)}


def _blocks(keys: Iterable[Any]) -> Iterator[list[Any]]:
    ahead = iter(keys)
    while block := list(islice(ahead, BLOCK)):
        yield block
