"""Confirmation of deletes: a row is deleted only if two consecutive runs have found it.

A row that drifts because of a mistake in a rule, or because an import is half done, is thereby seen by a person, or
not found a second time, before it is gone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from django.db import IntegrityError
from django.db.models import CharField, DateTimeField, F, QuerySet, UUIDField, Value

from reconcile.core.drift import Drift
from reconcile.core.finder import Finder
from reconcile.core.fixes import Merging
from reconcile.core.scopes import Keys, blocks
from reconcile.db.clock import database_now
from reconcile.db.django_compat import raw_delete
from reconcile.db.retry import retry
from reconcile.db.statements import insert_select
from reconcile.db.text_keys import AsText
from reconcile.models import Finding, Run
from reconcile.rules.fingerprints import fingerprint
from reconcile.rules.rule import Rule

__all__ = ["confirmed_keys", "forget_findings", "known_keys", "record_findings"]


def record_findings(rule: Rule, finder: Finder, keys: Iterable[Any], *, run: Run, using: str) -> None:
    """Record the rows of `keys` as found by `run`, and delete findings of the rule that are no longer found.

    Findings from before the rule was edited don't count. Three statements for 5,000 keys, and two more.
    """
    began = database_now(using)
    raw_delete(_all(rule.name, finder.drift, using).exclude(fingerprint=fingerprint(rule, using)), using)
    findings = _all(rule.name, finder.drift, using)
    for block in blocks(keys):
        texts = [str(key) for key in block]
        # Never back: another run that began a moment later would take what it has just recorded for old.
        findings.filter(key__in=texts, found_at__lt=began).update(found_at=began)
        _note(rule, finder, block, run, using)
    # Findings that another run records at this moment stay.
    raw_delete(findings.filter(found_at__lt=began), using)


def forget_findings(rule: str, *, using: str) -> None:
    """Delete the findings of the rule, so that two runs must confirm again. One statement."""
    raw_delete(Finding._base_manager.using(using).filter(rule=rule), using)


def confirmed_keys(
    keys: Collection[Any], *, rule: Rule, finder: Finder, run: Run, using: str
) -> Sequence[Any]:
    """Return those of `keys` that an earlier run has found; of a merge, keys whose whole group it has found.

    One statement, two for a merge.
    """
    if not keys:
        return ()
    groups: Mapping[Any, Any] = {}
    if isinstance(finder.fix, Merging):
        groups = {key: stays for key, stays in finder.fix.members(Keys([*keys])) if key != stays}
    findings = _own(rule, finder.drift, using).filter(first_found_at__lt=run.started_at)
    before = known_keys(findings, {*keys, *groups})
    unseen = {stays for key, stays in groups.items() if str(key) not in before}
    return [key for key in keys if str(key) in before and groups.get(key) not in unseen]


def known_keys(findings: QuerySet[Finding], keys: Iterable[Any]) -> set[str]:
    """Return those of `keys`, as text, that are among the findings. One statement."""
    return {*findings.filter(key__in=[str(key) for key in keys]).values_list("key", flat=True)}


def _all(rule: str, drift: Drift, using: str) -> QuerySet[Finding]:
    return Finding._base_manager.using(using).filter(rule=rule, drift=str(drift))


def _own(rule: Rule, drift: Drift, using: str) -> QuerySet[Finding]:
    return _all(rule.name, drift, using).filter(fingerprint=fingerprint(rule, using))


def _note(rule: Rule, finder: Finder, block: Sequence[Any], run: Run, using: str) -> None:
    """Record the keys that have no finding. A finding that another run records at this moment is as good."""

    def attempt() -> None:
        there = known_keys(_all(rule.name, finder.drift, using), block)
        new = Keys([key for key in block if str(key) not in there])
        if new.values:
            _insert(rule, finder, new, run, using)

    def is_noted(error: BaseException) -> bool:
        return isinstance(error, IntegrityError)

    retry(using, when=is_noted)(attempt)


def _insert(rule: Rule, finder: Finder, keys: Keys, run: Run, using: str) -> None:
    now = Value(database_now(using), output_field=DateTimeField())
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
