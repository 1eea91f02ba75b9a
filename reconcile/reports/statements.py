"""The SQL of a rule for a page: the same on every day and on every machine. It needs no database.

The SQL has names in place of the values of the clock and of the window, and its lists of constants are sorted.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import connections
from django.db.models import DateField, DateTimeField, QuerySet
from django.db.models.lookups import In
from django.utils import timezone

from reconcile.core.finder import Finder
from reconcile.core.scopes import EVERYTHING
from reconcile.db.expressions import map_expression, nodes_in
from reconcile.db.printing import statement_text
from reconcile.detect.explaining import SYMBOLIC, SYMBOLS
from reconcile.detect.listing import keys_read
from reconcile.reports.facts import age_in_words
from reconcile.rules.rule import Rule

__all__ = ["finders_of", "sort_constants", "sql_of"]

_NOW = datetime(2345, 6, 7, 8, 9, 10, 111213)  # noqa: DTZ001 - made aware where the project is
"""A moment that no rule uses, so that it can be found among the values of a statement."""


def sort_constants(rule: Rule) -> Rule:
    """A copy of the rule whose filter has sorted lists of constants: a set has another order in each process."""
    if not isinstance(rule.every, QuerySet):
        return rule
    return replace(rule, every=_sort_lists(rule.every))


def finders_of(rule: Rule, using: str) -> tuple[Finder, ...]:
    """The finders of the rule, compiled for the moment that the SQL shows as `:now`."""
    return rule.compile(using=using, now=_now()).finders


def sql_of(rule: Rule, finder: Finder, using: str) -> str | None:
    """The SELECT that finds the finder's drift in a window; None if there is none to show. Costs no statement."""
    if finder.needs_database:
        return None
    rows = finder.reads(SYMBOLIC if finder.in_windows else EVERYTHING)
    if rows is None:
        return None
    return statement_text(_sort_lists(keys_read(rows)), symbols=SYMBOLS, words=_words(rule, using))


def _now() -> datetime:
    return timezone.make_aware(_NOW) if settings.USE_TZ else _NOW


def _words(rule: Rule, using: str) -> Mapping[str, str]:
    """For each value of the clock, as this database receives it, the words that the SQL shows."""
    moments = {":now": _now()}
    if rule.settle:
        moments[f":now - {age_in_words(rule.settle.age)}"] = _now() - rule.settle.age
    connection = connections[using]
    return {
        str(field.get_db_prep_value(moment, connection)): word
        for field in (DateField(), DateTimeField())
        for word, moment in moments.items()
    }


def _sort_lists(rows: QuerySet[Any, Any]) -> QuerySet[Any, Any]:
    if not any(map(_is_list, nodes_in(rows.query, subqueries=True))):
        return rows
    clone = rows.all()
    clone.query = map_expression(clone.query, _sort_list, subqueries=True)
    return clone


def _sort_list(node: Any) -> Any:
    if not _is_list(node):
        return node
    clone = copy.copy(node)
    clone.rhs = sorted(node.rhs, key=lambda value: (type(value).__name__, str(value)))
    return clone


def _is_list(node: Any) -> bool:
    return isinstance(node, In) and isinstance(node.rhs, list | tuple | set | frozenset)
