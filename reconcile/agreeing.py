"""Deletes need two runs that agree: what a run would delete is noted as a finding, and the next run may delete it.

A row that drifts because of a mistake in a rule, or because an import is half done, is thereby seen by a person, or
not found a second time, before it is gone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from django.db import IntegrityError
from django.db.models import CharField, DateTimeField, F, QuerySet, UUIDField, Value
from django.utils import timezone

from reconcile.drift import Drift
from reconcile.finders import Finder
from reconcile.fingerprints import fingerprint
from reconcile.models import Finding, Run
from reconcile.remedies import Remedy
from reconcile.rules import Rule
from reconcile.sql.statements import insert_select
from reconcile.sql.texts import AsText
from reconcile.windows import Keys

__all__ = ["agreed", "blocks", "deletes", "forget", "known", "remember"]

BLOCK = 5_000
"""Keys that are noted at once."""

TRIES = 3
"""How often to note keys beside another run that notes the same."""


def deletes(remedy: Remedy) -> bool:
    """Whether the remedy, or one that it is made of, deletes rows."""
    return remedy.verb == "delete" or any(map(deletes, getattr(remedy, "parts", ())))


def remember(rule: Rule, finder: Finder, keys: Iterable[Any], *, run: Run, using: str) -> None:
    """Note the rows of `keys` as found by `run`; forget those of the rule that were found before and are not now.

    What the rule has found before it was edited counts no more. Three statements for 5,000 keys, and two more.
    """
    began = timezone.now()
    _all(rule.name, finder.drift, using).exclude(fingerprint=fingerprint(rule, using))._raw_delete(using)
    findings = _all(rule.name, finder.drift, using)
    for block in blocks(keys):
        told = [str(key) for key in block]
        findings.filter(key__in=told).update(found_at=timezone.now())
        _note(rule, finder, block, run, using)
    # What another run is finding at this moment stays.
    findings.filter(found_at__lt=began)._raw_delete(using)


def forget(rule: str, *, using: str) -> None:
    """Forget what was found for the rule: two runs have to agree anew. One statement."""
    Finding._base_manager.using(using).filter(rule=rule)._raw_delete(using)


def agreed(keys: Collection[Any], *, rule: Rule, finder: Finder, run: Run, using: str) -> Sequence[Any]:
    """Those of `keys` that a run had found before `run` began; of a merge, whose whole group it had found.

    One statement, two for a merge.
    """
    if not keys:
        return ()
    groups: Mapping[Any, Any] = {}
    if finder.merging is not None and finder.survivors is not None:
        groups = {key: stays for key, stays in finder.survivors(Keys([*keys])) if key != stays}
    findings = _own(rule, finder.drift, using).filter(first_found_at__lt=run.started_at)
    before = known(findings, {*keys, *groups})
    unseen = {stays for key, stays in groups.items() if str(key) not in before}
    return [key for key in keys if str(key) in before and groups.get(key) not in unseen]


def known(findings: QuerySet[Finding], keys: Iterable[Any]) -> set[str]:
    """Those of `keys`, as text, that are among the findings. One statement."""
    return {*findings.filter(key__in=[str(key) for key in keys]).values_list("key", flat=True)}


def _all(rule: str, drift: Drift, using: str) -> QuerySet[Finding]:
    return Finding._base_manager.using(using).filter(rule=rule, drift=str(drift))


def _own(rule: Rule, drift: Drift, using: str) -> QuerySet[Finding]:
    return _all(rule.name, drift, using).filter(fingerprint=fingerprint(rule, using))


def _note(rule: Rule, finder: Finder, block: Sequence[Any], run: Run, using: str) -> None:
    """Note those that aren't yet. Where another run notes the same at this moment, its finding is as good."""
    for attempt in range(TRIES):
        there = known(_all(rule.name, finder.drift, using), block)
        new = Keys([key for key in block if str(key) not in there])
        if not new.values:
            return
        try:
            _insert(rule, finder, new, run, using)
        except IntegrityError:
            if attempt == TRIES - 1:
                raise
        else:
            return


def _insert(rule: Rule, finder: Finder, keys: Keys, run: Run, using: str) -> None:
    now = Value(timezone.now(), output_field=DateTimeField())
    columns = {
        "rule": Value(rule.name, output_field=CharField()),
        "drift": Value(str(finder.drift), output_field=CharField()),
        "key": AsText(F("pk"), field=finder.model._meta.pk),
        "fingerprint": Value(fingerprint(rule, using), output_field=CharField()),
        "first_run": Value(run.pk, output_field=UUIDField()),
        "first_found_at": now,
        "found_at": now,
    }
    fields = [field for field in Finding._meta.concrete_fields if field.name in columns]
    selected = {f"_column_{field.name}": columns[field.name] for field in fields}
    rows = finder.model._base_manager.using(using).filter(keys.on("pk"))
    insert_select(Finding, fields, rows.annotate(**selected).values_list(*selected))


def blocks(keys: Iterable[Any]) -> Iterator[list[Any]]:
    """The keys, as many at a time as one statement is asked about."""
    ahead = iter(keys)
    while block := list(islice(ahead, BLOCK)):
        yield block
