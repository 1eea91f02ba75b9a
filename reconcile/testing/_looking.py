"""The act of looking at a rule in a test: over everything, or over some records and the rows that are theirs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog
from django.db import transaction
from django.db.models import F, Model
from django.db.models.lookups import LessThan
from django.utils import timezone

from reconcile.baseline import Rows, found_in
from reconcile.checking import check, evaluated
from reconcile.drift import Drift, Status
from reconcile.errors import EvaluationError
from reconcile.finders import Finder
from reconcile.rules import Rule
from reconcile.windows import EVERYTHING, Keys, Scope, Window

__all__ = ["SAMPLES", "Found", "look", "look_at"]

SAMPLES = 1_000
"""Keys of each kind of drift by which what was there before a test is told from what the test did."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """The drift of one rule in a test. `status` is as the rule's tolerances judge it; ERROR where `error` is set."""

    rule: Rule
    using: str
    drifted: Mapping[Drift, Rows] = field(default_factory=dict)
    status: Status = Status.PASS
    error: str | None = None


@contextmanager
def _quietly() -> Iterator[None]:
    """Log nothing, unless the project has its own structlog configuration: by default it prints into the test's output."""
    if structlog.is_configured():
        yield
        return
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.reset_defaults()


def look(rule: Rule, *, using: str) -> Found:
    """The rule's drift in the whole database. The statements of a check, in a savepoint; nothing is written."""
    with _quietly(), transaction.atomic(using=using):
        result = check(rule, using=using, now=timezone.now(), samples=SAMPLES)
        if result.error:
            # Else the failed statement would break the test's own transaction.
            transaction.set_rollback(True, using=using)
    return Found(rule=rule, using=using, drifted=found_in(result), status=result.status, error=result.error)


def look_at(rule: Rule, keys: Sequence[Any], *, using: str) -> Found:
    """The rule's drift of the records of these keys, and the extra rows that hang on them.

    Where a rule's link doesn't lead from a row back to a range of records, its extra rows are looked for in the whole
    table. A statement or two for each kind of drift; for extra rows, one for each run of keys.
    """
    try:
        with _quietly(), transaction.atomic(using=using), evaluated(using):
            compiled = rule.compile(using=using, now=timezone.now())
            drifted = {
                finder.drift: rows
                for finder in compiled.finders
                if (rows := _rows(finder, compiled.source.model, keys)).number
            }
    except EvaluationError as error:
        return Found(rule=rule, using=using, status=Status.ERROR, error=str(error))
    return Found(rule=rule, using=using, drifted=drifted, status=Status.FAIL if drifted else Status.PASS)


def _rows(finder: Finder, model: type[Model], keys: Sequence[Any]) -> Rows:
    found = [str(key) for scope in _scopes(finder, model, keys) for key in finder.keys(scope)]
    return Rows(number=len(found), keys=tuple(found))


def _scopes(finder: Finder, model: type[Model], keys: Sequence[Any]) -> Iterator[Scope]:
    """Where the finder looks for drift of these records: a set of keys is one of the rows that it finds."""
    if not keys:
        return
    if finder.model is model:
        yield Keys(keys)
    elif finder.carried:
        yield from _windows(model, keys, finder.using)
    else:
        yield EVERYTHING


def _windows(model: type[Model], keys: Sequence[Any], using: str) -> Iterator[Window]:
    """Windows that hold these records and no others."""
    if all(isinstance(key, int) for key in keys):
        yield from _runs(sorted(keys))
        return
    for key in keys:
        below = model._base_manager.using(using).filter(LessThan(F("pk"), key)).order_by("-pk")
        yield Window(below.values_list("pk", flat=True).first(), key)


def _runs(keys: Sequence[int]) -> Iterator[Window]:
    after = upto = keys[0] - 1
    for key in keys:
        if key > upto + 1:
            yield Window(after, upto)
            after = key - 1
        upto = key
    yield Window(after, upto)
