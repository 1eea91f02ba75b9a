"""What a catalogue says of a rule's SQL: the same on every day, on every machine, and without a database.

The clock and the window have no values in it but names, and lists of constants are in order.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import connections
from django.db.models import DateField, DateTimeField, QuerySet
from django.db.models.lookups import In
from django.utils import timezone

from reconcile.explaining import SYMBOLIC, SYMBOLS
from reconcile.finders import Finder
from reconcile.reports._facts import age_in_words
from reconcile.rules import Rule
from reconcile.sql.expressions import mapped
from reconcile.sql.printing import printed
from reconcile.windows import EVERYTHING

__all__ = ["finders_of", "in_order", "sql_of"]

_NOW = datetime(2345, 6, 7, 8, 9, 10, 111213)  # noqa: DTZ001 - made aware where the project is
"""A moment that no rule names, so that it is found again among the values."""


def in_order(rule: Rule) -> Rule:
    """The rule, with each list of constants in its filter sorted: a set has another order in each process."""
    if not isinstance(rule.every, QuerySet):
        return rule
    return replace(rule, every=_sorted(rule.every))


def finders_of(rule: Rule, using: str) -> tuple[Finder, ...]:
    """The rule's finders, at the moment that is printed as a name."""
    return rule.compile(using=using, now=_now()).finders


def sql_of(rule: Rule, finder: Finder, using: str) -> str | None:
    """The SELECT of the finder's drift, in any window; None where there is none to show. Costs no statement."""
    rows = None if finder.asks else finder.read(SYMBOLIC if finder.carried else EVERYTHING)
    if rows is None:
        return None
    return printed(_sorted(rows.values("pk")), symbols=SYMBOLS, words=_words(rule, using))


def _now() -> datetime:
    return timezone.make_aware(_NOW) if settings.USE_TZ else _NOW


def _words(rule: Rule, using: str) -> Mapping[str, str]:
    """Values of the clock, as this database is sent them, with what they are to be printed as."""
    moments = {":now": _now()}
    if rule.settle:
        moments[f":now - {age_in_words(rule.settle.age)}"] = _now() - rule.settle.age
    connection = connections[using]
    return {
        str(field.get_db_prep_value(moment, connection)): word
        for field in (DateField(), DateTimeField())
        for word, moment in moments.items()
    }


def _sorted(rows: QuerySet[Any, Any]) -> QuerySet[Any, Any]:
    if not any(_lists(rows.query)):
        return rows
    clone = rows.all()
    clone.query = mapped(clone.query, _in_order)
    return clone


def _in_order(node: Any) -> Any:
    if not _is_list(node):
        return node
    clone = copy.copy(node)
    clone.rhs = sorted(node.rhs, key=lambda value: (type(value).__name__, str(value)))
    return clone


def _lists(node: Any) -> Iterator[Any]:
    if _is_list(node):
        yield node
    elif hasattr(node, "where"):
        yield from _lists(node.where)
    elif hasattr(node, "get_source_expressions"):
        for each in node.get_source_expressions():
            yield from _lists(each)


def _is_list(node: Any) -> bool:
    return isinstance(node, In) and isinstance(node.rhs, list | tuple | set | frozenset)
